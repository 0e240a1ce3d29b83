"""torchfbi: which pixels made a convolutional network say that, and how the information got there.

>>> import torchfbi
>>> explanation = torchfbi.explain("efficientnet-lite0", "cat.jpg")
>>> explanation.plot()
"""

from torchfbi import targets
from torchfbi.api import explain, verify
from torchfbi.errors import TorchFBIError
from torchfbi.explanation import Explanation
from torchfbi.flow import LayerFlow, LayerSupport
from torchfbi.images import Photo
from torchfbi.models import Labels, Model, load
from torchfbi.preprocess import Preprocess
from torchfbi.settings import Settings
from torchfbi.verification import Verdict
from torchfbi.walk import ForwardBackward

__all__ = [
    "Explanation",
    "ForwardBackward",
    "Labels",
    "LayerFlow",
    "LayerSupport",
    "Model",
    "Photo",
    "Preprocess",
    "Settings",
    "TorchFBIError",
    "Verdict",
    "explain",
    "load",
    "targets",
    "verify",
]
