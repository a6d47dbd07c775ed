"""edge-popup, robust binary subnetworks, scratch tickets and HYDRA: their phases, what they hold to, what they ship."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pairs
import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.registry import build
from gossamer.recipe.open import open_run
from gossamer.recipe.train import train
from gossamer.runs import atomic
from gossamer.seeding import Draws
from gossamer.sparsity import HeldMask, ScoreMask, targets
from gossamer.training.phases import Phase
from gossamer.training.run import run_phases
from gossamer.training.schedules import Cosine, Restarted


def trained(folder: Path, phases: Sequence[Phase]) -> dict[str, dict[str, Tensor]]:
    """Run phases on a few digits and return every state they gave."""
    job = small.job(folder / "run")
    run_phases(phases, small.network, job)
    return {path.stem: atomic.read_safetensors(path) for path in job.run.states.glob("*.safetensors")}


def kernels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = [layer.name for layer in targets(small.network())]
    return {name: state[name] for name in names}


def method(name: str, **options: Any) -> Sequence[Phase]:
    return build(name, **{"density": 0.1, **options}).phases(small.phase(epochs=1), "digits-cnn")


def test_hydra_has_the_published_phases() -> None:
    spec = build("hydra", density=0.1)
    optimizer = spec.default_optimizer("trades")
    base = small.phase(epochs=100, optimizer=optimizer, schedule=Cosine(per_epoch=True, lag=1))
    pretrain, prune, finetune = spec.phases(base, "vgg16")
    assert [phase.name for phase in (pretrain, prune, finetune)] == ["pretrain", "prune", "finetune"]
    assert [phase.epochs for phase in (pretrain, prune, finetune)] == [100, 20, 100]
    assert [phase.optimizer.lr for phase in (pretrain, prune, finetune)] == pytest.approx([0.1, 0.1, 0.01])
    assert {phase.optimizer.weight_decay for phase in (pretrain, prune, finetune)} == {1e-4}
    assert isinstance(prune.sparsifier(), ScoreMask)
    assert isinstance(finetune.sparsifier(), HeldMask)


def test_hydra_prunes_frozen_weights_and_finetunes_what_it_chose(tmp_path: Path) -> None:
    states = trained(tmp_path, method("hydra", prune_epochs=2))
    dense, pruned, final = (kernels(states[f"{name}.end"]) for name in ("pretrain", "prune", "finetune"))
    for name, weight in dense.items():
        mask = pruned[name] != 0
        assert int(mask.sum()) == int(0.1 * weight.numel())
        assert torch.equal(pruned[name][mask], weight[mask])
        assert torch.equal(final[name] != 0, mask)
        assert not torch.equal(final[name], pruned[name])
    biases = [states[f"{name}.end"]["fc.bias"] for name in ("pretrain", "prune", "finetune")]
    assert torch.equal(biases[0], biases[1])
    assert not torch.equal(biases[1], biases[2])


def test_the_first_mask_of_hydra_is_that_of_the_largest_weights(tmp_path: Path) -> None:
    _, prune, _ = method("hydra")
    model = small.network()
    weights = {layer.name: layer.weight.detach().clone() for layer in targets(model)}
    sparsifier = prune.sparsifier()
    sparsifier.attach(model, Draws())
    for name, mask in sparsifier.masks().items():
        assert weights[name][mask].abs().min() >= weights[name][~mask].abs().max()


def test_edge_popup_ships_signed_constants_with_the_signs_of_the_first_weights(tmp_path: Path) -> None:
    states = trained(tmp_path, method("edge-popup"))
    for name, weight in kernels(states["final"]).items():
        first = kernels(dict(small.network().state_dict()))[name]
        mask = weight != 0
        constant = (2 / first[0].numel()) ** 0.5
        torch.testing.assert_close(weight[mask], first[mask].sign() * constant)
        assert int(mask.sum()) == int(0.1 * weight.numel())
    assert (states["final"]["bn1.weight"] == 1).all()
    assert (states["final"]["bn1.bias"] == 0).all()


def test_robust_subnetworks_are_binary_with_adaptive_budgets(tmp_path: Path) -> None:
    states = trained(tmp_path, method("robust-subnet", density=0.05))
    kept = {name: int((weight != 0).sum()) for name, weight in kernels(states["final"]).items()}
    # K = 2,932 shared by 800, 18,432, 36,864 and 2,560 weights in proportion to n^0.1: 591.3, 809.2, 867.3, 664.2.
    assert kept == {"conv1.weight": 591, "conv2.weight": 809, "conv3.weight": 867, "fc.weight": 664}
    assert all(set(weight.unique().tolist()) == {-1.0, 0.0, 1.0} for weight in kernels(states["final"]).values())


def test_stages_restart_the_learning_rate() -> None:
    (phase,) = method("robust-subnet", stages=4)
    assert isinstance(phase.schedule, Restarted)
    assert phase.schedule.stages == 4
    (plain,) = method("robust-subnet")
    assert plain.schedule == small.phase().schedule


@pytest.mark.parametrize("finetune", ["inherit", "reinit"])
def test_tickets_are_finetuned_under_their_mask(finetune: str, tmp_path: Path) -> None:
    phases = method("scratch-ticket", finetune=finetune)
    assert phases[1].optimizer.lr == pytest.approx({"inherit": 0.01, "reinit": 0.1}[finetune])
    states = trained(tmp_path, phases)
    found, final = kernels(states["search.end"]), kernels(states["final"])
    for name, weight in found.items():
        mask = weight != 0
        assert torch.equal(final[name] != 0, mask)
        same_signs = (final[name].sign() == weight.sign())[mask].float().mean()
        # Signs are those found, or those of new draws: half of them.
        assert same_signs > 0.95 if finetune == "inherit" else 0.3 < same_signs < 0.7
    assert (states["final"]["bn1.weight"] == 1).all()


def test_new_weights_of_a_ticket_have_the_scale_of_kaiming_and_no_old_statistics(tmp_path: Path) -> None:
    search, finetune = method("scratch-ticket", density=0.5, finetune="reinit")
    states = trained(tmp_path / "first", (search,))
    model = small.network()
    finetune.start(model, small.scene(finetune, small.job(tmp_path / "second"), states))
    weight = model.conv3.weight.detach()
    kept = weight[weight != 0]
    assert kept.numel() == 18_432
    assert float(kept.std()) == pytest.approx((2 / 576) ** 0.5, rel=0.03)
    assert (model.bn1.running_mean == 0).all()
    assert not model.bn1.weight.requires_grad


SWITCH = {"name": "scratch-ticket", "density": 0.1, "switch": [0.05, 0.2]}


def test_a_random_switch_ships_one_ticket_a_density_and_draws_among_them(tmp_path: Path) -> None:
    values = {**pairs.recipe("scratch-ticket", "adversarial"), "method": SWITCH}
    train(values, out=tmp_path / "run")
    opened = open_run(tmp_path / "run")
    shipped, twin, x = opened.model(), opened.twin(), torch.rand(4, 1, 8, 8)
    alone = [opened.model(name)(x) for name in ("search.end", "search-0.05.end", "search-0.2.end")]
    assert torch.equal(twin(x), alone[0])
    assert opened.dense_weights() == 58_656
    torch.manual_seed(0)
    drawn = [shipped(x) for _ in range(40)]
    counts = [sum(torch.equal(each, one) for each in drawn) for one in alone]
    assert sum(counts) == 40
    assert min(counts) > 3
    shipped.noisy = False  # type: ignore[assignment]
    assert all(torch.equal(shipped(x), alone[0]) for _ in range(5))
    tickets = [kernels(dict(opened.model(name).state_dict())) for name in ("search.end", "search-0.05.end")]
    shared = [(one != 0) & (other != 0) for one, other in zip(*(t.values() for t in tickets), strict=True)]
    pair = list(zip(tickets[0].values(), tickets[1].values(), shared, strict=True))
    assert sum(int(mask.sum()) for mask in shared) > 0
    assert all(torch.equal(one[mask], other[mask]) for one, other, mask in pair)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "hydra", "density": 0.1},
        SWITCH,
        {"name": "scratch-ticket", "density": 0.1, "finetune": "reinit"},
        {"name": "robust-subnet", "density": 0.1, "stages": 3},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_a_run_broken_off_at_any_step_resumes_to_the_same_bits(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if options is SWITCH:
        # The last phase trains nothing: its model is the twin of what ships.
        monkeypatch.setattr(pairs, "assert_what_ships", lambda *_: None)
    values = {**pairs.recipe(options["name"], "adversarial"), "method": options}
    broken = {"hydra": 7, "scratch-ticket": 8, "robust-subnet": 4}[options["name"]]
    seen = pairs.assert_resumes(lambda: values, tmp_path, break_at=broken)
    assert seen.steps > broken


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("hydra", {"prune_epochs": 0}, r"method\.prune_epochs: expected at least 1, got 0"),
        ("hydra", {"finetune_lr": 0.0}, r"method\.finetune_lr: expected a share of the learning rate above 0"),
        ("hydra", {"budget": "even"}, r"method\.budget: expected one of uniform"),
        ("hydra", {"density": 20}, r"method\.density: .*write 0\.2 for 20 %"),
        ("edge-popup", {"bound": -1.0}, r"method\.bound"),
        ("robust-subnet", {"stages": 0}, r"method\.stages: expected at least 1"),
        ("robust-subnet", {"budget": {"name": "adaptive", "p": -0.5}}, r"method\.budget\.p"),
        ("scratch-ticket", {"switch": [0.1]}, r"method\.switch: expected densities that differ"),
        ("scratch-ticket", {"switch": [0.2, 3.0]}, r"method\.switch: .*write 0\.03 for 3 %"),
        ("scratch-ticket", {"switch": [0.2], "finetune": "inherit"}, r"method\.finetune: expected none"),
        (
            "scratch-ticket",
            {"finetune": "inherit", "finetune_epochs": -1},
            r"method\.finetune_epochs: expected at least",
        ),
        ("scratch-ticket", {"finetune_epochs": 5}, r"method\.finetune_epochs: expected nothing beside finetune: none"),
        (
            "scratch-ticket",
            {"finetune_lr": 0.1},
            r"method\.finetune_lr: expected nothing beside finetune: none, got 0\.1",
        ),
        (
            "scratch-ticket",
            {"switch": [0.2], "weights": "scaled-signed-constant"},
            r"method\.weights: expected a size that does not depend on the density",
        ),
    ],
)
def test_impossible_values_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(name, **{"density": 0.1, **options})


def test_a_network_with_nothing_to_score_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one convolution or linear layer"):
        ScoreMask(density=0.5).attach(nn.Sequential(nn.ReLU()), Draws())
