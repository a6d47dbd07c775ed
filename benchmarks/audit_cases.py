"""What should an audit catch, and what trust? Networks on digits with a planted fault each, and sound ones."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gossamer.attacks.crafting import crafting
from gossamer.attacks.pgd import PGD
from gossamer.data import DataSet
from gossamer.data.registry import load
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel

THREAT = ThreatModel("linf", 0.2)
EPOCHS = 8
LEVELS = 6

Base: TypeAlias = Literal["natural", "robust"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network to audit. base: the trained one it is made of; sign: the one that names the fault, None for none."""

    name: str
    base: Base
    make: Callable[[nn.Module], nn.Module]
    sign: str | None


def digits() -> tuple[DataSet, DataSet]:
    """Return training and test digits."""
    return load("digits", "train"), load("digits", "test")


def train(base: Base, data: DataSet, *, epochs: int = EPOCHS) -> nn.Module:
    """Return a small network trained on digits, on clean images or on PGD's (Madry et al., 2018)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(
                nn.Conv2d(1, 24, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(24, 48, 3, stride=2, padding=1),
                nn.ReLU(),
            ),
            *(nn.Flatten(), nn.Linear(192, 10)),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        attack = PGD(threat=THREAT, steps=4) if base == "robust" else None
        for epoch in range(epochs):
            for step, rows in enumerate(torch.randperm(len(data)).split(64)):
                x, y = data.float(rows), data.labels[rows]
                if attack is not None:
                    with crafting(model, "eval"):
                        x = attack(model, x, y, draws=Draws(0, ("train", epoch, step)))
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
    return model.eval()


class Rounded(nn.Module):
    """Images at a few levels: a slope of zero everywhere (Guo et al., ICLR 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x * LEVELS) / LEVELS


class Thermometer(nn.Module):
    """How many thresholds each pixel passes, by comparison: no graph at all (Buckman et al., ICLR 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Buffer((torch.arange(LEVELS) + 0.5) / LEVELS)

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, :, None] >= self.levels.view(1, 1, -1, 1, 1)).to(x.dtype).flatten(1, 2)


class Steep(nn.Module):
    """A thermometer of sigmoids so steep that float32 has no slope, behind a function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Buffer((torch.arange(LEVELS) + 0.5) / LEVELS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(1e5 * (x[:, :, None] - self.levels.view(1, 1, -1, 1, 1))).flatten(1, 2)


class Mean(nn.Module):
    """Thermometer codes back to one channel."""

    def forward(self, codes: Tensor) -> Tensor:
        return codes.mean(dim=1, keepdim=True)


class Ripples(nn.Module):
    """Fine ripples of a random phase on the image: little noise in the answer, much in the gradient."""

    def __init__(self, height: float = 0.02, frequency: float = 600.0) -> None:
        super().__init__()
        self.height = height
        self.frequency = frequency

    def forward(self, x: Tensor) -> Tensor:
        return x + self.height * torch.sin(self.frequency * x + 2 * torch.pi * torch.rand_like(x))


class Dithered(nn.Module):
    """Randomised rounding: the level below or above, by chance."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(x * LEVELS + torch.rand_like(x)) / LEVELS


class FakeInt8(nn.Module):
    """Weights and each image's activations rounded to 8 bits before every layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.layers = copy.deepcopy(model)
        with torch.no_grad():
            for weight in self.layers.parameters():
                weight.copy_(_rounded(weight[None])[0])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.children():
            x = layer(_rounded(x))
        return x


class Scaled(nn.Module):
    """Logits times a million: the cross-entropy has no gradient (Carlini & Wagner, 2017)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return 1e6 * self.model(x)


class Cold(nn.Module):
    """Probabilities at a low temperature in the place of logits (distillation: Papernot et al., 2016)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(100 * self.model(x), dim=1)


class BatchNormed(nn.Module):
    """Images normalised by the statistics of the batch they come in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x - x.mean(dim=0, keepdim=True) + 0.3)


class Remembers(nn.Module):
    """A detector that keeps the first batch of a shape and repeats its answer to whatever comes near it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.last: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        if self.last is not None and self.last[0].shape == x.shape:
            near = (x - self.last[0]).abs().flatten(1).amax(dim=1, keepdim=True) <= 2 * THREAT.eps + 1e-3
            return torch.where(near, self.last[1], logits)
        self.last = (x.detach(), logits.detach())
        return logits


def _rounded(x: Tensor) -> Tensor:
    scale = x.detach().abs().flatten(1).amax(dim=1).clamp(min=1e-8).view(-1, *[1] * (x.dim() - 1)) / 127
    return torch.round(x / scale) * scale


def _behind(front: nn.Module) -> Callable[[nn.Module], nn.Module]:
    return lambda model: nn.Sequential(front, model)


CASES: tuple[Case, ...] = (
    Case(name="natural", base="natural", make=lambda model: model, sign=None),
    Case(name="PGD-trained", base="robust", make=lambda model: model, sign=None),
    Case(name="rounded input", base="natural", make=_behind(Rounded()), sign="gradients"),
    Case(name="thermometer", base="natural", make=_behind(nn.Sequential(Thermometer(), Mean())), sign="gradients"),
    Case(name="steep sigmoids", base="natural", make=_behind(nn.Sequential(Steep(), Mean())), sign="gradients"),
    Case(name="8-bit weights and activations", base="natural", make=FakeInt8, sign="gradients"),
    Case(name="random ripples", base="natural", make=_behind(Ripples()), sign="randomness"),
    Case(name="randomised rounding", base="natural", make=_behind(Dithered()), sign="randomness"),
    Case(name="softmax outputs", base="natural", make=Cold, sign="softmax"),
    Case(name="logits times 1e6", base="natural", make=Scaled, sign="saturation"),
    Case(name="batch statistics", base="natural", make=BatchNormed, sign="adaptation"),
    Case(name="detector that remembers", base="natural", make=Remembers, sign="adaptation"),
)
