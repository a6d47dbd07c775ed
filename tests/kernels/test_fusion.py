import copy

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.functional import relu

from gossamer import kernels
from gossamer.kernels import FusedConvolution, accelerator, fuse
from gossamer.models import Surrogate, build, build_surrogate

SMALL = {
    "resnet18": {"width": 0.375, "image_size": 16},
    "resnet20": {"image_size": 16},
    "preact-resnet18": {"width": 0.25, "image_size": 16},
    "vgg16": {},
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = build(name, **SMALL[name]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, 0, 0.3)
    return model


def pair(model: nn.Module) -> tuple[Surrogate, Surrogate]:
    plain, fast = build_surrogate(model), build_surrogate(model, rewrite=fuse)
    assert plain is not None
    assert fast is not None
    return plain, fast


def images(count: int, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def outcome(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), leaf)
    return logits.detach(), gradient


def distance(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


def fused_parts(model: nn.Module) -> list[FusedConvolution]:
    return [part for part in model.modules() if isinstance(part, FusedConvolution)]


def smooth(model: nn.Module) -> nn.Module:
    """The network moved to where no ReLU is near its edge for small inputs, so that gradients compare closely."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                sign = torch.where(torch.arange(module.num_features) % 3 == 0, -1.0, 1.0)
                module.weight.mul_(0.05)
                module.bias.copy_(sign)
    return model


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "preact-resnet18"])
def test_the_surrogate_agrees_with_and_without_kernels(name: str) -> None:
    plain, fast = pair(smooth(network(name)))
    (logits, gradient), (want_logits, want_gradient) = outcome(fast, images(6)), outcome(plain, images(6))
    assert float(want_gradient.norm()) > 0
    assert distance(logits, want_logits) < 1e-4
    assert distance(gradient, want_gradient) < 1e-4


@pytest.mark.parametrize(("name", "size"), [("resnet20", 16), ("vgg16", 32)])
def test_rounding_at_the_edge_of_a_relu_stays_small(name: str, size: int) -> None:
    plain, fast = pair(network(name))
    x = images(3, size)
    (logits, gradient), (want_logits, want_gradient) = outcome(fast, x), outcome(plain, x)
    assert distance(logits, want_logits) < 1e-4
    assert distance(gradient, want_gradient) < 2e-2


def test_every_residual_block_of_resnet20_is_fused() -> None:
    _, fast = pair(network("resnet20"))
    parts = fused_parts(fast)
    assert len(parts) == 17
    assert all(part.relu for part in parts)
    # The first convolution of the 7 blocks without a stride reads a ReLU whose gradient it applies.
    assert sum(part.shares for part in parts) == 7
    assert not any(node.target in (relu, torch.add) for node in fast.graph.graph.nodes if len(node.users) == 0)


def test_kernels_run_and_a_tiny_problem_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = kernels.winograd._Call

    def counted(*arguments: object) -> object:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(kernels.winograd, "_Call", counted)
    model = smooth(network("resnet20"))
    plain, fast = pair(model)
    outcome(fast, images(4))
    assert len(calls) > 20
    calls.clear()
    one = images(1, 4)
    assert distance(outcome(fast, one)[1], outcome(plain, one)[1]) < 1e-4
    few = len(calls)
    assert few < 20


def test_other_types_take_the_ordinary_way() -> None:
    model = network("resnet20").double()
    plain, fast = pair(model)
    for got, want in zip(outcome(fast, images(3).double()), outcome(plain, images(3).double()), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_refresh_reaches_the_kernels() -> None:
    model = smooth(network("resnet20"))
    _, fast = pair(model)
    before, _ = outcome(fast, images(4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    fast.refresh(model)
    after, gradient = outcome(fast, images(4))
    want, want_gradient = outcome(model, images(4))
    assert distance(after, before) > 1e-2
    assert distance(after, want) < 1e-4
    assert distance(gradient, want_gradient) < 1e-4


def test_two_calls_give_the_same_bits() -> None:
    _, fast = pair(network("resnet18"))
    first, second = outcome(fast, images(5)), outcome(fast, images(5))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Tangle(nn.Module):
    """Readers of a ReLU in every order, sums on both sides, sums with numbers, a convolution that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(24, 24, 3, padding=1, bias=i % 2 == 0) for i in range(8))
        self.stem = nn.Conv2d(3, 24, 3, padding="same")
        self.relu = nn.ReLU(inplace=True)
        self.wide = nn.Conv2d(24, 24, 3, padding=2, dilation=2)
        self.strided = nn.Conv2d(24, 24, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu(self.stem(x))
        b = self.convs[0](a)
        c = relu(a + self.convs[1](a).add(1))
        d = self.convs[2](c) + c
        e = torch.relu(self.convs[3](d)) * 2 + a
        f = (self.convs[4](e) + 1.0).relu()
        g = self.convs[5](f)
        g += f
        h = relu(self.convs[6](b) + self.convs[7](g))
        return self.strided(h + self.wide(h)).mean((2, 3)) + h.amax((2, 3))


def test_graphs_of_every_shape_keep_their_gradients() -> None:
    torch.manual_seed(3)
    model = Tangle().eval().requires_grad_(False)
    fast = fx.symbolic_trace(copy.deepcopy(model))
    fuse(fast)
    assert len(fused_parts(fast)) == 9
    (got, gradient), (want, want_gradient) = outcome(fast, images(4)), outcome(model.double(), images(4).double())
    assert distance(got, want) < 1e-4
    assert distance(gradient, want_gradient) < 5e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_compiles_without_a_break() -> None:
    _, fast = pair(smooth(network("resnet20")))
    compiled = torch.compile(fast, fullgraph=True, dynamic=False, backend="aot_eager")
    want, got = outcome(fast, images(4)), outcome(compiled, images(4))  # type: ignore[arg-type]
    for a, b in zip(got, want, strict=True):
        assert distance(a, b) < 1e-5


def test_weights_that_learn_take_the_ordinary_way() -> None:
    part = FusedConvolution(nn.Conv2d(24, 24, 3, padding=1), relu=True)
    y = part(torch.rand(4, 24, 8, 8))
    assert isinstance(y, Tensor)
    y.sum().backward()
    assert part.conv.weight.grad is not None


def test_there_are_kernels_for_the_processor_alone() -> None:
    assert accelerator(torch.device("cpu")) is fuse
    assert accelerator(torch.device("cuda")) is None
