import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from gossamer.errors import ConfigError
from gossamer.objectives.penalties import L1, Parseval, build_penalty


def model() -> nn.Sequential:
    made = nn.Sequential(nn.Conv2d(1, 1, (1, 2), bias=True), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        made[0].weight.copy_(torch.tensor([[[[3.0, -4.0]]]]))
        made[3].weight.copy_(torch.tensor([[0.5, 0.5]]))
    return made


def test_the_lasso_sums_kernels_alone() -> None:
    network = model()
    term = L1(strength=0.1)(network)
    assert term.item() == pytest.approx(0.1 * (3 + 4 + 0.5 + 0.5))
    term.backward()
    assert torch.allclose(network[0].weight.grad.flatten(), torch.tensor([0.1, -0.1]))
    assert network[0].bias.grad is None


class Noise(nn.Module):
    pure = False

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + torch.randn_like(weight)


class Double(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def test_the_lasso_sees_effective_kernels_and_no_noise() -> None:
    network = model()
    parametrize.register_parametrization(network[0], "weight", Double())
    assert L1(strength=1.0)(network).item() == pytest.approx(14 + 1)
    parametrize.register_parametrization(network[3], "weight", Noise())
    assert L1(strength=1.0)(network).item() == pytest.approx(14 + 1)


def test_the_parseval_term_by_hand() -> None:
    # sqrt(2) (3, -4): squared length 50, so (50 - 1)^2; the linear layer: (0.5 - 1)^2.
    assert Parseval(strength=0.2)(model()).item() == pytest.approx(0.1 * (49**2 + 0.25))


def test_groups_of_channels_have_parseval_terms_of_their_own() -> None:
    depthwise = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    with torch.no_grad():
        depthwise.weight.copy_(nn.functional.normalize(torch.randn(4, 9), dim=1).reshape(4, 1, 3, 3) / 3)
    assert Parseval(strength=1.0)(depthwise).item() == pytest.approx(0.0, abs=1e-9)
    grouped = nn.Conv2d(4, 6, 1, groups=2, bias=False)
    halves = [nn.Conv2d(2, 3, 1, bias=False) for _ in range(2)]
    with torch.no_grad():
        for half, kernel in zip(halves, grouped.weight.chunk(2), strict=True):
            half.weight.copy_(kernel)
    expected = sum(Parseval(strength=1.0)(half).item() for half in halves)
    assert Parseval(strength=1.0)(grouped).item() == pytest.approx(expected)


def test_the_parseval_term_is_zero_for_orthonormal_kernels_which_do_not_stretch() -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.linalg.qr(torch.randn(18, 3)).Q.T.reshape(3, 2, 3, 3) / 3)
    assert Parseval(strength=1.0)(layer).item() == pytest.approx(0.0, abs=1e-9)
    x, y = torch.rand(4, 2, 8, 8), torch.rand(4, 2, 8, 8)
    with torch.no_grad():
        stretch = (layer(x) - layer(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert float(stretch.max()) <= 1.0 + 1e-6
    tall = nn.Linear(2, 5, bias=False)
    with torch.no_grad():
        tall.weight.copy_(torch.linalg.qr(torch.randn(5, 2)).Q)
    assert Parseval(strength=1.0)(tall).item() == pytest.approx(0.0, abs=1e-9)


def test_penalties_by_name() -> None:
    assert build_penalty("l1", {"strength": 5e-5}) == L1(strength=5e-5)
    assert build_penalty("parseval", {}) == Parseval(strength=1e-4)
    with pytest.raises(ConfigError, match="one of l1, parseval"):
        build_penalty("l2", {})
    with pytest.raises(ConfigError, match=r"training\.penalties l1\.lambda: expected one of strength"):
        build_penalty("l1", {"lambda": 1.0})
    with pytest.raises(ConfigError, match=r"training\.penalties l1\.strength: expected a finite number >= 0, .*1e-5"):
        build_penalty("l1", {"strength": -1.0})
