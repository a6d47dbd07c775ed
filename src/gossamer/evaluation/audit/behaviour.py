"""Is a model one fixed function from an image to logits? Called twice, on parts of a batch, and beside a fresh copy."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gossamer.evaluation.audit.twins import Fresh
from gossamer.evaluation.judge import predict
from gossamer.evaluation.subject import seed_noise
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel

ROUNDING = 1e-3
"""Difference of logits, relative to the largest, that batch size and order of sums explain in float32."""

COARSE_ROUNDING = 2e-2
"""The same off the CPU and in 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a model answered P images; (P,) bool on the CPU each.

    random: other logits in another call of a fresh copy; adapts: other logits than a fresh copy's after a call on
    the image or its neighbour; company: other logits in half of the batch or in reversed order; probabilities: the
    outputs lie in [0, 1] and sum to 1. gap: (P,), the difference of the two largest logits.
    """

    random: Tensor
    adapts: Tensor
    company: Tensor
    probabilities: Tensor
    gap: Tensor


def watch(model: nn.Module, x: Tensor, threat: ThreatModel, seed: int) -> Behaviour:
    """Call copies of a model on x: (P, C, H, W); the model itself is not called."""
    fresh, place = Fresh(model), x.device
    first = _call(fresh, x, seed)
    random = _differ(first, _call(fresh, x, seed)) | _differ(first, _call(fresh, x, seed + 1))
    nobody = torch.zeros_like(random)
    top = first.topk(min(2, first.shape[1]), dim=1).values
    steady = not random.any()
    return Behaviour(
        random=random.cpu(),
        adapts=(_adapts(model, x, threat, seed, first) if steady else nobody).cpu(),
        company=(_company(fresh, x, seed, first, place) if steady else nobody).cpu(),
        probabilities=_are_probabilities(first).cpu(),
        gap=(top[:, 0] - top[:, -1]).cpu(),
    )


def _adapts(model: nn.Module, x: Tensor, threat: ThreatModel, seed: int, first: Tensor) -> Tensor:
    used = copy.deepcopy(model)
    near = threat.random_start(x, Draws(seed, ("audit", "neighbours")))
    expected = _call(Fresh(model), near, seed)
    _call(used, x, seed)
    beside = _differ(expected, _call(used, near, seed))
    return beside | _differ(first, _call(used, x, seed))


def _company(fresh: nn.Module, x: Tensor, seed: int, first: Tensor, place: torch.device) -> Tensor:
    half = (len(x) + 1) // 2
    parts = torch.cat([_call(fresh, part, seed) for part in x.split(half)])
    turned = _call(fresh, x.flip(0), seed).flip(0)
    return _differ(first, parts) | _differ(first, turned).to(place)


def _are_probabilities(outputs: Tensor) -> Tensor:
    rows = outputs.double()
    return ((rows >= 0) & (rows <= 1)).all(dim=1) & ((rows.sum(dim=1) - 1).abs() <= 1e-3)


def _call(model: nn.Module, x: Tensor, seed: int) -> Tensor:
    seed_noise(seed, x.device)
    return predict(model, x)


def _differ(logits: Tensor, other: Tensor) -> Tensor:
    coarse = logits.device.type != "cpu" or logits.dtype in (torch.float16, torch.bfloat16)
    tolerance = (COARSE_ROUNDING if coarse else ROUNDING) * float(logits.double().abs().max())
    return (logits.double() - other.double()).abs().amax(dim=1) > tolerance
