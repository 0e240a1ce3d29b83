"""torchfbi: which pixels made a convolutional network say that, and how the information got there.

>>> import torchfbi
>>> explanation = torchfbi.explain("efficientnet-lite0", "cat.jpg")
>>> explanation.plot()
"""

from torchfbi import targets
from torchfbi.api import explain, verify
from torchfbi.errors import TorchFBIError
from torchfbi.explanation.explanation import Explanation
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.flow import LayerFlow, LayerSupport
from torchfbi.method.settings import Settings
from torchfbi.models import Labels, Model, load
from torchfbi.models.images import Photo
from torchfbi.models.preprocess import Preprocess
from torchfbi.verification import Verdict

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
