import argparse
from functools import partial

import pytest
import torch

import mask_update
import phase_cases
import record
from contestants import Setting
from gossamer.methods.registry import METHODS
from gossamer.objectives.distillation import Distillation
from gossamer.seeding import Draws
from gossamer.sparsity import HardMask, HeldMask, Horizon, NoSparsifier
from gossamer.sparsity.admm import ADMM, Interval
from gossamer.sparsity.dynamic_mask import DynamicMask
from gossamer.sparsity.gradual import GradualPruning
from gossamer.sparsity.sets import Sparse
from gossamer.sparsity.twin import TwinRepresentation

SETTING = Setting(network="resnet20", batch=2, steps=1, threads=1)


def attached(sparsifier, epochs, steps):
    horizon = Horizon(epochs=epochs, steps_per_epoch=steps, image_shape=(1, 8, 8))
    sparsifier.attach(torch.nn.Linear(4, 4), Draws(), horizon)
    return sparsifier


@pytest.mark.parametrize(
    ("sparsifier", "expected"),
    [
        (HardMask(density=0.5), mask_update.Pace(quiet=0, busy=(), share=0.0)),
        # Steps 10, 20, ..., 70 of 100 are due, counted from 1.
        (DynamicMask(density=0.5, every=10), mask_update.Pace(quiet=0, busy=(19, 29, 39), share=0.07)),
        # Up to the 75th, after which nothing moves.
        (DynamicMask(density=0.5, every=1), mask_update.Pace(quiet=74, busy=(1, 2, 3), share=0.74)),
        (
            GradualPruning(density=0.5, begin=0.0, end=0.5, every=25),
            mask_update.Pace(quiet=0, busy=(49,), share=0.02),
        ),
        # Five epochs of 20 steps, and every second of them.
        (
            ADMM(density=0.5, constraint=Sparse(), rho=0.1, interval=Interval(2)),
            mask_update.Pace(quiet=0, busy=(79,), share=0.02),
        ),
        (TwinRepresentation(density=0.5, cut_after=3), mask_update.Pace(quiet=0, busy=(59,), share=0.01)),
    ],
)
def test_a_sparsifier_says_on_which_steps_it_does_more(sparsifier, expected):
    assert mask_update.pace(attached(sparsifier, 5, 20), 100) == expected


def test_a_cut_at_an_epochs_end_is_made_where_it_is_timed():
    twin = attached(TwinRepresentation(density=0.5, cut_after=2), 5, mask_update.STEPS_PER_EPOCH)
    [step] = mask_update.pace(twin, 5 * mask_update.STEPS_PER_EPOCH).busy
    mask_update.end_epoch(twin, step - 1)
    assert twin.masks().kept == 16
    mask_update.end_epoch(twin, step)
    assert twin.masks().kept == 8


def test_shares_are_formed_within_a_round():
    row = {"dense": [10.0, 20.0], "mean": [0.1, 0.4], "busy": [3.0, 3.0]}
    found = mask_update.shares(row)
    assert (found["mean"]["min"], found["mean"]["max"], found["mean"]["n"]) == (0.01, pytest.approx(0.02), 2)
    assert (found["busy"]["min"], found["busy"]["max"]) == (0.15, 0.3)


def test_callables_of_one_name_are_told_apart_by_what_they_hold():
    def make(inner, density):
        return HeldMask() if density else inner()

    same = phase_cases.identity(partial(make, NoSparsifier, density=0.1))
    assert same == phase_cases.identity(partial(make, NoSparsifier, density=0.1))
    assert same != phase_cases.identity(partial(make, HeldMask, density=0.1))
    assert same != phase_cases.identity(partial(make, NoSparsifier, density=0.2))
    one, other = (phase_cases._phases(phase_cases.CASES[name], SETTING, 0.1) for name in ("hydra", "hydra-binary"))
    assert phase_cases.identity(one[1].sparsifier) != phase_cases.identity(other[1].sparsifier)
    bound = {name: phase_cases._phases(phase_cases.CASES[name], SETTING, 0.1) for name in ("robust-admm", "pwoa")}
    assert phase_cases.identity(bound["robust-admm"][1].sparsifier) != phase_cases.identity(bound["pwoa"][1].sparsifier)


def test_every_phase_of_every_method_takes_part():
    known = phase_cases.subjects(SETTING, 0.1)
    assert {name.partition("/")[0] for name in known} == set(phase_cases.CASES) >= set(METHODS)
    assert all(known[subject.measured_as].measured_as == subject.measured_as for subject in known.values())
    own = {name for name, subject in known.items() if subject.timed_as == name}
    assert {"one-shot-admm/train", "robust-admm/admm", "pwoa/admm", "twinrep/train", "rsr/natural"} <= own
    assert {"atmc-1-bit/quantise", "atmc-8-bits/quantise", "one-shot-admm-quantised/train"} <= own
    assert known["robust-admm/retrain"].timed_as == known["robust-admm/retrain"].measured_as == "hydra/finetune"
    assert known["dense/train"].timed_as is None
    # The noise is the same in both, the training attack is not.
    assert (known["pni/train"].timed_as, known["pni/train"].measured_as) == ("pni/natural", "pni/train")


def test_phases_are_measured_with_what_they_train_with():
    known = phase_cases.subjects(SETTING, 0.1)
    own = {name for name, subject in known.items() if subject.measured_as == name}
    taught = known["pwoa/finetune"]
    assert isinstance(taught.phase.objective, Distillation)
    assert taught.phase.attack is None
    assert {"pwoa/finetune", "mad/cut", "twinrep-filters/train", "bcs-awp/train", "bcs-ema/train"} <= own
    assert {"hydra-s2ap/prune", "hydra-binary/prune", "robust-subnet-fast/train"} <= own
    weights = mask_update.contestants.initial_weights(SETTING)
    held = mask_update.holder(taught, weights, SETTING)
    assert held.training.objective.teacher is not None
    average = mask_update.holder(known["bcs-ema/train"], weights, SETTING).training.average
    assert average is not None
    assert known["bcs-awp/train"].phase.perturbation is not None


def options(tmp_path, **changes):
    given = {"density": 0.1, "rounds": 1, "gradient_batch": 2, "together": 1, "memory": True, "out": tmp_path}
    return argparse.Namespace(**{**given, **changes})


def test_rows_that_are_there_are_not_measured_again(monkeypatch, tmp_path):
    asked = []
    row = {"dense": [10.0], "mean": [0.1], "busy": [0.5], "share_of_steps": 0.1}
    monkeypatch.setattr(
        mask_update, "race", lambda s, names, k, o: asked.extend(names) or {n: dict(row) for n in names}
    )
    monkeypatch.setattr(
        mask_update,
        "_in_fresh_process",
        lambda name, s, d: asked.append(f"peak {name}") or {"before": 1.0, "peak": 2.0},
    )
    known = phase_cases.subjects(SETTING, 0.1)
    chosen = ["bcs/train", "bcs-ema/train", "hydra/pretrain"]
    rows = {"bcs/train": {**row, "peak": 3.0}}
    list(mask_update.measure(rows, known, SETTING, options(tmp_path, methods=chosen)))
    assert asked == ["peak dense/train", "peak bcs-ema/train"]
    record.write(mask_update._result(SETTING, rows, known, options(tmp_path)), tmp_path)
    about = mask_update._about(SETTING, options(tmp_path))
    path = tmp_path / "mask-update-resnet20.json"
    assert mask_update.made_before(path, about) == rows
    assert mask_update.made_before(tmp_path / "none.json", about) == {}
    with pytest.raises(SystemExit, match="leave --resume out"):
        mask_update.made_before(path, {**about, "density": 0.5})


def test_the_result_shows_both_shares_and_whose_numbers_stand(tmp_path):
    known = phase_cases.subjects(SETTING, 0.1)
    rows = {
        "dense/train": {"before": 500.0, "peak": 1000.0},
        "rewinding/round-1": {"dense": [10.0], "mean": [0.1], "busy": [0.1], "share_of_steps": 0.0, "peak": 1200.0},
        "rigl/train": {"dense": [10.0], "mean": [0.1], "busy": [0.5], "share_of_steps": 0.01},
    }
    made = mask_update._result(SETTING, rows, known, options(tmp_path))
    measured = {claim.what: (claim.measured, claim.verdict) for claim in made.claims}
    assert measured == {
        "rewinding/round-1 on resnet20: share of a PGD-1 step that masks cost, over a whole training": (0.01, "met"),
        "rigl/train on resnet20: share of a PGD-1 step that masks cost, over a whole training": (0.01, "met"),
        "rigl/train on resnet20: share of a PGD-1 step that masks cost, on a step on which they move": (
            0.05,
            "not met",
        ),
        "rewinding/round-1 on resnet20: peak memory of a step, beside the dense network's": (1.2, "met"),
    }
    shown = {row[0]: row[1:] for row in made.tables[0].rows}
    assert shown["early-mask/train"] == [
        "rewinding/round-1", 0.01, 0.01, 0.01, "every step", "rewinding/round-1", 1200.0, 1.2, None
    ]  # fmt: skip
    assert shown["rigl/train"][:5] == [None, 0.01, 0.01, 0.05, "1.000% of the steps"]
    assert shown["bcs/train"] == [None] * 9


def test_a_phase_that_is_not_there_ends_the_program(monkeypatch):
    monkeypatch.setattr(mask_update, "measure", pytest.fail)
    with pytest.raises(SystemExit, match="no such phases: bcs/nothing"):
        mask_update.main(["--network", "resnet20", "--methods", "bcs/nothing", "--threads", "1"])


@pytest.mark.long
def test_a_sparsifier_is_timed_beside_the_dense_step(tmp_path):
    known = phase_cases.subjects(SETTING, 0.1)
    rows = mask_update.race(SETTING, ["bcs/train", "rigl/train"], known, options(tmp_path))
    assert list(rows) == ["bcs/train", "rigl/train"]
    assert all(0.0 < row["mean"][0] <= row["busy"][0] < row["dense"][0] * 10 for row in rows.values())


@pytest.mark.long
@pytest.mark.parametrize("name", ["dense/train", "pwoa/finetune", "twinrep-filters/train", "robust-subnet-fast/train"])
def test_one_step_of_a_phase_is_taken(name):
    row = mask_update.peak_memory(name, SETTING, 0.1)
    assert 0.0 < row["before"] <= row["peak"]
    # A float32 for each of 3 * 32 * 32 numbers of 50,000 images, and a count of visits.
    assert ("stored_mib" in row) == (name == "robust-subnet-fast/train")
    assert row.get("stored_mib", 586.0) == pytest.approx(586.0, abs=1.0)
