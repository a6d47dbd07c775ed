"""The commands as a user types them: train, stop, go on, evaluate, report; and what a mistake looks like."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gossamer.cli.main import main

SMALL = ["--set", "training.epochs=1", "--set", "attack.steps=2", "--set", "evaluation=[{attack: fgsm, n: 60}]"]


def gossamer(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-c", "from gossamer.cli.main import main; main()", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the smallest run has been trained."""
    folder = tmp_path_factory.mktemp("cli")
    done = gossamer("train", "bcs/digits-90", "--out", "run", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "density 10.0 %" in done.stdout
    return folder


def test_a_run_trains_and_evaluates(workplace: Path) -> None:
    lines = (workplace / "run/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert line["active"] == 5865
    assert line["adversarial_loss"] > 0
    results = list((workplace / "run/results").glob("fgsm*.json"))
    assert len(results) == 1


def test_a_finished_run_does_not_train_again(workplace: Path) -> None:
    before = (workplace / "run/states/final.safetensors").stat().st_mtime_ns
    again = gossamer("train", "bcs/digits-90", "--out", "run", *SMALL, cwd=workplace)
    assert again.returncode == 0
    assert "epoch" not in again.stdout
    assert (workplace / "run/states/final.safetensors").stat().st_mtime_ns == before


def test_evaluate_writes_what_it_promises(workplace: Path) -> None:
    words = ["evaluate", "run", "--attack", "pgd", "--option", "steps=3", "--eps", "8/255", "--n", "50"]
    done = gossamer(*words, "--json", "out.json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "under pgd (linf, eps 8/255, 3 steps" in done.stdout
    written = json.loads((workplace / "out.json").read_text())
    promised = [
        "clean_accuracy",
        "robust_accuracy",
        "interval",
        "n",
        "attack",
        "threat",
        "density",
        "nonzero",
        "seconds",
    ]
    assert set(promised) <= set(written)
    assert (written["n"], written["attack"], written["threat"]) == (50, "pgd", "linf:8/255")
    assert written["nonzero"] == 5865
    assert sum(written["attacks"][0]["robust"]) == round(written["robust_accuracy"] * 50)


def test_several_radii_make_a_curve(workplace: Path) -> None:
    done = gossamer("evaluate", "run", "--attack", "fgsm", "--eps", "0,0.1,0.3", "--json", "c.json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    accuracies = [outcome["robust_accuracy"] for outcome in json.loads((workplace / "c.json").read_text())["attacks"]]
    assert len(accuracies) == 3
    assert accuracies[0] >= accuracies[-1]


def test_report_is_one_page_without_network(workplace: Path) -> None:
    done = gossamer("report", "run", "-o", "report.html", cwd=workplace)
    assert done.returncode == 0, done.stderr
    page = (workplace / "report.html").read_text(encoding="utf-8")
    assert "linf" in page
    assert "<script src=" not in page
    assert "https://" not in page.split("<body")[0].split("<script")[0]


def test_a_model_of_ones_own(workplace: Path) -> None:
    (workplace / "mynets.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    torch.manual_seed(0)
    save_file({"1.weight": torch.randn(10, 64), "1.bias": torch.zeros(10)}, workplace / "w.safetensors")
    words = ["evaluate", "--model", "mynets:make", "--data", "digits", "--attack", "fgsm", "--eps", "0.1"]
    done = gossamer(*words, "--weights", "w.safetensors", "--json", "own.json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert json.loads((workplace / "own.json").read_text())["weights"] == 640
    save_file({"other": torch.zeros(1)}, workplace / "bad.safetensors")
    bad = gossamer(*words, "--weights", "bad.safetensors", cwd=workplace)
    assert bad.returncode == 2
    assert "save them with safetensors" in bad.stderr


def test_a_folder_of_ones_own_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(40):
            picture = np.clip(level + pixels.integers(-40, 40, (20, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "images" / name / f"{i}.png")
    settings = ["data.image_size=16", "training.epochs=1", "attack.steps=1", "training.batch_size=16"]
    flags = [word for setting in [*settings, "evaluation=[{attack: fgsm, n: 8}]"] for word in ("--set", setting)]
    done = gossamer("train", "bcs/folder-90", "--data-dir", "images", "--out", "run", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = gossamer("evaluate", "run", "--data-dir", "images", "--attack", "fgsm", "--n", "6", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "n = 6" in shown.stdout


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (
            ["trian"],
            2,
            "expected: one of list, train, evaluate, audit, protocol, explain, export, verify",
        ),
        (["train", "bcs/digit-90"], 2, "did you mean bcs/digits-90?"),
        (["train", "bcs/digits-90", "--set", "training.epoch=3"], 2, "did you mean epochs?"),
        (["train", "bcs/digits-90", "--set", "method.density=1.5"], 2, "write 0.015 for 1.5 %"),
        (["train", "bcs/digits-90", "--set", "threat=linf:8"], 2, "write 8/255 for 8"),
        (["train", "nothing.yaml"], 2, "check the path"),
        (["train", "bcs/resnet20-cifar10-trades-90-small", "--data-dir", "/nonexistent"], 2, "data"),
        (["evaluate", "nowhere"], 1, "expected: a folder with a recipe.yaml"),
        (["evaluate"], 2, "a run or published folder, an artifact, or --model"),
        (["report", "nowhere"], 1, "recipe.yaml"),
        (["list", "cakes"], 2, "methods"),
    ],
)
def test_mistakes_are_told_in_one_message(words: list[str], status: int, told: str, tmp_path: Path) -> None:
    done = gossamer(*words, cwd=tmp_path)
    assert told in done.stderr
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing half-made is left behind"


def test_help_and_lists(tmp_path: Path) -> None:
    assert "report" in gossamer("--help", cwd=tmp_path).stdout
    listed = gossamer("list", cwd=tmp_path).stdout
    for name in ("bcs", "trades", "pgd-50-10", "wideresnet28", "tiny-imagenet", "bcs/digits-90"):
        assert name in listed


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sweep", "the same command goes on from what was last saved"),
        ("verify", "the same command goes on from what was last saved, which without a run's folder"),
        ("bench", "the same command begins anew"),
    ],
)
def test_a_stopped_command_says_what_it_goes_on_from(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(**{name: stopped}))
    with pytest.raises(SystemExit) as ended:
        main([name])
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith(f"stopped; {told}")
