"""The graph trains each distinct phase once: the grids of the lottery-ticket thesis, counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_sweeps import small

from gossamer.data import DATASETS, DataSet, from_tensors
from gossamer.data.registry import load
from gossamer.errors import ConfigError, DataError
from gossamer.recipe import build as room
from gossamer.recipe.protocols import read_question
from gossamer.sweep.measurement import Measurement
from gossamer.sweep.plan import Plan, plan
from gossamer.sweep.spec import expand, load_sweep

DENSITIES = [0.64, 0.4096, 0.2621, 0.1678, 0.1074, 0.0687, 0.044, 0.0281]
STRATEGIES = {"field": "method.choose", "values": ["magnitude", "random"]}


def synthetic(name: str, part: str, *, data_dir: Path | None = None, **options: Any) -> DataSet:
    images = torch.randint(0, 256, (200, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return replace(from_tensors(images, torch.arange(200) % (DATASETS[name].classes or 10), part=part), name=name)


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "load", synthetic)


def planned(axes: dict[str, Any], base: str = "rewinding/resnet20-cifar10-rewind-0", **more: Any) -> Plan:
    return plan(expand(load_sweep({"base": base, "axes": axes, **more})))


def of_phase(graph: Plan, name: str) -> list[Any]:
    return [node for node in graph.phases.values() if node.name == name]


def test_the_grid_of_the_thesis_is_20_dense_trainings_and_320_sparse_ones():
    strengths = {
        "natural": {"objective": {"name": "natural"}, "attack": None},
        **{f"pgd-{steps}": {"attack.steps": steps} for steps in (1, 2, 4, 8)},
    }
    axes = {
        "width": {"field": "model.width", "values": [1, 8]},
        "strength": {"list": strengths},
        "density": {"field": "method.density", "values": DENSITIES},
        "strategy": STRATEGIES,
        "replicate": {"seeds": 2},
    }
    graph = planned(axes, "rewinding/resnet20-cifar10-64.0-magnitude")
    assert len(graph.runs) == 320
    dense, sparse = of_phase(graph, "train"), of_phase(graph, "round-1")
    assert (len(dense), len(sparse)) == (20, 320)
    assert {node.used_by for node in dense} == {16}
    assert graph.epochs_alone == 2 * 160 * 320
    assert graph.epochs == 160 * (20 + 320)


def test_the_rewind_search_is_4_dense_trainings_that_publish_nine_epochs():
    epochs = [0, 1, 2, 4, 8, 16, 32, 64, 128]
    axes = {
        "rewind": {"field": "method.rewind_epoch", "values": epochs},
        "density": {"field": "method.density", "values": [0.3, 0.5, 0.7]},
        "strategy": STRATEGIES,
        "replicate": {"seeds": 4},
    }
    graph = planned(axes)
    assert len(graph.runs) == 216
    dense = of_phase(graph, "train")
    assert len(dense) == 4
    assert all(node.publish == tuple(epochs) for node in dense)
    assert len(of_phase(graph, "round-1")) == 216


def test_parents_come_before_their_children_and_runs_end_in_their_last_phase():
    axes = {
        "density": {"field": "method.density", "values": [0.5, 0.1]},
        "rounds": {"field": "method.rounds", "values": [1, 3]},
    }
    graph = planned(axes)
    seen: set[str] = set()
    for key, node in graph.phases.items():
        assert set(node.parents) <= seen
        seen.add(key)
    for run in graph.runs:
        *parents, last = run.phases
        assert graph.phases[last].parents == tuple(parents)
        assert [graph.phases[key].index for key in run.phases] == list(range(len(run.phases)))


def test_cases_of_one_recipe_are_one_run():
    axes = {
        "name": {"list": {"here": {"claim": "a"}, "there": {"claim": "b"}}},
        "density": {"field": "method.density", "values": [0.5, 0.1]},
    }
    graph = planned(axes)
    assert len(graph.runs) == 2
    assert [dict(labels) for labels in graph.runs[0].labels] == [
        {"name": "here", "density": 0.5},
        {"name": "there", "density": 0.5},
    ]


def test_a_case_that_cannot_be_trained_is_named_before_anything_starts():
    axes = {"rewind": {"field": "method.rewind_epoch", "values": [8, 160]}}
    with pytest.raises(ConfigError, match=r"case rewind=160: method\.rewind_epoch"):
        planned(axes)


def test_what_cannot_be_planned_here_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def load_here(name: str, part: str, **options: Any) -> DataSet:
        tried.append(name)
        if name == "digits":
            return load(name, part, **options)
        raise DataError("train_32x32.mat", expected="the official file", got="no download", remedy="bring it")

    monkeypatch.setattr(room, "load", load_here)
    axes = {"data": {"list": {"here": {}, "absent": {"data": {"name": "svhn"}}}}, "seed": {"seeds": 2}}
    cases = expand(load_sweep({"base": small(), "axes": axes}))
    with pytest.raises(DataError, match=r"case data=absent, seed=0: train_32x32\.mat"):
        plan(cases)
    tried.clear()
    here, absent = cases[:2], cases[2:]
    asked = [
        Measurement(question=read_question({"name": "weights"}), cases=each) for each in (here, [here[0], absent[0]])
    ]
    graph = plan(cases, measurements=asked, leave_out=True)
    assert [run.recipe for run in graph.runs] == [case.recipe for case in here]
    assert [node.name for node in graph.protocols] == [asked[0].name]
    assert [case for case, _ in graph.left_out] == ["data=absent, seed=0", "data=absent, seed=1"]
    assert all("bring it" in why for _, why in graph.left_out)
    assert tried.count("svhn") == 1
