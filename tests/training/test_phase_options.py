"""What a phase may ask of the loop: states on the way, replays, preparation, penalties, tensors without decay."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import phases_on_digits as small
from gossamer.attacks.pgd import PGD
from gossamer.errors import RunError
from gossamer.runs import atomic
from gossamer.sparsity import Finalised, HardMask, NoSparsifier, Sparsifier, finalise
from gossamer.training import loop
from gossamer.training.averages import Average, AverageSpec
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import FromState, epoch_state
from gossamer.training.run import run_phases
from gossamer.training.scene import Scene
from gossamer.types import Attack


def trained(tmp_path: Path, *phases: Any, n: int = 60) -> Path:
    job = small.job(tmp_path / "run", n=n)
    run_phases(phases, small.network, job)
    return job.run.states


def state(folder: Path, name: str) -> dict[str, Tensor]:
    return atomic.read_safetensors(folder / f"{name}.safetensors")


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_phase_publishes_its_weights_between_epochs(tmp_path: Path) -> None:
    states = trained(tmp_path, small.phase(epochs=3, publish=(0, 1, 3)))
    assert equal(state(states, epoch_state("train", 0)), small.network().state_dict())
    assert equal(state(states, epoch_state("train", 3)), state(states, "train.end"))
    assert not equal(state(states, epoch_state("train", 1)), state(states, "train.end"))


def test_what_is_published_does_not_change_the_training(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", small.phase(epochs=2))
    published = trained(tmp_path / "published", small.phase(epochs=2, publish=(0, 1, 2)))
    assert equal(state(plain, "final"), state(published, "final"))


def test_a_later_phase_starts_from_a_published_epoch(tmp_path: Path) -> None:
    first = small.phase(name="first", epochs=2, publish=(1,))
    second = small.phase(name="second", epochs=1, start=FromState(epoch_state("first", 1)), publish=(0,))
    states = trained(tmp_path, first, second)
    assert equal(state(states, epoch_state("second", 0)), state(states, epoch_state("first", 1)))


def test_a_state_that_no_phase_gave_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"first\.epoch-7"):
        trained(tmp_path, small.phase(start=FromState(epoch_state("first", 7))))


def test_replays_step_several_times_on_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Tensor] = []
    real = loop.train_step

    def stepping(phase: Any, training: Any, batch: Any, *args: Any, **kwargs: Any) -> None:
        batches.append(batch.x.clone())
        real(phase, training, batch, *args, **kwargs)

    monkeypatch.setattr(loop, "train_step", stepping)
    trained(tmp_path, small.phase(epochs=1, replays=3))
    assert len(batches) == 9
    assert all(torch.equal(batches[3 * i], batches[3 * i + j]) for i in range(3) for j in (1, 2))
    assert not torch.equal(batches[0], batches[3])


def test_a_phase_of_no_epochs_prepares_weights_from_data(tmp_path: Path) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def start(model: nn.Module, scene: Scene) -> None:
        seen.extend((batch.x, x_adv) for batch, x_adv in scene.crafted(model, "scores", limit=2))
        with torch.no_grad():
            next(model.parameters()).fill_(0.25)

    states = trained(tmp_path, small.phase(epochs=0, start=start))
    assert len(seen) == 2
    assert all(0 < float((x_adv - x).abs().max()) <= 0.15 + 1e-6 for x, x_adv in seen)
    assert bool((state(states, "final")["conv1.weight"] == 0.25).all())


def test_batches_of_an_equal_purpose_are_equal(tmp_path: Path) -> None:
    phase = small.phase()
    scene = small.scene(phase, small.job(tmp_path / "run"))
    first, again, other = (list(scene.batches(purpose)) for purpose in ("scores", "scores", "masks"))
    assert len(first) == 3
    assert all(torch.equal(one.x, two.x) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0].x, other[0].x)


def test_the_attack_of_an_epoch_may_change(tmp_path: Path) -> None:
    radii: list[float] = []

    def adapt(attack: Attack | None, sparsifier: Sparsifier) -> Attack:
        assert isinstance(attack, PGD)
        eps = 0.05 * (len(radii) + 1)
        radii.append(eps)
        return replace(attack, threat=replace(attack.threat, eps=eps))

    trained(tmp_path, small.phase(epochs=3, adapt=adapt))
    assert radii == pytest.approx([0.05, 0.1, 0.15])


def test_penalties_shrink_what_they_penalise(tmp_path: Path) -> None:
    def squares(model: nn.Module) -> Tensor:
        return 10.0 * sum((parameter.square().sum() for parameter in model.parameters()), torch.tensor(0.0))

    optimizer = OptimizerSpec(lr=0.01, momentum=0.0, weight_decay=0.0)
    plain = state(trained(tmp_path / "plain", small.phase(optimizer=optimizer)), "final")
    drawn = state(trained(tmp_path / "drawn", small.phase(optimizer=optimizer, penalties=(squares,))), "final")
    assert float(drawn["conv2.weight"].norm()) < 0.5 * float(plain["conv2.weight"].norm())


def test_tensors_without_decay_keep_their_length() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.bias.fill_(1.0)
        model.weight.fill_(1.0)
    optimizer = OptimizerSpec(lr=0.5, momentum=0.0, weight_decay=0.1).build(model, [model.bias])
    model(torch.zeros(1, 3)).sum().mul(0.0).backward()
    optimizer.step()
    assert bool((model.bias == 1.0).all())
    torch.testing.assert_close(model.weight.detach(), torch.full((2, 3), 0.95))


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_trains_and_resumes(kind: str, tmp_path: Path) -> None:
    optimizer = OptimizerSpec(kind=kind, lr=0.001, weight_decay=0.0)  # type: ignore[arg-type]
    whole = trained(tmp_path / "whole", small.phase(epochs=2, optimizer=optimizer))
    assert not equal(state(whole, "final"), small.network().state_dict())


class Signs(NoSparsifier):
    """Ships the signs of trained weights."""

    averaged = "trainable"

    def __init__(self) -> None:
        super().__init__()
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1

    def finalize(self, model: nn.Module) -> Finalised:
        made = finalise(model)
        with torch.no_grad():
            for parameter in made.module.parameters():
                parameter.sign_()
        return made


def test_an_average_of_trainable_tensors_is_finalised_afterwards() -> None:
    model, sparsifier = nn.Linear(2, 1, bias=False), Signs()
    average = Average(AverageSpec(kind="swa"), "trainable")
    for epoch, weights in enumerate(([3.0, 1.0], [-1.0, -2.0])):
        with torch.no_grad():
            model.weight.copy_(torch.tensor([weights]))
        average.after_epoch(epoch, model)
    made = average.finalise(model, sparsifier, lambda: iter(()))
    # The mean of the weights is (1, -0.5); a mean of signs would be (0, 0).
    assert made.module.weight.tolist() == [[1.0, -1.0]]  # type: ignore[union-attr]
    assert model.weight.tolist() == [[-1.0, -2.0]]
    assert sparsifier.refreshed == 2


def test_states_say_in_which_form_they_are_stored(tmp_path: Path) -> None:
    states = trained(tmp_path, small.phase(sparsifier=lambda: HardMask(density=0.1)))
    about = atomic.read_about(states / "final.safetensors")
    assert about == {"form": "dense", "kind": "same-keys", "dense_weights": "58656"}
