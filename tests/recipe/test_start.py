"""A recipe's `start` takes the place of pretraining: with the same bits, once in a sweep, and checked first."""

import json
from pathlib import Path
from typing import Any

import lifecycle
import pytest
import torch
from safetensors.torch import load_file, save_file

import pairs
from gossamer.errors import ConfigError, DataError, GossamerError, RunError
from gossamer.recipe.build import build_data, build_phases
from gossamer.recipe.identity import content_of, phase_keys
from gossamer.recipe.load import validate
from gossamer.recipe.schema import Recipe
from gossamer.recipe.start import started_phases
from gossamer.recipe.train import train
from gossamer.sweep.plan import plan
from gossamer.sweep.spec import expand, load_sweep
from gossamer.sweep.tasks import perform, phase_task, run_task
from gossamer.training.phases import PRETRAIN
from gossamer.zoo.publish import publish

HYDRA = {"name": "hydra", "density": 0.1}


def recipe(**changes: Any) -> dict[str, Any]:
    """Return a recipe of three steps a phase."""
    return lifecycle.recipe(**{"machine": {"checkpoint_seconds": 600}, "training": {"epochs": 1}, **changes})


@pytest.fixture(scope="module", autouse=True)
def _no_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gossamer.recipe.train._draw_panel", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense run of the same network."""
    return train(recipe(method={"name": "dense"}), out=tmp_path_factory.mktemp("dense") / "run").folder.path


def state(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / "states" / f"{name}.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def keys(made: Recipe) -> list[str]:
    parts = build_data(made)
    return phase_keys(made, started_phases(made, parts)[0], parts)


@pytest.mark.parametrize("options", [HYDRA, {**HYDRA, "binary": True}], ids=["plain", "latent signs"])
def test_a_run_that_starts_from_pretrained_weights_ends_in_the_bits_of_one_that_pretrained(
    options: dict[str, Any], tmp_path: Path
):
    itself = train(recipe(method=options), out=tmp_path / "itself").folder.path
    given = itself / "states" / "pretrain.end.safetensors"
    started = train(recipe(method=options, start=str(given)), out=tmp_path / "started").folder.path
    for name in ("pretrain.end", "prune.end", "finetune.end", "final"):
        assert_same(state(started, name), state(itself, name))
    lines = [json.loads(line) for line in (started / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["phase"] for line in lines} == {"prune", "finetune"}


def test_a_dense_run_is_where_the_search_begins_and_the_record_says_which(dense: Path, tmp_path: Path):
    started = train(recipe(method=HYDRA, start=str(dense)), out=tmp_path / "run").folder.path
    assert_same(state(started, "pretrain.end"), state(dense, "final"))
    weight, pruned = state(dense, "final")["conv2.weight"], state(started, "prune.end")["conv2.weight"]
    assert torch.equal(pruned[pruned != 0], weight[pruned != 0])
    record = json.loads((started / "env.json").read_text(encoding="utf-8"))["start"]
    assert record == {"path": str(dense), "sha256": content_of(state(dense, "final"))}


def test_a_run_a_published_folder_and_a_file_of_the_same_tensors_are_one_start(dense: Path, tmp_path: Path):
    publish(dense, tmp_path / "plain", storage="dense")
    publish(dense, tmp_path / "sparse", storage="sparse")
    save_file(state(dense, "final"), tmp_path / "own.safetensors")
    starts = [dense, dense / "states" / "final.safetensors", *map(tmp_path.joinpath, ("plain", "sparse"))]
    found = [keys(validate(recipe(method=HYDRA, start=str(path)))) for path in (*starts, tmp_path / "own.safetensors")]
    assert all(each == found[0] for each in found)


def test_the_key_of_a_start_is_its_content_and_nothing_of_how_the_recipe_trains(dense: Path, tmp_path: Path):
    def of(**changes: Any) -> list[str]:
        return keys(validate(recipe(**{"method": HYDRA, "start": str(dense), **changes})))

    first, *rest = of()
    assert of(method={**HYDRA, "density": 0.2})[0] == first
    assert of(objective={"name": "trades"})[0] == first
    assert of(training={"epochs": 5})[0] == first
    assert of(training={"epochs": 5})[2] != rest[1]
    moved = {name: each.clone() for name, each in state(dense, "final").items()}
    moved["fc.bias"][0] += 1e-3
    save_file(moved, tmp_path / "moved.safetensors")
    other = of(start=str(tmp_path / "moved.safetensors"))
    assert not set(other) & {first, *rest}
    assert not set(of(start=None)) & {first, *rest}


def test_a_sweep_over_densities_takes_one_start_and_trains_it_nowhere(dense: Path):
    axes = {"density": {"field": "method.density", "values": [0.2, 0.1]}}
    graph = plan(expand(load_sweep({"base": recipe(method=HYDRA, start=str(dense)), "axes": axes})))
    (start,) = [node for node in graph.phases.values() if node.name == PRETRAIN]
    assert (start.epochs, start.used_by) == (0, 2)


def test_a_sweep_ends_in_the_bits_of_a_run_that_starts_alone(dense: Path, tmp_path: Path):
    values = recipe(method=HYDRA, start=str(dense))
    graph = plan(expand(load_sweep({"base": values, "axes": {"replicate": {"seeds": 1}}})))
    root = str(tmp_path / "store")
    tasks = [
        *(phase_task(node, root) for node in graph.phases.values()),
        *(run_task(node, root) for node in graph.runs),
    ]
    assert [perform(task) for task in tasks] == ["done"] * 4
    train(values, out=tmp_path / "alone")
    swept = tmp_path / "store" / "runs" / graph.runs[0].name
    assert_same(state(swept, "final"), state(tmp_path / "alone", "final"))
    record = json.loads((swept / "env.json").read_text(encoding="utf-8"))["start"]
    assert record["sha256"] == content_of(state(dense, "final"))


@pytest.mark.parametrize("name", ["hydra", "harp", "pwoa", "robust-admm", "magnitude", "atmc", "mad", "channels"])
def test_every_method_that_pretrains_can_start(name: str, dense: Path, tmp_path: Path):
    if name == "channels":
        pytest.importorskip("torch_pruning")
    values = pairs.recipe(name, "adversarial")
    assert build_phases(validate(values), build_data(validate(values)))[0].name == PRETRAIN
    seen = pairs.run_pair({**values, "start": str(dense)}, tmp_path / "run")
    assert seen.phases[0] == PRETRAIN
    assert_same(state(tmp_path / "run", "pretrain.end"), state(dense, "final"))


OWN = """
from torch import nn

def network(width=4):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 10))
"""


def test_a_network_of_ones_own_starts_from_its_own_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_start_nets.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    values = recipe(method=HYDRA, model={"name": "own_start_nets:network", "width": 3})
    own = {"0.weight": torch.rand(3, 1, 3, 3), "0.bias": torch.rand(3)}
    own |= {"3.weight": torch.rand(10, 108), "3.bias": torch.rand(10)}
    save_file(own, tmp_path / "own.safetensors")
    run = train({**values, "start": str(tmp_path / "own.safetensors")}, out=tmp_path / "run").folder.path
    assert_same(state(run, "pretrain.end"), own)


def test_a_run_goes_on_from_the_network_it_began_with_alone(dense: Path, tmp_path: Path):
    path = tmp_path / "given.safetensors"
    save_file(state(dense, "final"), path)
    values = recipe(method=HYDRA, start=str(path))
    pairs.run_pair(values, tmp_path / "run", break_at=4)
    moved = {name: each + 1 for name, each in state(dense, "final").items()}
    save_file(moved, path)
    with pytest.raises(RunError, match=r"the network that the run began from, of SHA-256 .* got another one"):
        train(values, out=tmp_path / "run")
    save_file(state(dense, "final"), path)
    train(values, out=tmp_path / "run")
    train(values, out=tmp_path / "unbroken")
    for name in ("prune.end", "final"):
        assert_same(state(tmp_path / "run", name), state(tmp_path / "unbroken", name))


def sparse(folder: Path, dense: Path) -> None:
    publish(dense, folder / "zoo")
    weights = folder / "zoo" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")


def test_what_cannot_be_a_start_is_refused_before_anything_is_written(dense: Path, tmp_path: Path):
    given = state(dense, "final")
    save_file({name: each for name, each in given.items() if name != "fc.bias"}, tmp_path / "less.safetensors")
    save_file({**given, "more": torch.zeros(1)}, tmp_path / "more.safetensors")
    save_file({**given, "fc.bias": torch.zeros(7)}, tmp_path / "shape.safetensors")
    save_file({**given, "fc.bias": torch.full((10,), torch.nan)}, tmp_path / "nan.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"no tensors")
    (tmp_path / "model.pt").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    sparse(tmp_path, dense)
    cases: list[tuple[str, type[GossamerError], str, dict[str, Any]]] = [
        ("gone", ConfigError, r"start: expected a finished run, a published folder or a \.safetensors file", {}),
        ("empty", ConfigError, r"start: .* got .*empty: a folder without one", {}),
        ("model.pt", ConfigError, r"start: .*a file \.pt.*gossamer convert", {}),
        ("torn.safetensors", RunError, "damaged", {}),
        ("less.safetensors", ConfigError, r"start: expected the \d+ tensors .*digits-cnn, got no fc\.bias", {}),
        ("more.safetensors", ConfigError, r"got more, which it has not", {}),
        ("shape.safetensors", ConfigError, r"got fc\.bias of \(7,\) instead of \(10,\)", {}),
        ("nan.safetensors", ConfigError, r"got fc\.bias with values that are not finite", {}),
        ("zoo", DataError, "SHA-256", {}),
        (str(dense), ConfigError, r"start: expected the recipe's network, digits-cnn of .*mean: \[0\.5\]", {"model": {
            "name": "digits-cnn", "mean": [0.5], "std": [0.5]}}),
        (str(dense), ConfigError, r"got bcs, whose phases are train", {"method": {"name": "bcs", "density": 0.1}}),
    ]  # fmt: skip
    for name, kind, said, changes in cases:
        values = recipe(**{"method": HYDRA, "start": str(tmp_path / name), **changes})
        with pytest.raises(kind, match=said):
            train(values, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_network_in_another_form_is_refused_with_where_to_look(tmp_path: Path):
    noisy = train(recipe(method={"name": "pni"}), out=tmp_path / "pni").folder.path
    with pytest.raises(ConfigError, match=r"start: expected .* dense one, got one of the form noisy"):
        train(recipe(method=HYDRA, start=str(noisy)), out=tmp_path / "run")


def test_a_run_that_is_not_finished_is_no_start(tmp_path: Path):
    pairs.run_pair(recipe(method={"name": "dense"}), tmp_path / "dense", break_at=1)
    with pytest.raises(RunError, match="expected the state final"):
        train(recipe(method=HYDRA, start=str(tmp_path / "dense")), out=tmp_path / "run")


def test_a_start_resumed_at_its_very_beginning_ends_in_the_same_bits(dense: Path, tmp_path: Path):
    values = recipe(method=HYDRA, start=str(dense))
    pairs.run_pair(values, tmp_path / "broken", break_at=0)
    train(values, out=tmp_path / "broken")
    train(values, out=tmp_path / "unbroken")
    for name in ("pretrain.end", "prune.end", "final"):
        assert_same(state(tmp_path / "broken", name), state(tmp_path / "unbroken", name))
