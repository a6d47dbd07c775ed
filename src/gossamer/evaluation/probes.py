"""What does a model do when it is called twice, on half of a batch, or for a gradient? Seen on a few images."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from gossamer.data import DataSet
from gossamer.evaluation.judge import predict
from gossamer.evaluation.subject import seed_noise
from gossamer.losses import margin
from gossamer.seeding import Draws
from gossamer.types import Attack, Model

Gradient: TypeAlias = Literal["finite", "zero", "not finite", "none"]

CALLS = 8
"""Calls without a gradient after which an attack counts as free of gradients."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a model answered the probe.

    logits: (P, K); overwrites: it wrote into its input; changed: names of its tensors that a call changed;
    random: other logits under another seed; repeats: the same logits again under the same seed; alone: the same
    logits for half of the batch; gradient: of the margin at the input.
    """

    logits: Tensor
    overwrites: bool
    changed: tuple[str, ...]
    random: bool
    repeats: bool
    alone: bool
    gradient: Gradient


Changed: TypeAlias = Callable[[], tuple[str, ...]]
"""Returns the names of the tensors of a model that are no longer what they were."""


@contextmanager
def kept(model: nn.Module) -> Generator[Changed]:
    """Put every parameter and buffer of a model back afterwards; inside, tell which of them have changed."""
    before = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}

    def changed() -> tuple[str, ...]:
        now = _tensors(model)
        return tuple(name for name, tensor in before.items() if not _equal(now.get(name), tensor))

    try:
        yield changed
    finally:
        names, now = changed(), _tensors(model)
        with torch.no_grad():
            for name in names:
                if name in now and now[name].shape == before[name].shape:
                    now[name].copy_(before[name])


def observe(model: nn.Module, x: Tensor, y: Tensor, *, index: Tensor, changed: Changed) -> Behaviour:
    """Call a model at rest, `kept`, a few times on x: (P, C, H, W) with labels y: (P,).

    index: (P,) sample indices by which an error names a sample.
    """
    half = (len(x) + 1) // 2

    def call(images: Tensor, seed: int = 0) -> Tensor:
        seed_noise(seed, x.device)
        return predict(model, images, index=index)

    given = x.clone()
    logits = call(given)
    overwrites = not torch.equal(given, x)
    repeats = _same(logits, call(x.clone()))
    random = not repeats or not _same(logits, call(x.clone(), seed=1))
    return Behaviour(
        logits=logits,
        overwrites=overwrites,
        changed=changed(),
        random=random,
        repeats=repeats,
        alone=random or _same(logits[:half], call(x[:half].clone())),
        gradient=_gradient(model, x[:half], y[:half]),
    )


def spread(dataset: DataSet, count: int) -> Tensor:
    """Return at most `count` positions: (P,) int64, at equal distances through a set, which may be sorted by class."""
    return torch.linspace(0, len(dataset) - 1, min(count, len(dataset)), dtype=torch.float64).round().long()


def images_at(dataset: DataSet, positions: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images (P, C, H, W) in [0, 1] and labels (P,) at positions: (P,), on a device."""
    labels = dataset.labels[positions.to(dataset.labels.device)]
    return dataset.float(positions, device=device), labels.to(device)


def asks_for_gradient(attack: Attack, x: Tensor, y: Tensor, logits: Tensor) -> bool:
    """Return whether an attack on one image asks for a gradient within its first calls of the model.

    x: (1, C, H, W); y: (1,); logits: (1, K), which every call is answered with.
    """
    try:
        attack(_Spy(logits), x, y, draws=Draws().per_sample(torch.zeros(1, dtype=torch.int64)))
    except _AnswerError as answer:
        return answer.gradient
    # The run itself will tell what an attack cannot do with constant logits.
    except Exception:
        return False
    return False


class _AnswerError(BaseException):
    """Ends an attack on the spy; no `except Exception` of the attack stops it."""

    def __init__(self, *, gradient: bool) -> None:
        super().__init__()
        self.gradient = gradient


class _Spy(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise _AnswerError(gradient=True)
        self.calls += 1
        if self.calls > CALLS:
            raise _AnswerError(gradient=False)
        return self.logits.repeat(len(x), 1)


def _gradient(model: Model, x: Tensor, y: Tensor) -> Gradient:
    leaf = x.clone().requires_grad_(True)
    with torch.enable_grad():
        try:
            logits = model(leaf)
            value = margin(logits.to(torch.promote_types(logits.dtype, torch.float32)), y).sum()
            (found,) = torch.autograd.grad(value, leaf)
        except torch.OutOfMemoryError:
            raise
        # Torch says in many words that a graph is missing or an operation has no derivative.
        except RuntimeError:
            return "none"
    if not found.isfinite().all():
        return "not finite"
    return "finite" if found.any() else "zero"


def _tensors(model: nn.Module) -> Mapping[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _equal(now: Tensor | None, before: Tensor) -> bool:
    return (
        now is not None
        and now.shape == before.shape
        and torch.equal(now.isnan(), before.isnan())
        and bool(((now == before) | now.isnan()).all())
    )


def _same(logits: Tensor, other: Tensor) -> bool:
    """Return whether logits agree to rounding, as another batch size or an accelerator's order of sums may round."""
    coarse = logits.device.type != "cpu" or logits.dtype in (torch.float16, torch.bfloat16)
    scale = float(logits.double().abs().max())
    return float((logits.double() - other.double()).abs().max()) <= (2e-2 if coarse else 1e-4) * scale
