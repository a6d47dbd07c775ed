"""Can an attack's number be what it is?"""

from gossamer.errors import ConfigError


def check_count(subject: str, count: int) -> None:
    """Raise ConfigError unless count is a whole number of at least 1."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(subject, expected="a whole number >= 1", got=repr(count), remedy="write for example 10")
