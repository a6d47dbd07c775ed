from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import phases_on_digits as small
from gossamer.errors import ConfigError
from gossamer.methods.registry import build as method
from gossamer.models.registry import build
from gossamer.seeding import Draws
from gossamer.sparsity import ConnectivitySampling, HardMask, NoSparsifier, targets
from gossamer.training.averages import Average, AverageSpec, effective_parameters, estimate_batch_norm
from gossamer.training.loop import begin, finalised


def no_batches() -> Iterator[Tensor]:
    yield from ()


def plain(model: nn.Module) -> NoSparsifier:
    sparsifier = NoSparsifier()
    sparsifier.attach(model, Draws())
    return sparsifier


def put(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


def test_an_exponential_average_in_closed_form() -> None:
    model, average = nn.Linear(1, 1, bias=False), Average(AverageSpec(kind="ema", decay=0.75, start=1))
    for epoch, value in ((0, 99.0), (1, 1.0), (1, 3.0), (2, 5.0)):
        put(model, value)
        average.after_step(epoch, model)
        average.after_epoch(epoch, model)
    # 1, then 0.75 * 1 + 0.25 * 3 = 1.5, then 0.75 * 1.5 + 0.25 * 5 = 2.375.
    assert average.finalise(model, plain(model), no_batches).module.weight.item() == pytest.approx(2.375)
    assert model.weight.item() == 5.0


def test_stochastic_weight_averaging_is_the_mean_of_the_epochs() -> None:
    model, average = nn.Linear(1, 1, bias=False), Average(AverageSpec(kind="swa", start=1))
    for epoch, value in ((0, 99.0), (1, 1.0), (2, 3.0), (3, 8.0)):
        put(model, value)
        average.after_step(epoch, model)
        average.after_epoch(epoch, model)
    assert average.finalise(model, plain(model), no_batches).module.weight.item() == pytest.approx(4.0)


def test_before_its_first_epoch_an_average_is_the_network_itself() -> None:
    model = nn.Linear(2, 2)
    average = Average(AverageSpec(kind="swa", start=5))
    average.after_epoch(0, model)
    assert torch.equal(average.finalise(model, plain(model), no_batches).module.weight, model.weight)  # type: ignore[arg-type]


def test_the_average_of_moving_masks_is_masked_again() -> None:
    torch.manual_seed(0)
    model = nn.Linear(30, 20)
    sampling = ConnectivitySampling(density=0.2)
    sampling.attach(model, Draws())
    average = Average(AverageSpec(decay=0.5))
    theta = targets(model)[0].parameter
    mean = torch.zeros(20, 30)
    for step in range(6):
        with torch.no_grad():
            theta.copy_(torch.randn(20, 30, generator=torch.Generator().manual_seed(step)))
        mean = model.weight.detach().clone() if step == 0 else 0.5 * mean + 0.5 * model.weight.detach()
        average.after_step(0, model)
    shipped = average.finalise(model, sampling, no_batches)
    alive = theta > 0
    torch.testing.assert_close(shipped.module.weight.detach(), torch.where(alive, mean, 0.0))  # type: ignore[operator,union-attr]
    assert torch.count_nonzero(mean) > torch.count_nonzero(alive) == shipped.masks.kept
    nn.Linear(30, 20).load_state_dict(shipped.module.state_dict(), strict=True)


def test_fixed_masks_stay_exact_under_an_average() -> None:
    model = build("digits-cnn")
    mask = HardMask(density=0.1)
    mask.attach(model, Draws())
    average = Average(AverageSpec(decay=0.9))
    for _ in range(3):
        average.after_step(0, model)
    assert average.finalise(model, mask, no_batches).masks.kept == int(0.1 * 58_656)


def test_effective_parameters_have_the_names_of_the_dense_network() -> None:
    model = build("digits-cnn")
    names = [name for name, _ in model.named_parameters()]
    ConnectivitySampling(density=0.1).attach(model, Draws())
    found = effective_parameters(model)
    assert sorted(found) == sorted(names)
    assert torch.equal(found["conv1.weight"], model.conv1.weight)  # type: ignore[arg-type,union-attr]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_average_from_a_checkpoint_goes_on_to_the_same_bits(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(16, 33, 3).to(memory_format=memory_format)  # type: ignore[call-overload]
    spec = AverageSpec(decay=0.9)
    whole, resumed = Average(spec), Average(spec)
    for step in range(6):
        with torch.no_grad():
            model.weight.add_(torch.randn(model.weight.shape, generator=torch.Generator().manual_seed(step)))
        whole.after_step(0, model)
        resumed.after_step(0, model)
        stored = {name: value.detach().contiguous().clone() for name, value in resumed.state_dict().items()}
        resumed = Average(spec)
        resumed.load_state_dict(stored)
    bits = [average.finalise(model, plain(model), no_batches).module.weight for average in (whole, resumed)]
    assert torch.equal(*bits)  # type: ignore[arg-type]


def test_estimated_batch_norm_statistics_are_those_of_the_whole_data() -> None:
    torch.manual_seed(0)
    x = torch.randn(70, 3, 4, 4) * 2 + 1
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.05))
    model.eval()
    estimate_batch_norm(model, x.split(20))
    norm = model[0]
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)))  # type: ignore[arg-type]
    within = torch.stack([part.var((0, 2, 3)) * len(part) for part in x.split(20)]).sum(0) / 70
    torch.testing.assert_close(norm.running_var, within)  # type: ignore[arg-type]
    estimate_batch_norm(model, [x])
    torch.testing.assert_close(norm.running_var, x.var((0, 2, 3)))  # type: ignore[arg-type]
    assert norm.momentum == 0.05
    assert not norm.training


def test_stochastic_weight_averaging_estimates_batch_norm_anew_and_an_exponential_average_does_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    x = torch.rand(40, 1, 8, 8)
    for kind in ("ema", "swa"):
        average = Average(AverageSpec(kind=kind))  # type: ignore[arg-type]
        average.after_step(0, model)
        average.after_epoch(0, model)
        shipped = average.finalise(model, plain(model), lambda: iter([x])).module
        expected = shipped[0](x).mean((0, 2, 3)) if kind == "swa" else torch.zeros(2)  # type: ignore[index,operator]
        torch.testing.assert_close(shipped[1].running_mean, expected)  # type: ignore[index,union-attr]
    assert torch.equal(model[1].running_mean, torch.zeros(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
def test_an_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"training\.average\.decay"):
        AverageSpec(decay=decay)


def test_statistics_of_a_noisy_average_are_drawn_by_the_step_alone(tmp_path: Path) -> None:
    base = small.phase(average=AverageSpec(kind="swa"))
    noisy = method("pni").phases(base, "digits-cnn")[-1]
    job = small.job(tmp_path / "run")
    training = begin(noisy, small.network(), small.scene(noisy, job))
    assert training.average is not None
    training.average.after_epoch(0, training.model)
    found: list[dict[str, Tensor]] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(finalised(training, job).module.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    training.step += 1
    later = finalised(training, job).module.state_dict()
    assert any(not torch.equal(found[0][name], later[name]) for name in later)
