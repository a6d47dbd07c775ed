import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from gossamer.seeding import Draws, derive, generator

KEYS = st.lists(st.one_of(st.integers(), st.text(st.characters(exclude_characters="\x1f"))), max_size=4)


def test_a_seed_is_the_same_on_every_machine() -> None:
    # The first eight bytes of the SHA-256 of "0" and of "0\x1fstr:train\x1fint:3", shifted right by one.
    assert derive(0) == 0x5FECEB66FFC86F38 >> 1
    assert derive(0, "train", 3) == 7251695606254337572
    assert derive(7, "3") != derive(7, 3)


def test_a_seed_is_the_same_in_another_process() -> None:
    code = "from gossamer.seeding import Draws; print(Draws(5).at('a', 1).uniform((2,)).tolist())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(Draws(5).at("a", 1).uniform((2,)).tolist())


@given(seed=st.integers(0, 2**40), one=KEYS, other=KEYS)
def test_different_keys_give_different_seeds(seed: int, one: list[str | int], other: list[str | int]) -> None:
    typed = [(type(key), key) for key in one], [(type(key), key) for key in other]
    assert (derive(seed, *one) == derive(seed, *other)) == (typed[0] == typed[1])
    assert 0 <= derive(seed, *one) < 2**63


def test_keys_are_a_path() -> None:
    assert torch.equal(Draws(1).at("a").at("b").uniform((4,)), Draws(1).at("a", "b").uniform((4,)))
    assert not torch.equal(Draws(1).at("a", "b").uniform((4,)), Draws(1).at("b", "a").uniform((4,)))
    assert torch.equal(Draws(1, ("a",)).uniform((4,)), torch.rand(4, generator=generator(1, "a")))


def test_draws_are_made_anew_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    draws = Draws(3).at("x")
    assert torch.equal(draws.normal((5,)), draws.normal((5,)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_keyed_rows_do_not_depend_on_the_batch() -> None:
    whole = Draws(3).per_sample(torch.tensor([7, 2, 9])).uniform((3, 2, 4))
    alone = Draws(3).per_sample(torch.tensor([9])).uniform((1, 2, 4))
    turned = Draws(3).per_sample(torch.tensor([9, 7])).uniform((2, 2, 4))
    assert torch.equal(whole[2:], alone)
    assert torch.equal(turned, whole[[2, 0]])
    assert not torch.equal(whole[0], whole[1])


def test_selecting_keeps_the_rows_of_the_chosen() -> None:
    draws = Draws(3).per_sample(torch.tensor([7, 2, 9]))
    whole = draws.normal((3, 2))
    assert torch.equal(draws.select(torch.tensor([True, False, True])).normal((2, 2)), whole[[0, 2]])
    assert torch.equal(draws.select(torch.tensor([2, 1])).normal((2, 2)), whole[[2, 1]])
    assert draws.select(torch.zeros(3, dtype=torch.bool)).normal((0, 2)).shape == (0, 2)
    assert Draws(3).select(torch.tensor([True])) == Draws(3)


@pytest.mark.parametrize("keyed", [False, True])
def test_draws_are_uniform_and_normal(keyed: bool) -> None:
    draws = Draws(11, ("test",)).per_sample(torch.arange(2_000)) if keyed else Draws(11, ("test",))
    assert kstest(draws.uniform((2_000, 3)).flatten().numpy(), "uniform").pvalue > 1e-3
    assert kstest(draws.normal((2_000, 3)).flatten().numpy(), "norm").pvalue > 1e-3


def test_rows_at_a_value_each_are_the_rows_of_that_value() -> None:
    draws = Draws(3).per_sample(torch.tensor([7, 2]))
    mixed = draws.at_each("step", torch.tensor([5, 0])).normal((2, 3))
    late = draws.at_each("step", torch.tensor([5, 5])).normal((2, 3))
    assert torch.equal(mixed[0], late[0])
    assert not torch.equal(mixed[1], late[1])
    assert not torch.equal(late[0], late[1])


def test_rows_at_a_value_need_rows() -> None:
    with pytest.raises(ValueError, match="per_sample"):
        Draws(3).at_each("step", torch.tensor([1]))
