from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import phases_on_digits as small
from gossamer.attacks.pgd import PGD
from gossamer.errors import ConfigError
from gossamer.methods.early_mask import EarlyMask
from gossamer.methods.early_scores import EARLY_SCORES, _linearised, enough_batches, synflow
from gossamer.methods.protocol import Method
from gossamer.methods.rewinding import Rewinding
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.natural import Natural
from gossamer.objectives.stored import Stored
from gossamer.runs import atomic
from gossamer.sparsity import targets
from gossamer.threat import ThreatModel
from gossamer.training.averages import AverageSpec
from gossamer.training.phases import Phase
from gossamer.training.run import run_phases
from gossamer.training.scene import Scene


class Linear(nn.Module):
    """Two linear layers without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 4, bias=False)
        self.second = nn.Linear(4, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x.flatten(1))) if self.training else self.first(x.flatten(1)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Linear().double()


def natural_scene(folder: Path) -> Scene:
    phase = small.phase(objective=Natural(), attack=None, batch_size=20)
    return small.scene(phase, small.job(folder / "run"))


class DoubleScene(Scene):
    """A scene whose images are float64, for differences of losses."""

    def batches(self, purpose: str, *, limit: int | None = None):  # type: ignore[no-untyped-def]
        for batch in super().batches(purpose, limit=limit):
            yield type(batch)(
                x=batch.x.double(), y=batch.y, index=batch.index, labelled=batch.labelled, view=batch.view
            )


def double_scene(folder: Path) -> Scene:
    made = natural_scene(folder)
    return DoubleScene(**{name: getattr(made, name) for name in made.__dataclass_fields__})


def losses(model: nn.Module, scene: Scene, scale: dict[str, Tensor]) -> Tensor:
    """Return the mean training loss with every kernel multiplied by its scale."""
    model.train()
    weights = {f"{name}": value for name, value in model.named_parameters()}
    scaled = {name: value * scale[name] for name, value in weights.items()}
    each = [
        cross_entropy(torch.func.functional_call(model, scaled, (batch.x,)), batch.y)
        for batch, _ in scene.crafted(model, "early scores", limit=2)
    ]
    return torch.stack(each).mean()


def ones(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones_like(value, requires_grad=True) for name, value in model.named_parameters()}


def test_snip_is_the_sensitivity_of_the_loss_to_each_connection(model: nn.Module, tmp_path: Path) -> None:
    scene, scale = double_scene(tmp_path), ones(model)
    scores = EARLY_SCORES["snip"](model, scene, 0.1, 2)
    sensitivities = torch.autograd.grad(losses(model, scene, scale), list(scale.values()))
    for layer, expected in zip(targets(model), sensitivities, strict=True):
        torch.testing.assert_close(scores[layer.name], expected.abs())


def test_grasp_is_how_half_the_squared_gradient_follows_each_connection(model: nn.Module, tmp_path: Path) -> None:
    scene, scale = double_scene(tmp_path), ones(model)
    scores = EARLY_SCORES["grasp"](model, scene, 0.1, 2)
    # d/dc of |dL/dw (c * w)|^2 / 2 at c = 1, where L is seen as a function of the product.
    weights = {name: (value * scale[name]) for name, value in model.named_parameters()}
    model.train()
    halves = replace(scene, phase=replace(scene.phase, batch_size=scene.phase.batch_size // 2))
    batches = [batch for batch, _ in halves.crafted(model, "early scores", limit=4)]
    assert len(batches) == 4
    loss = torch.stack(
        [cross_entropy(torch.func.functional_call(model, weights, (batch.x,)), batch.y) for batch in batches]
    ).mean()
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    half = 0.5 * torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    for layer, expected in zip(targets(model), torch.autograd.grad(half, list(scale.values())), strict=True):
        torch.testing.assert_close(scores[layer.name], expected)


def test_synflow_conserves_flow_and_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Linear()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = synflow(model, natural_scene(tmp_path), 1.0, 1)
    # Without cutting, both layers carry the whole flow R = 1' |W2| |W1| 1.
    flow = float((before["second.weight"].abs() @ before["first.weight"].abs()).sum())
    assert float(scores["first.weight"].sum()) == pytest.approx(flow, rel=1e-5)
    assert float(scores["second.weight"].sum()) == pytest.approx(flow, rel=1e-5)
    by_hand = before["second.weight"].abs().sum(0)[:, None] * before["first.weight"].abs()
    torch.testing.assert_close(scores["first.weight"].float(), by_hand)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_synflow_sees_absolute_values_of_buffers_too_and_puts_them_back() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model[1].running_mean.copy_(torch.tensor([-0.5, 0.25]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with _linearised(model):
        assert model[1].running_mean.tolist() == [0.5, 0.25]
        assert all((value >= 0).all() for value in model.state_dict().values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_synflow_cuts_no_layer_away_at_1_in_50(tmp_path: Path) -> None:
    model = small.network()
    scores = synflow(model, natural_scene(tmp_path), 0.02, 1)
    kept = {name: int((score >= 0).sum()) for name, score in scores.items()}
    assert min(kept.values()) > 0
    assert sum(kept.values()) == int(0.02 * 58_656)


@pytest.mark.parametrize("score", EARLY_SCORES)
def test_scoring_keeps_the_budget_and_the_batch_norm_statistics(score: str, tmp_path: Path) -> None:
    method = EarlyMask(density=0.1, score=score)  # type: ignore[arg-type]
    choose, train = method.phases(small.phase(), "digits-cnn")
    assert (choose.epochs, train.epochs) == (0, 2)
    model, fresh = small.network(), small.network().state_dict()
    choose.start(model, small.scene(choose, small.job(tmp_path / "run")))
    kept = sum(int((layer.weight != 0).sum()) for layer in targets(model))
    assert kept == int(0.1 * 58_656)
    for name, value in model.state_dict().items():
        assert torch.equal(value, fresh[name]) or (name.endswith("weight") and value.ndim > 1)
        assert torch.equal(value[value != 0], fresh[name][value != 0])


def trained(folder: Path, method: Method, base: Phase) -> dict[str, dict[str, Tensor]]:
    job = small.job(folder / "run")
    run_phases(method.phases(base, "digits-cnn"), small.network, job)
    return {path.stem: atomic.read_safetensors(path) for path in job.run.states.glob("*.safetensors")}


def test_a_later_mask_starts_from_the_state_that_rewinding_goes_back_to(tmp_path: Path) -> None:
    # After the first drop of the rate, with an average that the whole training has begun by then.
    base = small.phase(epochs=4, average=AverageSpec(decay=0.9, start=1))
    early = trained(tmp_path / "early", EarlyMask(density=0.1, at_epoch=3), base)
    rewound = trained(tmp_path / "rewound", Rewinding(density=0.1, rewind_epoch=3), base)
    state, expected = early["train.epoch-3"], rewound["train.epoch-3"]
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    masked, final = early["choose.end"], early["final"]
    kernels = [layer.name for layer in targets(small.network())]
    assert all(torch.equal(masked[name], torch.where(masked[name] != 0, state[name], 0.0)) for name in kernels)
    assert all(torch.equal(masked[name], value) for name, value in state.items() if name not in kernels)
    assert all(torch.equal(final[name] != 0, masked[name] != 0) for name in kernels)
    assert sum(int((final[name] != 0).sum()) for name in kernels) == int(0.1 * 58_656)


def test_what_follows_a_later_mask_is_the_first_round_of_rewinding(tmp_path: Path) -> None:
    base = small.phase(epochs=8)
    dense, choose, masked = EarlyMask(density=0.1, at_epoch=3).phases(base, "digits-cnn")
    train, again = Rewinding(density=0.1, rewind_epoch=3).phases(base, "digits-cnn")
    assert (dense.name, dense.epochs, choose.epochs) == (train.name, 3, 0)
    assert (masked.name, masked.epochs, masked.schedule) == (again.name, again.epochs, again.schedule)


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_batches_are_scored_on_one_network_whatever_their_order(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
    attack = PGD(threat=ThreatModel("linf", 0.15), steps=2)
    phase = small.phase(objective=Adversarial(), attack=attack, batch_size=20)
    scene = small.scene(phase, small.job(tmp_path / "run"))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    seen: list[Tensor] = []
    network[2].register_forward_pre_hook(lambda module, _: seen.append(module.running_mean.clone()))
    EARLY_SCORES[name](network, scene, 0.1, 3)
    assert len(seen) >= 9
    assert all(torch.equal(each, before["2.running_mean"]) for each in seen)


def test_ten_images_a_class_are_scored(tmp_path: Path) -> None:
    assert enough_batches(natural_scene(tmp_path)) == 3
    bigger = small.scene(small.phase(batch_size=20), small.job(tmp_path / "more", n=600))
    assert enough_batches(bigger) == 5


def test_perturbations_that_nothing_moves_before_training_are_refused() -> None:
    base = small.phase(epochs=2, objective=Stored(threat=ThreatModel("linf", 0.1), update="backward"), attack=None)
    with pytest.raises(ConfigError, match=r"objective\.update: expected attack"):
        EarlyMask(density=0.1).phases(base, "digits-cnn")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"density": 1.5}, "method.density"),
        ({"density": 0.1, "at_epoch": 2}, "method.at_epoch"),
        ({"density": 0.1, "at_epoch": -1}, "method.at_epoch"),
        ({"density": 0.1, "batches": 0}, "method.batches"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        EarlyMask(**options).phases(small.phase(epochs=2), "digits-cnn")  # type: ignore[arg-type]
