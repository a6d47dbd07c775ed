import errno
import os
import subprocess
import sys

import pytest
import torch

from gossamer.errors import RunError
from gossamer.runs import atomic


def test_json_and_text_come_back(tmp_path):
    path = tmp_path / "new" / "a.json"
    atomic.write_json(path, {"name": "é", "values": [1, 2.5, None]})
    assert atomic.read_json(path) == {"name": "é", "values": [1, 2.5, None]}
    atomic.write_text(path, "other")
    assert path.read_text() == "other"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_json_is_standard_or_nothing(tmp_path):
    path = tmp_path / "a.json"
    atomic.write_json(path, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(path, float("nan"))
    assert atomic.read_json(path) == 1


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free space, then run the same command again"), (errno.EACCES, "make the folder writable")],
)
def test_a_refused_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, number, remedy):
    path = tmp_path / "a.json"
    atomic.write_json(path, "old")

    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunError, match=remedy):
        atomic.write_json(path, "new")
    assert atomic.read_json(path) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


FULL = """
import resource, sys, torch
from pathlib import Path
from gossamer.errors import RunError
from gossamer.runs import atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
writes = [
    lambda path: atomic.write_bytes(path, bytes(5000)),
    lambda path: atomic.write_safetensors(path, {"a": torch.zeros(5000)}),
]
for write in writes:
    try:
        write(Path(sys.argv[1]) / "a")
    except RunError as error:
        print(error.remedy)
"""


def test_a_write_that_the_system_cuts_short_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == ["raise the limit on file sizes, then run the same command again"] * 2
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_tensor_comes_back_to_the_bit(tmp_path):
    base = torch.arange(12, dtype=torch.float32)
    tensors = {
        "bool": torch.tensor([True, False]),
        "int64": torch.tensor([2**62, -1]),
        "uint8": torch.tensor([[255]], dtype=torch.uint8),
        "bf16": torch.tensor([1.0, -0.0, float("inf")], dtype=torch.bfloat16),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "empty": torch.empty(0, 3),
        "also empty": torch.empty(0),
        "base": base,
        "tied": base,
        "view": base[3:7],
        "transposed": base.view(3, 4).t(),
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    path = tmp_path / "a.safetensors"
    atomic.write_safetensors(path, tensors)
    found = atomic.read_safetensors(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
    found["base"].zero_()
    assert torch.equal(found["tied"], base)
    assert torch.equal(atomic.read_safetensors(path)["base"], base)


def test_a_missing_or_damaged_file_is_said_to_be_so(tmp_path):
    path = tmp_path / "a"
    for read in (atomic.read_json, atomic.read_safetensors):
        with pytest.raises(RunError, match="got no file"):
            read(path)
    path.write_bytes(b"\xff{")
    for read in (atomic.read_json, atomic.read_safetensors):
        with pytest.raises(RunError, match="damaged"):
            read(path)
