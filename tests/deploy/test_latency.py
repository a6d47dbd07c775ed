"""Networks are timed beside one another; how long they take is this machine's affair, which of them ran is not."""

import pytest
import torch
from torch import nn

from gossamer.data import from_tensors
from gossamer.deploy.latency import latency
from gossamer.errors import ConfigError
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import LatencyTable


def network(width: int, *, kept: float = 1.0) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(width * 16, 3))
    with torch.no_grad():
        model[3].weight[:, : round((1 - kept) * width * 16)] = 0
    return model.eval()


@pytest.fixture
def data():
    return from_tensors(torch.zeros(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64), part="test")


@pytest.mark.parametrize("kind", ["onnx", pytest.param("c", marks=pytest.mark.long)])
def test_every_network_is_timed_in_memory_and_loading(data, tmp_path, kind) -> None:
    pytest.importorskip("onnxruntime")
    made = latency({"wide-1.0": network(4), "cut": network(4, kept=0.5)}, data, kind=kind, rounds=1)
    assert [row.name for row in made.rows] == ["wide-1.0", "cut"]
    assert made.rows[0].density == 1.0
    assert made.rows[1].density == pytest.approx((36 + 96) / (36 + 192))
    for row in made.rows:
        assert [(each.batch, each.loaded) for each in row.passes] == [(1, False), (100, True)]
        assert all(0 < each.median <= each.p95 for each in row.passes)
    assert f"exported as {kind}" in tell(made)
    records.write(tmp_path / "latency.json", made)
    assert records.read(LatencyTable, tmp_path / "latency.json") == made


def test_loading_may_be_left_out(data) -> None:
    pytest.importorskip("onnxruntime")
    (row,) = latency({"one": network(2)}, data, kind="onnx", rounds=1, repeats=1, loading=False).rows
    assert [(each.batch, each.loaded) for each in row.passes] == [(1, False)]


def test_kinds_that_need_a_module_are_refused(data) -> None:
    with pytest.raises(ConfigError, match="one of c, onnx"):
        latency({"one": network(2)}, data, kind="sparse", rounds=1)
