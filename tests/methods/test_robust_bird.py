"""Robust Bird: the distance between masks, the epoch that ends the draw, what the sparse training begins with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pairs
import phases_on_digits as small
from gossamer.attacks.pgd import PGD
from gossamer.errors import ConfigError
from gossamer.methods.registry import build
from gossamer.methods.robust_bird import RobustBird, Settled
from gossamer.objectives.fast_at import FastAT
from gossamer.objectives.natural import Natural
from gossamer.runs import atomic, metrics
from gossamer.seeding import Draws
from gossamer.sparsity.settling import SettlingMask
from gossamer.training.phases import Phase
from gossamer.training.run import run_phases
from gossamer.training.schedules import Steps

KERNELS = ("conv1.weight", "conv2.weight", "conv3.weight", "fc.weight")
ALL = 58_656


class Two(nn.Module):
    """Ten weights in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)


def shown(sparsifier: SettlingMask, model: Two, kept: str) -> float | None:
    """End an epoch in which the weights marked 1 are the largest; return the distance then measured."""
    values = torch.tensor([float(mark) for mark in kept]) + 0.01 * torch.arange(10)
    with torch.no_grad():
        # Magnitudes count, not signs.
        model.first.weight.copy_(-values[:6].reshape(2, 3))
        model.second.weight.copy_(values[6:].reshape(2, 2))
    sparsifier.after_epoch(0, {})
    return sparsifier.measures().get("mask_distance")


def attached(window: int, density: float = 0.3) -> tuple[SettlingMask, Two]:
    sparsifier, model = SettlingMask(density=density, window=window), Two()
    sparsifier.attach(model, Draws(0))
    return sparsifier, model


def test_the_distance_is_the_share_of_weights_on_which_two_masks_disagree() -> None:
    sparsifier, model = attached(window=2)
    assert shown(sparsifier, model, "1110000000") is None
    assert shown(sparsifier, model, "1110000000") == 0.0
    assert shown(sparsifier, model, "1100000001") == pytest.approx(0.2)
    assert shown(sparsifier, model, "0011000010") == pytest.approx(0.6)


def test_the_newest_mask_is_compared_with_all_of_the_window_and_with_none_before_it() -> None:
    sparsifier, model = attached(window=3)
    assert shown(sparsifier, model, "0000000111") is None
    assert shown(sparsifier, model, "1110000000") is None
    assert shown(sparsifier, model, "1101000000") == pytest.approx(0.6)
    assert shown(sparsifier, model, "1101000000") == pytest.approx(0.2)
    assert shown(sparsifier, model, "1101000000") == 0.0


def test_nothing_is_cut_while_drawing_and_what_was_seen_comes_back_after_a_kill() -> None:
    sparsifier, model = attached(window=3)
    for kept in ("1110000000", "1101000000"):
        shown(sparsifier, model, kept)
    assert sparsifier.masks().kept == 10
    again, other = attached(window=3)
    again.load_state_dict({key: value.clone() for key, value in sparsifier.state_dict().items()})
    assert shown(again, other, "1100100000") == shown(sparsifier, model, "1100100000") == pytest.approx(0.2)


def test_the_draw_stops_at_the_threshold_and_not_above_it() -> None:
    settled = Settled(0.08)
    told = [
        settled(epoch, {"sparsifier/mask_distance": value}).action for epoch, value in enumerate((0.2, 0.081, 0.08))
    ]
    assert told == ["go", "go", "stop"]
    assert settled(0, {"loss": 1.0}).action == "go"


def trained(
    folder: Path, method: RobustBird, **changes: Any
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Tensor]]]:
    job = small.job(folder / "run")
    run_phases(list(method.phases(small.phase(**changes), "digits-cnn")), small.network, job)
    names = [path.stem for path in job.run.states.glob("*.safetensors")]
    return list(metrics.read(job.run)), {name: atomic.read_safetensors(job.run.state(name)) for name in names}


def masks_of(state: dict[str, Tensor], density: float) -> Tensor:
    joined = torch.cat([state[name].abs().flatten() for name in KERNELS])
    return joined >= joined.sort(descending=True).values[int(density * ALL) - 1]


def test_the_draw_ends_with_the_first_window_that_has_settled(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole", RobustBird(density=0.1, window=2, threshold=0.0), epochs=5)
    distances = [line.get("sparsifier/mask_distance") for line in whole if line["phase"] == "draw"]
    assert distances[0] is None
    assert len(distances) == 5
    assert all(0.0 < distance < 0.2 for distance in distances[1:])
    threshold = sorted(distances[1:])[1]
    first = next(epoch for epoch, distance in enumerate(distances) if distance is not None and distance <= threshold)
    stopped, _ = trained(tmp_path / "stopped", RobustBird(density=0.1, window=2, threshold=threshold), epochs=5)
    told = [line.get("sparsifier/mask_distance") for line in stopped if line["phase"] == "draw"]
    assert told == distances[: first + 1]
    assert len([line for line in stopped if line["phase"] == "train"]) == 5


def test_the_distance_of_a_run_is_that_of_its_weights(tmp_path: Path) -> None:
    method = RobustBird(density=0.1, window=2, threshold=0.0, draw_epochs=2)
    phases = list(method.phases(small.phase(epochs=4), "digits-cnn"))
    phases[0] = Phase(**{**vars(phases[0]), "publish": (1,)})
    job = small.job(tmp_path / "run")
    run_phases(phases, small.network, job)
    first, second = (atomic.read_safetensors(job.run.state(name)) for name in ("draw.epoch-1", "draw.end"))
    expected = float((masks_of(first, 0.1) != masks_of(second, 0.1)).float().mean())
    told = [line["sparsifier/mask_distance"] for line in metrics.read(job.run) if "sparsifier/mask_distance" in line]
    assert told == [pytest.approx(expected, abs=1e-9)]


@pytest.mark.parametrize("weights", ["early", "initial"])
def test_the_ticket_trains_from_its_early_or_its_initial_weights(weights: Any, tmp_path: Path) -> None:
    method = RobustBird(density=0.1, draw_epochs=1, weights=weights)
    phases = list(method.phases(small.phase(), "digits-cnn"))
    phases[1] = Phase(**{**vars(phases[1]), "publish": (0,)})
    job = small.job(tmp_path / "run")
    run_phases(phases, small.network, job)
    drawn, begun, final = (
        atomic.read_safetensors(job.run.state(name)) for name in ("draw.end", "train.epoch-0", "final")
    )
    source = drawn if weights == "early" else small.network().state_dict()
    mask = masks_of(drawn, 0.1)
    joined = {
        which: torch.cat([state[name].flatten() for name in KERNELS])
        for which, state in {"source": source, "begun": begun, "final": final}.items()
    }
    assert int(mask.sum()) == int(0.1 * ALL)
    assert torch.equal(joined["begun"], torch.where(mask, joined["source"], 0.0))
    assert torch.equal(joined["final"] != 0, mask)
    rest = [name for name in begun if name not in KERNELS]
    assert all(torch.equal(begun[name], source[name]) for name in rest)


def test_the_draw_is_clean_training_with_the_first_rates_of_the_recipe() -> None:
    base = small.phase(epochs=8, schedule=Steps(milestones=(0.5,)), select="held_out/pgd")
    draw, train = RobustBird(density=0.1, draw_epochs=5).phases(base, "digits-cnn")
    assert (draw.name, draw.epochs, draw.objective, draw.attack, draw.select) == ("draw", 5, Natural(), None, None)
    assert [draw.schedule(step, 50, 10) for step in (0, 39, 40)] == [1.0, 1.0, 0.1]
    assert (train.name, train.epochs, train.objective, train.attack) == ("train", 8, base.objective, base.attack)
    assert (train.schedule, train.select) == (base.schedule, base.select)
    assert RobustBird(density=0.1).phases(base, "digits-cnn")[0].epochs == 8


def test_the_draw_may_be_attacked_once_or_as_the_recipe_says() -> None:
    base = small.phase()
    cheap = RobustBird(density=0.1, draw="fgsm").phases(base, "digits-cnn")[0]
    assert cheap.objective == FastAT()
    assert isinstance(cheap.attack, PGD)
    assert (cheap.attack.steps, cheap.attack.step.size(0.15, 1)) == (1, pytest.approx(1.25 * 0.15))
    own = RobustBird(density=0.1, draw="recipe").phases(base, "digits-cnn")[0]
    assert (own.objective, own.attack) == (base.objective, base.attack)
    natural = small.phase(objective=Natural(), attack=None)
    assert RobustBird(density=0.1, draw="natural").phases(natural, "digits-cnn")[0].objective == Natural()
    with pytest.raises(ConfigError, match=r"method\.draw"):
        RobustBird(density=0.1, draw="fgsm").phases(natural, "digits-cnn")


@pytest.mark.parametrize("break_at", [2, 5, 8])
def test_a_run_that_was_killed_ends_in_the_same_bits(break_at: int, tmp_path: Path) -> None:
    values = pairs.recipe("robust-bird", "adversarial")
    values["training"] = {**values["training"], "epochs": 4}
    values["method"] = {**values["method"], "window": 2, "threshold": 0.9}
    seen = pairs.assert_resumes(lambda: values, tmp_path, break_at=break_at)
    assert seen.phases == ["draw", "train"]
    # Three steps an epoch: two of four epochs are drawn, all four trained.
    assert seen.steps == 6 + 12
    assert seen.contract == "exact"


@pytest.mark.parametrize(
    ("options", "field", "expected"),
    [
        ({"density": 0.0}, "method.density", "a share of weights kept"),
        ({"window": 1}, "method.window", "at least 2 epochs"),
        ({"threshold": -0.1}, "method.threshold", "a share of the weights"),
        ({"threshold": 1.0}, "method.threshold", "a share of the weights"),
        ({"draw_epochs": 0}, "method.draw_epochs", "at least 1"),
        ({"draw_epochs": 3}, "method.draw_epochs", r"at most training\.epochs \(2\)"),
        ({"draw": "pgd"}, "method.draw", "'recipe', 'natural' or 'fgsm'"),
        ({"weights": "late"}, "method.weights", "'early' or 'initial'"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], field: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as told:
        build("robust-bird", **{"density": 0.1, **options}).phases(small.phase(epochs=2), "digits-cnn")
    assert field in str(told.value)


def test_one_step_needs_a_threat_in_one_norm() -> None:
    base = small.phase(attack=None)
    with pytest.raises(ConfigError, match=r"method\.draw: expected natural or recipe"):
        RobustBird(density=0.1, draw="fgsm").phases(base, "digits-cnn")
