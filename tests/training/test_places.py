from pathlib import Path

import pytest
import torch

from gossamer.errors import ConfigError
from gossamer.evaluation.subject import prepare
from gossamer.kernels import FusedConvolution, library
from gossamer.models import Surrogate, build
from gossamer.training.devices import place


def has_kernels(surrogate: object) -> bool:
    assert isinstance(surrogate, Surrogate)
    return any(isinstance(part, FusedConvolution) for part in surrogate.modules())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("compiled", [False, True])
def test_attacks_run_on_kernels_where_compilation_is_asked_for(compiled: bool) -> None:
    where, model = place("cpu", compile=compiled), build("resnet20").eval()
    surrogate = where.surrogate(model)
    assert surrogate is not None
    assert has_kernels(surrogate) is compiled
    assert where.compiled(surrogate) is surrogate
    assert (where.compiled(model) is model) is not compiled


@pytest.mark.parametrize("compiled", [False, True])
def test_evaluations_seek_on_kernels_where_asked_to(compiled: bool) -> None:
    subject = prepare(build("resnet20").eval(), fast=True, example=torch.rand(2, 3, 32, 32), compile=compiled)
    assert has_kernels(subject.surrogate) is compiled


def test_eager_needs_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOSSAMER_KERNELS", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    library.cache_clear()
    surrogate = place("cpu").surrogate(build("resnet20").eval())
    assert not has_kernels(surrogate)
    with pytest.raises(ConfigError, match="expected a C compiler"):
        place("cpu", compile=True)
    assert list(tmp_path.iterdir()) == []
