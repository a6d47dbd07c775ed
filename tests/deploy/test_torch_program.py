"""torch.export programs: exact and of any batch; loading one runs its code, so that it is asked for first."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from shipped import images, small
from torch import Tensor, nn

from gossamer.deploy.parity import parity
from gossamer.deploy.torch_program import read_torch, write_torch
from gossamer.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "net.pt2"
    write_torch(small(), images(1), path)
    return path


@pytest.mark.parametrize("count", [1, 5])
def test_it_gives_the_networks_logits_for_any_batch(written: Path, count: int):
    assert parity(small(), read_torch(written, trust=True), images(count)).error < 1e-6


def test_it_gives_gradients(written: Path):
    x = images(2).requires_grad_(True)
    read_torch(written, trust=True)(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0


class MakesAFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_torch_runs_code_of_a_file_and_nothing_is_loaded_without_trust(written: Path, tmp_path: Path):
    mark, bad = tmp_path / "it-ran", tmp_path / "bad.pt2"
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(bad, "w") as target:
        for each in source.infolist():
            pickled = each.filename.endswith("sample_inputs/model.pt")
            target.writestr(each.filename, pickle.dumps(MakesAFolder(mark)) if pickled else source.read(each))
    with pytest.raises(ConfigError, match="runs code from the file"):
        read_torch(bad, trust=False)
    assert not mark.exists()
    with pytest.raises(DataError, match=r"a torch\.export program"):
        read_torch(bad, trust=True)
    # Should torch load no pickle any more, trust need not be asked for.
    assert mark.exists()


def test_damaged_files_are_refused(written: Path, tmp_path: Path):
    whole = written.read_bytes()
    for number, data in enumerate((b"", b"no archive", whole[: len(whole) // 2])):
        path = tmp_path / f"{number}.pt2"
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a torch\.export program"):
            read_torch(path, trust=True)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] if x.sum() > 0 else x.flatten(1)[:, 3:6]


def test_what_cannot_be_traced_is_refused_and_nothing_written(tmp_path: Path):
    with pytest.raises(ConfigError, match="any number of images"):
        write_torch(Branching(), torch.rand(2, 2, 6, 6), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())
