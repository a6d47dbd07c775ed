"""How is a number of the page measured again? The commands, as records keep them or from what they say."""

import shlex
from collections.abc import Sequence
from typing import Any

from gossamer.report import parts
from gossamer.report.views import RunView
from gossamer.runs.results import AttackOutcome, Evaluation
from gossamer.threat import format_eps

# Pages are drawn from records alone, without the attacks; a test holds these names against theirs.
ASKED_BY_NAME = frozenset(
    [
        "apgd-ce",
        "apgd-dlr",
        "apgd-t",
        "autoattack",
        "autoattack-plus",
        "autoattack-rand",
        "autoattack-early",
        "fab",
        "fab-t",
        "cw-l2",
        "cw-pgd",
        "deepfool",
        "fgsm",
        "fmn",
        "n-fgsm",
        "pgd",
        "pgd-50-10",
        "spatial",
        "square",
        "zoo",
    ]
)


def commands(view: RunView) -> list[str]:
    """Return the commands that train a run and evaluate it again, as far as they are known."""
    recipe = shlex.quote(str(view.path / "recipe.yaml"))
    train = [f"gossamer train {recipe} --out {shlex.quote(str(view.path) + '-again')}"] if view.recipe else []
    return train + [command for one in view.evaluations for command in evaluate_commands(view, one)]


def evaluate_commands(view: RunView, evaluation: Evaluation) -> tuple[str, ...]:
    """Return the commands that an evaluation was made by, else those that make it again, as far as they are known."""
    return parts.commands(evaluation.environment) or made_again(view, evaluation)


def made_again(view: RunView, evaluation: Evaluation) -> tuple[str, ...]:
    """Return commands that evaluate as a record says, one for each of its attacks that has a name to ask for it by."""
    alike: dict[tuple[str, str, str], list[AttackOutcome]] = {}
    for outcome in evaluation.attacks:
        alike.setdefault((outcome.attack, outcome.norm, str(_options(outcome))), []).append(outcome)
    return tuple(_again(view, evaluation, each) for each in alike.values() if each[0].attack in ASKED_BY_NAME)


def _again(view: RunView, evaluation: Evaluation, outcomes: Sequence[AttackOutcome]) -> str:
    first, radii = outcomes[0], ",".join(format_eps(outcome.eps) for outcome in outcomes)
    flags = ["--attack", first.attack, "--norm", first.norm, "--eps", radii, "--seed", str(evaluation.seed)]
    if evaluation.dataset.part != "test":
        flags += ["--part", evaluation.dataset.part]
    if evaluation.dataset.selection != "all":
        flags += ["--n", str(evaluation.n)]
    flags += [word for name, value in _options(first).items() for word in ("--option", f"{name}={value}")]
    return shlex.join(["gossamer", "evaluate", str(view.path), *flags])


def _options(outcome: AttackOutcome) -> dict[str, Any]:
    """Return the options that an attack had; a preset such as pgd-50-10 says them itself."""
    told = {} if outcome.attack.startswith("pgd-") else outcome.parameters
    return {name: value for name, value in told.items() if name not in ("type", "threat") and value is not None}
