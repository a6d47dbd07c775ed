"""An audit that is killed goes on where it stopped, and ends in the record of one that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from evaluation_toys import convnet, labelled
from torch import nn

import gossamer
from gossamer.errors import RunError
from gossamer.evaluation.audit import Budget
from gossamer.runs.audits import read_audit

TINY = Budget(steps=3, more_steps=4, restarts=2, noise=3, queries=20, passes=2, doublings=1)


class Killed(BaseException):
    pass


class Counting(nn.Module):
    """A model whose answer drifts with every call, by a buffer that a fresh process does not have."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls = nn.Buffer(torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.model(x) + 0.2 * self.calls * torch.arange(3)


def _audit(model, **options):
    return gossamer.audit(
        model, labelled(convnet(), n=30), threat="linf:0.02", n=30, budget=TINY, seed=3, batch_size=10, **options
    )


def _killer(after):
    left = [after]

    def progress(standing):
        del standing
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return progress


@pytest.mark.parametrize(("make", "adapts"), [(convnet, False), (lambda: Counting(convnet()), True)])
def test_an_audit_goes_on_where_it_was_killed(make, adapts, tmp_path):
    whole = _audit(make())
    assert whole.sign("adaptation").fired is adapts
    kills, found = 0, None
    while found is None:
        # Later and later: what a model that adapts answers to the standard attack is not kept.
        progress = _killer(after=10 + 12 * kills)
        try:
            found = _audit(make(), partial=tmp_path / "partial", save_seconds=0.0, progress=progress)
        except Killed:
            kills += 1
    assert found == whole
    assert kills >= 3
    assert not (tmp_path / "partial").exists()


def test_what_is_settled_is_not_attacked_again(tmp_path):
    first, second = [], []
    whole = _audit(convnet(), partial=tmp_path, keep_partial=True, progress=first.append)
    assert _audit(convnet(), partial=tmp_path, progress=second.append) == whole
    assert first
    assert second == []


def test_partial_results_of_another_audit_are_refused(tmp_path):
    _audit(convnet(), partial=tmp_path, keep_partial=True)
    asked = {"threat": "linf:0.02", "n": 30, "budget": TINY, "seed": 3, "partial": tmp_path}
    for change in ({"seed": 4}, {"budget": "quick"}, {"threat": "linf:0.01"}, {"twin": convnet(1)}):
        with pytest.raises(RunError, match="those of another one"):
            gossamer.audit(convnet(), labelled(convnet(), n=30), **{**asked, **change})


SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_audit_resuming import _audit, convnet

kill_at, count, real = int(sys.argv[3]), 0, Path.replace

def replace(self, target):
    global count
    count += 1
    if count == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)

Path.replace = replace
folder = Path(sys.argv[2])
_audit(convnet(), partial=folder / "partial", save_seconds=0.0, keep_partial=True).save(folder / "audit.json")
"""


def _run(folder: Path, kill_at: int) -> int:
    folder.mkdir(exist_ok=True)
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder), str(kill_at)]
    return subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, timeout=200).returncode


@pytest.mark.long
def test_an_audit_outlives_sigkill(tmp_path):
    assert _run(tmp_path / "whole", 0) == 0
    killed = 0
    for kill_at in (1, 3, 8, 20):
        folder = tmp_path / f"killed-{kill_at}"
        killed += _run(folder, kill_at) == -signal.SIGKILL
        assert _run(folder, 0) == 0
        assert read_audit(folder / "audit.json") == read_audit(tmp_path / "whole/audit.json")
    assert killed == 4
