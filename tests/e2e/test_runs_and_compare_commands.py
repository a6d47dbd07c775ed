"""`gossamer runs` and `gossamer compare` as a user types them."""

import json
import shutil
from pathlib import Path

import pytest

from gossamer.cli.main import main
from gossamer.recipe.train import train

RECIPE = {
    "data": {"name": "digits", "train_n": 40},
    "model": {"name": "digits-cnn"},
    "threat": "linf:0.15",
    "method": {"name": "random", "density": 0.1},
    "training": {"epochs": 1, "batch_size": 20},
    "machine": {"device": "cpu", "threads": 1},
    "evaluation": [{"attack": "fgsm", "n": 30}],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, and a copy of it that says it is of another seed."""
    folder = tmp_path_factory.mktemp("place")
    first, second = (folder / "runs" / f"random-seed{seed}" for seed in (0, 1))
    train(RECIPE, out=first)
    shutil.copytree(first, second)
    values = (second / "recipe.yaml").read_text()
    (second / "recipe.yaml").write_text(values.replace("\nseed: 0\n", "\nseed: 1\n"))
    return folder


@pytest.fixture
def place(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "100")
    return trained


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (1, 2)
    return capsys.readouterr().err


def test_runs_lists_what_is_here(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = said(capsys, "runs").splitlines()
    assert head.split() == [
        *("name", "method", "objective", "model", "data", "density", "state", "trained", "age"),
    ]
    assert lines[0].split()[:8] == [
        "random-seed0",
        "random",
        "natural",
        "digits-cnn",
        "digits",
        "10.0",
        "%",
        "finished",
    ]
    assert lines[1].startswith("    clean, n=30: ")
    assert lines[2].startswith("    FGSM, linf, n=30: eps 0.15 ")
    assert lines[3].startswith("random-seed1")
    assert all(len(line) <= 100 for line in lines)


def test_runs_prints_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = json.loads(said(capsys, "runs", "runs/random-seed1", "--json"))
    assert (row["name"], row["seed"], row["state"]) == ("random-seed1", 1, "finished")
    assert row["attacks"][0]["n"] == 30


def test_a_broken_folder_is_a_row(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "random-seed0" / "status.json").write_text("{")
    (tmp_path / "runs" / "notes").mkdir()
    lines = said(capsys, "runs", str(tmp_path), "--sort", "state").splitlines()
    assert any("damaged" in line for line in lines)
    assert any("status.json is damaged" in line for line in lines)
    assert any(line.startswith("notes") and "no run" in line for line in lines)


def test_runs_refuses_what_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "got:      no folder" in refused(capsys, "runs", "nowhere")
    assert "--sort" in refused(capsys, "runs", "--sort", "colour")
    (place / "empty").mkdir()
    assert said(capsys, "runs", "empty") == "no runs\n"


def test_compare_prints_and_writes(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "compare", "runs/random-seed0", "runs/random-seed1", "--json", str(tmp_path / "c.json"))
    assert "recipe: the same" in out
    assert "seeds: 1 differ" in out
    assert "FGSM, linf eps 0.15, n=30" in out
    assert "two networks, not two recipes" in " ".join(out.split())
    (written,) = json.loads((tmp_path / "c.json").read_text())
    assert written["schema"] == "gossamer/comparison/1"


def test_compare_takes_groups(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        shutil.copytree(place / "runs" / f"random-seed{seed}", tmp_path / f"other-seed{seed}")
    by_pattern = said(capsys, "compare", "runs/random-*", f"{tmp_path}/other-*")
    flags = [word for seed in (0, 1) for word in ("--a", f"runs/random-seed{seed}")]
    assert said(capsys, "compare", *flags, "--b", f"{tmp_path}/other-*") == by_pattern
    assert "Means over 2 and 2 trainings" in by_pattern


def test_further_runs_are_compared_with_the_first(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "runs" / "random-seed1", tmp_path / "third")
    out = said(capsys, "compare", "runs/random-seed0", "runs/random-seed1", str(tmp_path / "third"))
    assert out.count("A  runs/random-seed0") == 2
    assert out.count("for 4 accuracies compared, 2 of them here") == 2


def test_compare_says_what_it_needs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected: two sides" in refused(capsys, "compare", "runs/random-seed0")
    assert "expected: two sides" in refused(capsys, "compare", "--a", "runs/random-seed0")
    told = refused(capsys, "compare", "--a", "runs/random-seed0", "runs/random-seed1", "--b", "x")
    assert "quote the pattern" in told
    assert "runs that match" in refused(capsys, "compare", "runs/random-seed0", "runs/none-*")
    assert "every run once" in refused(capsys, "compare", "runs/random-seed0", "runs/random-*")
