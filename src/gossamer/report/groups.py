"""Which runs are seeds of one recipe? Those share a row of the comparison, with mean and spread of each number."""

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev
from typing import cast

from gossamer.report.views import RunView
from gossamer.report.words import brackets, described, percent
from gossamer.runs.results import Evaluation, Interval, Totals

_SEED_AT_END = re.compile(r"[-_. /=]*(?:(?<![A-Za-z])(?:seed|s)[-_.=]?\d*)?$")
_APART = ("seed", "machine")


@dataclass(frozen=True)
class Group:
    """Runs whose recipes differ in the seed alone, or one run; name: unique on the page; place: its row."""

    name: str
    place: int
    views: tuple[RunView, ...]

    @cached_property
    def fields(self) -> dict[str, str]:
        """What the recipe says, by dotted name, but for seed, machine, name and claim."""
        recipe = {key: value for key, value in self.views[0].recipe.items() if key not in (*_APART, "name", "claim")}
        return dict(_flat(recipe, ""))

    @property
    def method(self) -> str:
        """The method's name."""
        return self.named("method")

    def named(self, key: str) -> str:
        """Return the name of a part of the recipe such as its data, "–" where it has none."""
        value = self.views[0].recipe.get(key)
        name = cast("dict[str, object]", value).get("name") if isinstance(value, dict) else value
        return str(name) if name is not None else "–"

    @property
    def density(self) -> "Summary | None":
        """The share of weights kept."""
        return summary(one.density for view in self.views if (one := counted(view)))

    @property
    def nonzero(self) -> "Summary | None":
        """The weights kept."""
        return summary(one.nonzero for view in self.views if (one := counted(view)))

    @property
    def is_dense(self) -> bool:
        """Whether this is a dense training, not a method that happened to remove nothing."""
        return self.method in ("dense", "–") and self.density is not None and self.density.mean == 1


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One number over the runs of a row; interval: 95 %, of a single run that has one; n: samples, 0 for none."""

    values: tuple[float, ...]
    interval: Interval | None = None
    n: int = 0

    @property
    def mean(self) -> float:
        """The mean over the runs."""
        return fmean(self.values)

    @property
    def deviation(self) -> float:
        """The standard deviation over the runs, 0 for a single one."""
        return stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def reach(self) -> tuple[float, float]:
        """How far below and above the mean an error bar reaches: the deviation, of a single run its interval."""
        if self.interval is not None:
            return self.mean - self.interval[0], self.interval[1] - self.mean
        return self.deviation, self.deviation

    @property
    def small(self) -> list[str]:
        """How sure a share is: its interval and n, or its deviation over runs."""
        sure = [brackets(self.interval)] if self.interval else []
        if len(self.values) > 1:
            sure = [f"± {100 * self.deviation:.1f} over {len(self.values)} seeds"]
        return [*sure, *([f"n={self.n}"] if self.n else [])]

    @property
    def said(self) -> str:
        """The share in one line."""
        return ", ".join([" ".join([percent(self.mean), *self.small[:1]]), *self.small[1:]])


def summary(values: Iterable[float]) -> Summary | None:
    """Return plain numbers as a summary, None for none."""
    found = tuple(float(value) for value in values)
    return Summary(values=found) if found else None


def share(found: Sequence[tuple[float, Interval, int]]) -> Summary | None:
    """Return accuracies with their intervals and samples as a summary, None for none."""
    if not found:
        return None
    least = min(n for _, _, n in found)
    return Summary(
        values=tuple(value for value, _, _ in found), interval=found[0][1] if len(found) == 1 else None, n=least
    )


def counted(view: RunView) -> Totals | Evaluation | None:
    """Return what counts a run's weights: the network's totals, else the headline, None for neither."""
    return view.network.totals if view.network else view.headline


def grouped(views: Sequence[RunView]) -> list[Group]:
    """Return the rows of a comparison in the order of the runs; runs of one recipe and one seed are not merged."""
    by_recipe: dict[str, list[RunView]] = {}
    for view in views:
        by_recipe.setdefault(_key(view), []).append(view)
    rows: list[tuple[RunView, ...]] = []
    for alike in by_recipe.values():
        seeds = [str(view.recipe.get("seed")) for view in alike]
        rows += [tuple(alike)] if len({*seeds}) == len(seeds) else [(view,) for view in alike]
    rows.sort(key=lambda row: views.index(row[0]))
    groups = [Group(_name(row), place, row) for place, row in enumerate(rows)]
    names = [group.name for group in groups]
    return [
        group if names.count(group.name) == 1 else replace(group, name=f"{group.name} ({group.views[0].name}, …)")
        for group in groups
    ]


def _key(view: RunView) -> str:
    if not view.recipe:
        return str(view.path)
    return json.dumps({k: v for k, v in view.recipe.items() if k not in _APART}, sort_keys=True, default=str)


def _name(views: tuple[RunView, ...]) -> str:
    if len(views) == 1:
        return views[0].name
    letters = itertools.takewhile(lambda each: len({*each}) == 1, zip(*(view.name for view in views), strict=False))
    shared = _SEED_AT_END.sub("", "".join(each[0] for each in letters), count=1)
    return shared or str(views[0].recipe.get("name") or views[0].name)


def _flat(value: object, name: str) -> Iterable[tuple[str, str]]:
    if not isinstance(value, dict) or not value:
        return [(name, described(value))]
    parts = cast("dict[str, object]", value)
    return [pair for key, each in parts.items() for pair in _flat(each, f"{name}.{key}".lstrip("."))]
