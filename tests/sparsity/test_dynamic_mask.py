"""Moving masks: one update by hand, when they move, how many weights leave and enter."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon
from gossamer.sparsity.dynamic_mask import GROWTHS, DynamicMask
from gossamer.sparsity.flying_bird import FlyingBird, FlyingBirdPlus


def horizon(steps: int, epochs: int = 1) -> Horizon:
    return Horizon(epochs=epochs, steps_per_epoch=steps, image_shape=(1, 8, 8))


def moved(gradient: list[float], growth: str = "gradient") -> tuple[nn.Linear, DynamicMask, Tensor]:
    """Take one step at rate 0 with the weights 4, 3, -2, 1 alive among eight, half of which the update drops."""
    model = nn.Linear(8, 1, bias=False)
    mask = DynamicMask(density=0.5, budget="uniform", growth=growth, every=1, death_rate=0.5, final_rate=0.5, until=1.0)
    mask.attach(model, Draws(), horizon(10))
    mask.load_state_dict({**mask.state_dict(), "weight": torch.tensor([[True] * 4 + [False] * 4])})
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 3.0, -2.0, 1.0, 0.0, 0.0, 0.0, 0.0]]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    model.weight.grad = torch.tensor([gradient])
    mask.before_step(0, optimizer)
    assert torch.count_nonzero(model.weight.grad[0, 4:]) == 0
    optimizer.step()
    mask.after_step(0, optimizer)
    return model, mask, optimizer.state[model.weight]["momentum_buffer"]


def test_an_update_drops_the_smallest_and_grows_where_the_gradient_is_largest_from_zero() -> None:
    model, mask, momentum = moved([1.0, 1.0, 1.0, 1.0, 5.0, -9.0, 0.0, 2.0])
    assert mask.masks()["weight"].tolist() == [[True, True, False, False, True, True, False, False]]
    assert model.weight.tolist() == [[4.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    assert momentum.tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    assert mask.measures() == {"updates": 1, "dropped": 2, "grown": 2}
    assert mask.measures() == {"updates": 0, "dropped": 0, "grown": 0}


def test_what_is_dropped_and_grown_at_once_keeps_its_value() -> None:
    model, mask, momentum = moved([1.0, 1.0, 1.0, 7.0, 5.0, 0.0, 0.0, 2.0])
    assert mask.masks()["weight"].tolist() == [[True, True, False, True, True, False, False, False]]
    assert model.weight.tolist() == [[4.0, 3.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    assert momentum[0, 3] == 7.0


def test_random_growth_leaves_the_largest_and_draws_as_many_as_were_dropped() -> None:
    _, mask, _ = moved([0.0] * 8, growth="random")
    kept = mask.masks()["weight"][0]
    assert kept[:2].all()
    assert int(kept.sum()) == 4


@pytest.mark.parametrize("growth", GROWTHS)
def test_growth_stays_outside_of_what_is_kept(growth: str) -> None:
    kept = torch.arange(100) % 3 == 0
    slopes = torch.linspace(1.0, 2.0, 100)
    counts = []
    for seed in range(200):
        grown = GROWTHS[growth](kept, 11, slopes, Draws(seed))
        assert not (grown & kept).any()
        counts.append(int(grown.sum()))
    if growth == "bernoulli":
        # 66 free positions of probability 1/6: a standard deviation of 3.03.
        assert abs(sum(counts) / 200 - 11) < 4 * 3.03 / math.sqrt(200)
        assert len(set(counts)) > 3
    else:
        assert set(counts) == {11}
    if growth == "gradient":
        assert grown.nonzero().flatten().tolist() == [i for i in range(100) if i % 3][-11:]


@given(growth=st.sampled_from(["random", "gradient"]), density=st.floats(0.05, 1.0), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_every_layer_keeps_its_count_through_every_update(growth: str, density: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mask = DynamicMask(density=density, growth=growth, every=1, until=1.0)
    mask.attach(model, Draws(seed), horizon(8))
    counts = mask.masks().kept_per_layer
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for step in range(8):
        optimizer.zero_grad()
        model(torch.rand(4, 3, 8, 8)).square().sum().mul(0.01).backward()
        mask.before_step(step, optimizer)
        optimizer.step()
        mask.after_step(step, optimizer)
        assert mask.masks().kept_per_layer == counts
        for layer, kept in zip((model[0], model[2]), mask.masks().values(), strict=True):
            assert torch.count_nonzero(layer.weight[~kept]) == 0  # type: ignore[index,arg-type]
            assert torch.count_nonzero(optimizer.state[layer.weight]["momentum_buffer"][~kept]) == 0  # type: ignore[index]
    assert mask.finalize(model).masks.kept <= sum(counts.values())


def test_masks_move_every_so_many_steps_until_their_time_is_over() -> None:
    mask = DynamicMask(density=0.5, every=3)
    mask.attach(nn.Linear(4, 4), Draws(), horizon(12))
    assert [done for done in range(1, 13) if mask.due(done)] == [3, 6]


def test_no_mask_moves_after_the_last_step() -> None:
    mask = DynamicMask(density=0.5, every=None, until=1.0)
    mask.attach(nn.Linear(4, 4), Draws(), horizon(5, epochs=3))
    assert [done for done in range(1, 16) if mask.due(done)] == [5, 10]


def test_the_death_rate_falls_in_half_a_cosine() -> None:
    mask = DynamicMask(density=0.5, death_rate=0.4, final_rate=0.1, until=0.5)
    mask.attach(nn.Linear(4, 4), Draws(), horizon(400))
    assert [mask.rate(done) for done in (0, 100, 200, 400)] == pytest.approx([0.4, 0.25, 0.1, 0.1])


def test_a_wholly_dense_layer_does_not_move() -> None:
    model = nn.Linear(4, 4)
    mask = DynamicMask(density=1.0, every=1, until=1.0)
    mask.attach(model, Draws(), horizon(9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mask.before_step(0, optimizer)
    mask.after_step(0, optimizer)
    assert mask.masks().density == 1.0
    assert mask.measures() == {"updates": 1, "dropped": 0, "grown": 0}


def test_masks_and_counters_come_back_from_a_checkpoint() -> None:
    _, mask, _ = moved([1.0, 1.0, 1.0, 1.0, 5.0, -9.0, 0.0, 2.0])
    other = DynamicMask(density=0.5, budget="uniform")
    other.attach(nn.Linear(8, 1, bias=False), Draws(3), horizon(10))
    other.load_state_dict(mask.state_dict())
    assert torch.equal(other.masks()["weight"], mask.masks()["weight"])
    assert other.measures() == mask.measures()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"growth": "upwards"}, "growth"),
        ({"every": 0}, "every"),
        ({"death_rate": 1.5}, "death_rate"),
        ({"until": -0.1}, "until"),
        ({"density": 10}, "density"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"method\.{field}"):
        DynamicMask(**{"density": 0.1, **options})  # type: ignore[arg-type]


def test_a_training_of_unknown_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="epochs: expected the length of training"):
        DynamicMask(density=0.1).attach(nn.Linear(4, 4), Draws())


def test_flying_bird_moves_every_900_and_then_every_1200_published_steps() -> None:
    bird = FlyingBird(density=0.1)
    bird.attach(nn.Linear(8, 8), Draws(), horizon(351, epochs=200))
    due = [done for done in range(1, 70_201) if bird.due(done)]
    # The second half's interval holds from epoch 101 (of 0 to 199) on: 35,451 steps.
    assert due == [*range(900, 35_452, 900), *range(36_000, 70_200, 1200)]
    assert (bird.rate(0), bird.rate(70_200)) == pytest.approx((0.5, 0.005))
    assert bird.contract == "reported"


def test_given_intervals_take_the_place_of_the_published_ones() -> None:
    bird = FlyingBird(density=0.1, every=4, late_every=5)
    bird.attach(nn.Linear(8, 8), Draws(), horizon(10, epochs=4))
    assert [done for done in range(1, 41) if bird.due(done)] == [*range(4, 31, 4), 35]
    bird = FlyingBird(density=0.1, every=6)
    bird.attach(nn.Linear(8, 8), Draws(), horizon(10, epochs=4))
    assert [done for done in range(1, 41) if bird.due(done)] == [*range(6, 40, 6)]


def plus(**options: object) -> FlyingBirdPlus:
    bird = FlyingBirdPlus(density=0.5, budget="uniform", **options)  # type: ignore[arg-type]
    bird.attach(nn.Linear(8, 8, bias=False), Draws(), horizon(10, epochs=6))
    return bird


def tell(bird: FlyingBirdPlus, *epochs: tuple[float | None, float | None], losses: Sequence[float] = ()) -> None:
    """Tell of robust accuracies in training and on held-out images, and the loss on these: by default 1 less them."""
    for epoch, (trained, validated) in enumerate(epochs):
        loss = losses[epoch] if losses else None if validated is None else 1.0 - validated
        bird.after_epoch(epoch, {"robust_accuracy": trained, "held_out/pgd": validated, "held_out/pgd/loss": loss})


def test_the_gap_and_the_error_decide_from_half_of_the_epochs_on() -> None:
    bird = plus()
    tell(bird, (0.3, 0.3), (0.4, 0.35))
    # The gap rose from 0 to 0.05, but only two of six epochs are done.
    assert (bird.prunes, bird.grows) == (False, False)
    tell(bird, (0.3, 0.3), (0.4, 0.35), (0.5, 0.4))
    assert (bird.prunes, bird.grows) == (True, False)
    bird = plus()
    tell(bird, (0.5, 0.4), (0.45, 0.4), (0.4, 0.38))
    assert (bird.prunes, bird.grows) == (False, True)


def test_growth_follows_the_loss_where_the_accuracy_of_a_few_images_stands_still() -> None:
    epochs = (0.5, 0.4), (0.45, 0.4), (0.4, 0.4)
    falling, error = plus(), plus(watched="error")
    for bird in (falling, error):
        tell(bird, *epochs, losses=(2.0, 1.9, 1.8))
    # The error stays at 0.6, which is no fall; the loss falls twice.
    assert (falling.grows, error.grows) == (False, True)
    rising = plus()
    tell(rising, *epochs, losses=(2.0, 1.9, 1.95))
    # One of two changes is not a fall: the threshold of one half.
    assert rising.grows
    with pytest.raises(ConfigError, match=r"method\.watched: expected loss or error"):
        plus(watched="accuracy")


def test_only_the_last_changes_count() -> None:
    bird = plus(window=2, threshold=1.0)
    tell(bird, (0.5, 0.5), (0.4, 0.5), (0.5, 0.45), (0.6, 0.45))
    assert (bird.prunes, bird.grows) == (True, True)
    assert len(bird.state_dict()["#gaps"]) == 3


def test_extra_weights_leave_and_enter_layer_by_layer() -> None:
    bird = plus()
    assert bird._amounts(100, 0.5) == (50, 50)
    tell(bird, (0.3, 0.3), (0.4, 0.35), (0.5, 0.3))
    assert (bird.prunes, bird.grows) == (True, True)
    # 50 + ceil(0.4 * 0.5 * 100), and 1.05 * 50.
    assert bird._amounts(100, 0.5) == (70, 52)
    assert bird._amounts(3, 0.9) == (3, 3)


def test_an_epoch_that_measured_nothing_is_passed_over_and_an_unknown_metric_refused() -> None:
    bird = plus()
    tell(bird, (0.3, 0.3), (0.4, None), (None, 0.4))
    assert bird.state_dict()["#gaps"].tolist() == [0.0]
    with pytest.raises(ConfigError, match=r"method\.validation: expected a metric .*got held_out/pgd"):
        bird.after_epoch(0, {"robust_accuracy": 0.5, "held_out/clean": 0.9})
    with pytest.raises(ConfigError, match=r"method\.validation: expected a metric .*got held_out/pgd/loss"):
        bird.after_epoch(0, {"robust_accuracy": 0.5, "held_out/pgd": 0.9})


def test_what_flying_bird_plus_remembers_comes_back_from_a_checkpoint() -> None:
    bird, other = plus(), plus()
    tell(bird, (0.3, 0.3), (0.4, 0.35), (0.5, 0.3))
    other.load_state_dict(bird.state_dict())
    assert (other.prunes, other.grows) == (True, True)
    assert other.state_dict()["#watched"].tolist() == pytest.approx([0.7, 0.65, 0.7])


def test_impossible_options_of_flying_bird_plus_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.window"):
        plus(window=0)
    with pytest.raises(ConfigError, match=r"method\.threshold"):
        plus(threshold=2.0)
    with pytest.raises(ConfigError, match=r"method\.late_every"):
        FlyingBird(density=0.1, late_every=0)
