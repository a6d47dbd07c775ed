"""What may an estimate of work go by? Data, network and attack in words: work of equal ones takes about as long."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from gossamer.recipe.build import build_threat
from gossamer.recipe.protocols import Question
from gossamer.recipe.schema import Evaluation, Recipe
from gossamer.recipe.train import result_name
from gossamer.runs import RunFolder, results


@dataclass(frozen=True, kw_only=True)
class Took:
    """What an evaluation or a protocol took. like: what it was; seconds; n: of how many samples, None: of all.

    of: how many these were, None where nobody counted.
    """

    like: str
    n: int | None
    of: int | None
    seconds: float


def like(recipe: Recipe, phase: str) -> dict[str, str]:
    """Return what an estimate of how long an epoch takes may go by."""
    return {
        "data": f"{recipe.data.name}, {recipe.data.train_n or 'all'}",
        "model": recipe.model.model_dump_json(),
        "objective": recipe.objective.name,
        "attack": recipe.attack.model_dump_json(),
        "method": recipe.method.name,
        "phase": phase,
    }


def like_evaluation(recipe: Recipe, asked: Evaluation) -> str:
    """Return what an estimate of how long an evaluation takes a sample may go by."""
    attack = asked.model_dump(mode="json", exclude={"n", "eps", "part"})
    radii = len(asked.eps or (None,))
    return json.dumps([_subject(recipe), build_threat(recipe).norm, attack, radii], sort_keys=True)


def took_by_evaluations(recipe: Recipe, run: RunFolder) -> list[Took]:
    """Return what each evaluation that a recipe asks for took, in order; raises RunError where one is not there."""
    found: list[Took] = []
    for asked in recipe.evaluation:
        measured = results.read_evaluation(run.result(result_name(asked, build_threat(recipe))))
        took = Took(like=like_evaluation(recipe, asked), n=asked.n, of=measured.n, seconds=measured.seconds)
        found.append(took)
    return found


def like_question(question: Question, runs: Mapping[str, Recipe]) -> str:
    """Return what an estimate of how long a protocol takes a sample may go by; runs: by name, in their order."""
    asked = question.model_dump(mode="json", exclude={"n", "seed"})
    said = json.dumps([[_subject(recipe) for recipe in runs.values()], asked], sort_keys=True)
    # Which of them is asked about counts, and not what it is called.
    for place, name in enumerate(runs):
        said = said.replace(json.dumps(name), str(place))
    return said


def _subject(recipe: Recipe) -> list[object]:
    return [recipe.data.name, recipe.data.options, recipe.model.model_dump(mode="json")]
