"""ONNX files as PyTorch modules: one small function an operator, sizes as Python numbers.

``reading`` turns a file into plain Python, ``recognise`` puts activation functions back together
that exporters took apart, ``network`` makes the module. The operators are in ``layers``,
``pointwise`` and ``shapes``; ``sizes`` computes with what is known before the image is seen.
"""

from torchfbi.models.onnx_import import layers, pointwise, shapes
from torchfbi.models.onnx_import.network import Network
from torchfbi.models.onnx_import.reading import File, Node, Origin, parse, read
from torchfbi.models.onnx_import.registry import supported

__all__ = [
    "File",
    "Network",
    "Node",
    "Origin",
    "layers",
    "parse",
    "pointwise",
    "read",
    "shapes",
    "supported",
]
