import math

import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.pgd import PGD
from gossamer.attacks.square import Square
from gossamer.attacks.zoo import ZOO
from gossamer.errors import ConfigError, DataError
from gossamer.evaluation.blackbox import BlackBoxResult, success_rate
from gossamer.intervals import wilson
from gossamer.threat import ThreatModel


class Mean(nn.Module):
    """Tells images brighter than 0.5 on average from the others, in float64, and counts the images it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = 0

    def forward(self, x: Tensor) -> Tensor:
        self.shown += len(x)
        rise = x.double().flatten(1).mean(dim=1) - 0.5
        return torch.stack([-rise, rise], dim=1)


def _data(n: int = 40) -> tuple[Tensor, Tensor]:
    """Return flat images of brightness 0.3 to 0.7 and their classes; every tenth label is wrong."""
    level = torch.linspace(0.3, 0.7, n)
    y = (level > 0.5).long()
    y[::10] = 1 - y[::10]
    return level.view(n, 1, 1, 1).expand(n, 1, 4, 4).clone(), y


def test_success_is_a_share_of_what_is_right_when_clean() -> None:
    x, y = _data()
    attack = Square(threat=ThreatModel("linf", 0.1), queries=150)
    result = success_rate(Mean(), (x, y), attack, n=None)
    assert (result.n, result.attacked, result.clean_accuracy) == (40, 36, 0.9)
    level = x[list(result.index), 0, 0, 0]
    broken = torch.tensor(result.success)
    assert not broken[(level - 0.5).abs() > 0.1].any()
    assert bool(broken[(level - 0.5).abs() < 0.03].all())
    assert result.success_rate == int(broken.sum()) / 36
    assert result.interval == wilson(int(broken.sum()), 36)
    queries = torch.tensor(result.queries)
    assert bool((queries[~broken] == 151).all())
    assert result.mean_queries == pytest.approx(float(queries[broken].double().mean()))
    assert bool(torch.tensor(result.distance)[~broken].isinf().all())


def test_the_samples_do_not_depend_on_the_batch() -> None:
    x, y = _data()
    attack = Square(threat=ThreatModel("l2", 0.3), queries=40)
    whole = success_rate(Mean(), (x, y), attack, n=20, seed=3)
    assert whole == success_rate(Mean(), (x, y), attack, n=20, seed=3, batch_size=3)
    assert whole.n == 20
    assert whole != success_rate(Mean(), (x, y), attack, n=20, seed=4)


def test_queries_add_up_to_what_the_model_was_shown() -> None:
    x, y = _data()
    attack = ZOO(coordinates=4, iterations=5, space="box", lr=0.05, stop_at_first=True)
    model = Mean()
    result = success_rate(model, (x, y), attack, n=None)
    # One image for the number of classes, all for what is right when clean, the attacked ones for the verdict.
    assert model.shown == sum(result.queries) + 1 + 40 + 36
    assert 0 < result.success_rate < 1


def test_a_point_outside_the_threat_is_no_success() -> None:
    x, y = _data()
    attack = ZOO(coordinates=16, iterations=40, space="box", lr=0.02, const=10.0)
    far = success_rate(Mean(), (x, y), attack, n=None)
    assert far.success_rate == 1
    near = success_rate(Mean(), (x, y), ZOO(**{**vars(attack), "threat": ThreatModel("l2", 0.2)}), n=None)
    assert near.distance == far.distance
    assert near.success == tuple(distance <= 0.2 + 1e-6 for distance in far.distance)
    assert 0 < near.success_rate < 1


def test_the_numbers_of_a_result() -> None:
    result = BlackBoxResult(
        threat="l2:20",
        selection="all",
        n=5,
        index=(0, 1, 2, 4),
        success=(True, False, True, True),
        queries=(10, 99, 20, 60),
        distance=(1.0, math.inf, 2.0, 3.0),
    )
    assert (result.success_rate, result.median_queries, result.mean_queries) == (0.75, 20, 30)
    none = BlackBoxResult(
        threat="l2:20", selection="all", n=1, index=(0,), success=(False,), queries=(9,), distance=(math.inf,)
    )
    assert math.isnan(none.median_queries)
    assert math.isnan(none.mean_queries)


def test_impossible_arguments_are_refused() -> None:
    x, y = _data()
    attack = Square(threat=ThreatModel("linf", 0.1), queries=2)
    with pytest.raises(ConfigError, match="counts its queries"):
        success_rate(Mean(), (x, y), PGD(threat=ThreatModel("linf", 0.1)))  # pyright: ignore
    with pytest.raises(ConfigError, match="batch size"):
        success_rate(Mean(), (x, y), attack, n=None, batch_size=0)
    with pytest.raises(DataError, match="none of 4"):
        success_rate(Mean(), (x[1:5], 1 - y[1:5]), attack, n=None)
