"""Which attacks make up AutoAttack? Its published versions, each as attacks in order (Croce & Hein, ICML 2020)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from gossamer.attacks.apgd import APGD
from gossamer.attacks.cascade import Cascade, Member, attack_in_order
from gossamer.attacks.checks import check_count
from gossamer.attacks.fab import FAB
from gossamer.attacks.goals import SEED_ZERO
from gossamer.attacks.square import Square
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Model

Version: TypeAlias = Literal["standard", "plus", "rand", "early"]


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """An ensemble without parameters to tune; `steps`, `queries` and `eot` are for rehearsals, not for reports.

    standard: apgd-ce, apgd-t, fab-t and square, nine targets each; in l1, five restarts of apgd-ce and five targets
    of apgd-t (Croce & Hein, ICML 2021). plus: the untargeted attacks with five restarts as well. rand: apgd-ce and
    apgd-dlr over the mean of `eot` passes, for stochastic models. early: the untargeted ensemble with five restarts of
    the first tables. Raises ConfigError for another version.
    """

    threat: ThreatModel
    version: Version = "standard"
    steps: int = 100
    queries: int = 5000
    eot: int = 20

    def __post_init__(self) -> None:
        check_count("attack steps", self.steps)
        check_count("attack queries", self.queries)
        check_count("attack eot", self.eot)
        if self.version not in get_args(Version):
            raise ConfigError(
                "AutoAttack version",
                expected=", ".join(get_args(Version)),
                got=repr(self.version),
                remedy="write standard, and rand for a stochastic model",
            )

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The attacks by name, in order."""
        return tuple((name, _MEMBERS[name](self)) for name in _VERSIONS[self.version])

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,): the first point at which the model errs."""
        return attack_in_order(self.members, self.threat, model, x, y, draws)

    def among(self, classes: int) -> Cascade:
        """Return those of its attacks whose loss is defined on so few classes: dlr needs three, targeted dlr four."""
        return Cascade(
            threat=self.threat, members=tuple(member for member in self.members if _is_defined(member[1], classes))
        )


def _is_defined(attack: Attack, classes: int) -> bool:
    return not isinstance(attack, APGD) or classes >= attack.least_classes


def _apgd_ce(attack: AutoAttack) -> APGD:
    five = attack.version in ("plus", "early") or (attack.version == "standard" and attack.threat.norm == "l1")
    return APGD(threat=attack.threat, steps=attack.steps, restarts=5 if five else 1, eot=_passes(attack))


def _apgd_dlr(attack: AutoAttack) -> APGD:
    restarts = 1 if attack.version == "rand" else 5
    return APGD(threat=attack.threat, steps=attack.steps, restarts=restarts, loss="dlr", eot=_passes(attack))


def _apgd_t(attack: AutoAttack) -> APGD:
    targets = 5 if attack.version == "standard" and attack.threat.norm == "l1" else 9
    return APGD(threat=attack.threat, steps=attack.steps, loss="dlr", targets=targets)


def _passes(attack: AutoAttack) -> int:
    return attack.eot if attack.version == "rand" else 1


_MEMBERS: Mapping[str, Callable[[AutoAttack], APGD | FAB | Square]] = {
    "apgd-ce": _apgd_ce,
    "apgd-dlr": _apgd_dlr,
    "apgd-t": _apgd_t,
    "fab": lambda attack: FAB(threat=attack.threat, steps=attack.steps, restarts=5),
    "fab-t": lambda attack: FAB(threat=attack.threat, steps=attack.steps, restarts=1, targets=9),
    "square": lambda attack: Square(threat=attack.threat, queries=attack.queries),
}

_VERSIONS: Mapping[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    "early": ("apgd-ce", "apgd-dlr", "fab", "square"),
}
