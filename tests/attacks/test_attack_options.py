import pytest
import torch

from gossamer.attacks.starts import GaussianStart, NoStart, RandomStart, parse_start
from gossamer.attacks.steps import Absolute, OfEps, OverSteps, StepRule, parse_step
from gossamer.attacks.targets import LEAST_LIKELY, Given, Ranked, parse_target
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("2/255", Absolute(2 / 255)),
        ("0.007", Absolute(0.007)),
        (0.007, Absolute(0.007)),
        ("eps/n", OverSteps(1.0)),
        ("2.5eps/n", OverSteps(2.5)),
        ("2.5 * eps / n", OverSteps(2.5)),
        ("eps/4", OfEps(0.25)),
        ("eps", OfEps(1.0)),
        ("1.25eps", OfEps(1.25)),
        (OverSteps(2.0), OverSteps(2.0)),
    ],
)
def test_steps_are_read_and_written_back(text: str | float | StepRule, rule: StepRule) -> None:
    assert parse_step(text) == rule
    assert parse_step(str(rule)) == rule


@pytest.mark.parametrize("text", ["", "0", "-1/255", "eps/0", "eps/m", "2.5ep/n", "n/eps", "-1eps", "eps*2", "nan"])
def test_steps_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_step(text)


def test_step_sizes() -> None:
    assert Absolute(0.1).size(0.5, 10) == 0.1
    assert OfEps(0.25).size(0.8, 10) == 0.2
    assert OverSteps(2.5).size(0.8, 10) == 0.2


@pytest.mark.parametrize("start", [NoStart(), RandomStart(), GaussianStart(0.001), GaussianStart(0.5)])
def test_starts_round_trip(start: NoStart | RandomStart | GaussianStart) -> None:
    assert parse_start(str(start)) == start
    assert parse_start(start) == start


@pytest.mark.parametrize("text", ["", "zero", "gaussian()", "gaussian(0)", "gaussian(-1)", "gaussian(x)"])
def test_starts_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="attack start"):
        parse_start(text)


def test_gaussian_start_has_its_deviation() -> None:
    x = torch.full((8, 3, 32, 32), 0.5)
    moved = GaussianStart(0.001)(ThreatModel("linf", 8 / 255), x, Draws(1)) - x
    assert moved.std().item() == pytest.approx(0.001, rel=0.02)
    assert NoStart()(ThreatModel("linf", 8 / 255), x, Draws(1)).data_ptr() != x.data_ptr()


def test_ranked_targets_by_hand() -> None:
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0], [5.0, 1.0, 3.0, 2.0]])
    y = torch.tensor([0, 2])
    assert Ranked(1)(logits, y).tolist() == [2, 0]
    assert Ranked(2)(logits, y).tolist() == [3, 3]
    assert LEAST_LIKELY(logits, y).tolist() == [1, 1]
    # The label itself is never the target, even where it is the least likely.
    assert LEAST_LIKELY(logits, torch.tensor([1, 1])).tolist() == [3, 3]
    assert Given(torch.tensor([3, 1]))(logits, y).tolist() == [3, 1]
    with pytest.raises(ConfigError, match="3 wrong classes"):
        Ranked(4)(logits, y)


@pytest.mark.parametrize("text", ["most", "rank:0", "rank:-1", "rank:x"])
def test_targets_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="attack target"):
        parse_target(text)


def test_targets_round_trip() -> None:
    assert parse_target("none") is None
    assert parse_target(None) is None
    for target in (LEAST_LIKELY, Ranked(3)):
        assert parse_target(str(target)) == target
