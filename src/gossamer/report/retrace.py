"""How is a number of the page measured again? The commands, from what the records say."""

import shlex

from gossamer.report.views import RunView
from gossamer.runs.results import Evaluation
from gossamer.threat import format_eps


def commands(view: RunView) -> list[str]:
    """Return the commands that train a run and evaluate it again."""
    recipe = shlex.quote(str(view.path / "recipe.yaml"))
    train = [f"gossamer train {recipe} --out {shlex.quote(str(view.path) + '-again')}"] if view.recipe else []
    return train + [evaluate_command(view, one) for one in view.evaluations if one.attacks]


def evaluate_command(view: RunView, evaluation: Evaluation) -> str:
    """Return the command of an evaluation; a preset such as pgd-50-10 says its options itself."""
    first = evaluation.attacks[0]
    radii = ",".join(format_eps(outcome.eps) for outcome in evaluation.attacks if outcome.attack == first.attack)
    flags = ["--attack", first.attack, "--norm", first.norm, "--eps", radii, "--seed", str(evaluation.seed)]
    if evaluation.dataset.part != "test":
        flags += ["--part", evaluation.dataset.part]
    if evaluation.dataset.selection != "all":
        flags += ["--n", str(evaluation.n)]
    told = {} if first.attack.startswith("pgd-") else first.parameters
    options = {name: value for name, value in told.items() if name not in ("type", "threat") and value is not None}
    flags += [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
    return shlex.join(["gossamer", "evaluate", str(view.path), *flags])
