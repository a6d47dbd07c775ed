import dataclasses
import json

import pytest
import torch

from gossamer.errors import RunError
from gossamer.runs import RunFolder, atomic, panel, status
from gossamer.runs.results import (
    AttackOutcome,
    Dataset,
    EvaluatedModel,
    Evaluation,
    Histogram,
    Layer,
    Network,
    Samples,
    Totals,
    evaluation_files,
    read_evaluation,
    read_network,
    write_evaluation,
    write_network,
)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run")


def evaluation():
    outcome = AttackOutcome(
        attack="pgd",
        parameters={"steps": 50, "restarts": 10, "step_size": 0.01},
        threat="linf:8/255",
        norm="linf",
        eps=8 / 255,
        robust_accuracy=0.5,
        interval=(0.15, 0.85),
        n=4,
        seconds=1.5,
        robust=(1, 1, 0, 0),
        rejected=0,
    )
    return Evaluation(
        run="run",
        dataset=Dataset(name="toy", part="test", checksum="ab12", selection="first 4", n=4),
        model=EvaluatedModel(name="mlp", weights=100, nonzero=10, density=0.1),
        n=4,
        seed=0,
        clean_accuracy=0.75,
        clean_interval=(0.3, 0.95),
        robust_accuracy=0.5,
        interval=(0.15, 0.85),
        attack="pgd",
        attack_parameters={"steps": 50, "restarts": 10},
        threat="linf:8/255",
        eps=8 / 255,
        density=0.1,
        nonzero=10,
        weights=100,
        seconds=1.5,
        batch_size=4,
        environment={"torch": "2"},
        samples=Samples(
            index=(0, 1, 2, 3), label=(0, 1, 0, 1), clean_prediction=(0, 1, 0, 0), clean_correct=(1, 1, 1, 0)
        ),
        attacks=(outcome,),
    )


def test_an_evaluation_comes_back_equal(run):
    path = write_evaluation(run, "pgd", evaluation())
    assert read_evaluation(path) == evaluation()
    assert Evaluation.from_json(evaluation().to_json()) == evaluation()


def test_only_evaluations_are_listed_as_such(run):
    path = write_evaluation(run, "pgd", evaluation())
    atomic.write_json(run.result("audit"), {"schema": "gossamer/audit/1"})
    atomic.write_json(run.result("list"), [1])
    run.result("broken").write_text("{")
    assert evaluation_files(run) == [run.result("broken"), path]


@pytest.mark.parametrize("schema", ["gossamer/evaluation/2", "other", None])
def test_another_schema_is_refused(schema):
    value = {**evaluation().to_json(), "schema": schema}
    with pytest.raises(RunError, match="expected schema gossamer/evaluation/1"):
        Evaluation.from_json(value)
    with pytest.raises(RunError, match="got no schema"):
        Evaluation.from_json([])


def test_a_fault_is_named_by_its_place():
    value = json.loads(json.dumps(evaluation().to_json()))
    value["attacks"][0]["eps"] = "8/255"
    with pytest.raises(RunError, match=r"attacks\.0\.eps"):
        Evaluation.from_json(value)
    value = {**evaluation().to_json(), "surprise": 1}
    with pytest.raises(RunError, match="surprise"):
        Evaluation.from_json(value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"n": 5}, "expected 5 samples"),
        ({"robust_accuracy": 50.0}, "share in"),
        ({"density": -0.1}, "share in"),
    ],
)
def test_a_contradiction_in_the_evaluation_is_refused(change, complaint):
    with pytest.raises(RunError, match=complaint):
        dataclasses.replace(evaluation(), **change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"robust": (1, 1)}, "4 outcomes"),
        ({"robust": (1, 0, 0, 0)}, "robust_accuracy 0.25"),
        ({"robust": (1, 0, 0, 1)}, "wrong when clean"),
    ],
)
def test_a_contradiction_in_the_outcomes_is_refused(change, complaint):
    value = evaluation().to_json()
    value["attacks"][0].update(change)
    with pytest.raises(RunError, match=complaint):
        Evaluation.from_json(value)


def network():
    histogram = Histogram(edges=(-1.0, 0.0, 1.0), counts=(3, 7), zeros=90)
    layer = Layer(
        name="conv",
        block="stem",
        shape=(4, 1, 5, 5),
        weights=100,
        nonzero=10,
        density=0.1,
        multiply_adds=6400,
        kept_multiply_adds=640,
        histogram=histogram,
    )
    totals = Totals(weights=100, nonzero=10, density=0.1, multiply_adds=6400, kept_multiply_adds=640)
    return Network(layers=(layer,), totals=totals, work_ratio=10.0, histogram=histogram)


def test_a_network_comes_back_equal(run):
    write_network(run, network())
    assert read_network(run) == network()
    with pytest.raises(RunError, match="gossamer/network/1"):
        Network.from_json(evaluation().to_json())
    with pytest.raises(RunError, match="3 edges"):
        Histogram(edges=(0.0, 1.0), counts=(1, 2), zeros=0)


def test_a_status_comes_back_equal(run):
    assert status.read(run) is None
    told = status.Status(
        state="running",
        phase="train",
        epoch=3,
        step=120,
        message="",
        started="2026-01-01T00:00:00+00:00",
        updated="2026-01-01T00:10:00+00:00",
        seconds_trained=600.0,
    )
    status.write(run, told)
    assert status.read(run) == told
    run.status.write_text('{"state": "asleep"}')
    with pytest.raises(RunError, match="Status"):
        status.read(run)


def captions(**changes):
    values = {
        "attack": "pgd",
        "threat": "linf:8/255",
        "classes": ("cat", "dog"),
        "labels": (0, 1),
        "clean_predictions": (0, 1),
        "clean_confidences": (0.9, 0.8),
        "adversarial_predictions": (1, 1),
        "adversarial_confidences": (0.6, 0.7),
        "ladder": panel.Ladder(eps=(0.0, 0.1, 0.2), label=0, predictions=(0, 0, 1), confidences=(0.9, 0.6, 0.5)),
    }
    return panel.Captions(**{**values, **changes})


def pictures(**changes):
    generator = torch.Generator().manual_seed(0)
    values = {
        "images": torch.randint(0, 256, (2, 3, 4, 4), generator=generator, dtype=torch.uint8),
        "adversarial": torch.rand(2, 3, 4, 4, generator=generator),
        "ladder": torch.rand(3, 3, 4, 4, generator=generator),
        "captions": captions(),
    }
    return panel.Panel(**{**values, **changes})


def test_a_panel_comes_back_equal(run):
    panel.write(run, "pgd", pictures())
    assert panel.names(run) == ["pgd"]
    found = panel.read(run, "pgd")
    assert found.captions == captions()
    for name in ("images", "adversarial", "ladder"):
        assert torch.equal(getattr(found, name), getattr(pictures(), name))


def test_a_panel_without_a_ladder_comes_back(run):
    panel.write(run, "pgd", pictures(ladder=None, captions=captions(ladder=None)))
    assert panel.read(run, "pgd").ladder is None


@pytest.mark.parametrize(
    "changes",
    [
        {"images": torch.zeros(2, 3, 4, 4)},
        {"images": torch.zeros(3, 3, 4, 4, dtype=torch.uint8)},
        {"adversarial": torch.zeros(2, 3, 4, 5)},
        {"ladder": None},
        {"ladder": torch.zeros(2, 3, 4, 4)},
        {"captions": captions(clean_predictions=(0,))},
    ],
)
def test_pictures_and_captions_must_fit(changes):
    with pytest.raises(RunError, match="draw the panel again"):
        pictures(**changes)
