"""Artifacts are timed beside engines, evaluated and audited like a run; a stochastic run ships its noise-free twin."""

import json
from pathlib import Path

import pytest
from torch import nn

from gossamer.cli.main import main
from gossamer.deploy import sparse_file
from gossamer.deploy.export import KINDS, default_name
from gossamer.deploy.sparse_header import Network
from gossamer.errors import RunError
from gossamer.evaluation.setting import Setting

SMALL = ["--set", "training.epochs=1", "--set", "attack.steps=1", "--set", "evaluation=[{attack: fgsm, n: 60}]"]


def gossamer(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timing") / "run"
    assert gossamer("train", "bcs/digits-90", "--out", folder, *SMALL) == 0
    assert gossamer("export", folder, "--to", "sparse") == 0
    return folder


@pytest.fixture
def artifact(run: Path) -> Path:
    return run / "artifacts" / default_name(run.name, "sparse")


def test_partial_results_of_one_verification_are_no_others(run: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch):
    folders: list[Path | None] = []

    def stop(_subject: object, _parent: object, setting: Setting, _asked: object) -> None:
        folders.append(setting.folder)
        raise RunError("verify", expected="no interruption", got="one", remedy="go on")

    monkeypatch.setattr("gossamer.cli.verify.examine", stop)
    words = ["verify", artifact, "--run", run]
    for more in (["--n", 10], ["--n", 20], ["--n", 10, "--attack", "fgsm"], ["--n", 10, "--limit", 2]):
        assert gossamer(*words, *more) != 0
    first, longer, other, same = folders
    assert first == same
    assert len({first, longer, other}) == 3


def test_artifacts_are_timed_beside_engines(
    run: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--threads", 1, "--batch", "1,4", "--rounds", 2, "--repeats", 2, "--trust"]
    engines = ["--against", "torch,torch-csr,openvino"]
    assert (
        gossamer("bench", artifact, "--run", run, *engines, *words, "--no-fresh", "--json", tmp_path / "bench.json")
        == 0
    )
    found = json.loads((tmp_path / "bench.json").read_text())
    named = {entry["name"] for entry in found["entries"]} | found["missing"].keys()
    assert named == {artifact.name, "torch", "torch-csr", "openvino"}
    assert found["counts"]["kept"]["multiplications"] < found["counts"]["dense"]["multiplications"]
    assert "speedup" in capsys.readouterr().out
    assert gossamer("bench", "--merge", tmp_path / "bench.json", "-o", tmp_path / "figure.html") == 0
    assert (tmp_path / "figure.html").stat().st_size > 10_000
    assert gossamer("bench", artifact, "--against", "tensorflow", "--run", run) == 2
    assert gossamer("bench", artifact, "--threads", "some") == 2


def test_the_work_of_fewer_channels_is_told_as_the_report_tells_it(tmp_path: Path):
    folder = tmp_path / "slim"
    small = ["--set", "training.epochs=1", "--set", "attack.steps=1", "--set", "evaluation=[]"]
    assert gossamer("train", "channels/digits-50", "--out", folder, *small) == 0
    assert gossamer("export", folder, "--to", "sparse") == 0
    path = folder / "artifacts" / default_name("slim", "sparse")
    told = json.loads((folder / "results/network.json").read_text())
    words = [
        "--threads",
        1,
        "--batch",
        1,
        "--rounds",
        1,
        "--repeats",
        1,
        "--no-fresh",
        "--json",
        tmp_path / "bench.json",
    ]
    for named in (["--run", folder], []):
        assert gossamer("bench", path, *words, *named) == 0
        counts = json.loads((tmp_path / "bench.json").read_text())["counts"]
        assert counts["dense"]["multiplications"] == told["totals"]["multiply_adds"]
        assert counts["work_ratio"] == told["work_ratio"]


def test_a_network_that_a_file_only_names_is_not_made(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "huge.safetensors"
    huge = Network(name="resnet18", options={"width": 1000.0}, form="slim")
    sparse_file.write(path, nn.Linear(3, 2), network=huge)
    assert gossamer("bench", path, artifact, "--threads", 1, "--batch", 1, "--no-fresh") != 0
    assert str(path) in capsys.readouterr().err


def test_a_program_times_where_there_is_no_python(run: Path, artifact: Path, tmp_path: Path):
    assert gossamer("export", run, "--to", "c", "--out", tmp_path / "door.c") == 0
    words = ["--run", run, "--program", tmp_path / "timed.c"]
    assert gossamer("bench", tmp_path / "door.c", *words) == 0
    text = (tmp_path / "timed.c").read_text()
    assert "door_run_threads" in text
    assert "multiplications" in text
    assert gossamer("bench", artifact, *words) == 2
    assert gossamer("bench", tmp_path / "door.c", "--merge", *words) == 2


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long) if kind.endswith("int8") else kind for kind in KINDS]
)
def test_artifacts_are_evaluated_and_audited_too(kind: str, run: Path, tmp_path: Path):
    path = tmp_path / default_name("net", kind)
    assert gossamer("export", run, "--to", kind, "--out", path) == 0
    words = ["--data", "digits", "--n", 30, "--device", "cpu", *(["--trust"] if path.suffix in (".c", ".pt2") else [])]
    attack, option = ("pgd", "steps=2") if kind in ("sparse", "torch") else ("square", "queries=20")
    asked = ["--attack", attack, "--option", option, "--eps", "0.1"]
    assert gossamer("evaluate", path, *words, *asked, "--json", tmp_path / "evaluation.json") == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["attacks"][0]["attack"] == attack
    quick = ["--threat", "linf:0.1", "--budget", "quick"]
    assert gossamer("audit", path, *words, *quick, "--json", tmp_path / "audit.json") == 0
    assert str(path) in json.loads((tmp_path / "audit.json").read_text())["environment"]["command"]


def test_a_stochastic_run_ships_its_noise_free_twin(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "noisy"
    assert gossamer("train", "pni/digits", "--out", folder, *SMALL) == 0
    assert gossamer("export", folder, "--to", "sparse") == 0
    assert "this is its noise-free twin" in capsys.readouterr().out
    path = folder / "artifacts" / default_name("noisy", "sparse")
    assert gossamer("verify", path, "--run", folder, "--attack", "fgsm", "--queries", 5, "--n", 20) == 0
