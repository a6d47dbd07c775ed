"""How does a comparison of runs read? What differs, number by number, and what may be concluded from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gossamer.recipe.effective import Field
from gossamer.report import words
from gossamer.report.plain import aligned, wrapped
from gossamer.runs import records
from gossamer.runs.differences import LEVEL, Apart, Compared

WIDTH = 110
_TESTS = {
    "paired": "McNemar's exact test sample by sample, intervals of Bonett and Price",
    "unpaired": "different samples of the same images: Fisher's exact test, intervals of Newcombe",
    "over runs": "Welch's t test and interval of the means over runs",
}
_OF_NETWORKS = (
    "One training a side: this compares two networks, not two recipes or methods, which another seed may order "
    "otherwise. Give several seeds of each: gossamer compare --a RUN --a RUN --b RUN --b RUN."
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """The runs of one side, by their paths, with one entry a run; None: not known. mixed: recipe fields in which they
    differ among themselves."""

    runs: tuple[str, ...]
    seeds: tuple[int | None, ...]
    method: tuple[str, ...]
    density: tuple[float | None, ...]
    nonzero: tuple[int | None, ...]
    work_ratio: tuple[float | None, ...]
    mixed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """What differs between two sides. recipe, seeds, machine: the fields that do; results: accuracies measured alike;
    family: how many p-values were adjusted together, here and in comparisons beside it; apart: those that cannot be
    compared; notes: what could not be read."""

    schema: str = "gossamer/comparison/1"
    a: Side
    b: Side
    recipe: tuple[Field, ...]
    seeds: tuple[Field, ...]
    machine: tuple[Field, ...]
    results: tuple[Compared, ...]
    family: int
    apart: tuple[Apart, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as values that JSON has, with its statement."""
        return {**records.to_json(self), "statement": self.statement}

    @property
    def statement(self) -> tuple[str, ...]:
        """What may be concluded, in sentences."""
        if not self.results:
            return ("No accuracy was measured alike on both sides, so nothing can be said of a difference.",)
        single = len(self.a.runs) == len(self.b.runs) == 1
        return (*self._findings(), *_how(self.results, self.family), *([_OF_NETWORKS] if single else self._of_runs()))

    def text(self, width: int = WIDTH) -> str:
        """Return it as text in lines of at most `width` columns, 0 for no limit; rows of accuracies are never cut."""
        lines = [*_side("A", self.a, width), *_side("B", self.b, width)]
        lines += _fields("recipe", self.recipe, width)
        lines += _fields("seeds", self.seeds, width)
        lines += _fields("machine, versions and images", self.machine, width)
        lines += ["", "reached", *aligned(_sizes(self.a, self.b), indent=2)]
        if self.results:
            lines += ["", *aligned(_accuracies(self.results), indent=2)]
        for title, told in (
            ("not compared", [f"{_measured(each)}: {each.why}" for each in self.apart]),
            ("not read", self.notes),
            ("what this says", self.statement),
        ):
            lines += ["", title] if told else []
            lines += [line for each in told for line in wrapped(each, width=width, indent=2, first="- ")]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _findings(self) -> list[str]:
        higher = {
            side: [each for each in self.results if each.significant and sign * each.difference > 0]
            for side, sign in (("A", 1), ("B", -1))
        }
        judged = [each for each in self.results if each.adjusted is not None]
        silent = [each for each in judged if not each.significant]
        told = [
            f"{side} is higher than {'B' if side == 'A' else 'A'} at the {100 * LEVEL:.0f} % level: {_listed(found)}."
            for side, found in higher.items()
            if found
        ]
        if silent:
            told.append(f"No difference is shown (nor is it shown that there is none): {_listed(silent)}.")
        if len(judged) < len(self.results):
            unjudged = [each for each in self.results if each.adjusted is None]
            told.append(f"{self._no_test()}: {_listed(unjudged)}.")
        return told

    def _no_test(self) -> str:
        least = min(len(self.a.runs), len(self.b.runs))
        if least < 2:
            return "Nothing tells how far trainings of a side with one run scatter, so no test is made"
        return "The runs of neither side scatter, so no test is made"

    def _of_runs(self) -> list[str]:
        a, b = self.a, self.b
        means = f"Means over {len(a.runs)} and {len(b.runs)} trainings: the intervals hold how trainings scatter on"
        told = [f"{means} these images, not how the images were chosen."]
        for name, side in (("A", a), ("B", b)):
            if side.mixed:
                told.append(f"The runs of {name} are not of one recipe: they differ in {', '.join(side.mixed)}.")
            if len(set(side.seeds)) < len(side.seeds):
                told.append(f"Seeds repeat in {name}: its runs are not independent trainings.")
        return told


def _how(results: Sequence[Compared], family: int) -> list[str]:
    judged = sum(each.adjusted is not None for each in results)
    if not judged:
        return []
    tests = dict.fromkeys(each.test for each in results if each.adjusted is not None)
    adjusted = f"p-values adjusted by Holm for {family} accuracies compared" if family > 1 else "one accuracy compared"
    adjusted += f", {judged} of them here" if family > judged else ""
    return [f"{'; '.join(_TESTS[test] for test in tests)}; {adjusted}; intervals of 95 % each, not adjusted."]


def _listed(found: Sequence[Compared]) -> str:
    return "; ".join(map(_measured, found))


def _measured(each: Compared | Apart) -> str:
    """Return what an accuracy was measured under."""
    n = each.n if isinstance(each.n, int) else each.n[0]
    counted = f"n={n}" if isinstance(each.n, int) or len(set(each.n)) == 1 else f"n={each.n[0]} and {each.n[1]}"
    where = f", {each.data} {each.part}" if isinstance(each, Compared) and each.part != "test" else ""
    if each.attack is None or each.threat is None or each.eps is None:
        return f"clean, {counted}{where}"
    return words.conditions(each.attack, each.parameters, each.threat, each.eps, n) + where


def _side(name: str, side: Side, width: int) -> list[str]:
    runs = ", ".join(side.runs)
    several = f"{len(side.runs)} runs: " if len(side.runs) > 1 else ""
    return wrapped(f"{several}{runs}", width=width, first=f"{name}  ")


def _fields(title: str, fields: Sequence[Field], width: int) -> list[str]:
    if not fields:
        return ["", f"{title}: the same"]
    rows = [("", "A", "B"), *((each.field, _values(each.a), _values(each.b)) for each in fields)]
    return ["", f"{title}: {len(fields)} differ", *aligned(rows, width=width, indent=2, cut=[(1, 2)])]


def _values(values: Sequence[Any]) -> str:
    return " | ".join(map(_value, values))


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else words.described(value) or str(value)


def _sizes(a: Side, b: Side) -> list[list[str]]:
    return [
        ["", "A", "B"],
        ["density", *(_range(side.density, words.percent) for side in (a, b))],
        ["nonzero weights", *(_range(side.nonzero, "{:,}".format) for side in (a, b))],
        ["work ratio", *(_range(side.work_ratio, "{:.1f}".format) for side in (a, b))],
    ]


def _range(values: Sequence[float | None], written: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return " to ".join(dict.fromkeys(written(value) for value in (min(known), max(known))))


def _accuracies(results: Sequence[Compared]) -> list[tuple[str, ...]]:
    head = ("accuracy", "A", "B", "A - B in points [95 %]", "p", "p by Holm")
    return [head, *(_accuracy(each) for each in results)]


def _accuracy(each: Compared) -> tuple[str, ...]:
    means = [sum(side) / len(side) for side in (each.a, each.b)]
    interval = "" if each.interval is None else f" [{100 * each.interval[0]:+.1f}, {100 * each.interval[1]:+.1f}]"
    return (
        _measured(each),
        *(words.percent(mean) for mean in means),
        f"{100 * each.difference:+.1f}{interval}",
        "–" if each.p_value is None else f"{each.p_value:.2g}",
        "–" if each.adjusted is None else f"{each.adjusted:.2g}{' *' if each.significant else ''}",
    )
