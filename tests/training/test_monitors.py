import math

import pytest
import torch
from torch import nn

from gossamer.attacks.fgsm import FGSM
from gossamer.data import from_tensors
from gossamer.errors import ConfigError
from gossamer.threat import ThreatModel
from gossamer.training.monitors import GO, EarlyStop, Highest, Measuring, Overfitting, Probe, decide


class Brightness(nn.Module):
    """Class 1 where the mean is above one half, class 0 below."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def probe(*, attacked: bool, every: int = 1) -> Probe:
    """Four grey images; FGSM of 0.2 turns the two whose brightness is within 0.2 of one half."""
    grey = torch.tensor([0.0, 0.4, 0.6, 1.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    data = from_tensors(grey.contiguous(), torch.tensor([0, 0, 1, 0]), part="test")
    attacks = {"fgsm": FGSM(threat=ThreatModel("linf", 0.2))} if attacked else {}
    return Probe("held_out", data, attacks, every)


def test_a_probe_measures_clean_and_robust_accuracy_by_hand() -> None:
    assert probe(attacked=True)(0, Brightness(), last=False, seed=0) == {"held_out/clean": 0.75, "held_out/fgsm": 0.25}


def test_a_probe_measures_the_loss_on_all_attacked_images_by_hand() -> None:
    measured = probe(attacked=True).with_losses("fgsm")(0, Brightness(), last=False, seed=0)
    assert {name: value for name, value in measured.items() if name != "held_out/fgsm/loss"} == {
        "held_out/clean": 0.75,
        "held_out/fgsm": 0.25,
    }
    # FGSM moves the brightness to 0.2, 0.6, 0.4 and 1.0: -log p of the labels 0, 0, 1, 0, the last wrong when clean.
    away = [0.2 - 0.5, 0.6 - 0.5, 0.5 - 0.4, 1.0 - 0.5]
    expected = sum(math.log1p(math.exp(2 * each)) for each in away) / 4
    assert measured["held_out/fgsm/loss"] == pytest.approx(expected, rel=1e-6)


def test_a_probe_without_attacks_measures_clean_accuracy() -> None:
    model = Brightness().train()
    before = torch.random.get_rng_state()
    assert probe(attacked=False)(0, model, last=False, seed=0) == {"held_out/clean": 0.75}
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_probe_waits_for_its_turn_but_not_at_the_end() -> None:
    measure = probe(attacked=False, every=3)
    turns = [measure(epoch, Brightness(), last=epoch == 3, seed=0)["held_out/clean"] for epoch in range(4)]
    assert turns == [None, None, 0.75, 0.75]


def test_the_highest_value_is_the_first_of_its_height() -> None:
    best = Highest("a")
    rises = [best.update(epoch, {"a": value}) for epoch, value in enumerate([None, 0.1, 0.1, None, 0.3, 0.2])]
    assert rises == [False, True, False, False, True, False]
    assert (best.value, best.epoch) == (0.3, 4)
    again = Highest("a")
    again.load_state_dict(best.state_dict())
    assert not again.update(6, {"a": 0.3})
    with pytest.raises(ConfigError, match="expected one of b, got a"):
        best.update(7, {"b": 0.5})


@pytest.mark.parametrize("restore", [False, True])
def test_early_stopping_waits_for_its_patience(restore: bool) -> None:
    stop = EarlyStop("a", 2, restore=restore)
    verdicts = [stop(epoch, {"a": value}) for epoch, value in enumerate([None, 0.1, 0.3, 0.2, 0.3])]
    assert [verdict.action for verdict in verdicts] == ["go"] * 4 + ["restore" if restore else "stop"]
    assert "a has not risen for 2 epochs" in verdicts[-1].reason


def test_early_stopping_judges_where_something_was_measured() -> None:
    """A probe of every fifth epoch is none between: its metric rises whenever it is looked at, and nothing stops."""
    stop = EarlyStop("a", 4)
    rising = [epoch / 100 if epoch % 5 == 4 else None for epoch in range(30)]
    assert all(stop(epoch, {"a": value}) == GO for epoch, value in enumerate(rising))
    assert stop(30, {"a": None}) == GO
    assert stop(34, {"a": 0.1}).action == "restore"


def test_the_first_verdict_that_is_not_to_go_on_counts() -> None:
    assert decide((), 0, {}) == GO
    patient, impatient = EarlyStop("a", 9), EarlyStop("b", 1, restore=False)
    for epoch in range(2):
        verdict = decide((patient, impatient), epoch, {"a": 0.5, "b": 0.5})
    assert verdict.reason == "b has not risen for 1 epochs"


@pytest.mark.parametrize("action", ["report", "stop", "restore"])
def test_catastrophic_overfitting_is_a_fall_below_the_best(action: str) -> None:
    watch = Overfitting("train/pgd", 0.2, action)  # type: ignore[arg-type]
    assert isinstance(watch, Measuring)
    told = []
    for epoch, value in enumerate([0.3, None, 0.5, 0.31, 0.25]):
        verdict = watch(epoch, {"train/pgd": value})
        told.append((verdict.action, watch.measures()["catastrophic_overfitting"]))
    expected = "go" if action == "report" else action
    assert told == [("go", 0.0), ("go", None), ("go", 0.0), ("go", 0.0), (expected, 1.0)]
    assert watch.measures()["overfitting_drop"] == pytest.approx(0.25)
    assert verdict.state == ("best" if action == "restore" else None)
    assert ("fell from 0.500 to 0.250" in verdict.reason) == (action != "report")
    again = Overfitting("train/pgd", 0.2, "stop")
    again.load_state_dict(watch.state_dict())
    assert again(5, {"train/pgd": 0.25}).action == "stop"
