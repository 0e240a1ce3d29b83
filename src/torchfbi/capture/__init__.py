"""Any ``nn.Module`` as the method's graph."""
