"""A small vision transformer, trained here, and what explanations of it are worth: the tables in
docs/transformers.md. Some ten minutes, once: the trained weights are kept in fbi-out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marks import fill
from torchfbi import ForwardBackward, Settings
from torchfbi.evaluate.benchmark.digits import draw
from torchfbi.evaluate.benchmark.shapes import NAMES, SIDE, sample
from torchfbi.method import seeds
from torchfbi.method.adjoints.excitation import excitation
from torchfbi.metrics import (
    energy_in_mask,
    patches,
    pointing_game,
    removal,
    symmetric_relevance_gain,
    top_area_in_mask,
)
from torchfbi.models.timm import import_timm

PAGE = Path(__file__).with_name("transformers.md")
KEPT = Path("fbi-out")
COUNT = 48
"""Images that are measured, of those that the network is sure of."""

Scene = tuple[np.ndarray, np.ndarray, int]
"""A picture (H, W, C) uint8, the pixels of what decides, and the class."""


class Task(NamedTuple):
    """What a transformer is trained for."""

    side: int
    patch: int
    channels: int
    classes: int
    steps: int
    draw: Callable[[np.random.Generator, int], Scene]


def a_digit(rng: np.random.Generator, target: int) -> Scene:
    found = draw(rng, target, 28)
    return found.picture[..., None], found.ink, target


def a_shape(rng: np.random.Generator, target: int) -> Scene:
    found = sample(rng, target)
    return found.picture, found.mask, target


TASKS = {
    "digits": Task(28, 4, 1, 10, 800, a_digit),
    "shapes": Task(SIDE, 6, 3, len(NAMES), 6000, a_shape),
}


def scenes(task: Task, use: int, numbers: range) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, C, H, W), masks and classes: other ones for each use."""
    drawn = [task.draw(np.random.default_rng((use, i)), i % task.classes) for i in numbers]
    pictures, masks, targets = (np.stack(part) for part in zip(*drawn, strict=True))
    x = torch.from_numpy(pictures).movedim(-1, 1).float() / 127.5 - 1
    return x, torch.from_numpy(masks), torch.from_numpy(targets)


@cache
def trained(name: str) -> nn.Module:
    """timm's vision transformer: 3 blocks of 4 heads, 64 wide, a class token."""
    task, file = TASKS[name], KEPT / f"vit-{name}.pt"
    import_timm()
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    vit = VisionTransformer(
        task.side, task.patch, task.channels, task.classes,
        embed_dim=64, depth=3, num_heads=4, mlp_ratio=2,
    )  # fmt: skip
    if file.exists():
        vit.load_state_dict(torch.load(file))
        return vit.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(vit.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, task.steps)
    for step in range(task.steps):
        x, _, targets = scenes(task, 0, range(32 * step, 32 * step + 32))
        loss = F.cross_entropy(vit(x), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(name, step, loss.item(), flush=True)
    KEPT.mkdir(exist_ok=True)
    torch.save(vit.state_dict(), file)
    return vit.eval().requires_grad_(False)


# --- The others -------------------------------------------------------------------------------


@contextmanager
def attentions(vit: Any) -> Iterator[list[Tensor]]:
    """The weights (N, heads, tokens, tokens) of each block, with their gradients."""
    seen: list[Tensor] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].requires_grad_() if inputs[0].is_leaf else inputs[0].retain_grad()
        seen.append(inputs[0])

    hooks = []
    for block in vit.blocks:
        block.attn.fused_attn = False
        hooks.append(block.attn.attn_drop.register_forward_pre_hook(note))
    try:
        yield seen
    finally:
        for block, hook in zip(vit.blocks, hooks, strict=True):
            hook.remove()
            block.attn.fused_attn = True


def of_tokens(weights: Tensor, x: Tensor) -> Tensor:
    """One number a patch, (N, patches), as a map."""
    n = round(weights.shape[1] ** 0.5)
    return F.interpolate(weights.reshape(-1, 1, n, n), x.shape[2:], mode="bilinear")[:, 0]


def rollout(vit: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Abnar & Zuidema 2020: the mean of the heads and the skip, multiplied through the blocks."""
    with attentions(vit) as seen:
        vit(x.clone().requires_grad_())
    eye = torch.eye(seen[0].shape[-1])
    total = eye
    for weights in seen:
        total = (weights.detach().mean(1) + eye) / 2 @ total
    return of_tokens(total[:, 0, 1:], x)


def gradient_rollout(vit: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Chefer et al. 2021, "Generic attention-model explainability": weights times gradients."""
    with attentions(vit) as seen:
        vit(x.clone().requires_grad_()).gather(1, target[:, None]).sum().backward()
    total = torch.eye(seen[0].shape[-1]).expand(len(x), -1, -1)
    for weights in seen:
        total = total + (weights.grad * weights.detach()).relu().mean(1) @ total
    return of_tokens(total[:, 0, 1:], x)


def input_x_gradient(vit: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    vit(leaf).gather(1, target[:, None]).sum().backward()
    return (leaf.grad * x).sum(1)


def grad_cam(vit: Any, x: Tensor, target: Tensor) -> Tensor:
    """At the last block's first norm, as its users do with vision transformers."""
    seen: list[Tensor] = []

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    hook = vit.blocks[-1].norm1.register_forward_hook(note)
    vit(x.clone().requires_grad_()).gather(1, target[:, None]).sum().backward()
    hook.remove()
    (tokens,) = seen
    weights = tokens.grad[:, 1:].mean(1, keepdim=True)
    return of_tokens((tokens.detach()[:, 1:] * weights).sum(2).relu(), x)


def by_chance(vit: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.rand(x[:, 0].shape, generator=torch.Generator().manual_seed(0))


def walk(**changes: Any) -> Callable[..., Tensor]:
    def attribute(vit: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return ForwardBackward(vit, x, Settings.contrast(**changes))(x, target)[0].sum(1)

    return attribute


METHODS: dict[str, Callable[..., Tensor]] = {
    "torchfbi": walk(),
    "torchfbi, gamma = 0": walk(gamma=0.0),
    "gradient x rollout": gradient_rollout,
    "attention rollout": rollout,
    "Grad-CAM": grad_cam,
    "input x gradient": input_x_gradient,
    "random": by_chance,
}


# --- What matters: gamma, or the softmax? -----------------------------------------------------


class Excitation(torch.autograd.Function):
    """A dense layer or patch embedding that hands back by the excitation walk."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, gamma: float) -> Tensor:
        y = F.linear(x, weight, bias)
        ctx.save_for_backward(x, weight, bias, y)
        ctx.gamma = gamma
        return y

    @staticmethod
    def backward(ctx: Any, s: Tensor) -> Any:
        x, weight, bias, y = ctx.saved_tensors
        if not ctx.gamma:
            return s @ weight, None, None, None
        back = excitation(s, y, x, weight, bias, ctx.gamma, F.linear, lambda s, w: s @ w)
        return back, None, None, None


def tokens_evidence(vit: Any, x: Tensor, target: Tensor, gamma: float, softmax: str) -> Tensor:
    """What each patch's token speaks for, (N, patches), written out with autograd: gates and
    deviations held, as in the walk, and the softmax in one of three ways.

    Args:
        softmax: ``held``; ``differentiated``; or ``shared``, each factor of a product of two
            activations getting half (the uniform rule of Achtibat et al. 2024, section 3.3.2).
    """

    def dense(layer: nn.Linear, x: Tensor) -> Tensor:
        return Excitation.apply(x, layer.weight, layer.bias, gamma)

    def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
        deviation = (x.detach().var(-1, correction=0, keepdim=True) + layer.eps).sqrt()
        return (x - x.mean(-1, keepdim=True)) / deviation * layer.weight + layer.bias

    def product(a: Tensor, b: Tensor) -> Tensor:
        if softmax != "shared":
            return a @ b
        return (a @ b.detach() + a.detach() @ b) / 2

    def attend(attn: Any, x: Tensor) -> Tensor:
        q, k, v = dense(attn.qkv, x).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (product(q, k.mT) * attn.scale).softmax(-1)
        found = weights.detach() @ v if softmax == "held" else product(weights, v)
        return dense(attn.proj, found.transpose(1, 2).flatten(2))

    tokens = vit.patch_embed(x).detach().requires_grad_()
    y = vit._pos_embed(tokens)
    for block in vit.blocks:
        y = y + attend(block.attn, norm(block.norm1, y))
        hidden = dense(block.mlp.fc1, norm(block.norm2, y))
        gate = (1 + torch.erf(hidden.detach() / 2**0.5)) / 2
        y = y + dense(block.mlp.fc2, hidden * gate)
    logits = dense(vit.head, norm(vit.norm, y)[:, 0])
    (signal,) = torch.autograd.grad(logits, tokens, seeds.seed(logits.detach(), target, "contrast"))
    return (signal * tokens.detach()).sum(2)


def variants() -> dict[str, Callable[..., Tensor]]:
    def variant(gamma: float, softmax: str) -> Callable[..., Tensor]:
        def attribute(vit: nn.Module, x: Tensor, target: Tensor) -> Tensor:
            return of_tokens(tokens_evidence(vit, x, target, gamma, softmax), x)

        return attribute

    ways = ("held", "differentiated", "shared")
    return {f"{way} | {g:g}": variant(g, way) for way in ways for g in (0.0, 0.25)}


# --- Measuring --------------------------------------------------------------------------------


def measure(name: str, methods: dict[str, Callable[..., Tensor]]) -> str:
    """Rows of a table: gain, pointing, top area, energy."""
    task, vit = TASKS[name], trained(name)
    x, masks, targets = scenes(task, 1, range(4 * COUNT))
    with torch.no_grad():
        probability = vit(x).softmax(1).gather(1, targets[:, None])[:, 0]
    sure = (probability > 0.8) & masks.flatten(1).any(1)
    print(name, "right", (probability > 0.5).float().mean().item(), "sure", sure.sum().item())
    x, masks, targets = (part[sure][:COUNT] for part in (x, masks, targets))
    units = patches(task.side, task.side, task.patch)
    rows = []
    for method, attribute in methods.items():
        maps = attribute(vit, x, targets).detach()
        gains = [
            symmetric_relevance_gain(
                lambda y: vit(y).softmax(1), x, targets, maps, units, removal(x, kind)
            ).mean()
            for kind in ("blur", "mean")
        ]
        speaks = maps.relu()
        found = [
            *gains,
            pointing_game(speaks, masks, 1).mean(),
            top_area_in_mask(speaks, masks).mean(),
            energy_in_mask(speaks, masks).mean(),
        ]
        cells = [f"{float(number):.2f}".lstrip("0").replace("-0", "-") for number in found]
        rows.append(f"| {method} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return "\n".join(rows)


def edges(name: str) -> float:
    """How much larger the steps between two pixels are at the patches' borders than within."""
    task, vit = TASKS[name], trained(name)
    x, _, targets = scenes(task, 1, range(COUNT))
    maps = walk()(vit, x, targets)
    steps = [(maps.diff(dim=d).abs().mean((0, 3 - d))) for d in (1, 2)]
    border = (torch.arange(1, task.side) % task.patch) == 0
    return float(sum(s[border].mean() / s[~border].mean() for s in steps) / 2)


def picture(name: str) -> None:
    """Four images and what each method says of them: red speaks for the class."""
    task, vit = TASKS[name], trained(name)
    x, _, targets = scenes(task, 1, range(1, 5))
    shown = {m: METHODS[m](vit, x, targets).detach() for m in METHODS if m != "random"}
    figure, axes = plt.subplots(4, len(shown) + 1, figsize=(1.7 * len(shown) + 1.7, 7.2))
    for i, row in enumerate(axes):
        row[0].imshow((x[i].movedim(0, -1) + 1) / 2, cmap="gray")
        for ax, maps in zip(row[1:], shown.values(), strict=True):
            limit = float(maps[i].abs().max())
            ax.imshow(maps[i], cmap="RdBu_r", vmin=-limit, vmax=limit)
    for ax, title in zip(axes[0], ["image", *shown], strict=True):
        ax.set_title(title, fontsize=8)
    for ax in axes.flat:
        ax.axis("off")
    figure.tight_layout()
    figure.savefig(PAGE.with_name(f"transformers-{name}.png"), dpi=70)


def main() -> None:
    torch.set_num_threads(1)
    columns = "SRG, blur | SRG, mean | pointing | top area | energy |\n"
    for name in TASKS:
        head = f"| method | {columns}|---|--:|--:|--:|--:|--:|\n"
        fill(PAGE, name, head + measure(name, METHODS))
        head = f"| softmax | gamma | {columns}|---|--:|--:|--:|--:|--:|--:|\n"
        fill(PAGE, f"softmax of {name}", head + measure(name, variants()))
        print(name, "steps at the patches' borders, over those within:", edges(name), flush=True)
        picture(name)


if __name__ == "__main__":
    main()
