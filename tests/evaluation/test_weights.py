"""Weights counted by hand: spread, sizes, what is near zero, and where those lie that are kept."""

import math

import pytest
import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.evaluation.tables import tell
from gossamer.evaluation.weights import weights
from gossamer.runs import records
from gossamer.runs.protocols import WeightsTable


def network(kernel: torch.Tensor) -> nn.Module:
    layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], bias=True)
    with torch.no_grad():
        layer.weight.copy_(kernel)
    return nn.Sequential(layer)


def test_one_kernel_by_hand() -> None:
    kernel = torch.zeros(2, 2, 2, 2)
    kernel[0, 0] = torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    kernel[0, 1, 0, 0] = 0.005
    kernel[1, 1, 1, 1] = 2.0
    made = weights({"small": network(kernel)}, gammas=[0.01, 2.5])
    (row,) = made.rows
    (layer,) = row.layers
    assert (row.name, row.parameters, layer.name) == ("small", 18, "0.weight")
    assert (layer.weights, layer.nonzero) == (16, 4)
    # 1 - 3 + 0.005 + 2 over 16, and the squares 1 + 9 + 0.000025 + 4 of them.
    assert layer.mean == pytest.approx(0.005 / 16)
    assert layer.deviation == pytest.approx(math.sqrt(14.000025 / 16 - (0.005 / 16) ** 2))
    assert layer.magnitude == pytest.approx(6.005 / 4)
    assert layer.below == (13, 15)
    assert (layer.by_output, layer.by_input) == ((3, 1), (2, 2))
    assert layer.kernels == (1, 2, 1, 0, 0)
    # Of C(16, 4) = 1820 ways, C(12, 4) = 495 leave a kernel empty and one keeps it whole; there are four kernels.
    assert layer.at_random is not None
    assert layer.at_random[0] == pytest.approx(4 * 495 / 1820)
    assert layer.at_random[4] == pytest.approx(4 / 1820)
    assert sum(layer.at_random) == pytest.approx(4)
    assert sum(kept * kernels for kept, kernels in enumerate(layer.at_random)) == pytest.approx(4)
    assert "small  0.weight  16" in tell(made)


def test_a_dense_layer_has_no_kernels_and_an_empty_one_no_size() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].weight.zero_()
    (layer,) = weights({"empty": model}).rows[0].layers
    assert (layer.kernels, layer.at_random, layer.magnitude, layer.deviation) == (None, None, None, 0.0)
    full = network(torch.ones(1, 2, 3, 3))
    (layer,) = weights({"full": full}).rows[0].layers
    assert layer.at_random is not None
    assert layer.kernels == (0,) * 9 + (2,)
    assert layer.at_random == pytest.approx((0.0,) * 9 + (2.0,))


def test_the_record_comes_back(tmp_path) -> None:
    made = weights({"one": network(torch.ones(1, 1, 2, 2))})
    records.write(tmp_path / "weights.json", made)
    assert records.read(WeightsTable, tmp_path / "weights.json") == made


@pytest.mark.parametrize(
    ("gammas", "fill", "told"), [((0.1, 0.1), 1.0, "above the one before"), ((0.1,), math.nan, "finite")]
)
def test_what_cannot_be_counted_is_refused(gammas, fill, told) -> None:
    with pytest.raises(ConfigError, match=told):
        weights({"one": network(torch.full((1, 1, 2, 2), fill))}, gammas=gammas)
