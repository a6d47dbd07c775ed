"""A protocol whose process is killed, wherever, ends in the table of one that was never killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
torch.set_num_threads(1)
from gossamer.attacks.fgsm import FGSM
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.transfer_matrix import transfer_matrix
from gossamer.runs import records
from gossamer.threat import ThreatModel
from protocol_toys import images, labels, plane

kill_at, count, real = int(sys.argv[3]), 0, os.replace

def replace(*args, **kwargs):
    global count
    count += 1
    if count == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

os.replace = replace
here = Setting(data=(images(30), labels(plane(0), images(30))), folder=Path(sys.argv[2]))
attack = FGSM(threat=ThreatModel("linf", 0.05))
made = transfer_matrix({"a": plane(0), "b": plane(7)}, here, eps=[0.05, 0.1], attack=attack)
records.write(Path(sys.argv[2]) / "table.json", made)
"""


def run(folder: Path, kill_at: int) -> int:
    folder.mkdir(exist_ok=True)
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder), str(kill_at)]
    return subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, timeout=120).returncode


def table(folder: Path) -> object:
    value = json.loads((folder / "table.json").read_text())
    return value["accuracy"], value["dangers"], value["sentences"]


@pytest.mark.long
def test_a_table_outlives_sigkill(tmp_path):
    assert run(tmp_path / "whole", 0) == 0
    killed = 0
    for kill_at in (1, 2, 4, 7, 10, 15):
        folder = tmp_path / f"killed-{kill_at}"
        killed += run(folder, kill_at) == -signal.SIGKILL
        assert run(folder, 0) == 0
        assert table(folder) == table(tmp_path / "whole")
    assert killed >= 4
