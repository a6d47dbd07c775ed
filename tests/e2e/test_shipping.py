"""A run is trained, exported in every kind, and verified as it ships; what is not the run's is found out."""

import json
import shutil
from pathlib import Path

import pytest

from gossamer.cli.main import main
from gossamer.deploy.about import about_path, read_about
from gossamer.deploy.export import KINDS, default_name
from gossamer.kernels.build import COMPILERS

SMALL = ["--set", "training.epochs=3", "--set", "attack.steps=2", "--set", "evaluation=[{attack: fgsm, n: 60}]"]
ATTACK = ["--attack", "pgd", "--option", "steps=5", "--queries", "20", "--n", "40", "--device", "cpu", "--trust"]


def gossamer(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipping") / "robust-digits"
    assert gossamer("train", "bcs/digits-90", "--out", folder, *SMALL) == 0
    return folder


def exported(run: Path, kind: str) -> Path:
    """Return the artifact of a kind, exported at the first call; skip where this machine cannot make it."""
    path = run / "artifacts" / default_name(run.name, kind)
    if kind.startswith("onnx"):
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    if kind.startswith("c") and not any(map(shutil.which, COMPILERS)):
        pytest.skip("no C compiler here")
    if not path.exists():
        assert gossamer("export", run, "--to", kind) == 0
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_exported_and_verified(run: Path, kind: str, capsys: pytest.CaptureFixture[str]):
    path = exported(run, kind)
    told = capsys.readouterr().out
    assert (
        f"{kind}: {sum(json.loads(about.read_text())['bytes'] for about in path.parent.glob(path.name + '.json')):,}"
        in told
    )
    assert "of the dense parent's 237,232 in float32" in told
    # An artifact of int8 may lose a point.
    limit = ["--limit", 10] if kind.endswith("int8") else []
    assert gossamer("verify", path, "--run", run, *ATTACK, *limit) == 0
    assert "passed" in capsys.readouterr().out
    kept = json.loads((run / f"results/verify-{path.name}.json").read_text())
    assert kept["schema"] == "gossamer/verification/1"
    assert kept["failures"] == []
    assert kept["parity"]["error"] < (0.2 if kind.endswith("int8") else 1e-4)
    assert kept["environment"]["command"].startswith(f"gossamer verify {path} --run {run} --attack pgd")
    assert not list((run / "partial").glob("verify-*"))
    verified = read_about(path).verified
    assert (verified.n, verified.threat, verified.part, verified.passed) == (
        kept["artifact"]["n"],
        "linf:0.15",
        "test",
        True,
    )
    assert verified.attacks[-1] == "square"
    assert verified.robust_accuracy == kept["artifact"]["robust_accuracy"] <= verified.clean_accuracy
    assert verified.parent_robust_accuracy == kept["parent"]["robust_accuracy"]


def test_an_artifact_that_is_not_the_runs_fails(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    other = tmp_path / "untrained"
    assert (
        gossamer("train", "bcs/digits-90", "--out", other, *SMALL, "--set", "training.epochs=1", "--set", "seed=5") == 0
    )
    path = exported(other, "sparse")
    verify = ("verify", path, "--run", run, *ATTACK, "--json", tmp_path / "found.json")
    assert gossamer(*verify) == 2
    assert "the run that untrained.safetensors was exported from" in capsys.readouterr().err
    about, own = (json.loads(about_path(each).read_text()) for each in (path, exported(run, "sparse")))
    about["parent"]["weights_sha256"] = own["parent"]["weights_sha256"]
    about_path(path).write_text(json.dumps(about))
    assert gossamer(*verify) == 1
    assert "FAILED: logits on images are off by" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["failures"]


@pytest.mark.parametrize("name", ["", "recipe.yaml", "gone.onnx"])
def test_what_is_no_artifact_is_not_timed(run: Path, name: str, capsys: pytest.CaptureFixture[str]):
    assert gossamer("bench", run / name, "--run", run) == 2
    assert "an artifact" in capsys.readouterr().err


def test_what_runs_code_asks_for_trust(run: Path, capsys: pytest.CaptureFixture[str]):
    path = exported(run, "torch")
    assert gossamer("verify", path, "--run", run, "--n", 20) == 2
    assert "write --trust" in capsys.readouterr().err


def test_a_changed_artifact_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = exported(run, "sparse")
    for name in (path.name, f"{path.name}.json"):
        shutil.copy(path.with_name(name), tmp_path / name)
    changed = tmp_path / path.name
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(bytes(data))
    assert gossamer("verify", changed, "--run", run, "--n", 20) == 2
    assert "the file was changed" in capsys.readouterr().err


def test_mistakes_are_told(run: Path, capsys: pytest.CaptureFixture[str]):
    for words, told in (
        (["export", run, "--to", "tflite"], "one of sparse, c"),
        (["export", run, "--to", "sparse", "--values", "int4"], "float32 or float16"),
        (["export", run, "--to", "sparse", "--values", "signs"], "one magnitude"),
        (["verify", run / "nothing.onnx", "--run", run], "no file"),
        (["verify", run / "nothing.onnx"], "--run RUN or --data NAME"),
    ):
        assert gossamer(*words) == 2
        assert told in capsys.readouterr().err


def test_what_a_published_network_became_is_held_against_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    published, path = tmp_path / "published", tmp_path / "net.safetensors"
    assert gossamer("publish", run, published) == 0
    assert gossamer("export", published, "--to", "sparse", "--out", path) == 0
    assert gossamer("verify", path, "--run", published, *ATTACK) == 0
    assert "passed" in capsys.readouterr().out
    assert gossamer("bench", path, "--run", published, "--rounds", 1, "--repeats", 1, "--no-fresh") == 0
    assert "net.safetensors" in capsys.readouterr().out
