import copy
import shutil

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, dropout, relu
from torch.nn.utils import parametrizations, parametrize

from gossamer.errors import RunError
from gossamer.models import MODELS, Surrogate, build, build_surrogate, vgg
from gossamer.models.folding import ScaleShift

SMALL = {
    "resnet18": {"width": 0.125},
    "resnet34": {"width": 0.125, "stem": "imagenet"},
    "resnet50": {"width": 0.125},
    "wideresnet20": {"width": 1},
    "wideresnet28": {"width": 1},
    "wideresnet": {"depth": 10, "width": 1},
    "vgg16-imagenet": {"head": "single", "image_size": 32, "num_classes": 10},
    "preact-resnet18": {"width": 0.125},
}


class Masked(nn.Module):
    """weight * mask, doubled in training so that a wrong mode shows."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask * (2 if self.training else 1)


def shuffle(model: nn.Module, seed: int) -> None:
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.3, generator=made)
                module.running_var.uniform_(0.5, 2, generator=made)
        for parameter in model.parameters():
            parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=made, dtype=parameter.dtype))
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=made, dtype=parameter.dtype))


def expected(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    return outcome(copy.deepcopy(model).eval(), x)


def outcome(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    logits = model(x)
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), x)
    return logits.detach(), gradient


def assert_same(surrogate: Surrogate, model: nn.Module, x: Tensor) -> None:
    for got, want in zip(outcome(surrogate, x), expected(model, x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))


def made(model: nn.Module) -> Surrogate:
    surrogate = build_surrogate(model)
    assert surrogate is not None
    return surrogate


def mask_layers(model: nn.Module) -> None:
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            mask = (torch.rand(module.weight.shape) < 0.5).to(module.weight.dtype)
            parametrize.register_parametrization(module, "weight", Masked(mask))


def example(name: str) -> Tensor:
    channels, size = {"digits-cnn": (1, 8), "mobilenetv2": (3, 8), "vgg16-imagenet": (3, 32)}.get(name, (3, 16))
    return torch.rand(2, channels, size, size, dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_input_gradients_are_those_of_the_network_in_eval_mode(name, masked, monkeypatch):
    torch.manual_seed(0)
    narrow = tuple(tuple(width // 8 for width in widths) for widths in vgg.BLOCKS)
    monkeypatch.setattr(vgg, "BLOCKS", narrow)
    channels = 1 if name == "digits-cnn" else 3
    statistics = {"mean": (0.4,) * channels, "std": (0.2,) * channels}
    model = build(name, last_batch_norm=masked, **statistics, **SMALL.get(name, {})).double().train()
    if masked:
        mask_layers(model)
    shuffle(model, 0)
    surrogate, x = made(model), example(name)
    assert_same(surrogate, model, x)
    for seed in (1,) if masked else (1, 2):
        shuffle(model, seed)
        surrogate.refresh(model)
        assert_same(surrogate, model, x)


@pytest.mark.parametrize("masked", [False, True])
def test_the_source_stays_as_it_is(masked):
    model = build("resnet20").train()
    if masked:
        mask_layers(model)
    model.fc.eval()
    model.conv1.bias = None
    model(torch.rand(4, 3, 32, 32)).sum().backward()
    state = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    surrogate = made(model)
    surrogate.refresh(model)
    outcome(surrogate, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(model.parameters(), gradients, strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


def test_gradients_reach_the_input_alone():
    surrogate = made(build("digits-cnn"))
    assert not any(parameter.requires_grad for parameter in surrogate.parameters())
    assert not surrogate(torch.rand(1, 1, 8, 8)).requires_grad


def test_every_batch_norm_of_a_residual_network_folds_away_and_pre_activation_keeps_the_first():
    def kept(name: str, **options: object) -> int:
        parts = made(build(name, **options)).modules()
        assert not any(isinstance(part, nn.BatchNorm2d) for part in parts)
        return sum(isinstance(part, ScaleShift) for part in made(build(name, **options)).modules())

    assert kept("resnet18", width=0.125) == 0
    assert kept("resnet18", width=0.125, last_batch_norm=True) == 1
    assert kept("wideresnet28", width=1) == 12 + 1


def test_an_open_cache_is_left_alone():
    model = build("digits-cnn").double()
    mask_layers(model)
    surrogate = made(model)
    with parametrize.cached():
        surrogate.refresh(model)
        model(example("digits-cnn")).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_parametrizations_that_learn_in_training_are_read_without_learning():
    model = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(16, 2))
    model.double().train()
    state = copy.deepcopy(model.state_dict())
    surrogate = made(model)
    surrogate.refresh(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert_same(surrogate, model, torch.rand(2, 3, 4, 4, dtype=torch.float64))


class Mixed(nn.Module):
    """What user modules do: functional calls, own tensors, sharing, optional arguments, batch norms of all sorts."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(3, 1, 1))
        self.register_buffer("offset", torch.rand(3, 1, 1))
        self.shared = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.bn2 = nn.BatchNorm2d(4, affine=False)
        self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode="reflect")
        self.bn3 = nn.BatchNorm2d(4)
        self.read_twice = nn.Conv2d(4, 4, 1)
        self.bn4 = nn.BatchNorm2d(4)
        self.batch_only = nn.BatchNorm2d(4, track_running_stats=False)
        self.kernel = nn.Parameter(torch.randn(4, 4, 1, 1))
        self.bn5 = nn.BatchNorm2d(4)
        self.norm = nn.GroupNorm(2, 4)
        self.drop = nn.Dropout2d(0.5)
        self.fc = nn.Linear(4, 5)
        self.bn6 = nn.BatchNorm1d(5)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        x = x * self.gain.abs() + self.offset.exp()
        x = relu(self.bn1(self.shared(x))) + self.bn2(self.shared(x))
        if extra is not None:
            x = x + extra
        x = self.drop(self.bn3(self.drop(self.grouped(x))))
        y = self.read_twice(x)
        x = self.bn4(y) + y
        x = self.batch_only(conv2d(x, self.kernel))
        x = batch_norm(x, self.bn5.running_mean, self.bn5.running_var, self.bn5.weight, self.bn5.bias)
        x = dropout(self.norm(x), 0.5, self.training)
        return self.bn6(self.fc(x.mean((2, 3)).view(x.size(0), -1)))


def test_what_user_modules_do_is_reproduced():
    torch.manual_seed(0)
    model = Mixed().double()
    parametrize.register_parametrization(model, "gain", Masked(torch.ones(3, 1, 1, dtype=torch.float64)))
    surrogate, x = made(model), torch.rand(3, 3, 5, 5, dtype=torch.float64)
    for seed in (1, 2):
        shuffle(model, seed)
        surrogate.refresh(model)
        assert_same(surrogate, model, x)


def test_tied_weights_are_reproduced():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).double()
    model[3].weight = model[1].weight
    surrogate = made(model)
    shuffle(model, 1)
    surrogate.refresh(model)
    assert_same(surrogate, model, torch.rand(2, 1, 2, 2, dtype=torch.float64))


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Flatten()])
def test_a_lone_layer_has_a_surrogate(layer):
    layer = layer.double()
    assert_same(made(layer), layer, torch.rand(2, 4, dtype=torch.float64))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unregistered = [torch.ones(1)]

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * self.unregistered[0]


class Drawn(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + torch.randn_like(weight)


class Impure(Masked):
    pure = False


def hooked() -> nn.Module:
    model = build("digits-cnn")
    model.conv1.register_forward_hook(lambda *_: None)
    return model


def replaced() -> nn.Module:
    model = build("digits-cnn")
    model.conv1.forward = lambda x: x.repeat(1, 32, 1, 1)
    return model


def parametrized(parametrization: nn.Module) -> nn.Module:
    model = build("digits-cnn")
    parametrize.register_parametrization(model.fc, "weight", parametrization)
    return model


@pytest.mark.parametrize(
    "model",
    [Branching(), Hidden(), hooked(), replaced(), parametrized(Drawn()), parametrized(Impure(torch.ones(10, 256)))],
    ids=["branching", "hidden tensor", "hooked", "replaced forward", "drawn weight", "impure weight"],
)
def test_what_cannot_be_traced_faithfully_has_no_surrogate(model):
    assert build_surrogate(model) is None


class Sniffing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if isinstance(x, Tensor) else 2 * x.flatten(1)


def test_an_example_unmasks_an_unfaithful_trace():
    x = torch.rand(2, 1, 2, 2)
    assert build_surrogate(Sniffing(), example=x) is None
    assert build_surrogate(build("digits-cnn"), example=torch.rand(2, 1, 8, 8)) is not None


def test_a_changed_network_is_noticed():
    model = build("vgg16-imagenet", head="single", image_size=32)
    surrogate = made(model)
    assert surrogate.matches(model.train())
    model.block1.conv1.register_forward_hook(lambda *_: None)
    assert not surrogate.matches(model)
    model = build("digits-cnn")
    surrogate = made(model)
    model.relu1 = nn.GELU()
    with pytest.raises(RunError, match="build a new surrogate"):
        surrogate.refresh(model)
    model.relu1 = nn.ReLU()
    model.bn1.eps = 0.5
    with pytest.raises(RunError, match="build a new surrogate"):
        surrogate.refresh(model)


@pytest.mark.filterwarnings("ignore")
def test_a_network_may_be_compiled_after_it_was_traced():
    model = build("digits-cnn")
    surrogate = made(model)
    torch.compile(model, dynamic=False)
    assert surrogate.matches(model)


def test_a_surrogate_stays_in_eval_mode():
    surrogate = made(Mixed())
    assert not any(module.training for module in surrogate.train().modules())


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_surrogate_sees_refreshed_weights():
    torch.manual_seed(0)
    model = build("resnet20").double()
    surrogate, x = made(model), example("resnet20")
    compiled = torch.compile(surrogate)
    for seed in (1, 2):
        shuffle(model, seed)
        surrogate.refresh(model)
        for got, want in zip(outcome(compiled, x), expected(model, x), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.abs().max()))
