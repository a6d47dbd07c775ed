"""How rewinding and one-shot ADMM are rebuilt: the places of their entries, and what is read of stages and epochs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gossamer.intervals import wilson
from gossamer.recipe.build import build_threat
from gossamer.recipe.load import run_name
from gossamer.recipe.train import result_name
from gossamer.reproduce.published import At, entries, load_entry
from gossamer.reproduce.reading import Number, read_number
from gossamer.reproduce.scales import Place, Reading, Study, load_study, places
from gossamer.runs import RunFolder, results
from gossamer.sweep.plan import plan
from gossamer.sweep.spec import Case, expand
from gossamer.sweep.tasks import perform, phase_task, run_task

STUDIES = [(study, scale) for study in ("rewinding", "one-shot-admm") for scale in ("smoke", "paper")]


def study_of(name: str, scale: Any) -> Study:
    study = load_study(name, scale)
    assert study is not None
    return study


@pytest.mark.parametrize(("name", "scale"), STUDIES)
def test_every_entry_is_said_and_every_place_is_one_that_was_published(name: str, scale: str) -> None:
    study = study_of(name, scale)
    assert set(study.entries) == {each.partition("/")[2] for each in entries() if each.startswith(f"{name}/")}
    used: set[str] = set()
    for entry_name, ours in study.entries.items():
        entry = load_entry(f"{name}/{entry_name}")
        found = places(entry, ours, study)
        at = [str(sorted(place.at.items())) for place in found]
        assert len(set(at)) == len(at)
        printed = {str(sorted(cell.at.items())) for cell in entry.cells}
        # Along a curve ours may have points of their own, at labels that no cell has on x alone.
        x = "" if entry.figure is None else entry.figure.x
        elsewhere = {str(_without(cell.at, x)) for cell in entry.cells}
        assert all(str(_without(place.at, x)) in elsewhere for place in found)
        assert x in entry.axes or set(at) <= printed
        assert all(set(place.measures) <= set(entry.measures) for place in found)
        assert ours.missing or set(at) >= printed
        used |= {run_name(case.recipe) for place in found for case in place.cases}
    assert used == {run_name(case.recipe) for sweep in study.sweeps.values() for case in expand(sweep)}


def _without(at: At, axis: str) -> list[tuple[str, Any]]:
    return sorted((name, label) for name, label in at.items() if name != axis)


@pytest.mark.parametrize("scale", ["smoke", "paper"])
@pytest.mark.parametrize(
    ("which", "radii"), [("figure-4.5", 10), ("figure-C.1", 10), ("figure-4.6", 5), ("figure-C.2", 5)]
)
def test_every_radius_of_a_curve_is_one_that_its_runs_are_evaluated_at(which: str, radii: int, scale: str) -> None:
    study = study_of("one-shot-admm", scale)
    found = places(load_entry(f"one-shot-admm/{which}"), study.entries[which], study)
    curves: dict[str, list[float]] = {}
    for place in found:
        curves.setdefault(str(_without(place.at, "attack_eps")), []).append(float(place.at["attack_eps"]))
        reading, case = place.measures["robust"], place.cases[0]
        if reading.attack is not None:
            asked = [
                each
                for each in case.recipe.evaluation
                if each.attack == reading.attack and each.options["steps"] == 100
            ]
            assert any(reading.eps in (each.eps or ()) for each in asked), place.at
        if reading.protocol is not None:
            assert reading.pick["eps"] in (reading.protocol.eps or ())
    assert all(len(own) == len(set(own)) == radii for own in curves.values())


def pair(study: Study, **fields: Any) -> list[Case]:
    """Return the dense case of the small network under PGD-2, and one that was cut from it."""
    sweep = study.sweeps["grid"].model_copy(
        update={
            "set": {**study.sweeps["grid"].set, **fields},
            "only": (
                {"strategy": ("dense",), "density": (1.0,), "width": (0.5,), "steps": ("pgd-2",), "seed": (0,)},
                {"strategy": ("random",), "density": (0.2621,), "width": (0.5,), "steps": ("pgd-2",), "seed": (0,)},
            ),
        }
    )
    return expand(sweep)


def test_a_dense_place_is_the_network_that_sparse_ones_were_cut_from() -> None:
    phases = [run.phases for run in plan(pair(study_of("rewinding", "smoke"))).runs]
    assert phases[0] == phases[1][:1]


def test_early_masks_share_their_first_epochs_and_stand_beside_the_masks_of_other_figures() -> None:
    study = study_of("rewinding", "smoke")
    graph = plan(expand(study.sweeps["early-masks"]))
    # Of three scores at two densities: six initial networks and six of the third epoch, which are one until then.
    assert Counter((node.name, node.epochs) for node in graph.phases.values()) == {
        ("train", 22): 1 + 6,
        ("train", 3): 1,
        ("choose", 0): 12,
        ("round-1", 22): 4 + 6,
    }
    assert {node.publish for node in graph.phases.values() if node.name == "train" and node.used_by > 1} == {(3,)}
    elsewhere = {run_name(case.recipe) for case in expand(study.sweeps["grid"])}
    shared = {str(run.labels[0]["mask"]) for run in graph.runs if run.name in elsewhere}
    assert shared == {"magnitude-8", "random-8"}


@pytest.mark.long
def test_a_dense_run_and_a_sparse_one_are_put_together_of_one_training(tmp_path) -> None:
    fields = {"data.train_n": 40, "training.epochs": 4, "evaluation": [{"attack": "pgd", "steps": 2, "n": 10}]}
    graph = plan(pair(study_of("rewinding", "smoke"), **fields))
    assert len(graph.phases) == 2
    for node in graph.phases.values():
        perform(phase_task(node, str(tmp_path)))
    for run in graph.runs:
        perform(run_task(run, str(tmp_path)))
    dense, sparse = (results.read_network(RunFolder(tmp_path / "runs" / run.name)).totals for run in graph.runs)
    assert dense.density == 1.0
    assert sparse.nonzero == int(0.2621 * dense.nonzero)


@pytest.mark.parametrize("which", ["figure-3.1", "figure-A.2"])
def test_pictures_of_rising_radii_are_of_the_published_network_and_attack(which: str) -> None:
    study = study_of("one-shot-admm", "paper")
    every = places(load_entry(f"one-shot-admm/{which}"), study.entries[which], study)
    # Figure A.2 shows other networks beside.
    found = [place for place in every if place.at.get("network", "resnet34 at 0.016") == "resnet34 at 0.016"]
    assert len(found) == 9
    for place in found:
        (case,), reading = place.cases, place.measures["robust"]
        threat, attack = build_threat(case.recipe), case.recipe.attack.options
        assert (threat.norm, threat.eps, attack["steps"]) == ("linf", 0.016, 7)
        # No stages: every epoch is trained at the whole radius.
        assert (case.recipe.method.options["eps"], case.recipe.method.options["steps"]) == ([], [])
        assert (reading.attack, reading.parameters, reading.eps) == ("pgd", {"steps": 7}, place.at["attack_eps"])
        (asked,) = case.recipe.evaluation
        assert asked.options["steps"] == 7
        assert reading.eps in (asked.eps or ())


def test_epochs_of_a_log_stand_at_the_labels_that_were_published() -> None:
    study = study_of("rewinding", "smoke")
    found = places(load_entry("rewinding/figure-C-7"), study.entries["figure-C-7"], study)
    assert {(place.at["epoch"], place.epoch) for place in found} == {(80, 11), (100, 14), (120, 16), (160, 22)}


def lay_down(store: Path, case: Case) -> None:
    run = RunFolder.create(store / "runs" / run_name(case.recipe))
    bars = results.Histogram(edges=(-1.0, 1.0), counts=(10,), zeros=0)
    work = {"weights": 10, "nonzero": 10, "density": 1.0, "multiply_adds": 10, "kept_multiply_adds": 10}
    results.write_network(
        run, results.Network(layers=(), totals=results.Totals(**work), work_ratio=1.0, histogram=bars)
    )
    stages = (("apgd-ce", 4, 1, 0.75), ("fab", 3, 1, 0.5))
    outcome = results.AttackOutcome(
        attack="autoattack-early",
        parameters={"version": "early"},
        threat="linf:0.15",
        norm="linf",
        eps=0.15,
        robust_accuracy=0.5,
        interval=wilson(2, 4),
        n=4,
        seconds=1.0,
        robust=(1, 1, 0, 0),
        rejected=0,
        stages=tuple(
            results.Stage(attack=name, parameters={}, attacked=n, broken=fell, robust_accuracy=left, seconds=0.1)
            for name, n, fell, left in stages
        ),
    )
    evaluation = results.Evaluation(
        run="r",
        dataset=results.Dataset(name="digits", part="test", checksum="c", selection="all", n=4),
        model=results.EvaluatedModel(name="r", weights=10, nonzero=10, density=1.0),
        n=4,
        seed=0,
        clean_accuracy=1.0,
        clean_interval=wilson(4, 4),
        robust_accuracy=0.5,
        interval=wilson(2, 4),
        attack=outcome.attack,
        attack_parameters=outcome.parameters,
        threat="linf:0.15",
        eps=0.15,
        density=1.0,
        nonzero=10,
        weights=10,
        seconds=1.0,
        batch_size=4,
        samples=results.Samples(index=(0, 1, 2, 3), label=(0,) * 4, clean_prediction=(0,) * 4, clean_correct=(1,) * 4),
        attacks=(outcome,),
        environment={},
    )
    (spec,) = (each for each in case.recipe.evaluation if each.attack == "autoattack-early")
    results.write_evaluation(run, result_name(spec, build_threat(case.recipe)), evaluation)
    lines = [("train", 1, 0.5), ("train", 2, 0.625), ("round-1", 1, 0.25), ("round-1", 2, 0.375)]
    told = [{"phase": phase, "epoch": epoch, "test/pgd-1": share} for phase, epoch, share in lines]
    run.metrics.write_text("".join(f"{json.dumps(line)}\n" for line in told))


def alone(case: Case, reading: Reading, epoch: int | None) -> Place:
    return Place(at={}, cases=[case], measures={"it": reading}, layers=(), epoch=epoch, beside=[[]], measurements={})


@pytest.mark.parametrize(
    ("reading", "epoch", "value"),
    [
        (Reading(attack="autoattack-early", stage="apgd-ce"), None, 75.0),
        (Reading(attack="autoattack-early"), None, 50.0),
        (Reading(metric="test/pgd-1", percent=True), 1, 25.0),
        (Reading(metric="test/pgd-1", percent=True), None, 37.5),
        (Reading(metric="test/pgd-1"), 1, 0.25),
    ],
)
def test_a_stage_and_an_epoch_of_the_last_phase_are_read(tmp_path, reading, epoch, value) -> None:
    case = expand(study_of("one-shot-admm", "smoke").sweeps["grid"])[0]
    lay_down(tmp_path, case)
    number = read_number(alone(case, reading, epoch), "it", tmp_path)
    assert isinstance(number, Number)
    assert number.value == value
    # After a stage before the last, nothing says which samples are left: no test of a claim, but an interval.
    assert (number.right is None) == (reading.attack is None or reading.stage is not None)
    assert (number.n, number.interval is None) == ((4, False) if reading.attack else (None, True))


def test_a_stage_that_the_attack_has_not_is_no_number(tmp_path) -> None:
    case = expand(study_of("one-shot-admm", "smoke").sweeps["grid"])[0]
    lay_down(tmp_path, case)
    place = alone(case, Reading(attack="autoattack-early", stage="square"), None)
    assert read_number(place, "it", tmp_path) is None


@pytest.mark.parametrize("said", [{"of": "clean", "stage": "fab"}, {"attack": "pgd", "percent": True}])
def test_a_stage_without_an_attack_and_percent_without_a_metric_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="stage with an attack"):
        Reading.model_validate(said)
