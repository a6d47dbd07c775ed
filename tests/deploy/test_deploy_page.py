"""The program of docs/deploy.md, compiled as the page says, answers as the network does."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import gossamer
from gossamer.deploy.bench_program import write_program
from gossamer.models.registry import build

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_the_ten_lines_of_the_page_classify(tmp_path: Path) -> None:
    network = build("digits-cnn").eval()
    images = torch.rand(5, 1, 8, 8)
    gossamer.export(network, images[:1], "c", tmp_path / "run.c")
    [program] = re.findall(r"```c\n(.*?)```", PAGE, re.DOTALL)
    [command] = [line for line in PAGE.splitlines() if line.startswith("cc ") and "main.c" in line]
    (tmp_path / "main.c").write_text(program, encoding="utf-8")
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    for image in images:
        told = subprocess.run(
            [str(tmp_path / "classify")], input=image.numpy().tobytes(), capture_output=True, check=True
        )
        assert told.stdout.decode() == f"class {int(network(image[None]).argmax())}\n"
    short = subprocess.run([str(tmp_path / "classify")], input=b"\0" * 8, capture_output=True, check=False)
    assert short.returncode == 1


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_the_timing_program_is_compiled_as_the_page_says(tmp_path: Path) -> None:
    for name in ("sparse", "dense"):
        gossamer.export(build("digits-cnn").eval(), torch.rand(1, 1, 8, 8), "c", tmp_path / f"{name}.c")
    write_program([tmp_path / "sparse.c", tmp_path / "dense.c"], tmp_path / "timed.c", network=None)
    [command] = [line for line in PAGE.splitlines() if line.startswith("cc ") and "timed.c" in line]
    words = command.partition("#")[0].split()
    assert "-march=native" in words
    subprocess.run(words, cwd=tmp_path, check=True)
    assert (tmp_path / "bench").exists()
