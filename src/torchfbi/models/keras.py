"""Keras 3 on PyTorch: its ImageNet classifiers, and models saved as ``.keras`` or ``.h5``."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchfbi.errors import ModelError, first_line, needs
from torchfbi.models import files
from torchfbi.models.keras_applications import APPLICATIONS, Application
from torchfbi.models.labels import Labels
from torchfbi.models.model import Listing, Model
from torchfbi.models.parameters import known
from torchfbi.models.preprocess import Preprocess
from torchfbi.system.quiet import quiet


def import_keras() -> Any:
    """Import Keras on its PyTorch backend, without TensorFlow. ``os.environ`` stays as it is.

    Returns:
        The module ``keras``.

    Raises:
        ModelError: Keras is missing, is older than version 3, or was told to use another backend.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if "keras" not in sys.modules and chosen not in (None, "", "torch"):
        raise ModelError(
            f"The environment variable KERAS_BACKEND is {chosen!r}, but torchfbi needs Keras on "
            "PyTorch: set it to torch, or unset it."
        )
    with quiet(warn=True):  # one thread at a time changes what is the process's
        before = os.environ.get("KERAS_BACKEND")
        os.environ["KERAS_BACKEND"] = chosen or "torch"
        try:
            with needs("keras"):
                keras = importlib.import_module("keras")
        finally:
            if before is None:
                del os.environ["KERAS_BACKEND"]
            else:
                os.environ["KERAS_BACKEND"] = before
    if int(keras.__version__.partition(".")[0]) < 3:
        raise ModelError(f"Keras {keras.__version__} needs TensorFlow: pip install 'keras>=3'")
    if (backend := keras.backend.backend()) != "torch":
        raise ModelError(
            f"Keras was already imported with its {backend} backend, and torchfbi needs it on "
            'PyTorch: set os.environ["KERAS_BACKEND"] = "torch" before the first import of keras.'
        )
    return keras


def names() -> list[str]:
    """Keras' ImageNet classifiers, such as ``"vgg16"``, sorted.

    Raises:
        ModelError: Keras is missing.
    """
    if importlib.util.find_spec("keras") is None:
        raise ModelError("The package keras is missing. Install it: pip install keras")
    return sorted(APPLICATIONS)


def describe(name: str) -> Listing:
    """What is known of one of ``names()`` without importing Keras."""
    application = APPLICATIONS[name]
    found = "on disk" if _weights(application).exists() else "to download"
    side = application.side
    return Listing(f"keras:{name}", known(f"keras:{name}"), f"{side}x{side}", "keras", found)


def count(name: str) -> int:
    """The number of parameters of one of ``names()``: it is built without memory for them.

    Raises:
        ModelError: Keras is missing.
    """
    keras = import_keras()
    with keras.device("meta"), quiet():
        model = getattr(keras.applications, APPLICATIONS[name].kind)(weights=None)
    return int(model.count_params())


def load(name: str, pretrained: bool = True) -> Model:
    """Load one of ``names()``. The paper's network is ``"vgg16"``.

    Args:
        name: without the ``keras:`` in front.
        pretrained: with the ImageNet weights in ``~/.keras/models``, downloaded by Keras if they
            are not there; else with random ones.

    Raises:
        ModelError: Keras is missing, or the weights can neither be read nor downloaded.
    """
    application = APPLICATIONS[name]
    build = getattr(import_keras().applications, application.kind)
    downloading = not _weights(application).exists()
    try:
        with _building():
            model = build(weights="imagenet" if pretrained else None)
    except Exception as error:  # no connection, no space, no permission, a damaged file
        if not pretrained:
            raise ModelError(f"keras:{name} cannot be built: {first_line(error)}") from error
        file = _weights(application)
        happened = "cannot be downloaded" if downloading else f"in {file} are damaged"
        found = re.search(r"https://\S+\.h5", str(error))
        source = found.group() if found else f"{file.name} of keras.applications"
        raise ModelError(
            f"keras:{name}: the weights {happened} ({first_line(error)}). "
            f"Download {source} and save it as {file}."
        ) from error
    module = ChannelsFirst(model).requires_grad_(False)
    return Model(module, application.preprocess(), Labels.imagenet(), f"keras:{name}")


def from_file(path: Path) -> Model:
    """A model that Keras saved, ``.keras`` or ``.h5``, of any version that Keras 3 reads.

    A file does not tell how photos become inputs. A model that still has the name that
    ``keras.applications`` gave it is preprocessed like those; any other gets whole photos, squeezed
    to its size, of pixels from 0 to 255, as ``keras.utils.load_img`` delivers them.

    Raises:
        ModelError: the file is missing or damaged, needs code of its own, or holds weights only;
            or the model does not take pictures.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    keras = import_keras()
    try:
        with _building():
            old = {"DepthwiseConv2D": _depthwise_of_old(keras)}
            model = keras.models.load_model(path, custom_objects=old, compile=False)
    except Exception as error:
        if "No model config" in str(error):
            raise ModelError(
                f"{path} holds weights, no network: name the network and give this file as its "
                "weights, for example --model keras:vgg16 --weights FILE."
            ) from None
        raise ModelError(f"{path}: Keras cannot load it: {first_line(error)}") from error
    wrapped = wrap(model, path.name)
    wrapped.module.requires_grad_(False)
    return wrapped


def wrap(model: Any, name: str, preprocess: Preprocess | None = None) -> Model:
    """A Keras model of yours, for ``torchfbi.explain``.

    Args:
        model: of one input, (N, H, W, C) or (N, C, H, W), with C = 1 or 3.
        name: any.
        preprocess: as for ``from_file`` if left out.

    Raises:
        ModelError: the model does not take pictures.
    """
    module = ChannelsFirst(model)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ModelError(
            f"{name}: its input has shape {shape}, not that of pictures. {_AS_TENSORS}"
        )
    _, *sides, channels = shape if module.channels_last else (shape[0], *shape[2:], shape[1])
    if channels not in (1, 3):
        raise ModelError(
            f"{name}: its input has {channels} channels, not 1 (grey) or 3. {_AS_TENSORS}"
        )
    known = _application(model) if channels == 3 else None
    size = (sides[0] or 224, sides[1] or 224)
    assumed = files.EVERYTHING if preprocess is None and known is None else ()
    if preprocess is None and known is not None:
        preprocess = known.preprocess(size)
    elif preprocess is None:
        preprocess = Preprocess(
            resize=max(size),
            crop=size,
            mean=(0.0,) * channels,
            std=(1 / 255,) * channels,
            channels="RGB" if channels == 3 else "L",
            fit="stretch",
        )
    wrapped = files.wrap(module, name, preprocess, assumed=assumed)
    if known is not None and len(wrapped.labels) == 1000:
        return replace(wrapped, labels=Labels.imagenet())
    return wrapped


_AS_TENSORS = (
    "Explain it with tensors (N, C, ...): torchfbi.explain(ChannelsFirst(model), tensor), from "
    "torchfbi.models.keras."
)


def _depthwise_of_old(keras: Any) -> Any:
    """The layer, which reads files of Keras 2 too: these tell its groups, always 1."""

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            known = {key: value for key, value in config.items() if key != "groups"}
            return keras.layers.DepthwiseConv2D.from_config(known)

    return DepthwiseConv2D


def with_weights(model: Model, path: Path) -> Model:
    """The same network with the weights of a Keras file, ``.h5`` or ``.weights.h5``.

    Raises:
        ModelError: the network is not Keras', or the file cannot be read or does not fit.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    if not isinstance(model.module, ChannelsFirst):
        raise ModelError(f"{path} holds weights for Keras, and {model.name} is not a Keras model.")
    try:
        model.module.keras_model.load_weights(path)
    except Exception as error:
        raise ModelError(f"{path} does not fit {model.name}: {first_line(error)}") from error
    return replace(model, name=f"{model.name} with {path.name}")


class ChannelsFirst(nn.Module):
    """A Keras model that takes images as PyTorch has them, (N, C, ...); in eval mode.

    Its outputs stay as they are. The model's layers are submodules under their own names, so that
    features are called ``block1_conv1.relu``.

    Args:
        model: a Keras model of one input, on the PyTorch backend; shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        # In a tuple it is no submodule beside its layers, which then would appear twice.
        self._hidden = (model,)
        self._modules.update(_layers(model))
        self.channels_last = all(
            getattr(layer, "data_format", None) != "channels_first"
            for layer in model._flatten_layers()
        )
        self.eval()

    @property
    def keras_model(self) -> Any:
        """The model itself."""
        return self._hidden[0]

    def forward(self, x: Tensor) -> Any:
        """Call the model, in inference, on the device of ``x``."""
        x = x.permute(0, *range(2, x.ndim), 1) if self.channels_last else x
        with import_keras().device(str(x.device)):
            return self.keras_model(x, training=False)

    def __deepcopy__(self, memo: Any) -> ChannelsFirst:
        # Keras would copy by saving and loading. Nothing here is ever written to.
        return ChannelsFirst(self.keras_model)


def _layers(model: Any) -> dict[str, nn.Module]:
    """The layers by name, models among them as modules that hold theirs.

    Keras calls its layers as modules but does not register them, so that nobody knows their path.
    They bypass ``add_module``, which takes no name that is a method of a module. A dot in a name
    (``mobilenetv2_1.00_224``) would be a path, and becomes ``_``.
    """
    layers: dict[str, nn.Module] = {}
    for layer in model.layers:
        name = layer.name.replace(".", "_")
        while name in layers:
            name += "_"
        layers[name] = layer
        if hasattr(layer, "layers"):
            layers[name] = nn.Module()
            layers[name]._modules.update(_layers(layer))
    return layers


@contextlib.contextmanager
def _building() -> Iterator[None]:
    """Keras builds on the CPU, shows its progress on stderr, and follows PyTorch's random state.

    It draws its seeds from Python's generator, which is left as it was.
    """
    state = random.getstate()
    random.seed(int(torch.randint(2**31, ())))
    try:
        # Its warnings are advice for whoever wrote the model.
        with import_keras().device("cpu"), quiet("stdout", onto="stderr"):
            yield
    finally:
        random.setstate(state)


def _application(model: Any) -> Application | None:
    """``mobilenetv2_1.00_224`` is MobileNetV2 and ``efficientnetv2-b0`` is EfficientNetV2B0."""
    name = re.sub(r"_\d\.\d+_\d+$", "", model.name.lower())
    return APPLICATIONS.get(re.sub(r"[-_]", "", name))


def _weights(application: Application) -> Path:
    home = os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser()
    return Path(home, "models", application.file)
