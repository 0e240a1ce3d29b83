"""The method, slow and clear: forward, walk back by adjoints, select. Pure functions of tensors."""
