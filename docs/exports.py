"""Export architectures in every format, and print sizes and agreement as a table.

    python docs/exports.py torchvision:vgg11 torchvision:resnet18 --to onnx aoti

Networks of torchvision get random weights, so that nothing is downloaded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from torchfbi import load
from torchfbi.errors import ExportError
from torchfbi.export import FORMATS, export

ARCHITECTURES = (
    "torchvision:vgg11",
    "torchvision:resnet18",
    "torchvision:mobilenet_v2",
    "torchvision:squeezenet1_1",
    "efficientnet-lite0",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=ARCHITECTURES)
    parser.add_argument("--to", nargs="*", default=list(FORMATS), choices=list(FORMATS))
    arguments = parser.parse_args()
    print("| network | format | MB | values differ by | support | seconds |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        torch.manual_seed(0)
        model = load(name, pretrained=":" not in name)
        for to in arguments.to:
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    written = export(model, Path(folder) / "explainer", to)
                except ExportError as error:
                    print(f"| {name} | {to} | refused: {error} |", flush=True)
                    continue
            seconds = time.perf_counter() - start
            found = written.agreement
            print(
                f"| {name} | {to} | {written.size / 1e6:.1f} | {found.values:.0e} | "
                f"{found.density:.1%}, {found.exact} of {found.samples} identical, the others "
                f"within {found.pixels} pixels | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
