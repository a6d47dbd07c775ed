"""`gossamer audit` as a user types it, on a small run and on a model of one's own."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

import gossamer
from gossamer.cli.main import main
from gossamer.models.digits import digits_cnn

SMALL = ["--set", "training.epochs=1", "--set", "attack.steps=2", "--set", "evaluation=[]"]
FEW = ["--n", "30", "--budget", "quick", "--device", "cpu"]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    return int(stopped.value.code or 0)


def test_a_run_is_audited_under_its_own_threat_and_the_result_kept(tmp_path, capsys):
    assert run("train", "bcs/digits-90", "--out", str(tmp_path / "run"), *SMALL) == 0
    assert run("audit", str(tmp_path / "run"), *FEW, "--json", str(tmp_path / "out.json")) == 0
    lines = capsys.readouterr().out.splitlines()
    kept = json.loads((tmp_path / "run/results/audit.json").read_text())
    assert kept == json.loads((tmp_path / "out.json").read_text())
    assert kept["threat"] == str(gossamer.open_run(tmp_path / "run").threat)
    assert f"{kept['verdict']}: {kept['reason']}" in lines
    for sign in kept["signs"]:
        assert any(line.split()[:1] == [sign["name"]] for line in lines)


def test_a_model_of_ones_own_is_audited(tmp_path, capsys):
    save_file(digits_cnn().state_dict(), tmp_path / "weights.safetensors")
    own = ["--model", "gossamer.models.digits:digits_cnn", "--weights", str(tmp_path / "weights.safetensors")]
    words = ["audit", *own, "--data", "digits", *FEW]
    assert run(*words) == 2
    assert "--threat linf:8/255" in capsys.readouterr().err
    assert run(*words, "--threat", "linf:0.2", "--json", str(tmp_path / "out.json")) == 0
    assert json.loads((tmp_path / "out.json").read_text())["run"] == "gossamer.models.digits:digits_cnn"
    assert run("audit", *FEW) == 2


def test_every_sign_has_a_page():
    pages = Path(__file__).parents[2] / "docs/audit"
    names = {path.stem for path in pages.glob("*.md")} - {"README"}
    linked = (pages / "README.md").read_text(encoding="utf-8")
    assert len(names) == 11
    assert all(f"]({name}.md)" in linked for name in names)
