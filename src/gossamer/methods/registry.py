"""Which methods there are: the one table from name to method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from gossamer.errors import ConfigError
from gossamer.methods.bcs import BCS
from gossamer.methods.dense import Dense
from gossamer.methods.magnitude import Magnitude
from gossamer.methods.protocol import Method
from gossamer.methods.random import Random
from gossamer.training.options import construct


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One named method: its dataclass, one line on it, and the objectives it cannot run with, each with the reason."""

    make: Callable[..., Method]
    summary: str
    refuses: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def options(self) -> tuple[str, ...]:
        """The names a recipe may set."""
        return tuple(each.name for each in fields(self.make))  # pyright: ignore[reportArgumentType]


METHODS: Mapping[str, MethodEntry] = {
    "dense": MethodEntry(make=Dense, summary="every weight kept: the parent to compare with"),
    "random": MethodEntry(make=Random, summary="a fixed random mask: the control to beat"),
    "magnitude": MethodEntry(make=Magnitude, summary="train, cut the smallest weights once, fine-tune"),
    "bcs": MethodEntry(
        make=BCS, summary="Bayesian connectivity sampling: rewires at every step (Ozdenizci & Legenstein, 2021)"
    ),
}


def build(name: str, **options: object) -> Method:
    """Return a method by name; raises ConfigError for an unknown name or option, and for an impossible value."""
    if name not in METHODS:
        raise ConfigError(
            "method.name", expected=f"one of {', '.join(METHODS)}", got=repr(name), remedy="check its spelling"
        )
    entry = METHODS[name]
    if "density" in entry.options and "density" not in options:
        raise ConfigError(
            "method.density",
            expected="the share of weights to keep",
            got="nothing",
            remedy="write density: 0.1 to keep 10 % of the weights",
        )
    return construct(entry.make, options, "method")


def check_pair(method: str, objective: str) -> None:
    """Raise ConfigError where a method cannot run with an objective, with the reason; names as in recipes."""
    reason = METHODS[method].refuses.get(objective) if method in METHODS else None
    if reason is None:
        return
    allowed = "an objective that the method can run with"
    raise ConfigError("objective.name", expected=allowed, got=f"{objective} with method {method}", remedy=reason)
