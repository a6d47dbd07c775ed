"""What a comparison of made-up numbers says, and that its lines fit."""

import pytest

from gossamer.recipe.comparison import Comparison, Side
from gossamer.recipe.effective import Field
from gossamer.report.plain import aligned, wrapped
from gossamer.runs.differences import Apart, Compared


def side(*runs: str, mixed: tuple[str, ...] = ()) -> Side:
    n = len(runs)
    return Side(
        runs=runs,
        seeds=tuple(range(n)),
        method=("bcs",),
        density=(0.1,) * n,
        nonzero=tuple(5865 + i for i in range(n)),
        work_ratio=(None,) * n,
        mixed=mixed,
    )


def compared(difference: float, adjusted: float | None, attack: str | None = None, test: str = "paired") -> Compared:
    return Compared(
        attack=attack,
        parameters={"steps": 50, "restarts": 10},
        threat=None if attack is None else "linf:8/255",
        eps=None if attack is None else 8 / 255,
        data="cifar10",
        part="test",
        n=(1000, 1000),
        a=(0.5,),
        b=(0.5 - difference,),
        difference=difference,
        interval=None if adjusted is None else (difference - 0.02, difference + 0.02),
        p_value=None if adjusted is None else adjusted / 2,
        adjusted=adjusted,
        test=test,  # pyright: ignore[reportArgumentType]
    )


def comparison(*results: Compared, a: Side | None = None, b: Side | None = None, apart: tuple[Apart, ...] = ()):
    return Comparison(
        a=a or side("runs/a"),
        b=b or side("runs/b"),
        recipe=(Field(field="method.initial", a=({"conv1": 0.6},), b=(None,)), Field(field="clip", a=(False,), b=(1,))),
        seeds=(),
        machine=(),
        results=results,
        family=sum(each.adjusted is not None for each in results),
        apart=apart,
        notes=(),
    )


def test_the_statement_names_which_side_is_higher_and_where_nothing_is_shown() -> None:
    found = comparison(
        compared(0.04, 0.003), compared(-0.03, 0.04, "pgd-50-10"), compared(0.01, 0.4, "autoattack")
    ).statement
    higher, lower, silent, how, scope = found
    assert higher == "A is higher than B at the 5 % level: clean, n=1000."
    assert lower == "B is higher than A at the 5 % level: PGD-50 ×10, linf eps 8/255, n=1000."
    shown = "No difference is shown (nor is it shown that there is none)"
    assert silent == f"{shown}: AutoAttack, rehearsed with 50 steps, linf eps 8/255, n=1000."
    adjusted = "p-values adjusted by Holm for 3 accuracies compared; intervals of 95 % each, not adjusted."
    assert how == f"McNemar's exact test sample by sample, intervals of Bonett and Price; {adjusted}"
    assert scope.startswith("One training a side: this compares two networks, not two recipes or methods")


def test_rows_say_difference_interval_and_both_p_values() -> None:
    text = str(comparison(compared(0.04, 0.003)))
    assert "clean, n=1000  50.0 %  46.0 %  +4.0 [+2.0, +6.0]       0.0015  0.003 *" in text
    assert "nonzero weights  5,865   5,865" in text
    assert "work ratio       –       –" in text
    assert "method.initial  conv1 0.6  –" in text
    assert "clip            false      1" in text
    assert "seeds: the same" in text


def test_several_runs_without_scatter_are_not_tested() -> None:
    found = comparison(
        compared(0.04, None, test="over runs"), a=side("a", "b", mixed=("method.density",)), b=side("c", "d")
    )
    untested, scope, mixed = found.statement
    assert untested == "The runs of neither side scatter, so no test is made: clean, n=1000."
    assert scope.startswith("Means over 2 and 2 trainings: the intervals hold how trainings scatter on these images")
    assert mixed == "The runs of A are not of one recipe: they differ in method.density."
    assert "nonzero weights  5,865 to 5,866" in str(found)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_fit_where_they_can(width: int) -> None:
    why = Apart(attack="pgd", parameters={}, threat="linf:0.1", eps=0.1, n=20, why="n 20 against 400, " * 9)
    text = comparison(compared(0.04, 0.003), apart=(why,)).text(width)
    assert max(map(len, text.splitlines())) <= max(width, 76)
    assert "PGD, linf eps 0.1, n=20: n 20 against 400" in " ".join(text.split())


def test_columns_are_cut_in_the_middle_and_only_those_that_may_be() -> None:
    rows = [("name", "model", "density"), ("digits-bcs-seed0-1a2b3c4d", "wideresnet28", "10.0 %")]
    assert aligned(rows)[1] == "digits-bcs-seed0-1a2b3c4d  wideresnet28  10.0 %"
    narrow = aligned(rows, width=34, cut=[(1,), (0,)])
    assert narrow[1] == "digits-b…1a2b3c4d  wi…t28  10.0 %"
    assert all(len(line) <= 34 for line in narrow)
    assert aligned(rows, width=5, cut=[(1,)])[1].startswith("digits-bcs-seed0-1a2b3c4d  wi…t28")


def test_texts_are_wrapped_at_spaces_alone() -> None:
    assert wrapped("a run-of-words and/more", width=27, indent=2, first="- ") == ["  - a run-of-words and/more"]
    assert wrapped("one two", indent=2) == ["  one two"]
