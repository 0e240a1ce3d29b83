"""Torchfbi in the clothes of its peers: for code written for Captum, pytorch-grad-cam, Quantus."""
