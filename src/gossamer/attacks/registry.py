"""Which attack does a name mean? The names of recipes and of the command line, and how their options are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, cast

from gossamer.attacks.apgd import APGD
from gossamer.attacks.autoattack import AutoAttack
from gossamer.attacks.carlini_wagner import CarliniWagner
from gossamer.attacks.fab import FAB
from gossamer.attacks.fast import NoisyFGSM
from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.foreign import FoolboxAttack
from gossamer.attacks.pgd import PGD
from gossamer.attacks.spatial import Spatial
from gossamer.attacks.square import Square
from gossamer.attacks.starts import RANDOM, parse_start
from gossamer.attacks.steps import OverSteps, parse_step
from gossamer.attacks.targets import parse_target
from gossamer.attacks.zoo import ZOO
from gossamer.errors import ConfigError
from gossamer.options import Reader, construct, typed
from gossamer.plugins import is_reference, make_function
from gossamer.threat import ThreatModel
from gossamer.types import Attack

_READERS: Mapping[str, Reader] = {
    "step": parse_step,
    "start": parse_start,
    "target": parse_target,
}


@dataclass(frozen=True, kw_only=True)
class AttackEntry:
    """One named attack: its dataclass, what the name fixes unless an option says otherwise, and one line on it.

    in_norm: it works under the threat it is built with; otherwise its fields say what the attacker may do.
    """

    make: type
    summary: str
    preset: Mapping[str, object] = field(default_factory=dict[str, object])
    in_norm: bool = True

    @property
    def options(self) -> tuple[str, ...]:
        """The names a recipe may set."""
        return tuple(each.name for each in fields(self.make) if each.name != "threat")


ATTACKS: dict[str, AttackEntry] = {
    "apgd-ce": AttackEntry(make=APGD, summary="Auto-PGD on the cross-entropy (Croce & Hein, 2020)"),
    "apgd-dlr": AttackEntry(
        make=APGD,
        summary="Auto-PGD on the difference of logits ratio (Croce & Hein, 2020)",
        preset={"loss": "dlr"},
    ),
    "apgd-t": AttackEntry(
        make=APGD,
        summary="Auto-PGD towards each of the 9 likeliest wrong classes (Croce & Hein, 2020)",
        preset={"loss": "dlr", "targets": 9},
    ),
    "autoattack": AttackEntry(
        make=AutoAttack,
        summary="APGD-CE, APGD-T, FAB-T and Square in turn: the standard version (Croce & Hein, 2020)",
    ),
    "autoattack-plus": AttackEntry(
        make=AutoAttack,
        summary="the standard version and the untargeted attacks with 5 restarts",
        preset={"version": "plus"},
    ),
    "autoattack-rand": AttackEntry(
        make=AutoAttack,
        summary="for stochastic models: APGD-CE and APGD-DLR on the mean of 20 passes",
        preset={"version": "rand"},
    ),
    "autoattack-early": AttackEntry(
        make=AutoAttack,
        summary="the untargeted ensemble of the first tables, 5 restarts",
        preset={"version": "early"},
    ),
    "fab": AttackEntry(
        make=FAB, summary="fast adaptive boundary attack, 5 restarts, nearest class (Croce & Hein, 2020)"
    ),
    "fab-t": AttackEntry(
        make=FAB,
        summary="fast adaptive boundary attack towards each of the 9 likeliest wrong classes (Croce & Hein, 2020)",
        preset={"targets": 9, "restarts": 1},
    ),
    "cw-l2": AttackEntry(
        make=CarliniWagner, summary="the smallest l2 change, by Adam in tanh space (Carlini & Wagner, 2017)"
    ),
    "cw-pgd": AttackEntry(
        make=PGD,
        summary="PGD on Carlini & Wagner's margin, 32 steps of 2.5 eps/32; the first success counts",
        preset={
            "loss": "margin",
            "steps": 32,
            "step": OverSteps(2.5),
            "start": RANDOM,
            "returns": "first",
            "early_drop": True,
        },
    ),
    "deepfool": AttackEntry(
        make=FoolboxAttack,
        summary="DeepFool, by foolbox (Moosavi-Dezfooli et al., 2016): l_inf and l_2",
        preset={"attack": "deepfool"},
    ),
    "fgsm": AttackEntry(make=FGSM, summary="one gradient step of length eps (Goodfellow et al., 2015)"),
    "fmn": AttackEntry(
        make=FoolboxAttack,
        summary="fast minimum norm, by foolbox (Pintor et al., 2021)",
        preset={"attack": "fmn"},
    ),
    "n-fgsm": AttackEntry(
        make=NoisyFGSM,
        summary="one step from far noise, not clipped to the ball: for training alone (de Jorge et al., 2022)",
    ),
    "pgd": AttackEntry(make=PGD, summary="projected gradient ascent (Madry et al., 2018)"),
    "pgd-50-10": AttackEntry(
        make=PGD,
        summary="PGD, 50 steps of 2.5 eps/50, 10 random restarts, final iterate (Ozdenizci & Legenstein, 2021)",
        preset={
            "steps": 50,
            "restarts": 10,
            "step": OverSteps(2.5),
            "start": RANDOM,
            "returns": "last",
            "early_drop": True,
        },
    ),
    "spatial": AttackEntry(
        make=Spatial,
        summary="the worst rotation and shift of a grid (Engstrom et al., 2019); in no norm ball",
        in_norm=False,
    ),
    "square": AttackEntry(
        make=Square,
        summary="random search over square windows, 5000 queries, no gradient (Andriushchenko et al., 2020)",
    ),
    "zoo": AttackEntry(
        make=ZOO, summary="zeroth order optimisation of the l2 distance, no gradient (Chen et al., 2017)"
    ),
}


def build(name: str, threat: ThreatModel, /, **options: object) -> Attack:
    """Return the attack of a name in ATTACKS, or of the factory "package.module:factory".

    options: the attack's fields; step, start and target may be texts ("2.5eps/n", "gaussian(0.001)", "rank:1").
    A user's factory is called with threat=threat and the options as they are. Raises ConfigError for an unknown
    name or option, a value of another type, and one that cannot be.
    """
    if "threat" in options:
        raise ConfigError(
            f"attack {name}.threat",
            expected="no threat of its own",
            got=options["threat"],
            remedy="leave it out: it is the recipe's, with the radii of an evaluation's eps",
        )
    if is_reference(name):
        return _build_foreign(name, threat, options)
    if name not in ATTACKS:
        raise ConfigError(
            "attack",
            expected=f"one of {', '.join(ATTACKS)}, or package.module:factory",
            got=repr(name),
            remedy="check its spelling",
        )
    entry = ATTACKS[name]
    allowed = {"threat": threat} if entry.in_norm else {}
    chosen = {**entry.preset, **options}
    return cast("Attack", construct(entry.make, chosen, f"attack {name}", readers=_READERS, given=allowed))


def adjust(attack: Attack, **options: object) -> Attack:
    """Return the attack with some of its fields replaced, texts read as in `build`; raises ConfigError."""
    if not options:
        return attack
    kind = type(attack)
    known = [each.name for each in fields(attack) if each.name != "threat"] if is_dataclass(attack) else []
    read = typed(kind, options, f"attack {kind.__name__}", readers=_READERS, known=known)
    return cast("Attack", replace(cast("Any", attack), **read))


def _build_foreign(reference: str, threat: ThreatModel, options: Mapping[str, object]) -> Attack:
    signature = "attack(model, x, y, *, draws) -> x_adv"
    return cast("Attack", make_function("attack", reference, signature, {"threat": threat, **options}))
