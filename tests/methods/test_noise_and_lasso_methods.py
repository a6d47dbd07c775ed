"""RSR, PNI and the lasso: their phases, four ablations at one sparsity, what they ship, and that runs resume."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairs
import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.cut import FromNoisy
from gossamer.methods.registry import build
from gossamer.objectives.natural import Natural
from gossamer.objectives.penalties import L1
from gossamer.recipe.open import open_run
from gossamer.recipe.train import train
from gossamer.runs import atomic
from gossamer.sparsity import HeldMask, targets
from gossamer.sparsity.noisy_weights import NoisyWeights
from gossamer.sparsity.thresholding import SoftThreshold
from gossamer.training.averages import AverageSpec
from gossamer.training.phases import Phase
from gossamer.training.run import run_phases
from gossamer.training.schedules import Steps

STORED = "parametrizations.weight.original"


def phases(name: str, epochs: int = 1, base: Mapping[str, Any] | None = None, **options: Any) -> Sequence[Phase]:
    return build(name, **options).phases(small.phase(epochs=epochs, **(base or {})), "digits-cnn")


def trained(folder: Path, made: Sequence[Phase]) -> dict[str, dict[str, Tensor]]:
    """Run phases on a few digits and return every state they gave."""
    job = small.job(folder / "run")
    run_phases(made, small.network, job)
    return {path.stem: atomic.read_safetensors(path) for path in job.run.states.glob("*.safetensors")}


def kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the stored kernels of a state, noisy or plain."""
    paths = [layer.name.removesuffix("weight") for layer in targets(small.network())]
    return {path: state[f"{path}{STORED}"] if f"{path}{STORED}" in state else state[f"{path}weight"] for path in paths}


def test_rsr_has_natural_epochs_training_and_a_cut_with_the_published_constants() -> None:
    spec = build("rsr", density=0.4)
    optimizer = spec.default_optimizer("weighted")
    base = small.phase(epochs=160, optimizer=optimizer, average=AverageSpec(start=20))
    natural, rest, prune = spec.phases(base, "resnet20")
    assert [(each.name, each.epochs) for each in (natural, rest, prune)] == [
        ("natural", 5),
        ("train", 155),
        ("prune", 0),
    ]
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay, optimizer.nesterov) == (0.1, 0.9, 3e-4, True)
    assert isinstance(natural.objective, Natural)
    assert natural.attack is None
    assert natural.penalties == rest.penalties == (L1(strength=1e-5),)
    assert prune.penalties == ()
    assert rest.start == FromNoisy("natural.end")
    assert rest.average == AverageSpec(start=15)
    assert isinstance(natural.sparsifier(), NoisyWeights)
    assert prune.sparsifier().contract == "at-most"


def test_the_learning_rate_goes_on_through_natural_epochs() -> None:
    base = {"schedule": Steps(milestones=(0.1, 0.5))}
    natural, rest, _ = phases("rsr", epochs=10, base=base, density=0.1, natural_epochs=3)
    factors = [natural.schedule(step, 12, 4) for step in range(12)] + [rest.schedule(step, 28, 4) for step in range(28)]
    assert factors == pytest.approx([Steps(milestones=(0.1, 0.5))(step, 40, 4) for step in range(40)])


def test_an_objective_without_attack_needs_no_natural_epochs() -> None:
    made = phases("pni", epochs=160, base={"objective": Natural(), "attack": None})
    assert [each.name for each in made] == ["train"]


ABLATION: Mapping[str, Mapping[str, Any]] = {
    "attack alone": {"noise": "none", "strength": 0.0},
    "noise": {"strength": 0.0},
    "lasso": {"noise": "none", "strength": 1e-3},
    "both": {"strength": 1e-3},
}


@pytest.mark.parametrize("parts", ABLATION)
def test_the_four_ablations_ship_one_sparsity(parts: str, tmp_path: Path) -> None:
    states = trained(tmp_path, phases("rsr", density=0.1, **ABLATION[parts]))
    before, after = (kernels(states[name]) for name in ("train.end", "final"))
    kept = sum(int(weight.count_nonzero()) for weight in after.values())
    assert kept == int(0.1 * 58_656)
    least = min(float(weight[weight != 0].abs().min()) for weight in after.values())
    for path, weight in after.items():
        assert torch.equal(weight != 0, before[path].abs() >= least)
        assert torch.equal(weight[weight != 0], before[path][weight != 0])
    assert any(name.endswith("alpha") for name in states["final"]) is (parts in ("noise", "both"))


def test_the_lasso_shrinks_weights_and_noise_is_learned(tmp_path: Path) -> None:
    sizes = {}
    for strength in (0.0, 1e-2):
        states = trained(tmp_path / str(strength), phases("rsr", epochs=3, strength=strength, threshold=0.0))
        sizes[strength] = sum(float(weight.abs().sum()) for weight in kernels(states["final"]).values())
        alpha = states["final"]["conv2.parametrizations.weight.0.alpha"]
        assert alpha.shape == (64, 1, 1, 1)
        assert len(alpha.unique()) > 32
    # Nine steps of 0.1 * 0.01 take 0.009 from weights of 0.057 on average.
    assert sizes[1e-2] < 0.9 * sizes[0.0]


def test_finetuning_holds_the_mask_and_the_noise_goes_on(tmp_path: Path) -> None:
    made = phases("rsr", epochs=2, density=0.1, natural_epochs=1, finetune_epochs=1, finetune_lr=0.5)
    assert [(each.name, each.epochs) for each in made] == [("natural", 1), ("train", 1), ("prune", 1)]
    assert made[-1].optimizer.lr == pytest.approx(0.05)
    states = trained(tmp_path, made)
    before, after = kernels(states["train.end"]), kernels(states["final"])
    for path, weight in after.items():
        mask = weight != 0
        assert before[path][mask].abs().min() >= before[path][~mask].abs().max() or mask.sum() in (0, mask.numel())
        assert not torch.equal(weight[mask], before[path][mask])
    alpha = "conv2.parametrizations.weight.0.alpha"
    values = [states[name][alpha] for name in ("natural.end", "train.end", "final")]
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])
    torch.testing.assert_close(values[1], values[2], rtol=0.5, atol=0.2)


def test_pni_ships_every_weight_with_noise_and_a_quiet_twin(tmp_path: Path) -> None:
    train({**pairs.recipe("pni", "adversarial")}, out=tmp_path / "run")
    opened = open_run(tmp_path / "run")
    shipped, twin, x = opened.model(), opened.twin(), torch.rand(4, 1, 8, 8)
    assert not torch.equal(shipped(x), shipped(x))
    assert torch.equal(twin(x), twin(x))
    assert opened.dense_weights() == 58_656
    assert all((layer.weight != 0).all() for layer in targets(shipped))
    assert shipped.state_dict()["conv1.parametrizations.weight.0.alpha"].shape == (1, 1, 1, 1)


def test_a_proximal_lasso_has_no_term_in_the_loss_and_ships_its_own_zeros(tmp_path: Path) -> None:
    made = phases("lasso", epochs=2, proximal=True, strength=0.02, threshold=0.0)
    assert [each.name for each in made] == ["train"]
    assert made[0].penalties == ()
    assert isinstance(made[0].sparsifier(), SoftThreshold)
    final = kernels(trained(tmp_path, made)["final"])
    zeros = sum(int((weight == 0).sum()) for weight in final.values())
    assert 1_000 < zeros < 58_656


def test_the_zeros_of_a_proximal_lasso_are_zeros_of_its_average(tmp_path: Path) -> None:
    made = phases("lasso", epochs=3, proximal=True, strength=0.02, threshold=0.0)
    averaged = replace(made[0], average=AverageSpec(kind="ema", decay=0.9))
    states = trained(tmp_path, [averaged])
    zeros = {name: int((weight == 0).sum()) for name, weight in kernels(states["final"]).items()}
    assert 1_000 < sum(zeros.values()) < 58_656


def test_the_lasso_is_cut_and_finetuned_without_its_term() -> None:
    shrink, prune = phases("lasso", density=0.2, strength=1e-4, finetune_epochs=2)
    assert shrink.penalties == (L1(strength=1e-4),)
    assert (prune.penalties, prune.epochs) == ((), 2)
    assert isinstance(prune.sparsifier(), HeldMask)
    assert phases("lasso")[-1].sparsifier().contract == "reported"
    assert build("lasso").default_optimizer("adversarial").weight_decay == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"name": "rsr", "density": 0.1, "natural_epochs": 1, "finetune_epochs": 1},
        {"name": "pni", "noise": "element"},
        {"name": "lasso", "proximal": True, "density": 0.3},
    ],
    ids=lambda options: options["name"],
)
def test_a_run_broken_off_at_any_step_resumes_to_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    values = {**pairs.recipe(options["name"], "weighted"), "method": options}
    seen = pairs.assert_resumes(lambda: values, tmp_path, break_at=4)
    assert seen.finalised is not None
    assert seen.finalised.kind == ("same-keys" if options["name"] == "lasso" else "stochastic")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("rsr", {"noise": "row"}, r"method\.noise"),
        ("rsr", {"alpha": -1.0}, r"method\.alpha: expected a number of at least 0"),
        ("rsr", {"density": 0.1, "threshold": 1e-5}, r"method\.threshold: expected a density or a threshold"),
        ("rsr", {"natural_epochs": -1}, r"method\.natural_epochs: expected at least 0"),
        ("rsr", {"strength": -1.0}, r"strength: expected a finite number >= 0"),
        ("rsr", {"threshold": 0.0, "finetune_epochs": 3}, r"method\.finetune_epochs: expected 0 where nothing is cut"),
        ("lasso", {"finetune_lr": 0.0}, r"method\.finetune_lr"),
        ("lasso", {"finetune_epochs": -1}, r"method\.finetune_epochs: expected at least 0"),
        ("lasso", {"density": 10}, r"method\.density: .*write 0\.1 for 10 %"),
        ("pni", {"density": 0.1}, r"method\.density: expected one of noise"),
    ],
)
def test_impossible_values_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(name, **options)


def test_natural_epochs_leave_time_for_the_attack() -> None:
    with pytest.raises(ConfigError, match=r"method\.natural_epochs: expected fewer than training\.epochs \(2\), got 2"):
        phases("pni", epochs=2, natural_epochs=2)
