"""Which phases of methods are there to measure, and which of them do the same? As recipes build them, and in long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MethodType

from torch import Tensor, nn

import contestants
import ours
from contestants import EPS, Setting
from gossamer.attacks.pgd import PGD
from gossamer.data import from_tensors
from gossamer.methods.registry import METHODS, build
from gossamer.objectives.registry import build as build_objective
from gossamer.objectives.registry import default_attack
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, NoSparsifier
from gossamer.threat import ThreatModel
from gossamer.training.averages import AverageSpec
from gossamer.training.devices import Place
from gossamer.training.monitors import Probe
from gossamer.training.phases import Phase, epoch_state
from gossamer.training.scene import Scene
from gossamer.training.weight_perturbation import WeightPerturbation

EPOCHS, STEPS_PER_EPOCH = 200, 390
DENSE = "dense/train"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method with options, in a recipe that says something beside it; phases: those it is about, none for all."""

    method: str
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    phases: tuple[str, ...] = ()
    recipe: Callable[[Phase], Phase] | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A phase of a case, and the states that earlier ones left it.

    timed_as: the first subject under the same sparsifier, None without one; measured_as: the first one whose whole step
    is the same.
    """

    phase: Phase
    states: tuple[str, ...]
    timed_as: str | None
    measured_as: str


class LongScene(Scene):
    """A scene of one batch of images that says it lies in a training of full length."""

    @property
    def horizon(self) -> Horizon:
        """What would lie ahead of the phase."""
        return horizon(self.phase)


def horizon(phase: Phase) -> Horizon:
    """Return what lies ahead of a phase in a training of full length."""
    return Horizon(epochs=phase.epochs, steps_per_epoch=STEPS_PER_EPOCH, image_shape=(3, 32, 32))


def _stored(base: Phase) -> Phase:
    """Return the phase with one attack step from perturbations that are kept, as fast binary subnetworks train."""
    threat = ThreatModel("linf", EPS)
    objective = build_objective("stored", threat=threat, update="attack", start="random", reset_every=0)
    return replace(base, objective=objective, attack=default_attack(objective, threat))


def _watched(base: Phase) -> Phase:
    """Return the phase with a probe of held-out images, as Flying Bird+ asks for."""
    held_out = from_tensors(*contestants.images(1))
    return replace(base, probes=[Probe("held_out", held_out, {"pgd": PGD(threat=ThreatModel("linf", EPS))})])


CASES: Mapping[str, Case] = {
    **{name: Case(method=name) for name in METHODS},
    "early-mask-grasp": Case(method="early-mask", options={"score": "grasp"}),
    "early-mask-synflow": Case(method="early-mask", options={"score": "synflow"}),
    "twinrep-filters": Case(method="twinrep", options={"structure": "filters"}),
    "robust-admm-filters": Case(method="robust-admm", options={"pattern": "filter"}),
    "one-shot-admm-funnel": Case(method="one-shot-admm", options={"set": "funnel"}),
    "one-shot-admm-redundant": Case(method="one-shot-admm", options={"set": "redundant"}),
    "one-shot-admm-quantised": Case(method="one-shot-admm", options={"set": "quantised"}),
    "atmc-8-bits": Case(method="atmc", options={"bits": 8}, phases=("quantise",)),
    "atmc-1-bit": Case(method="atmc", options={"bits": 1}, phases=("quantise",)),
    "flying-bird-plus": Case(method="flying-bird", options={"plus": True}, recipe=_watched),
    "hydra-binary": Case(method="hydra", options={"binary": True}),
    "hydra-s2ap": Case(method="hydra", options={"score_sharpness": 0.01}, phases=("prune",)),
    "bcs-awp": Case(method="bcs", recipe=lambda base: replace(base, perturbation=WeightPerturbation(gamma=5e-3))),
    "bcs-ema": Case(method="bcs", recipe=lambda base: replace(base, average=AverageSpec())),
    "robust-subnet-fast": Case(method="robust-subnet", recipe=_stored),
}


def subjects(setting: Setting, density: float) -> dict[str, Subject]:
    """Return the phases of all cases by CASE/PHASE, the dense one first; those of options only where they differ."""
    found: dict[str, Subject] = {}
    timed: dict[str, str] = {}
    measured: dict[str, str] = {}
    for case, each in CASES.items():
        states: list[str] = []
        for phase in _phases(each, setting, density):
            name = f"{case}/{phase.name}"
            whole = _whole_step(phase)
            asked_for = not each.phases or phase.name in each.phases
            if asked_for and (case in METHODS or whole not in measured):
                sparse = phase.epochs > 0 and phase.sparsifier is not NoSparsifier
                found[name] = Subject(
                    phase=phase,
                    states=tuple(states),
                    timed_as=timed.setdefault(identity(phase.sparsifier), name) if sparse else None,
                    measured_as=measured.setdefault(whole, name),
                )
            states += [f"{phase.name}.end", *(epoch_state(phase.name, epoch) for epoch in phase.publish)]
    return found


def scene(subject: Subject, weights: Mapping[str, Tensor], setting: Setting, place: Place) -> LongScene:
    """Return where a phase begins: one batch of random images, and earlier states that all hold the same weights."""
    return LongScene(
        phase=subject.phase,
        states=dict.fromkeys(subject.states, weights),
        data=from_tensors(*contestants.images(setting.batch), classes=[str(k) for k in range(contestants.CLASSES)]),
        place=place,
        draws=Draws(0).at(subject.phase.name),
        make_model=partial(_network, weights, setting),
    )


def _network(weights: Mapping[str, Tensor], setting: Setting) -> nn.Module:
    return contestants.network(weights, setting)


def identity(made: object) -> str:
    """Return what a callable is made of: its function, what that is bound to, and its arguments.

    Objects that do not say what they hold are like themselves alone.
    """
    if isinstance(made, partial):
        given = [
            *map(identity, made.args),
            *(f"{key}={identity(value)}" for key, value in sorted(made.keywords.items())),
        ]
        return f"{identity(made.func)}({', '.join(given)})"
    if isinstance(made, MethodType):
        return f"{identity(made.__func__)} of {made.__self__!r}"
    if callable(made) and hasattr(made, "__qualname__"):
        return f"{made.__module__}.{made.__qualname__}"  # type: ignore[attr-defined]
    return repr(made)


def _phases(case: Case, setting: Setting, density: float) -> list[Phase]:
    given = {"density": density} if "density" in METHODS[case.method].options else {}
    method = build(case.method, **{**given, **case.options})
    base = replace(ours.phase_of(setting, "eval"), epochs=EPOCHS, optimizer=method.default_optimizer("adversarial"))
    return list(method.phases(base if case.recipe is None else case.recipe(base), setting.network))


def _whole_step(phase: Phase) -> str:
    """Return what a step of a phase is made of; of one without steps, what its start is."""
    if phase.epochs == 0:
        return f"start {identity(phase.start)}"
    optimizer = replace(phase.optimizer, lr=1.0, weight_decay=0.0)
    parts = (
        phase.sparsifier,
        phase.objective,
        phase.attack,
        phase.attack_bn,
        phase.fast,
        phase.equip,
        phase.adapt,
        phase.replays,
        phase.clip,
        phase.penalties,
        phase.perturbation,
        phase.average,
        optimizer,
    )
    return "; ".join(identity(part) for part in parts)
