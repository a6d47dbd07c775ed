"""What is left is estimated by like work that was done: by the sample, and not at all where there is none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_sweeps import done_all, planned, small

from gossamer.recipe.load import load_recipe
from gossamer.recipe.protocols import read_question
from gossamer.recipe.schema import Recipe
from gossamer.runs import records
from gossamer.sweep.alike import Took, like_evaluation, like_question
from gossamer.sweep.estimate import Estimate, estimate_evaluations, estimate_protocols
from gossamer.sweep.plan import ProtocolNode, RunNode
from gossamer.sweep.store import Store
from gossamer.sweep.tasks import perform, protocol_task


def recipe(**changes: Any) -> Recipe:
    return load_recipe(small(**{"evaluation": [{"attack": "fgsm", "n": 50}], **changes}))


def asked(attack: str = "fgsm", **options: Any) -> Estimate:
    """Return the estimate of one evaluation, where two of 50 samples and one of all 360 were seen."""
    seen = recipe(evaluation=[{"attack": "fgsm", "n": 50}, {"attack": "fgsm"}])
    took = [
        Took(like=like_evaluation(seen, spec), n=spec.n, of=of, seconds=seconds)
        for spec, of, seconds in zip(
            (*seen.evaluation[:1] * 2, seen.evaluation[1]), (50, 50, 360), (1.0, 2.0, 36.0), strict=True
        )
    ]
    standings = [{"evaluations": [records.to_json(each)], "done": True} for each in took]
    changes = options.pop("changes", {})
    new = recipe(**changes, evaluation=[{"attack": attack, **options}])
    return estimate_evaluations([RunNode(name="new", recipe=new, phases=(), labels=())], [*standings, {"done": False}])


def test_an_evaluation_takes_as_long_as_those_of_as_many_samples_else_by_the_sample() -> None:
    assert asked(n=50) == Estimate(seconds=1.5, unknown=0)
    assert asked() == Estimate(seconds=36.0, unknown=0)
    by_sample = (1.0 / 50 + 2.0 / 50 + 36.0 / 360) / 3
    assert asked(n=100).seconds == pytest.approx(100 * by_sample)
    assert asked(n=100, changes={"method": {"name": "random", "density": 0.01}, "seed": 3}).unknown == 0


@pytest.mark.parametrize(
    "other",
    [
        {"attack": "pgd", "steps": 3, "n": 50},
        {"n": 50, "eps": [0.1, 0.2]},
        {"n": 50, "changes": {"model": {"name": "digits-cnn", "width": 0.5}}},
        {"n": 50, "changes": {"threat": "l2:0.5"}},
    ],
)
def test_of_another_attack_or_network_nothing_is_known(other: dict[str, Any]) -> None:
    assert asked(**other) == Estimate(seconds=0.0, unknown=1)


def test_a_protocol_takes_as_long_as_one_like_it_of_other_runs() -> None:
    runs = {name: recipe(seed=seed) for seed, name in enumerate(("a", "b", "c"))}

    def node(*names: str, source: str, **options: Any) -> ProtocolNode:
        question = read_question({"name": "transfer", "attack": "fgsm", "n": 20, "sources": [source], **options})
        return ProtocolNode(name="-".join(names), question=question, runs=dict.fromkeys(names, ("made",)))

    one = node("a", "b", source="a")
    likeness = like_question(one.question, {name: runs[name] for name in ("a", "b")})
    standings = [{"like": likeness, "n": 20, "seconds": 8.0, "done": True}, {"made_of": {}, "done": True}]
    like = [node("b", "c", source="b"), node("b", "c", source="b", n=40)]
    assert estimate_protocols(like, runs, standings) == Estimate(seconds=8.0 + 16.0, unknown=0)
    others = [node("b", "c", source="c"), node("a", "b", "c", source="a"), node("a", "b", source="a", eps=[0.05])]
    assert estimate_protocols(others, runs, standings) == Estimate(seconds=0.0, unknown=3)
    wide = {**runs, "b": recipe(model={"name": "digits-cnn", "width": 0.5})}
    assert estimate_protocols([one], wide, standings).unknown == 1


def test_what_was_done_tells_of_it_in_its_standing(tmp_path: Path) -> None:
    base = small(training={"epochs": 1}, evaluation=[{"attack": "fgsm", "n": 20}, {"attack": "fgsm", "n": 10}])
    graph = planned({"base": base, "axes": {"seed": {"seeds": 1}}})
    done_all(graph, tmp_path)
    (run,) = graph.runs
    node = ProtocolNode(name="weights-0", question=read_question({"name": "weights"}), runs={run.name: run.made_of})
    perform(protocol_task(node, str(tmp_path)))
    (tmp_path / "standing" / "damaged.json").write_text("{")
    standings = Store(str(tmp_path)).standings()
    assert len(standings) == 2
    again = [replace(run, name="again")]
    evaluated = estimate_evaluations(again, standings)
    assert evaluated.unknown == 0
    assert evaluated.seconds > 0
    asked_again = replace(node, runs={"again": run.made_of})
    measured = estimate_protocols([asked_again], {"again": run.recipe}, standings)
    assert measured.unknown == 0
    assert measured.seconds > 0
