"""Saved explanations: read within bounds, and refused unless all their parts fit together."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torchfbi.method.flow import LayerSupport
from torchfbi.method.settings import Settings
from torchfbi.models.images import Array, Photo
from torchfbi.models.preprocess import Preprocess, Region
from torchfbi.system.reading import regular, unpacked
from torchfbi.verification import Verdict

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation

SCHEMA = 1

_ARRAYS = re.compile(r"(manifest|values|logits|target|layer_\d+|photo_\d+|verdict_\d+)\.npy")


def packed(arrays: dict[str, Array]) -> bytes:
    """A compressed npz of these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # stub of numpy
    return buffer.getvalue()


def numpy(tensor: Tensor) -> Array:
    """The numbers of a tensor; in float32 where it is bfloat16, which NumPy has not."""
    tensor = tensor.cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def read(path: Path, most: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """The manifest and the arrays of a file. Nothing in it is executed.

    Args:
        path: what ``Explanation.save`` wrote.
        most: how many bytes it may unpack to.

    Raises:
        ValueError: what is wrong with it. Also anything that a damaged file makes NumPy raise.
    """
    with zipfile.ZipFile(regular(path)) as archive:
        if (size := unpacked(archive)) > most:
            raise ValueError(f"it unpacks to {size} bytes, more than {most} (most_bytes=)")
    with np.load(path, allow_pickle=False) as content:
        names = [name.removesuffix(".npy") for name in content.zip.namelist()
                 if _ARRAYS.fullmatch(name)]  # fmt: skip
        arrays = {name: np.asarray(content[name]) for name in names}
    manifest = json.loads(str(arrays.pop("manifest")))
    _check_manifest(manifest)
    _check_arrays(manifest, arrays)
    return manifest, arrays


def manifest(explanation: Explanation) -> dict[str, Any]:
    """Everything but the arrays, as plain JSON values."""
    return {
        "schema": SCHEMA,
        "model": explanation.model,
        "settings": explanation.settings.to_dict(),
        "values": explanation.settings.values,
        "versions": explanation.versions,
        "shape": list(explanation.values.shape),
        "head": explanation.head,
        "fitting_tau": explanation.fitting_tau,
        "preprocess": None if explanation.preprocess is None else asdict(explanation.preprocess),
        "assumed": list(explanation.assumed),
        "weights": explanation.weights,
        "question": explanation.question,
        "samples": [
            {
                "photo": explanation.photos[i].name if explanation.photos else None,
                "region": list(explanation.regions[i]) if explanation.regions else None,
                "target": None if explanation.target is None else int(explanation.target[i]),
                "title": explanation.title(i),
                "top": explanation.top(5, i),
                "density": explanation.density[i].item(),
                "warnings": list(explanation.warnings(i)),
                "verdict": explanation.verdicts[i].to_dict() if explanation.verdicts else None,
            }
            for i in range(len(explanation))
        ],
        "layers": [layer.layer for layer in explanation.layers],
        "labels": None if explanation.labels is None else list(explanation.labels),
    }


def npz(explanation: Explanation) -> bytes:
    """The npz that ``save`` writes, the manifest inside."""
    arrays = {
        "manifest": np.array(json.dumps(explanation.manifest(), indent=1)),
        "values": numpy(explanation.values),
        "logits": numpy(explanation.logits),
    }
    # What follows from the values, for who reads the file without torchfbi.
    arrays["support"] = explanation.support.cpu().numpy()
    arrays["evidence"] = numpy(explanation.evidence)
    if explanation.target is not None:
        arrays["target"] = explanation.target.cpu().numpy()
    for i, layer in enumerate(explanation.layers):
        arrays[f"layer_{i}"] = layer.support.cpu().numpy()
    for i, photo in enumerate(explanation.photos):
        arrays[f"photo_{i}"] = photo.pixels
    for i, verdict in enumerate(explanation.verdicts):
        arrays[f"verdict_{i}"] = verdict.stacked().numpy()
    return packed(arrays)


def fields(manifest: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
    """What was read as the fields of an ``Explanation``."""
    samples, found = manifest["samples"], manifest.get("preprocess")
    layers = []
    for i, name in enumerate(manifest["layers"]):
        support = torch.from_numpy(arrays[f"layer_{i}"])
        layers.append(LayerSupport(name, support, support.flatten(1).float().mean(1)))
    photos = tuple(
        Photo(arrays[f"photo_{i}"], sample["photo"])
        for i, sample in enumerate(samples)
        if sample["photo"] is not None
    )
    return {
        "values": torch.from_numpy(arrays["values"]),
        "logits": torch.from_numpy(arrays["logits"]),
        "target": torch.from_numpy(arrays["target"]) if "target" in arrays else None,
        "layers": tuple(layers),
        "settings": Settings.from_dict(manifest["settings"]),
        "labels": None if manifest["labels"] is None else tuple(manifest["labels"]),
        "photos": photos,
        "regions": tuple(Region(*sample["region"]) for sample in samples) if photos else (),
        "model": manifest["model"],
        "versions": manifest["versions"],
        "head": manifest.get("head"),  # none in files of before
        "fitting_tau": manifest.get("fitting_tau"),
        "preprocess": found and Preprocess.from_dict(found),
        "assumed": tuple(manifest.get("assumed", ())),
        "weights": manifest.get("weights"),
        "question": manifest.get("question"),
        "verdicts": _verdicts(samples, arrays),
    }


def _verdicts(samples: list[Any], arrays: dict[str, Array]) -> tuple[Verdict, ...]:
    """None in files of before, and where nothing was verified."""
    if not samples or samples[0].get("verdict") is None:
        return ()
    masks = [torch.from_numpy(arrays[f"verdict_{i}"]) for i in range(len(samples))]
    sizes = arrays["values"].shape[2:]
    if any(parts.numel() and parts.shape[1:] != sizes for parts in masks):
        raise ValueError("its verdicts are not those of its values")
    return tuple(
        Verdict.from_dict(sample["verdict"], parts)
        for sample, parts in zip(samples, masks, strict=True)
    )


def _check_manifest(manifest: Any) -> None:
    if not isinstance(manifest, dict):
        raise ValueError("its manifest is no object")
    if manifest.get("schema") != SCHEMA:
        raise ValueError(f"schema {manifest.get('schema')!r:.40}, this version reads {SCHEMA}")
    versions, labels = manifest.get("versions"), manifest.get("labels")
    samples = manifest.get("samples")
    for name, right in (
        ("model", isinstance(manifest.get("model"), str)),
        ("settings", isinstance(manifest.get("settings"), dict)),
        ("versions", isinstance(versions, dict) and _are_texts([*versions, *versions.values()])),
        ("layers", _are_texts(manifest.get("layers"))),
        ("labels", labels is None or _are_texts(labels)),
        ("assumed", _are_texts(manifest.get("assumed", []))),
        ("weights", isinstance(manifest.get("weights"), str | None)),
        ("head", manifest.get("head") in (None, "softmax", "sigmoid")),
        ("fitting_tau", type(manifest.get("fitting_tau")) in (int, float, type(None))),
        ("question", isinstance(manifest.get("question"), str | None)),
        ("samples", isinstance(samples, list) and all(map(_is_sample, samples))),
    ):
        if not right:
            raise ValueError(f"its manifest has no proper {name!r}")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _is_sample(sample: Any) -> bool:
    if not isinstance(sample, dict):
        return False
    photo, region = sample.get("photo"), sample.get("region")
    if photo is None:
        return region is None
    if not isinstance(region, list) or len(region) != 4:
        return False
    if not all(type(number) in (int, float) and math.isfinite(number) for number in region):
        return False
    left, top, right, bottom = region
    return isinstance(photo, str) and 0 <= left < right and 0 <= top < bottom


def _check_arrays(manifest: dict[str, Any], arrays: dict[str, Array]) -> None:
    values, logits, target = arrays["values"], arrays["logits"], arrays.get("target")
    samples = len(manifest["samples"])
    for name in ("values", "logits"):
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise ValueError(f"its {name} are not all finite numbers")
    if list(values.shape) != manifest.get("shape") or values.ndim < 3 or len(values) != samples:
        raise ValueError("its arrays and its manifest disagree")
    if logits.ndim < 2 or len(logits) != samples:
        raise ValueError("its logits are not those of its samples")
    if target is not None:
        right = target.dtype == np.int64 and target.shape == (samples,) and logits.ndim == 2
        if not right or ((target < 0) | (target >= logits.shape[1])).any():
            raise ValueError("its target names no class of each sample")
    names = manifest["labels"]
    if names is not None and logits.ndim == 2 and len(names) != logits.shape[1]:
        raise ValueError("its labels are not those of its logits")
    for i in range(len(manifest["layers"])):
        layer = arrays[f"layer_{i}"]
        if layer.dtype != bool or layer.ndim < 2 or len(layer) != samples:
            raise ValueError(f"its layer {i} is no support of its samples")
    for i, sample in enumerate(manifest["samples"]):
        if (sample["photo"] is not None) != (f"photo_{i}" in arrays):
            raise ValueError("its photos are not those of its samples")
