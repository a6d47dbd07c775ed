"""How is a number of the page measured again? The commands, as records keep them or from what they say."""

import shlex

from gossamer.report import parts
from gossamer.report.views import RunView
from gossamer.runs.results import Evaluation
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
    """Return the command that an evaluation was made by, else one that makes it again; none where neither is known."""
    kept = parts.commands(evaluation.environment)
    return kept or tuple(filter(None, [made_again(view, evaluation)]))


def made_again(view: RunView, evaluation: Evaluation) -> str | None:
    """Return a command that evaluates as a record says, None where its attack has no name that could be asked for.

    A preset such as pgd-50-10 says its options itself.
    """
    first = next(iter(evaluation.attacks), None)
    if first is None or first.attack not in ASKED_BY_NAME:
        return None
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
