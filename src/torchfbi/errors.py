"""Everything that torchfbi raises on purpose. Each message says what was wrong and what to do."""

import contextlib
import shlex
from collections.abc import Iterator


class TorchFBIError(Exception):
    """Base of all errors raised by torchfbi."""


class SettingsError(TorchFBIError, ValueError):
    """A setting has a value that the method does not know."""


class CaptureError(TorchFBIError):
    """The model could not be turned into an operator graph."""


class TrainingModeError(CaptureError):
    """The model, or a part of it, is in training mode."""


class ControlFlowError(CaptureError):
    """The model's Python code decides by the values of a tensor which operators to run."""


class RandomnessError(CaptureError):
    """The model's answer depends on chance."""


class OutputError(CaptureError):
    """The model returns no floating-point tensor, or several and none was chosen."""


class UnsupportedOperatorError(CaptureError):
    """The model has operators without an adjoint; ``operators`` maps each to its layers."""

    def __init__(self, operators: dict[str, list[str]]) -> None:
        self.operators = operators
        rows = "\n".join(f"  {op}  at {', '.join(layers)}" for op, layers in operators.items())
        super().__init__(
            f"{len(operators)} operator(s) of this model have no adjoint:\n{rows}\n"
            "An adjoint is about ten lines: see 'Add an operator' in CONTRIBUTING.md."
        )


class InputError(TorchFBIError, ValueError):
    """The input tensor does not fit the model."""


class NonFiniteError(InputError):
    """The input contains NaN or infinite values."""


class TargetError(TorchFBIError, ValueError):
    """The target names no class of the model."""


class ImageError(TorchFBIError, ValueError):
    """A picture could not be read or written."""


class ModelError(TorchFBIError, ValueError):
    """A model name is unknown, or the package or weights behind it are missing."""


class FileFormatError(TorchFBIError, ValueError):
    """A saved explanation is damaged, foreign or of an unknown schema version."""


class StorageError(TorchFBIError, OSError):
    """Results could not be written; what was written before is whole."""


class ExportError(TorchFBIError):
    """An explainer could not be exported, or what was exported does not agree with it."""


class LimitError(TorchFBIError):
    """The server refuses: too large, too much at once, too slow, or no longer kept."""


@contextlib.contextmanager
def needs(what: str) -> Iterator[None]:
    """While packages are imported that are not always there.

    Args:
        what: pip installs them by, such as ``timm`` or ``torchfbi[ray]``.

    Raises:
        ModelError: one of them is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModelError(
            f"The package {error.name} is missing. Install it: pip install {shlex.quote(what)}"
        ) from error


@contextlib.contextmanager
def usable(device: str) -> Iterator[None]:
    """While something is moved to a device.

    Raises:
        SettingsError: there is no such device.
    """
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device {device!r} cannot be used: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an error of another library says, as a part of one of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
