"""How hard does an audit try? Steps, restarts and queries as one value, in three sizes."""

from dataclasses import dataclass, fields

from gossamer.attacks.checks import check_count
from gossamer.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the attacks of an audit may spend on an image.

    steps: of the standard attack and of most follow-ups; more_steps, restarts: of the attacks that try harder;
    noise: random points; queries: of the black-box search; passes: through a random model for one gradient or one
    judgement; doublings: how often the effort is doubled while it still changes much. Raises ConfigError for counts
    below 1.
    """

    steps: int = 40
    more_steps: int = 200
    restarts: int = 5
    noise: int = 100
    queries: int = 1000
    passes: int = 16
    doublings: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            check_count(f"audit {field.name}", getattr(self, field.name))


BUDGETS = {
    "quick": Budget(steps=20, more_steps=60, restarts=3, noise=30, queries=300, passes=8, doublings=1),
    "standard": Budget(),
    "thorough": Budget(steps=100, more_steps=1000, restarts=10, noise=500, queries=5000, passes=64, doublings=3),
}


def find_budget(given: "str | Budget") -> Budget:
    """Return the budget of a name in BUDGETS, or the budget itself; raises ConfigError for another name."""
    if isinstance(given, Budget):
        return given
    if given not in BUDGETS:
        raise ConfigError("budget", expected=f"one of {', '.join(BUDGETS)}", got=repr(given), remedy="write standard")
    return BUDGETS[given]
