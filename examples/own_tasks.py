"""Two trainings of one's own for `scalecli probe ... --model own_tasks:NAME`: small images to classify, a curve to fit.

    cd examples
    scalecli probe sweep --model own_tasks:images --params 2k,8k,32k --tokens-per-param 1,2,4 --batch-tokens 32 \
        --learning-rate 3e-3,1e-2 --store images.db
    scalecli fit images.db --law chinchilla --tuned
    scalecli probe coordinates --model own_tasks:curve --widths 32,64,128

A factory gets width, depth and seed, and returns the model, the loss of every example, and its batches. Here the data
are drawn as they are needed; with files, open them in `batches` and give their SHA-256 as `fingerprint`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalecli.probes.task import Split, Task

PIXELS, CLASSES = 12, 8
PROTOTYPES = torch.randn(CLASSES, 1, PIXELS, PIXELS, generator=torch.Generator().manual_seed(7))
NOISE = 4.0
INPUTS = 8


class Residual(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def images(*, width: int, depth: int, seed: int) -> Task:
    """Which of eight patterns stands behind the noise, somewhere in the image: a small residual network."""
    channels = max(4, width // 4)
    model = nn.Sequential(
        nn.Conv2d(1, channels, 3, stride=2, padding=1),
        *(Residual(channels) for _ in range(depth)),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(9 * channels, CLASSES),
    )
    return Task(model=model, losses=_class_losses, batches=_image_batches, fingerprint="patterns 7")


def _class_losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    pixels, labels = batch
    return F.cross_entropy(model(pixels), labels, reduction="none")


def _image_batches(split: Split, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = _generator(split, seed)
    while True:
        labels = torch.randint(CLASSES, (size,), generator=generator)
        noise = NOISE * torch.randn(size, 1, PIXELS, PIXELS, generator=generator)
        yield PROTOTYPES[labels] + noise, labels


def curve(*, width: int, depth: int, seed: int) -> Task:
    """Regression: a smooth function of eight inputs; the loss is the squared error."""
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())]
    model = nn.Sequential(nn.Linear(INPUTS, width), nn.Tanh(), *hidden, nn.Linear(width, 1))
    return Task(model=model, losses=_squared_errors, batches=_curve_batches, fingerprint="sines 1")


def _squared_errors(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return (model(batch["x"])[:, 0] - batch["y"]) ** 2


def _curve_batches(split: Split, size: int, seed: int) -> Iterator[dict[str, Tensor]]:
    generator = _generator(split, seed)
    while True:
        x = torch.rand(size, INPUTS, generator=generator)
        yield {"x": x, "y": torch.sin(3 * x).sum(dim=1) + 0.1 * torch.randn(size, generator=generator)}


def _generator(split: Split, seed: int) -> torch.Generator:
    """Training data by seed, held-out data always the same."""
    return torch.Generator().manual_seed(2 * seed + 1 if split == "train" else 0)
