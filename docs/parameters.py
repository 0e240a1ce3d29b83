"""Count the parameters of all networks of timm and Keras anew, in some minutes:
``python docs/parameters.py``."""

from __future__ import annotations

import json
from pathlib import Path

import torchfbi.models.parameters
from torchfbi.errors import ModelError
from torchfbi.models import keras, timm


def count() -> dict[str, int]:
    """Build all networks of timm and Keras, without memory for their parameters.

    Raises:
        ModelError: one of the libraries is missing.
    """
    table: dict[str, int] = {}
    library, counted = timm.import_timm(), dict[tuple[object, ...], int]()
    for name in timm.names():  # an architecture comes before its tags
        architecture = name.partition(".")[0]
        config = library.get_pretrained_cfg(name)
        key = architecture, config.num_classes, config.input_size
        if key not in counted:
            try:
                counted[key] = timm.count(name)
            except ModelError:
                continue
        if table.get(f"timm:{architecture}") != counted[key]:
            table[f"timm:{name}"] = counted[key]
    for name in keras.names():
        table[f"keras:{name}"] = keras.count(name)
    return dict(sorted(table.items()))


if __name__ == "__main__":
    content = json.dumps(count(), indent=0) + "\n"
    path = Path(torchfbi.models.parameters.__file__).with_suffix(".json")
    path.write_text(content, encoding="utf-8")
