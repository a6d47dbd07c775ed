import pytest

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


def test_unknown_schedules_and_impossible_densities_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.schedule"):
        density_at("quadratic", 0.5, start=1.0, end=0.1)
    with pytest.raises(ConfigError, match="for 10 %"):
        density_at("linear", 0.5, start=1.0, end=10.0)
