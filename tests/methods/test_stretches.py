import pytest

import phases_on_digits as small
from gossamer.methods.rewinding import Rewinding
from gossamer.methods.stretches import beginning, rest
from gossamer.training.averages import AverageSpec
from gossamer.training.phases import Phase
from gossamer.training.schedules import Steps
from gossamer.training.weight_perturbation import WeightPerturbation

PER_EPOCH = 10
WHOLE = small.phase(
    epochs=8,
    schedule=Steps(milestones=(0.5, 0.75)),
    average=AverageSpec(start=5),
    perturbation=WeightPerturbation(gamma=0.005, start=7),
    select="held_out/pgd",
)


def rates(phase: Phase) -> list[float]:
    """Return the factor of the learning rate in each epoch."""
    return [phase.schedule(epoch * PER_EPOCH, phase.epochs * PER_EPOCH, PER_EPOCH) for epoch in range(phase.epochs)]


def test_the_first_epochs_have_the_rates_of_the_whole_training() -> None:
    assert rates(WHOLE) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    # Shortened alone, the drops would come after epochs 2 and 3.
    assert rates(beginning(WHOLE, 4)) == rates(WHOLE)[:4]
    assert rates(beginning(WHOLE, 5)) == rates(WHOLE)[:5]


def test_the_first_epochs_end_with_their_last_weights_and_are_perturbed_where_the_whole_is() -> None:
    first = beginning(WHOLE, 4)
    assert (first.epochs, first.average, first.select) == (4, None, None)
    assert first.perturbation == WHOLE.perturbation


def test_the_rest_has_the_rates_of_the_whole_training_and_its_epochs() -> None:
    left = rest(WHOLE, 3)
    assert left.epochs == 5
    assert rates(left) == rates(WHOLE)[3:]
    assert left.select == WHOLE.select


@pytest.mark.parametrize(("done", "average", "perturbation"), [(3, 2, 4), (5, 0, 2), (7, 0, 0)])
def test_what_begins_at_an_epoch_begins_there_in_the_rest(done: int, average: int, perturbation: int) -> None:
    left = rest(WHOLE, done)
    assert left.average is not None
    assert left.perturbation is not None
    assert (left.average.start, left.perturbation.start) == (average, perturbation)
    assert (left.average.decay, left.perturbation.gamma) == (0.999, 0.005)


def test_a_training_without_average_and_perturbation_has_none_in_its_rest() -> None:
    left = rest(small.phase(epochs=8), 3)
    assert (left.average, left.perturbation) == (None, None)


def test_a_continued_rewinding_perturbs_from_the_epoch_of_the_whole_training() -> None:
    base = small.phase(epochs=16, perturbation=WeightPerturbation(gamma=0.005, start=9))
    _, again = Rewinding(density=0.1, rewind_epoch=8, schedule="continued").phases(base, "digits-cnn")
    assert again.perturbation == WeightPerturbation(gamma=0.005, start=1)
    _, whole = Rewinding(density=0.1, rewind_epoch=8).phases(base, "digits-cnn")
    assert whole.perturbation == base.perturbation
