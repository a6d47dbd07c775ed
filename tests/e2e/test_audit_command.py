"""`gossamer audit` as a user types it, on a small run and on a model of one's own."""

import json
import shlex
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import gossamer
import gossamer.cli.audit as command
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
    assert kept["environment"]["command"] == (
        f"gossamer audit {tmp_path / 'run'} --threat {kept['threat']} --n 30 --budget quick --seed 0"
    )
    assert not list((tmp_path / "run/partial").glob("*"))
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
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept["run"] == "gossamer.models.digits:digits_cnn"
    assert shlex.join(own) in kept["environment"]["command"]
    assert run("audit", *FEW) == 2


def test_an_onnx_file_is_audited_by_what_needs_no_gradient_and_by_its_twin(tmp_path, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = digits_cnn().eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.rand(30, 1, 8, 8),), str(tmp_path / "net.onnx"), dynamo=False)
    asked = ["audit", str(tmp_path / "net.onnx"), "--data", "digits", "--threat", "linf:0.01", *FEW]
    twin = ["--twin", "gossamer.models.digits:digits_cnn", "--twin-weights", str(tmp_path / "net.safetensors")]
    assert run(*asked, *twin, "--json", str(tmp_path / "out.json")) == 0
    assert "not applicable: no gradients" in capsys.readouterr().out
    kept = json.loads((tmp_path / "out.json").read_text())
    assert "from the twin" in kept["claimed_attack"]
    assert shlex.join(twin) in kept["environment"]["command"]
    assert run(*asked, "--layer", "conv1") == 2
    assert "as layers of an ONNX file" in capsys.readouterr().err


def test_ctrl_c_is_told(monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "examine", stopped)
    assert (
        run("audit", "--model", "gossamer.models.digits:digits_cnn", "--data", "digits", "--threat", "linf:0.1") == 130
    )
    assert "the same command goes on" in capsys.readouterr().err


def test_every_sign_has_a_page():
    pages = Path(__file__).parents[2] / "docs/audit"
    names = {path.stem for path in pages.glob("*.md")} - {"README"}
    linked = (pages / "README.md").read_text(encoding="utf-8")
    assert len(names) == 11
    assert all(f"]({name}.md)" in linked for name in names)
