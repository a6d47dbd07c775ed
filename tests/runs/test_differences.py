"""What is compared, how, and what is refused: made-up outcomes of a handful of samples."""

from dataclasses import replace
from typing import Any

import pytest

from gossamer.intervals import fisher, mcnemar, newcombe, paired_difference, welch, wilson
from gossamer.runs import RunFolder, atomic, results
from gossamer.runs.differences import Reached, compare_reached, read_reached

EPS = 8 / 255
PGD = {"type": "gossamer.attacks.pgd.PGD", "threat": "linf:8/255", "steps": 50, "restarts": 10}


def outcome(robust: list[int], **changes: Any) -> results.AttackOutcome:
    n = len(robust)
    made = results.AttackOutcome(
        attack="pgd-50-10",
        parameters=PGD,
        threat="linf:8/255",
        norm="linf",
        eps=EPS,
        robust_accuracy=sum(robust) / n,
        interval=wilson(sum(robust), n),
        n=n,
        seconds=1.0,
        robust=tuple(robust),
        rejected=0,
    )
    return replace(made, **changes)


def evaluation(clean: list[int], *attacks: results.AttackOutcome, start: int = 0, **data: Any) -> results.Evaluation:
    n, quoted = len(clean), attacks[0]
    about = {"name": "toy", "part": "test", "checksum": "c0ffee", "selection": "first", "n": n}
    return results.Evaluation(
        run="run",
        dataset=results.Dataset(**{**about, **data}),
        model=results.EvaluatedModel(name="net", weights=100, nonzero=10, density=0.1),
        n=n,
        seed=0,
        clean_accuracy=sum(clean) / n,
        clean_interval=wilson(sum(clean), n),
        robust_accuracy=quoted.robust_accuracy,
        interval=quoted.interval,
        attack=quoted.attack,
        attack_parameters=quoted.parameters,
        threat=quoted.threat,
        eps=quoted.eps,
        density=0.1,
        nonzero=10,
        weights=100,
        seconds=1.0,
        batch_size=n,
        environment={},
        samples=results.Samples(
            index=tuple(range(start, start + n)),
            label=(0,) * n,
            clean_prediction=tuple(1 - right for right in clean),
            clean_correct=tuple(clean),
        ),
        attacks=attacks,
    )


def reached(*evaluations: results.Evaluation) -> Reached:
    return Reached(name="run", evaluations=evaluations, work_ratio=None, density=0.1, nonzero=10, notes=())


def one(clean: list[int], robust: list[int], **changes: Any) -> Reached:
    return reached(evaluation(clean, outcome(robust), **changes))


def test_two_networks_are_compared_sample_by_sample() -> None:
    a = one([1] * 20, [1] * 12 + [0] * 8)
    b = one([1] * 16 + [0] * 4, [0] * 10 + [1] * 6 + [0] * 4)
    (clean, robust), apart = compare_reached([a], [b])
    assert apart == []
    assert (clean.attack, clean.test, clean.n, clean.only_a, clean.only_b) == (None, "paired", (20, 20), 4, 0)
    assert (robust.only_a, robust.only_b) == (10, 4)
    assert robust.difference == pytest.approx(0.3)
    assert robust.interval == paired_difference(10, 4, 20)
    assert (clean.p_value, robust.p_value) == (mcnemar(4, 0), mcnemar(10, 4))
    # Holm of 0.125 and 0.1796: twice the smaller, and the larger not below that.
    assert (clean.adjusted, robust.adjusted) == (pytest.approx(0.25), pytest.approx(0.25))
    assert not robust.significant


def test_samples_in_another_order_are_paired_by_their_index() -> None:
    first = evaluation([1, 1, 1, 0], outcome([1, 0, 1, 0]))
    turned = replace(
        evaluation([0, 1, 1, 1], outcome([0, 1, 0, 1])),
        samples=results.Samples(
            index=(3, 2, 1, 0), label=(0,) * 4, clean_prediction=(1, 0, 0, 0), clean_correct=(0, 1, 1, 1)
        ),
    )
    (clean, robust), _ = compare_reached([reached(first)], [reached(turned)])
    assert (clean.only_a, clean.only_b, robust.only_a, robust.only_b) == (0, 0, 0, 0)


def test_different_samples_of_one_data_set_are_compared_without_pairs() -> None:
    a, b = one([1] * 10, [1] * 9 + [0]), one([1] * 10, [1] * 2 + [0] * 8, start=10)
    (clean, robust), _ = compare_reached([a], [b])
    assert (clean.test, robust.test, robust.only_a) == ("unpaired", "unpaired", None)
    assert robust.interval == newcombe(9, 10, 2, 10)
    assert robust.p_value == fisher(9, 10, 2, 10)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"threat": "linf:4/255", "eps": 4 / 255}, "threat linf:8/255 against linf:4/255"),
        ({"parameters": {**PGD, "steps": 20}}, "steps 50 against 20"),
        ({"parameters": {**PGD, "restarts": 1, "steps": 10}}, "steps 50 against 10, restarts 10 against 1"),
        ({"parameters": {**PGD, "loss": "dlr"}}, "loss None against dlr"),
    ],
)
def test_other_attacks_are_not_compared(changes: dict[str, Any], why: str) -> None:
    a = one([1] * 4, [1, 1, 0, 0])
    b = reached(evaluation([1] * 4, outcome([1, 0, 0, 0], **changes)))
    compared, (apart,) = compare_reached([a], [b])
    assert [each.attack for each in compared] == [None]
    assert (apart.attack, apart.why) == ("pgd-50-10", why)


def test_another_n_is_not_compared_but_clean_samples_both_have_are() -> None:
    a, b = one([1] * 8, [1] * 8), one([1, 1, 0, 0], [1, 0, 0, 0])
    (clean,), (apart,) = compare_reached([a], [b])
    assert (clean.n, clean.a, clean.b) == ((4, 4), (1.0,), (0.5,))
    assert apart.why == "n 8 against 4"


def test_other_images_are_not_compared() -> None:
    a, b = one([1] * 4, [1] * 4), one([1] * 4, [1] * 4, checksum="other")
    compared, (clean, robust) = compare_reached([a], [b])
    assert compared == []
    assert "toy test (c0ffee) against toy test (other): other images" in clean.why
    assert robust.why == "images c0ffee against other"


def test_an_attack_of_one_side_stands_alone() -> None:
    fgsm = outcome([1, 0, 0, 0], attack="fgsm", parameters={"type": "gossamer.attacks.fgsm.FGSM"})
    a = reached(evaluation([1] * 4, outcome([1] * 4), fgsm))
    _, (apart,) = compare_reached([a], [one([1] * 4, [1] * 4)])
    assert (apart.attack, apart.why) == ("fgsm", "A alone has it")
    _, (apart,) = compare_reached([one([1] * 4, [1] * 4)], [a])
    assert (apart.attack, apart.why) == ("fgsm", "B alone has it")


def test_several_runs_are_compared_by_their_means() -> None:
    a = [one([1] * 10, [1] * k + [0] * (10 - k)) for k in (6, 7, 8)]
    b = [one([1] * 10, [1] * k + [0] * (10 - k)) for k in (2, 3)]
    (clean, robust), _ = compare_reached(a, b)
    assert (robust.test, robust.a, robust.b) == ("over runs", (0.6, 0.7, 0.8), (0.2, 0.3))
    expected = welch([0.6, 0.7, 0.8], [0.2, 0.3])
    assert (robust.interval, robust.p_value) == (expected.interval, expected.p_value)
    # Clean accuracies scatter on neither side: there is nothing to test, and one p-value to adjust.
    assert (clean.difference, clean.p_value, clean.adjusted) == (0.0, None, None)
    assert robust.adjusted == robust.p_value


def test_an_attack_that_one_run_of_several_lacks_is_not_compared() -> None:
    short = reached(evaluation([1] * 4, outcome([1] * 4, parameters={**PGD, "steps": 20})))
    compared, apart = compare_reached([one([1] * 4, [1] * 4), short], [one([1] * 4, [1] * 4)])
    assert [each.attack for each in compared] == [None]
    assert {each.why for each in apart} == {"1 of the 2 runs of A have it"}


def test_a_damaged_evaluation_is_left_out_and_told(tmp_path) -> None:
    run = RunFolder.create(tmp_path / "run")
    results.write_evaluation(run, "pgd", evaluation([1] * 4, outcome([1] * 4)))
    run.result("torn").write_text("{")
    atomic.write_json(run.result("network"), {"schema": "gossamer/network/0"})
    found = read_reached(run)
    assert (len(found.evaluations), found.density, found.nonzero, found.work_ratio) == (1, 0.1, 10, None)
    assert len(found.notes) == 2
    assert "torn.json" in found.notes[0]
