"""Under which attack, threat and data were several rows measured? Only what was measured alike shares a chart."""

from collections.abc import Sequence
from dataclasses import dataclass

from gossamer.report.groups import Group, Summary, share
from gossamer.report.views import RunView
from gossamer.report.words import radius
from gossamer.runs.results import AttackOutcome, Evaluation

_MOST = 12


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What an accuracy holds under; data: name and part; threat: "linf eps 8/255"."""

    data: str
    attack: str
    threat: str

    @property
    def label(self) -> str:
        """All of it in one line."""
        return f"{self.attack}, {self.threat}, {self.data}"


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What a row reached under one condition; measured: of each of its runs that has it, by which evaluation."""

    group: Group
    clean: Summary
    robust: Summary
    measured: Sequence[tuple[RunView, Evaluation, AttackOutcome]]


def conditions(groups: Sequence[Group]) -> list[Condition]:
    """Return the conditions under which most rows were measured, those first that most rows quote."""
    rows: dict[Condition, int] = {}
    quoted: dict[Condition, int] = {}
    for group in groups:
        for condition in {_of(view, *pair) for view in group.views for pair in _outcomes(view)}:
            rows[condition] = rows.get(condition, 0) + 1
        for condition in {found for view in group.views if (found := _quoted(view))}:
            quoted[condition] = quoted.get(condition, 0) + 1
    ordered = sorted(rows, key=lambda each: (-quoted.get(each, 0), -rows[each], each.label))
    return ordered[:_MOST]


def reached(groups: Sequence[Group], condition: Condition) -> list[Reached]:
    """Return the rows that were measured under a condition."""
    found: list[Reached] = []
    for group in groups:
        measured = [(view, *pair) for view in group.views if (pair := _most(view, condition))]
        clean = share([(one.clean_accuracy, one.clean_interval, one.n) for _, one, _ in measured])
        robust = share([(one.robust_accuracy, one.interval, one.n) for _, _, one in measured])
        if clean is not None and robust is not None:
            found.append(Reached(group=group, clean=clean, robust=robust, measured=measured))
    return found


def _outcomes(view: RunView) -> list[tuple[Evaluation, AttackOutcome]]:
    return [(one, outcome) for one in view.evaluations for outcome in one.attacks]


def _of(view: RunView, evaluation: Evaluation, outcome: AttackOutcome) -> Condition:
    return Condition(
        data=f"{evaluation.dataset.name} {evaluation.dataset.part}",
        attack=view.named(outcome.attack, outcome.parameters),
        threat=f"{outcome.norm} eps {radius(outcome.eps)}",
    )


def _quoted(view: RunView) -> Condition | None:
    headline = view.headline
    if headline is None:
        return None
    alike = [one for one in headline.attacks if one.threat == headline.threat and one.attack == headline.attack]
    return _of(view, headline, alike[0]) if alike else None


def _most(view: RunView, condition: Condition) -> tuple[Evaluation, AttackOutcome] | None:
    pairs = [pair for pair in _outcomes(view) if _of(view, *pair) == condition]
    return max(pairs, key=lambda pair: pair[1].n, default=None)
