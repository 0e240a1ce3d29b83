"""Imported once by the server that the processes of a survey are forked from: it does what each
of them would otherwise do for itself, the imports and the first capture."""

import torch
from torch import nn

from torchfbi.capture.capture import capture
from torchfbi.models.timm import import_timm

torch.set_num_threads(1)
import_timm()
capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.zeros(1, 3, 8, 8))
