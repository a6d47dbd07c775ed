from pathlib import Path

import pytest
import torch
from torch import Tensor

import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.rewinding import Rewinding
from gossamer.objectives.fast_at import FastAT
from gossamer.runs import atomic
from gossamer.training.phases import Phase
from gossamer.training.run import run_phases
from gossamer.training.schedules import Steps

KERNELS = ("conv1.weight", "conv2.weight", "conv3.weight", "fc.weight")
ALL = 58_656


def trained(folder: Path, method: Rewinding, **changes: object) -> tuple[list[Phase], dict[str, dict[str, Tensor]]]:
    phases = list(method.phases(small.phase(epochs=2, **changes), "digits-cnn"))
    job = small.job(folder / "run")
    run_phases(phases, small.network, job)
    names = [path.stem for path in job.run.states.glob("*.safetensors")]
    return phases, {name: atomic.read_safetensors(job.run.state(name)) for name in names}


def start_of(phases: list[Phase], name: str, folder: Path, states: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    phase = next(each for each in phases if each.name == name)
    model = small.network()
    phase.start(model, small.scene(phase, small.job(folder / "other"), states))
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_the_largest_trained_weights_go_back_to_the_rewind_epoch(tmp_path: Path) -> None:
    phases, states = trained(tmp_path, Rewinding(density=0.1, rewind_epoch=1))
    assert [phase.name for phase in phases] == ["train", "round-1"]
    begun = start_of(phases, "round-1", tmp_path, states)
    end, early = states["train.end"], states["train.epoch-1"]
    joined = torch.cat([end[name].abs().flatten() for name in KERNELS])
    threshold = joined.sort(descending=True).values[int(0.1 * ALL) - 1]
    for name in KERNELS:
        kept = end[name].abs() >= threshold
        assert torch.equal(begun[name], torch.where(kept, early[name], 0.0))
    rest = [name for name in begun if name not in KERNELS]
    assert rest
    assert all(torch.equal(begun[name], early[name]) for name in rest)


def test_what_ships_keeps_the_mask_and_the_budget(tmp_path: Path) -> None:
    phases, states = trained(tmp_path, Rewinding(density=0.1, rewind_epoch=1))
    begun = start_of(phases, "round-1", tmp_path, states)
    final = states["final"]
    assert sum(int((final[name] != 0).sum()) for name in KERNELS) == int(0.1 * ALL)
    assert all(torch.equal(final[name] != 0, begun[name] != 0) for name in KERNELS)


def test_rounds_cut_an_equal_share_each_and_nest(tmp_path: Path) -> None:
    _, states = trained(tmp_path, Rewinding(density=0.25, rewind_epoch=0, rounds=2))
    first, second = states["round-1.end"], states["round-2.end"]
    assert sum(int((first[name] != 0).sum()) for name in KERNELS) == int(0.5 * ALL)
    assert sum(int((second[name] != 0).sum()) for name in KERNELS) == int(0.25 * ALL)
    assert all(bool(((first[name] != 0) | (second[name] == 0)).all()) for name in KERNELS)


def test_the_random_control_cuts_as_many_at_the_same_epoch_but_others(tmp_path: Path) -> None:
    phases, states = trained(tmp_path, Rewinding(density=0.1, rewind_epoch=1, rounds=2, choose="random"))
    begun = start_of(phases, "round-1", tmp_path, states)
    kept = torch.cat([(begun[name] != 0).flatten() for name in KERNELS])
    large = torch.cat([states["train.end"][name].abs().flatten() for name in KERNELS])
    assert int(kept.sum()) == int(0.1**0.5 * ALL)
    assert float(large[kept].mean()) == pytest.approx(float(large.mean()), rel=0.03)
    first, second = states["round-1.end"], states["round-2.end"]
    assert all(bool(((first[name] != 0) | (second[name] == 0)).all()) for name in KERNELS)


def test_relative_magnitudes_are_measured_by_the_mean_of_their_layer(tmp_path: Path) -> None:
    phases, states = trained(tmp_path, Rewinding(density=0.1, rewind_epoch=0, choose="relative"))
    begun, end = start_of(phases, "round-1", tmp_path, states), states["train.end"]
    relative = torch.cat([(end[name].abs() / end[name].abs().mean()).flatten() for name in KERNELS])
    kept = torch.cat([(begun[name] != 0).flatten() for name in KERNELS])
    assert int(kept.sum()) == int(0.1 * ALL)
    assert float(relative[kept].min()) >= float(relative[~kept].max())
    assert not torch.equal(kept, torch.cat([end[name].abs().flatten() for name in KERNELS]).argsort() >= ALL - 5865)


def test_the_mask_may_be_drawn_by_a_cheaper_training_at_another_rate() -> None:
    base = small.phase(epochs=4, select="held_out/pgd")
    method = Rewinding(density=0.1, rewind_epoch=0, draw="fgsm", draw_lr=0.1)
    dense, retrain = method.phases(base, "digits-cnn")
    assert (dense.objective, dense.select, dense.publish) == (FastAT(), None, (0,))
    assert dense.optimizer.lr == pytest.approx(0.1 * base.optimizer.lr)
    assert (retrain.objective, retrain.attack, retrain.optimizer) == (base.objective, base.attack, base.optimizer)
    assert Rewinding(density=0.1, rewind_epoch=0, draw="natural").phases(base, "digits-cnn")[0].attack is None
    assert Rewinding(density=0.1, rewind_epoch=0).phases(base, "digits-cnn")[0].objective == base.objective


def test_a_continued_schedule_trains_what_is_left_at_its_rates() -> None:
    base = small.phase(epochs=8, schedule=Steps(milestones=(0.5,)))
    retrain = Rewinding(density=0.1, rewind_epoch=3, schedule="continued").phases(base, "digits-cnn")[1]
    assert retrain.epochs == 5
    rates = [retrain.schedule(step, 50, 10) for step in (0, 9, 10, 49)]
    assert rates == [base.schedule(step + 30, 80, 10) for step in (0, 9, 10, 49)] == [1.0, 1.0, 0.1, 0.1]
    whole = Rewinding(density=0.1, rewind_epoch=3).phases(base, "digits-cnn")[1]
    assert (whole.epochs, whole.schedule) == (8, base.schedule)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"density": 0.0}, "method.density"),
        ({"density": 0.1, "rewind_epoch": -1}, "method.rewind_epoch"),
        ({"density": 0.1, "rewind_epoch": 2}, "method.rewind_epoch"),
        ({"density": 0.1, "rounds": 0}, "method.rounds"),
        ({"density": 0.1, "draw_lr": 0.0}, "method.draw_lr"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        Rewinding(**options).phases(small.phase(epochs=2), "digits-cnn")  # type: ignore[arg-type]
