"""How many parameters networks have whose libraries do not publish it: a table, counted once.

``python -m torchfbi.models.parameters`` counts them anew, in some minutes.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from pathlib import Path

from torchfbi.errors import ModelError

_FILE = "parameters.json"


@functools.cache
def _table() -> dict[str, int]:
    text = resources.files("torchfbi.models").joinpath(_FILE).read_text(encoding="utf-8")
    table: dict[str, int] = json.loads(text)
    return table


def known(name: str) -> int | None:
    """The number of parameters of a network, or None where it was not counted.

    Args:
        name: ``"keras:vgg16"``, ``"timm:resnet50"``, or with a tag of published weights
            ``"timm:resnet50.a1_in1k"``, which is listed only where their classes make it differ.
    """
    table = _table()
    return table.get(name, table.get(name.partition(".")[0]))


def count() -> dict[str, int]:
    """Build all networks of timm and Keras, without memory for their parameters.

    Raises:
        ModelError: one of the libraries is missing.
    """
    from torchfbi.models import keras, timm

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
    Path(__file__).with_name(_FILE).write_text(content, encoding="utf-8")
