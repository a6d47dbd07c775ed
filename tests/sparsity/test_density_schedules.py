import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.errors import ConfigError
from gossamer.sparsity.schedules import DENSITY_SCHEDULES, density_at


@pytest.mark.parametrize(
    ("name", "half"), [("constant", 0.1), ("linear", 0.55), ("cubic", 0.1 + 0.9 / 8), ("geometric", 0.1**0.5)]
)
def test_densities_half_way_from_1_to_a_tenth(name: str, half: float) -> None:
    assert density_at(name, 0.5, start=1.0, end=0.1) == pytest.approx(half)


@pytest.mark.parametrize("name", DENSITY_SCHEDULES)
def test_every_schedule_ends_at_its_density_and_stays_there(name: str) -> None:
    assert density_at(name, 1.0, start=1.0, end=0.1) == pytest.approx(0.1)
    assert density_at(name, 7.0, start=1.0, end=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("name", [each for each in DENSITY_SCHEDULES if each != "constant"])
def test_the_others_begin_where_they_are_told(name: str) -> None:
    assert density_at(name, -1.0, start=0.8, end=0.1) == pytest.approx(0.8)


@given(st.sampled_from(sorted(DENSITY_SCHEDULES)), st.integers(1, 100), st.integers(1, 100), st.floats(0.0, 1.0))
def test_rounding_takes_no_density_past_its_ends(name: str, first: int, last: int, progress: float) -> None:
    start, end = first / 100, last / 100
    assert density_at(name, 1.0, start=start, end=end) == end
    assert min(start, end) <= density_at(name, progress, start=start, end=end) <= max(start, end)


def test_a_density_of_two_thirds_is_not_begun_above_it() -> None:
    assert density_at("cubic", 0.0, start=2 / 3, end=0.06) == 2 / 3


def test_unknown_schedules_and_impossible_densities_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.schedule"):
        density_at("quadratic", 0.5, start=1.0, end=0.1)
    with pytest.raises(ConfigError, match="for 10 %"):
        density_at("linear", 0.5, start=1.0, end=10.0)
