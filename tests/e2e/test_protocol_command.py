"""`gossamer protocol` as a user types it, on two small runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from gossamer.cli.main import main
from gossamer.recipe.protocols import PROTOCOLS

SMALL = ["--set", "training.epochs=1", "--set", "attack.steps=2", "--set", "evaluation=[]"]


def gossamer(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocols")
    for name, recipe in (("sparse", "bcs/digits-90"), ("other", "random/digits-90")):
        assert gossamer("train", recipe, "--out", str(folder / name), *SMALL) == 0
    return folder


def ask(folder: Path, name: str, *words: str, runs: tuple[str, ...] = ("sparse",)) -> dict:
    paths = [str(folder / run) for run in runs]
    asked = ["--n", "20", "--device", "cpu", "--json", str(folder / "out.json"), *words]
    assert gossamer("protocol", name, *paths, *asked) == 0
    return json.loads((folder / "out.json").read_text())


def test_effort_is_printed_and_written_and_not_measured_twice(workplace, capsys):
    words = ["--option", "steps=[1,2]", "--option", "restarts=[1]", "--eps", "0.1"]
    made = ask(workplace, "effort", *words, runs=("sparse", "other"))
    assert made["schema"] == "gossamer/effort/1"
    assert [row["model"]["name"] for row in made["rows"]] == ["sparse", "other"]
    told = capsys.readouterr().out
    assert "robust accuracy over steps x restarts, linf:0.1, n = 20" in told
    cells = workplace / "sparse/partial/protocols"
    before = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert len(before) == 4
    assert ask(workplace, "effort", *words, runs=("sparse", "other")) == made
    assert {path: path.stat().st_mtime_ns for path in cells.glob("*.json")} == before


def test_the_record_is_kept_in_the_first_run_with_its_command_and_drawn(workplace, tmp_path):
    words = ["--attack", "fgsm", "--eps", "0.1", "--seed", "3"]
    for _ in range(2):
        made = ask(workplace, "classes", *words)
    (kept,) = [
        path
        for path in (workplace / "sparse/results").glob("protocol-classes-*.json")
        if "--seed 3" in path.read_text()
    ]
    assert json.loads(kept.read_text()) == made
    command = made["environment"]["command"]
    assert command == f"gossamer protocol classes {workplace / 'sparse'} --attack fgsm --eps 0.1 --n 20 --seed 3"
    assert gossamer("report", str(workplace / "sparse"), "-o", str(tmp_path / "page.html")) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Classes of sparse" in page
    assert command in page


def test_transfer_knows_the_architectures(workplace, capsys):
    made = ask(workplace, "transfer", "--attack", "fgsm", "--eps", "0.05,0.1", runs=("sparse", "other"))
    assert [model["kind"] for model in made["models"]] == ["digits-cnn", "digits-cnn"]
    assert made["eps"] == [0.05, 0.1]
    assert "At eps 0.1 " in capsys.readouterr().out


def test_adversaries_tell_what_a_run_was_trained_under(workplace):
    made = ask(workplace, "adversaries", "--option", "steps=[1]")
    assert "linf" in made["models"][0]["kind"]
    assert [each["name"] for each in made["adversaries"]] == ["pgd-1"]


def test_the_pruning_benchmark_counts_weights(workplace, capsys):
    made = ask(workplace, "pruning-benchmark", "--attack", "fgsm", "--option", "opinion=false")
    (row,) = made["rows"]
    assert row["kept"] == row["model"]["nonzero"]
    assert row["sparsity"] == pytest.approx(0.9, abs=0.01)
    assert f"{row['kept']:,}" in capsys.readouterr().out


def test_ensembles_classes_and_certificates(workplace):
    joined = ask(workplace, "ensemble", "--attack", "fgsm", runs=("sparse", "other"))
    assert joined["model"]["name"] == "sparse + other"
    classes = ask(workplace, "classes", "--attack", "fgsm")
    assert sum(each["clean"]["n"] for each in classes["classes"]) == 20
    smoothed = ask(workplace, "smoothing", "--option", "copies=100", "--option", "radii=[0]")
    assert (smoothed["n"], len(smoothed["rows"][0]["samples"])) == (100, 20)


def test_corruptions_need_their_folder(workplace, capsys):
    folder = workplace / "corrupted"
    folder.mkdir()
    np.save(folder / "labels.npy", np.zeros(10, dtype=np.int64))
    np.save(folder / "fog.npy", np.full((10, 8, 8, 1), 128, dtype=np.uint8))
    asked = ["protocol", "corruptions", str(workplace / "sparse")]
    assert gossamer(*asked, "--option", f"corrupted={folder}") == 0
    assert "mean of 1" in capsys.readouterr().out
    assert gossamer(*asked) == 2
    assert "add --option corrupted=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["effrt"], "protocol"),
        (["effort", "--option", "stps=[1]"], "steps, restarts"),
        (["effort", "--option", "steps=ten"], "--option steps"),
        (["effort", "--eps", "0.1,0.2"], "one radius"),
        (["effort", "--norm", "l2"], "a radius in l2"),
        (["ensemble"], "at least 2"),
        (["stochastic"], "stochastic model"),
    ],
)
def test_mistakes_are_told(workplace, capsys, words, told):
    name, *rest = words
    assert gossamer("protocol", name, str(workplace / "sparse"), "--n", "5", "--attack", "fgsm", *rest) == 2
    assert told in capsys.readouterr().err


def test_runs_must_differ(workplace, capsys):
    assert gossamer("protocol", "effort", str(workplace / "sparse"), str(workplace / "sparse")) == 2
    assert "each run once" in capsys.readouterr().err


def test_every_protocol_is_listed_and_documented(capsys):
    assert gossamer("list", "protocols") == 0
    told = capsys.readouterr().out
    page = (Path(__file__).parents[2] / "docs/evaluation/protocols.md").read_text(encoding="utf-8")
    for name in PROTOCOLS:
        assert f"  {name}" in told
        assert f"gossamer protocol {name} " in page


def test_matching_takes_no_parent_that_is_sparse_or_was_never_finished(workplace, tmp_path, capsys):
    flags = ["--attack", "fgsm", "--n", "10"]
    assert gossamer("protocol", "matching", str(workplace / "sparse"), *flags) == 2
    assert "keeps no more weights than the run's own network" in capsys.readouterr().err
    early = [*SMALL, "--set", "training.epochs=2", "--set", "method.at_epoch=1", "--set", "method.batches=1"]
    assert gossamer("train", "early-mask/digits-90", "--out", str(tmp_path / "early"), *early) == 0
    capsys.readouterr()
    assert gossamer("protocol", "matching", str(tmp_path / "early"), *flags) == 2
    assert "1 of 2 epochs of a training: it was never finished" in capsys.readouterr().err
    search = [*SMALL, "--set", "method.rewind_epoch=0"]
    assert gossamer("train", "rewinding/digits-90", "--out", str(tmp_path / "ticket"), *search) == 0
    assert gossamer("protocol", "matching", str(tmp_path / "ticket"), *flags) == 0
    assert gossamer("protocol", "matching", str(tmp_path / "ticket"), str(tmp_path / "early"), *flags) == 0
