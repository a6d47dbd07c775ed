"""Which class pays? Clean and robust accuracy by class, and the worst one by name."""

from collections.abc import Sequence

from gossamer.errors import ConfigError
from gossamer.evaluation.setting import share_of
from gossamer.runs.protocols import ClassAccuracy, ClassTable
from gossamer.runs.results import Evaluation


def by_class(evaluation: Evaluation, names: Sequence[str] | None = None) -> ClassTable:
    """Return an evaluation class by class; robust means under all of its attacks.

    names: of classes 0 to K - 1, by default their numbers; a class without a sample is left out. Raises ConfigError
    where there are fewer names than classes.
    """
    labels = evaluation.samples.label
    highest = max(labels)
    called = [str(label) for label in range(highest + 1)] if names is None else list(names)
    if len(called) <= highest:
        raise ConfigError(
            "class names", expected=f"at least {highest + 1}", got=len(called), remedy="give one name for every class"
        )
    standing = [all(flags) for flags in zip(*(outcome.robust for outcome in evaluation.attacks), strict=True)]
    classes: list[ClassAccuracy] = []
    for label in sorted(set(labels)):
        rows = [row for row, own in enumerate(labels) if own == label]
        clean = share_of([evaluation.samples.clean_correct[row] for row in rows])
        robust = share_of([int(standing[row]) for row in rows])
        classes.append(ClassAccuracy(label=label, name=called[label], clean=clean, robust=robust))
    return ClassTable(
        run=evaluation.run,
        attack=evaluation.attack,
        threat=evaluation.threat,
        n=evaluation.n,
        classes=tuple(classes),
        worst_clean=min(classes, key=lambda each: each.clean.value).name,
        worst_robust=min(classes, key=lambda each: each.robust.value).name,
    )
