"""Exported explainers of networks with attention say what the eager one says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfbi import Settings
from torchfbi.export import export


class Attends(nn.Module):
    """A class token, position embeddings, fused attention, and one spelled out by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.qkv = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24)
        self.start, self.places = nn.Parameter(torch.randn(1, 1, 8)), torch.randn(1, 17, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(x.shape[0], -1, -1), x], 1) + self.places
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        fused = F.scaled_dot_product_attention(q, k, v)
        weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
        spelled = torch.einsum("bhij,bhjd->bhid", weights, v.relu())
        return self.head((fused + spelled).transpose(1, 2).flatten(2)[:, 0])


@pytest.mark.parametrize("to", ["pt2", "onnx"])
def test_attention_is_exported(to: str, tmp_path: Path) -> None:
    net = Attends().eval()
    written = export(net, tmp_path / "net", to, Settings.plain(), images=torch.randn(3, 3, 16, 16))
    assert written.agreement.exact == written.agreement.samples
    assert written.agreement.values < 1e-5
    assert written.agreement.density > 0.5
