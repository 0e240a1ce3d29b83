"""torchfbi: which pixels made a convolutional network say that, and how the information got there.

>>> import torchfbi
>>> explanation = torchfbi.explain("efficientnet-lite0", "cat.jpg")
>>> explanation.plot()

What is named here is imported when it is first used: PyTorch takes seconds, and neither
``torchfbi --help`` nor a shell that completes a command needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_PLACES = {
    "Explanation": "explanation.explanation",
    "ForwardBackward": "explanation.forward_backward",
    "Labels": "models",
    "LayerFlow": "method.flow",
    "LayerSupport": "method.flow",
    "Model": "models",
    "Photo": "models.images",
    "Preprocess": "models.preprocess",
    "Settings": "method.settings",
    "TorchFBIError": "errors",
    "Verdict": "verification",
    "explain": "api",
    "load": "models",
    "verify": "api",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        value = getattr(importlib.import_module(f"torchfbi.{_PLACES[name]}"), name)
    else:  # a module, such as torchfbi.targets
        try:
            value = importlib.import_module(f"torchfbi.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"torchfbi.{name}":
                raise
            raise AttributeError(f"module 'torchfbi' has no attribute {name!r}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
