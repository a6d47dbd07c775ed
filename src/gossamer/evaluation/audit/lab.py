"""What is an audited model attacked through, and judged by? One place where attacks run and their outcomes are kept."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gossamer.attacks.bpda import BPDA
from gossamer.attacks.eot import Expectation
from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.square import Square
from gossamer.attacks.steps import OverSteps
from gossamer.attacks.transfer import Transfer
from gossamer.data import DataSet
from gossamer.evaluation.adapters import NumpyModel
from gossamer.evaluation.audit import bounds
from gossamer.evaluation.audit.behaviour import Behaviour, watch
from gossamer.evaluation.audit.budget import Budget
from gossamer.evaluation.audit.gradients import Slopes, slopes
from gossamer.evaluation.audit.shattered import Shattered, find_shattered, named_layers
from gossamer.evaluation.audit.stairs import StraightThrough, Unsquashed, count_stairs
from gossamer.evaluation.audit.twins import Accompanied, Averaged, Fresh, Graphed, Rescaled
from gossamer.evaluation.batches import Batches
from gossamer.evaluation.hunt import Found, Hunt, hunt
from gossamer.evaluation.judge import predict
from gossamer.evaluation.ledger import Ledger, Tensors
from gossamer.evaluation.onnx_model import OnnxModel
from gossamer.evaluation.probes import images_at, spread
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.subject import Subject, at_rest, prepare, seed_noise
from gossamer.evaluation.trials import parameters
from gossamer.runs.audits import AuditedAttack
from gossamer.seeding import derive
from gossamer.threat import ThreatModel
from gossamer.types import Attack

PROBE = 128
"""Images on which behaviour and gradients are seen."""

LAYER_PROBE = 16
"""Images on which layers are called by themselves."""

GOOD_GAP = 3.0
"""Difference of the two largest logits to which they are rescaled: far from where float32 rounds probabilities."""

COMPANY = 7
"""Clean images beside which every image is judged where a model's answer depends on the batch."""

PGD_NAME = "pgd"
TWIN = "transfer from the twin"
SQUARE = "square"

Wrap: TypeAlias = Callable[[Attack], Attack]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a model before it is attacked.

    stairs: rounding and comparisons in a forward pass; layers: those that stop the gradient; at: (P,) the positions
    of the probe in the data set; scale: what its logits are divided by in order not to saturate, 1 where they do not;
    opaque: it runs outside torch, so that neither a gradient nor a stand-in for a layer can be had.
    """

    behaviour: Behaviour
    slopes: Slopes
    stairs: int
    layers: tuple[Shattered, ...]
    at: Tensor
    scale: float
    opaque: bool

    @property
    def random(self) -> bool:
        """Whether the model answers at random."""
        return bounds.exceeds(self.behaviour.random, bounds.STRAY)

    @property
    def adapts(self) -> bool:
        """Whether the model's answer depends on earlier calls."""
        return bounds.exceeds(self.behaviour.adapts, bounds.STRAY)

    @property
    def company(self) -> bool:
        """Whether the answer to an image depends on what else is in its batch."""
        return bounds.exceeds(self.behaviour.company, bounds.STRAY)

    @property
    def steady(self) -> bool:
        """Whether the model is one fixed function of an image."""
        return not (self.random or self.adapts or self.company)

    @property
    def probabilities(self) -> bool:
        """Whether the model returns probabilities."""
        return bounds.exceeds(self.behaviour.probabilities, 0.5)


@dataclass
class Lab:
    """An audited model at rest with its samples, and every attack that was run.

    base: the model as one function of an image, inside which the ways around what stops its gradient lie; graphed: the
    same with a graph of slope zero where it has none, through which gradients are taken; judge: what decides on errors;
    claimed: what the standard attack meets: the model as it answers, for a random one the mean of its answers; twin:
    another network, from which attacks may be carried over; ledger: what an audit that was killed has done already.
    broken: by attack at the audited threat, (N,) bool. correct, standing: by the claimed subject, clean and under the
    standard attack; candidates: standing, and right by the judge when clean: what the other attacks are tried on.
    """

    base: nn.Module
    graphed: nn.Module
    judge: nn.Module
    claimed: Subject
    dataset: DataSet
    batches: Batches
    seed: int
    threat: ThreatModel
    budget: Budget
    facts: Facts
    twin: nn.Module | None = None
    progress: Progress | None = None
    ledger: Ledger = field(default_factory=Ledger)
    broken: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    records: list[AuditedAttack] = field(default_factory=list[AuditedAttack])
    correct: Tensor = field(init=False)
    standing: Tensor = field(init=False)
    candidates: Tensor = field(init=False)
    classes: int = field(init=False)
    _clean: Tensor = field(init=False)
    _memory: Ledger = field(default_factory=Ledger, init=False)

    def __post_init__(self) -> None:
        labels = self.dataset.labels.cpu()
        claimed = self._kept(self.claimed, "claimed", lambda: {"logits": self._logits(self.claimed.model)})
        self.correct = claimed["logits"].argmax(dim=1) == labels
        self.standing = self.correct
        self._clean = self._kept(None, "clean", lambda: {"logits": self._logits(self.judge)})["logits"]
        self.classes = self._clean.shape[1]
        self.candidates = self._clean.argmax(dim=1) == labels

    @property
    def n(self) -> int:
        """How many samples there are."""
        return len(self.dataset)

    @property
    def could_mislead(self) -> bool:
        """Whether enough samples stand for the claimed accuracy to be wrong."""
        return bounds.exceeds(self.standing, bounds.STRAY)

    @property
    def restarts(self) -> int:
        """Restarts of follow-ups: one where the judge needs many passes or calls for an image."""
        return self.budget.restarts if self.facts.steady else 1

    @property
    def standard(self) -> str:
        """The name of the attack whose number is audited: plain PGD where there are gradients."""
        if not self.facts.opaque:
            return PGD_NAME
        return SQUARE if self.twin is None else TWIN

    def standard_attack(self) -> Attack:
        """Return the attack of that name: PGD, carried over from the twin where there are no gradients, or Square."""
        if not self.facts.opaque:
            return self.pgd()
        return self.square() if self.twin is None else self.carried(self.pgd())

    def claim(self) -> None:
        """Run the standard attack; what it leaves standing is what the others are tried on."""
        attack = self.standard_attack()
        if self.facts.random:
            attack = Transfer(attack=attack, source=self.graphed)
        self.standing = self.correct & ~self._run(self.standard, attack, self.correct, self.claimed, self.threat)
        self.candidates &= self.standing

    def run(self, name: str, attack: Attack, *, on: Tensor | None = None, threat: ThreatModel | None = None) -> Tensor:
        """Return what an attack breaks by the judge: (N,) bool; on: which samples, those standing if left out."""
        subject = Subject(model=self.judge, surrogate=None, device=self.claimed.device)
        plain = self.judge is self.claimed.model
        chosen = self.candidates if on is None else on
        return self._run(name, attack, chosen, self.claimed if plain else subject, threat or self.threat)

    def agrees(self) -> Tensor:
        """Return where the twin, which must be there, predicts as the judge does on clean images: (N,) bool."""
        assert self.twin is not None
        with at_rest(self.twin, self.claimed.device) as resting:
            theirs = self._logits(resting)
        return theirs.argmax(dim=1) == self._clean.argmax(dim=1)

    def probe(self) -> tuple[Tensor, Tensor]:
        """Return images (P, C, H, W) and labels (P,) on which gradients are looked at."""
        return images_at(self.dataset, self.facts.at, self.claimed.device)

    def pgd(self, **changes: object) -> PGD:
        """Return PGD as the standard attack is, with changes."""
        return PGD(**{"threat": self.threat, "steps": self.budget.steps, "step": OverSteps(2.5), **changes})  # pyright: ignore[reportArgumentType]

    def square(self, times: int = 1) -> Square:
        """Return the search without gradients, with so many times the budget's queries."""
        return Square(threat=self.threat, queries=times * self.budget.queries)

    def carried(self, attack: Attack) -> Attack:
        """Return an attack that seeks its points on the twin, which must be there."""
        assert self.twin is not None
        return Transfer(attack=attack, source=self.twin)

    @cached_property
    def twins(self) -> dict[str, Wrap]:
        """The ways around what stops this model's gradient, by name: each makes an attack go that way.

        Those on which a gradient can be taken: several layers may stop it, and not all of them be known.
        """
        return {name: way for name, way in self._ways().items() if self._leads_somewhere(way)}

    def _leads_somewhere(self, way: Wrap) -> bool:
        x, y = self.probe()
        try:
            way(FGSM(threat=self.threat, loss="margin"))(self.judge, x[:2], y[:2])
        except torch.OutOfMemoryError:
            raise
        # Torch says in many words that there is no graph, or no derivative.
        except RuntimeError:
            return False
        return True

    def _ways(self) -> dict[str, Wrap]:
        facts, ways = self.facts, dict[str, Wrap]()
        if facts.stairs:
            ways["straight-through"] = partial(_through, StraightThrough(self.base), self._averaged)
        if any(layer.replaceable for layer in facts.layers):
            ways["bpda"] = partial(_bpda, StraightThrough(self.base), facts.layers, self._averaged)
        if facts.probabilities:
            ways["log"] = partial(_through, Unsquashed(self.base), self._averaged)
        if facts.scale > 1:
            ways["rescaled"] = partial(_through, Rescaled(self.base, facts.scale), self._averaged)
        return ways

    def direct(self, attack: Attack) -> Attack:
        """Return an attack that takes gradients of the model itself, as a mean of passes where it is random."""
        return Transfer(attack=self._averaged(attack), source=self.graphed) if self.facts.random else attack

    def union(self, names: Mapping[str, object] | list[str]) -> Tensor:
        """Return what any of these attacks broke: (N,) bool; attacks that were not run broke nothing."""
        found = bounds.nobody(self.n)
        for name in names:
            found = found | self.broken.get(name, found)
        return found

    def _averaged(self, attack: Attack, passes: int | None = None) -> Attack:
        if not self.facts.random:
            return attack
        return Expectation(attack=attack, passes=passes or self.budget.passes, mean_of="log-probabilities")

    def averaged(self, attack: Attack, passes: int) -> Attack:
        """Return an attack on the mean of `passes` passes through a random model."""
        return Transfer(attack=self._averaged(attack, passes), source=self.graphed)

    def _run(self, name: str, attack: Attack, on: Tensor, subject: Subject, threat: ThreatModel) -> Tensor:
        positions = on.nonzero().flatten()
        broken = bounds.nobody(self.n)
        if len(positions):
            job = Hunt(
                stage=f"{name} at {threat}",
                keys=("audit", name),
                attack=attack,
                threat=threat,
                positions=positions,
                clean=self._clean,
            )
            broken[positions] = self._found(subject, job)
        if threat == self.threat:
            self.broken[name] = broken
        self.records.append(
            AuditedAttack(
                attack=name,
                parameters=parameters(attack),
                threat=str(threat),
                eps=threat.eps,
                attacked=len(positions),
                broken=tuple(broken.int().tolist()),
            )
        )
        return broken

    def _found(self, subject: Subject, job: Hunt) -> Tensor:
        ledger = self._ledger_of(subject)

        def seek() -> Tensors:
            return hunt(subject, self.dataset, self.batches, job, self.seed, ledger, self.progress).tensors()

        return Found.of(self._kept(subject, job.stage, seek)).broken

    def _kept(self, subject: Subject | None, stage: str, make: Callable[[], Tensors]) -> Tensors:
        """Return what a stage gave before a kill, or make and keep it."""
        ledger = self._ledger_of(subject)
        if stage not in ledger.finished:
            # A ledger counts the seconds of every stage; an audit tells none.
            ledger.finish(stage, {"seconds": torch.tensor(0.0), **make()})
        return ledger.finished[stage]

    def _ledger_of(self, subject: Subject | None) -> Ledger:
        """Return where a subject's results are kept: not on disk where what it answers depends on earlier calls."""
        forgets = subject is self.claimed and self.facts.adapts
        return self._memory if forgets else self.ledger

    def _logits(self, model: nn.Module) -> Tensor:
        seed_noise(derive(self.seed, "audit", "clean"), self.claimed.device)
        parts = self.batches.run(partial(self._answer, model), torch.arange(self.n))
        return torch.cat(list(parts))

    def _answer(self, model: nn.Module, positions: Tensor) -> Tensor:
        x = self.dataset.float(positions, device=self.claimed.device)
        return predict(model, x, index=self.dataset.index.cpu()[positions]).float().cpu()


def set_up(
    model: nn.Module,
    dataset: DataSet,
    batches: Batches,
    *,
    threat: ThreatModel,
    seed: int,
    budget: Budget,
    layers: tuple[str, ...],
    twin: nn.Module | None,
    progress: Progress | None,
    ledger: Ledger,
    device: torch.device,
) -> Lab:
    """Return the lab for a model at rest; layers: names of those whose slope is to be replaced."""
    at = spread(dataset, PROBE)
    x, y = images_at(dataset, at, device)
    behaviour = watch(model, x, threat, seed)
    adapts, company = (bounds.exceeds(flags, bounds.STRAY) for flags in (behaviour.adapts, behaviour.company))
    base: nn.Module = Fresh(copy.deepcopy(model)) if adapts else model
    base = Accompanied(base, x[-COMPANY:]) if company else base
    gradient = slopes(base, x, y)
    missing = bool(gradient.missing.any())
    graphed = Graphed(base) if missing else base
    few = x[:LAYER_PROBE]
    facts = Facts(
        behaviour=behaviour,
        slopes=gradient,
        stairs=count_stairs(base, few),
        layers=_layers(base, few, layers),
        at=at,
        scale=max(1.0, float(behaviour.gap.median()) / GOOD_GAP),
        opaque=missing and holds_opaque(model),
    )
    judge = Averaged(graphed, budget.passes) if facts.random else graphed
    live = Graphed(model) if missing else model
    claimed = Subject(model=judge if facts.random else live, surrogate=None, device=device)
    if facts.steady and not missing:
        claimed = prepare(model, fast=True, example=x[:8])
    return Lab(base, graphed, judge, claimed, dataset, batches, seed, threat, budget, facts, twin, progress, ledger)


def holds_opaque(model: nn.Module) -> bool:
    """Return whether a model computes outside torch, in NumPy or in an ONNX file."""
    return any(isinstance(module, NumpyModel | OnnxModel) for module in model.modules())


def _layers(base: nn.Module, x: Tensor, names: tuple[str, ...]) -> tuple[Shattered, ...]:
    found = find_shattered(base, x)
    if not names:
        return found
    modules = dict(base.named_modules())
    full = tuple(next((each for each in modules if each == name or each.endswith(f".{name}")), name) for name in names)
    return (*named_layers(base, x, full), *(layer for layer in found if layer.name not in full))


def _through(source: nn.Module, averaged: Wrap, attack: Attack) -> Attack:
    return Transfer(attack=averaged(attack), source=source)


def _bpda(source: nn.Module, layers: tuple[Shattered, ...], averaged: Wrap, attack: Attack) -> Attack:
    wrapped = averaged(attack)
    for layer in layers:
        if layer.replaceable:
            wrapped = BPDA(attack=wrapped, layer=f"model.{layer.name}", backward=layer.backward)
    return Transfer(attack=wrapped, source=source)
