"""One run from recipe to results, and what can go wrong on the way."""

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lifecycle import metrics, recipe, status
from safetensors.torch import load_file

from gossamer.errors import ConfigError, RunError
from gossamer.models.registry import build
from gossamer.recipe.open import open_run
from gossamer.recipe.schema import Evaluation
from gossamer.recipe.train import result_name, train
from gossamer.runs import RunFolder, checkpoints
from gossamer.threat import ThreatModel
from gossamer.training.interruption import Interrupted
from gossamer.training.progress import Line, Silent

KEYS = [
    "phase",
    "epoch",
    "step",
    "learning_rate",
    "loss",
    "natural_loss",
    "adversarial_loss",
    "clean_accuracy",
    "robust_accuracy",
    "density",
    "active",
    "images_per_second",
    "seconds",
    "seconds_left",
]
BCS_KEYS = ["sparsifier/revived", "sparsifier/self_revived", "sparsifier/died"]


def final(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "states" / "final.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = final(one), final(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take as long as these small runs; the run that nothing disturbed has them."""
    monkeypatch.setattr("gossamer.recipe.train._draw_panel", lambda *_: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    return train(recipe(), out=tmp_path_factory.mktemp("whole") / "run").folder.path


def test_a_run_logs_an_epoch_a_line(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [[*KEYS, *BCS_KEYS]] * 2
    assert [(line["phase"], line["epoch"], line["step"]) for line in lines] == [("train", 1, 3), ("train", 2, 6)]
    # Six steps: the rate drops at steps 3 and 4, floor(6 * 0.5) and floor(6 * 0.75).
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.1, 0.001])
    for line in lines:
        assert line["loss"] == line["adversarial_loss"] > 0
        assert line["natural_loss"] is line["clean_accuracy"] is None
        assert 0 <= line["robust_accuracy"] <= 1
        assert line["active"] >= int(0.1 * 58_656)
        assert line["density"] == line["active"] / 58_656
        assert line["images_per_second"] == pytest.approx(60 / line["seconds"])
    assert [line["seconds_left"] > 0 for line in lines] == [True, False]


def test_a_run_ends_as_a_plain_sparse_network(whole: Path) -> None:
    assert status(whole) == {**status(whole), "state": "done", "phase": "train", "epoch": 2, "step": 6, "message": ""}
    network = build("digits-cnn")
    network.load_state_dict(final(whole), strict=True)
    kept = sum(int(torch.count_nonzero(p)) for name, p in network.named_parameters() if p.ndim > 1)
    assert kept == metrics(whole)[-1]["active"]
    assert sorted(path.name for path in (whole / "panel").iterdir()) == ["pgd-20.json", "pgd-20.safetensors"]
    assert [path.name for path in (whole / "results").iterdir()] == ["network.json"]
    opened = open_run(whole)
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(opened.model()(x), network.eval()(x))
    assert opened.threat == ThreatModel("linf", 0.15)
    assert len(opened.part("train")) == 60
    with pytest.raises(ConfigError, match="part of the data"):
        opened.part("held_out")
    with pytest.raises(RunError, match=r"expected the state train\.best, got the states final, train\.end"):
        opened.model("train.best")


def test_evaluations_of_one_attack_with_other_options_have_files_of_their_own(tmp_path: Path) -> None:
    specs = [
        {"attack": "pgd", "steps": 1, "n": 20},
        {"attack": "pgd", "steps": 2, "n": 20},
        {"attack": "pgd", "steps": 2},
        {"attack": "fgsm", "eps": [0.0, 0.1, 0.2], "n": 20},
        {"attack": "fgsm", "eps": [0.0, 0.15, 0.2], "n": 20},
    ]
    run = train(recipe(evaluation=specs), out=tmp_path / "run")
    written = {path.stem for path in run.folder.results.glob("*.json")} - {"network"}
    assert written == {result_name(Evaluation(**spec), run.threat) for spec in specs}
    assert len(written) == 5


def test_an_evaluation_is_named_by_attack_norm_and_radii() -> None:
    threat = ThreatModel("l2", 0.5)
    assert result_name(Evaluation(attack="fgsm"), threat) == "fgsm-l2-0.5"
    assert result_name(Evaluation(attack="my.attacks:Best", n=5), threat) == "my.attacks.Best-l2-0.5-n5"
    assert result_name(Evaluation(attack="fgsm", eps=("0", "1/4")), threat) == "fgsm-l2-0-to-0.25"  # type: ignore[arg-type]
    assert result_name(Evaluation(attack="fgsm", part="held_out", n=5), threat) == "fgsm-l2-0.5-held_out-n5"


def test_what_is_held_out_is_evaluated_where_something_is(tmp_path: Path) -> None:
    specs = [{"attack": "fgsm", "part": "held_out", "n": 20}]
    with pytest.raises(ConfigError, match="held_out, while nothing is held out"):
        train(recipe(evaluation=specs), out=tmp_path / "none")
    data = {**recipe()["data"], "split": {"held_out": 100}}
    run = train(recipe(evaluation=specs, data=data), out=tmp_path / "run")
    (written,) = (path for path in run.folder.results.glob("*.json") if path.stem != "network")
    measured = json.loads(written.read_text())
    assert measured["dataset"]["part"] == "held_out"
    held_out = run.parts.held_out
    assert held_out is not None
    assert set(measured["samples"]["index"]) <= set(held_out.index.tolist())


@pytest.mark.parametrize("seconds", [0.0, 1e9])
@pytest.mark.parametrize("every", [1, 2])
def test_how_often_one_looks_or_saves_does_not_change_what_is_trained(
    every: int, seconds: float, whole: Path, tmp_path: Path
) -> None:
    probes = [{"part": "train", "attacks": ["pgd"], "every": every, "n": 20}]
    values = recipe(training={"probes": probes}, machine={"checkpoint_seconds": seconds})
    run = train(values, out=tmp_path / "run").folder.path
    assert_same_weights(whole, run)
    measured = [line["train/pgd"] for line in metrics(run)]
    assert (measured[0] is None) == (every == 2)
    assert measured[1] is not None


def test_the_best_state_ships_where_one_is_selected(tmp_path: Path) -> None:
    values = recipe(
        data={"split": {"held_out": 0.2}},
        training={"epochs": 4, "probes": [{"part": "held_out"}], "select": "held_out/clean"},
    )
    run = train(values, out=tmp_path / "run").folder.path
    best, end = (load_file(run / "states" / f"train.{name}.safetensors") for name in ("best", "end"))
    assert all(torch.equal(best[name], end[name]) for name in best)
    measured = [line["held_out/clean"] for line in metrics(run)]
    assert len(measured) == 4
    network, held_out = open_run(run).model(), open_run(run).part("held_out")
    right = network(held_out.float(torch.arange(len(held_out)))).argmax(1) == held_out.labels
    assert float(right.double().mean()) == pytest.approx(max(measured))


def test_training_stops_once_nothing_rises(tmp_path: Path) -> None:
    # A rate of next to nothing leaves the accuracy where it is.
    values = recipe(
        method={"name": "dense"},
        training={
            "epochs": 9,
            "optimizer": {"lr": 1e-20},
            "probes": [{"part": "train", "n": 20}],
            "select": "train/clean",
            "early_stop": {"metric": "train/clean", "patience": 2, "restore": True},
        },
    )
    run = train(values, out=tmp_path / "run").folder.path
    measured = [line["train/clean"] for line in metrics(run)]
    last_rise = max(i for i, value in enumerate(measured) if value > max(measured[:i], default=-1.0))
    assert len(measured) == last_rise + 3 < 9
    assert status(run)["state"] == "done"


def test_another_recipe_is_refused_in_the_same_folder(whole: Path) -> None:
    with pytest.raises(RunError, match=r"expected a run of this recipe, got a run of another one; name another folder"):
        train(recipe(seed=1), out=whole)
    with pytest.raises(RunError, match="another one"):
        train(recipe(training={"epochs": 3}), out=whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": [{"attack": "fgms"}]},
        {"evaluation": [{"attack": "pgd", "stpes": 3}]},
        {"model": {"name": "digits-cn"}},
        {"method": {"name": "bcs", "density": 1.5}},
        {"training": {"probes": [{"part": "train", "attacks": ["fgms"]}]}},
        {"machine": {"device": "abacus"}},
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        train(recipe(**changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field", ["method", "objective", "attack", "evaluation"])
def test_what_cannot_be_is_refused_before_data_are_read(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("gossamer.recipe.build.load", never)
    wrong: Any = {"name": "no-such-thing"} if field != "evaluation" else [{"attack": "no-such-thing"}]
    with pytest.raises(ConfigError):
        train(recipe(**{field: wrong}), out=tmp_path / "run")


def test_another_number_of_threads_is_refused_unless_drift_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = recipe(machine={"threads": None})
    run = tmp_path / "run"
    stop_after_epoch(values, run, 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(RunError, match=r"threads: 1 then, 2 now; .*--allow-numeric-drift"):
        train(values, out=run)
    train(values, out=run, allow_numeric_drift=True)
    assert len(metrics(run)) == 2


class Stop(Silent):
    """Sends a signal when an epoch is shown."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def __enter__(self) -> "Stop":
        return self

    def epoch(self, line: Line, epochs: int) -> None:
        if line["epoch"] == self._epoch:
            signal.raise_signal(signal.SIGTERM)


def stop_after_epoch(values: dict[str, Any], run: Path, epoch: int) -> None:
    with pytest.raises(Interrupted, match="stopped by SIGTERM; a checkpoint is saved"):
        train(values, out=run, progress=Stop(epoch))
    assert status(run)["state"] == "interrupted"
    assert not (run / "states" / "final.safetensors").exists()


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_signal_between_two_epochs_or_after_the_last_one_is_heard(epoch: int, whole: Path, tmp_path: Path) -> None:
    stop_after_epoch(recipe(), tmp_path / "run", epoch)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(recipe(), out=tmp_path / "run")
    assert_same_weights(whole, tmp_path / "run")
    assert metrics(whole) == metrics(tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    diverging = {"epochs": 5, "optimizer": {"lr": 1e18}}
    values = recipe(method={"name": "dense"}, training=diverging, machine={"checkpoint_seconds": 1000})
    with pytest.raises(RunError, match=r"loss of train, epoch \d, step \d: expected a finite number, got (nan|inf)"):
        train(values, out=tmp_path / "run")
    seen = status(tmp_path / "run")
    assert seen["state"] == "failed"
    assert "lower training.optimizer.lr" in seen["message"]


def test_weights_that_are_not_finite_never_replace_the_last_good_checkpoint(tmp_path: Path) -> None:
    values = recipe(method={"name": "dense"}, training={"epochs": 5, "optimizer": {"lr": 1e18}})
    with pytest.raises(RunError, match=r"lower training\.optimizer\.lr"):
        train(values, out=tmp_path / "run")
    kept = checkpoints.load_last(RunFolder(tmp_path / "run"))
    assert kept is not None
    assert kept.warning is None
    assert 1 <= kept.step <= status(tmp_path / "run")["step"]
    weights = [value for name, value in kept.tensors.items() if name.startswith("model/") and value.is_floating_point()]
    assert all(bool(torch.isfinite(value).all()) for value in weights)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_a_lack_of_memory_is_told_and_the_run_resumes(
    error: Exception, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_step(4, error, monkeypatch)
    with pytest.raises(RunError, match=r"memory, in train, epoch 2, step 1: expected room for a batch of 20"):
        train(recipe(), out=tmp_path / "run")
    assert status(tmp_path / "run")["state"] == "failed"
    monkeypatch.undo()
    train(recipe(), out=tmp_path / "run")
    assert_same_weights(whole, tmp_path / "run")


def test_a_fault_of_ones_own_passes_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at_step(2, RuntimeError("a bug"), monkeypatch)
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        train(recipe(), out=tmp_path / "run")


def fail_at_step(number: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    from gossamer.training import loop  # noqa: PLC0415

    real, count = loop.make_batch, 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "make_batch", failing)


@pytest.mark.parametrize("at", [12, 21, 33, 40])
def test_a_full_disk_keeps_the_last_good_checkpoint(
    at: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device; free space"):
        train(recipe(), out=tmp_path / "run")
    monkeypatch.undo()
    kept = checkpoints.load_last(RunFolder(tmp_path / "run"))
    assert kept is None or kept.warning is None
    train(recipe(), out=tmp_path / "run")
    assert_same_weights(whole, tmp_path / "run")
    assert metrics(whole) == metrics(tmp_path / "run")


def test_a_second_process_is_refused(whole: Path) -> None:
    from gossamer.runs import lock  # noqa: PLC0415

    with lock.writer(RunFolder(whole)), pytest.raises(RunError, match="another process"):
        train(recipe(), out=whole)


@pytest.mark.parametrize("objective", ["natural", "trades", "mart", "mixed-batch"])
def test_every_objective_trains(objective: str, tmp_path: Path) -> None:
    attack = {} if objective == "natural" else {"steps": 1}
    values = recipe(objective={"name": objective}, training={"epochs": 1})
    values["attack"] = attack
    (line,) = metrics(train(values, out=tmp_path / "run").folder.path)
    assert line["loss"] > 0
    assert (line["adversarial_loss"] is None) == (objective == "natural")


@pytest.mark.parametrize("mode", ["eval", "batch", "train"])
def test_batch_norm_while_crafting(mode: str, tmp_path: Path) -> None:
    values = recipe(attack={"batch_norm": mode, "fast": False}, training={"epochs": 1})
    state = final(train(values, out=tmp_path / "run").folder.path)
    # Three steps, and in `train` the two attack steps and the start of each update the statistics as well.
    assert (int(state["bn1.num_batches_tracked"]) > 3) == (mode == "train")


def test_a_network_of_ones_own_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = """
from torch import nn

def net(hidden):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
"""
    (tmp_path / "own_network.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    values = recipe(model={"name": "own_network:net", "hidden": 16}, training={"epochs": 1})
    run = train(values, out=tmp_path / "run")
    assert metrics(run.folder.path)[0]["active"] == int(0.1 * (64 * 16 + 160))
    assert open_run(tmp_path / "run").model()(torch.rand(2, 1, 8, 8)).shape == (2, 10)
