import errno
import math
import os
import subprocess
import sys

import pytest
import torch

from gossamer.errors import RunError
from gossamer.runs import RunFolder, atomic
from gossamer.runs.checkpoints import load_last, save


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run")


def fill(run, *steps):
    for step in steps:
        save(run, step, {"w": torch.full((100,), float(step))}, {"epoch": step // 10})


def directories(run):
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_a_run_without_checkpoints_has_none(run):
    assert load_last(run) is None


def test_what_was_saved_comes_back(run):
    tensors = {"a": torch.randn(3, 2), "mask": torch.tensor([True, False]), "step": torch.tensor(7)}
    meta = {"phase": "finetune", "best": -math.inf, "loss": math.nan, "offset": 120, "history": [0.1, 1e-300]}
    save(run, 7, tensors, meta)
    found = load_last(run)
    assert (found.step, found.warning) == (7, None)
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)
    assert math.isnan(found.meta.pop("loss"))
    del meta["loss"]
    assert found.meta == meta


def test_two_are_kept(run):
    fill(run, 10, 20, 30, 40)
    assert directories(run) == ["30", "40"]
    assert load_last(run).step == 40


def test_partial_directories_are_cleaned_at_the_next_save(run):
    fill(run, 10, 20)
    partial = run.checkpoints / "30"
    partial.mkdir()
    (partial / "state.safetensors").write_bytes(b"half")
    assert load_last(run).step == 20
    fill(run, 30)
    assert directories(run) == ["20", "30"]
    assert load_last(run).tensors["w"][0] == 30


def test_a_step_can_be_saved_again(run):
    fill(run, 10, 20)
    save(run, 20, {"w": torch.zeros(1)}, {"again": True})
    assert load_last(run).meta == {"again": True}
    assert len(directories(run)) == 2
    fill(run, 30)
    assert load_last(run).step == 30


def flip_a_bit(run):
    path = run.checkpoints / "30" / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "state gone": lambda run: (run.checkpoints / "30" / "state.safetensors").unlink(),
    "state cut": lambda run: os.truncate(run.checkpoints / "30" / "state.safetensors", 50),
    "state flipped": flip_a_bit,
    "meta gone": lambda run: (run.checkpoints / "30" / "meta.json").unlink(),
    "meta edited": lambda run: (run.checkpoints / "30" / "meta.json").write_text('{"step": 30, "meta": {}}'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_last_one_falls_back_with_a_warning(run, damage):
    fill(run, 20, 30)
    damage(run)
    found = load_last(run)
    assert found.step == 20
    assert torch.equal(found.tensors["w"], torch.full((100,), 20.0))
    assert "checkpoint of step 30 is damaged; went back to step 20" in found.warning
    fill(run, 30)
    assert load_last(run).warning is None
    assert load_last(run).tensors["w"][0] == 30
    flipped_again = [name for name in directories(run) if name.startswith("30")]
    assert len(flipped_again) == 1
    assert "20" in directories(run)


def test_both_damaged_is_an_error(run):
    fill(run, 20, 30)
    flip_a_bit(run)
    (run.checkpoints / "20" / "meta.json").unlink()
    with pytest.raises(RunError, match="at least one whole checkpoint"):
        load_last(run)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"step": 30}'])
def test_a_damaged_last_json_leaves_the_checkpoints_usable(run, content):
    fill(run, 9, 30)
    run.last.write_text(content)
    assert load_last(run).step == 30
    flip_a_bit(run)
    assert load_last(run).step == 9
    fill(run, 40)
    assert load_last(run).step == 40


def test_a_disk_full_at_any_write_leaves_a_whole_checkpoint(run, monkeypatch):
    fill(run, 10)
    whole, refusals = os.fsync, 0
    while load_last(run).step == 10:
        left = refusals

        def full(descriptor):
            nonlocal left
            if left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left -= 1
            whole(descriptor)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(RunError, match="free space"):
                fill(run, 20)
        refusals += 1
        assert load_last(run).warning is None
    assert refusals >= 6
    fill(run, 30)
    assert directories(run) == ["20", "30"]


KILLED = """
import os, random, signal, sys, time
import torch
from gossamer.runs import RunFolder
from gossamer.runs.checkpoints import load_last, save

run, kills = RunFolder.create(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
chance = random.Random(kills)

def go_on(step):
    while True:
        step += 1
        save(run, step, {str(i): torch.full((20_000,), float(step)) for i in range(3)}, {"step": step})

step = 0
for _ in range(kills):
    child = os.fork()
    if child == 0:
        go_on(step)
    time.sleep(chance.uniform(0.02, 0.4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = load_last(run)
    if found is None:
        print("none", flush=True)
        continue
    assert found.warning is None, found.warning
    assert found.step >= step and found.meta == {"step": found.step}, (step, found.step, found.meta)
    assert found.tensors.keys() == {"0", "1", "2"}
    assert all(torch.equal(t, torch.full((20_000,), float(found.step))) for t in found.tensors.values())
    step = found.step
    print(step, flush=True)
"""


def survive(tmp_path, kills):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = done.stdout.split()
    assert len(told) == kills
    assert int(told[-1]) >= 2
    saved = load_last(RunFolder(tmp_path / "run"))
    assert saved.step == int(told[-1])


def test_a_killed_writer_leaves_a_whole_checkpoint(tmp_path):
    survive(tmp_path, 5)


@pytest.mark.long
def test_a_writer_killed_many_times_leaves_a_whole_checkpoint(tmp_path):
    survive(tmp_path, 20)


def test_saving_does_not_touch_the_tensors(run):
    weight = torch.nn.Parameter(torch.randn(3))
    before = weight.detach().clone()
    save(run, 1, {"a": weight, "b": weight}, {})
    assert weight.requires_grad
    assert torch.equal(weight, before)
    assert atomic.read_json(run.last)["step"] == 1
