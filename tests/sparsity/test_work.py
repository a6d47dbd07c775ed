import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from gossamer.errors import ConfigError
from gossamer.methods.robust_admm import DenseLinear
from gossamer.models.registry import build
from gossamer.seeding import Draws
from gossamer.sparsity import HardMask, Horizon, targets, work
from gossamer.sparsity.budgets import LeastWork, budget
from gossamer.sparsity.sets import Quantised, Sparse
from gossamer.sparsity.work import costs, settled

HORIZON = Horizon(epochs=1, steps_per_epoch=1, image_shape=(1, 8, 8))


def test_a_weight_costs_the_positions_it_is_used_at() -> None:
    # 8x8 images: the first convolution keeps the size, the next two halve it, the linear layer sees one vector.
    assert list(costs(build("digits-cnn"), (1, 8, 8)).values()) == [64.0, 16.0, 4.0, 1.0]


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = build("digits-cnn").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured = costs(model, (1, 8, 8), "latency")
    assert all(seconds > 0 for seconds in measured.values())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_cheapest_layers_fill_first() -> None:
    made = LeastWork(floor=0.0, costs={"early": 4.0, "late": 1.0})({"early": (10, 10), "late": (5, 6)}, 0.5)
    # 65 weights: all 30 of the cheap layer, 35 of the other.
    assert made == {"early": 35, "late": 30}
    with_floor = LeastWork(floor=0.5, ceiling=0.8, costs={"early": 4.0, "late": 1.0})
    assert with_floor({"early": (10, 10), "late": (5, 6)}, 0.5) == {"early": 41, "late": 24}


@given(
    sizes=st.lists(st.integers(20, 400), min_size=2, max_size=5),
    prices=st.lists(st.integers(1, 50), min_size=5, max_size=5, unique=True),
    density=st.floats(0.05, 0.9),
)
def test_no_division_of_as_many_weights_works_less(sizes: list[int], prices: list[int], density: float) -> None:
    shapes = {f"layer{i}": (size,) for i, size in enumerate(sizes)}
    price = {f"layer{i}": float(prices[i]) for i in range(len(sizes))}
    counts = LeastWork(floor=0.2, costs=price)(shapes, density)
    wanted = int(density * sum(sizes))
    assert sum(counts.values()) == wanted
    bounds = [(int(0.2 * density * size), size) for size in sizes]
    least = linprog(list(price.values()), A_eq=np.ones((1, len(sizes))), b_eq=[wanted], bounds=bounds)
    assert sum(price[name] * count for name, count in counts.items()) == pytest.approx(least.fun)


def test_a_mask_of_least_work_measures_its_network() -> None:
    model = build("digits-cnn")
    mask = HardMask(density=0.1, scope="layer", budget={"name": "least-work", "floor": 0.2})
    mask.attach(model, Draws(), HORIZON)
    kept = mask.masks().kept_per_layer
    assert sum(kept.values()) == int(0.1 * 58_656)
    price = costs(model, (1, 8, 8))
    uniform = {name: 0.1 * size.numel() for name, size in mask.masks().items()}
    assert sum(price[name] * count for name, count in kept.items()) < 0.5 * sum(
        price[name] * count for name, count in uniform.items()
    )


def test_an_accelerator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers before it is done takes as long as it takes until it is done, and no more."""

    class Queue(nn.Module):
        now, pending = 0.0, 0.25

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.pending += 3.0
            return x

        def wait(self, device: torch.device) -> None:
            assert device.type == "cpu"
            self.now, self.pending = self.now + self.pending, 0.0

        def perf_counter(self) -> float:
            return self.now

    queue = Queue()
    monkeypatch.setattr(work, "time", queue)
    monkeypatch.setattr(work, "_wait_for", queue.wait)
    assert work._seconds(queue, torch.zeros(1)) == 3.0


def test_costs_are_taken_in_whatever_precision_the_network_has() -> None:
    assert list(costs(build("digits-cnn").double(), (1, 8, 8)).values()) == [64.0, 16.0, 4.0, 1.0]


def test_a_budget_within_others_is_settled_too() -> None:
    model = build("digits-cnn")
    of = {layer.name: value for layer, value in zip(targets(model), (64.0, 16.0, 4.0, 1.0), strict=True)}
    within = Quantised(within=Sparse(budget=DenseLinear(then=LeastWork())))
    found = settled(within, model, HORIZON).within.budget
    assert isinstance(found, DenseLinear)
    assert found.then == LeastWork(costs=of)
    dense = Sparse(budget=budget("erk"))
    assert settled(dense, model, None) is dense
    known = LeastWork(costs={"fc": 1.0})
    assert settled(known, model, None) is known


def test_the_run_is_asked_before_latencies_are_measured() -> None:
    model = build("digits-cnn")
    asked: list[str] = []

    def recall(name: str, measure: object) -> dict[str, float]:
        asked.append(name)
        return {layer.name: 1.0 for layer in targets(model)}

    found = settled(LeastWork(by="latency"), model, replace(HORIZON, recall=recall))
    assert asked == ["latency"]
    assert set(found.costs.values()) == {1.0}
    settled(LeastWork(), model, replace(HORIZON, recall=recall))
    assert asked == ["latency"]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.budget\.by"):
        budget({"name": "least-work", "by": "energy"})
    with pytest.raises(ConfigError, match="floor"):
        LeastWork(floor=2.0)
    with pytest.raises(ConfigError, match="got nothing for fc"):
        LeastWork()({"fc": (10, 10)}, 0.5)
    with pytest.raises(ConfigError, match=r"method\.budget\.ceiling"):
        LeastWork(ceiling=0.3, costs={"fc": 1.0})({"fc": (10, 10)}, 0.5)
    with pytest.raises(ConfigError, match="shape of the images"):
        settled(LeastWork(), nn.Linear(2, 2), None)
    with pytest.raises(ConfigError, match="shape of the images"):
        settled(LeastWork(), nn.Linear(2, 2), Horizon(epochs=1, steps_per_epoch=1))
    assert math.isclose(LeastWork().floor, 0.1)
