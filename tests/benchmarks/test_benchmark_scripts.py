import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import adversarial_step
from contestants import Contestant, Part

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


SCRIPTS = (
    "adversarial_step",
    "import_time",
    "demo",
    "tables",
    "sharding",
    "sparse_file",
    "artifact_speed",
    "artifact_masks",
    "artifact_layers",
    "shipping",
    "signs",
    "export_cost",
    "methods_table",
    "method_pages",
    "reproductions",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_says_what_it_measures_without_the_peers(script):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{script}.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script}.py")


def test_the_page_says_which_scripts_make_bench_runs():
    recipe = (BENCHMARKS.parent / "Makefile").read_text().partition("\nbench: ")[2]
    told = (BENCHMARKS / "README.md").read_text().partition("`make bench` runs ")[2].partition(";")[0]
    assert re.findall(r"`(\w+\.py)`", told) == re.findall(r"benchmarks/(\w+\.py)", recipe)


def test_ratios_are_formed_within_a_round_to_the_faster_peer_of_the_mode():
    steps = {
        "torchattacks": [2.0, 4.0, 6.0],
        "art": [9.0, 9.0, 9.0],
        "gossamer": [1.0, 2.0, 2.0],
        "gossamer-train": [1.0, 1.0, 1.0],
    }
    found = adversarial_step.ratios(steps)
    assert list(found) == ["gossamer"]
    assert found["gossamer"]["to"] == "torchattacks"
    assert (found["gossamer"]["median"], found["gossamer"]["min"], found["gossamer"]["max"]) == (2.0, 2.0, 3.0)


def contestant(parts):
    idle = {name: Part(count=count, work=lambda _x, _y: None) for name, count in parts.items()}
    return Contestant(model=torch.nn.Identity(), craft=lambda x, _y: x, step=lambda _x, _y: None, parts=idle)


def test_a_step_is_explained_by_its_parts():
    one = contestant({"input gradient": 10, "optimiser": 1})
    parts = {"gossamer": {"input gradient": [0.1, 0.2, 0.3], "optimiser": [0.5, 0.5, 0.5]}}
    found = adversarial_step.explain({"gossamer": one}, {"gossamer": [3.0, 2.9, 4.0]}, parts)["gossamer"]
    assert found["sum"] == pytest.approx(2.5)
    assert found["left"] == pytest.approx(0.5)


def test_everyone_takes_one_step_a_round():
    steps, parts = adversarial_step.race(
        {"gossamer": contestant({"optimiser": 1}), "art": contestant({})}, {}, 3, torch.rand(2), torch.rand(2)
    )
    assert {name: len(seconds) for name, seconds in steps.items()} == {"gossamer": 3, "art": 3}
    assert len(parts["gossamer"]["optimiser"]) == 3
