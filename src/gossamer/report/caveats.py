"""What must a reader know before quoting the page's numbers?"""

from collections.abc import Sequence

from gossamer.report import words
from gossamer.report.views import RunView
from gossamer.runs.audits import Audit
from gossamer.runs.measured import Measured
from gossamer.runs.protocols import TransferMatrix

_ONE_GRADIENT_ATTACK = ("FGSM", "PGD")


def caveats(views: Sequence[RunView], measured: Sequence[Measured] = ()) -> list[str]:
    """Return the warnings that the runs' evaluations, audits and protocols call for."""
    return _of_measured(measured) + _of_attacks(views) + _of_comparison(views)


def _of_measured(measured: Sequence[Measured]) -> list[str]:
    found: list[str] = []
    for record in measured:
        if isinstance(record, Audit) and record.verdict != "trust":
            told = "do not quote its robust accuracy" if record.verdict == "reject" else "quote it with the doubt"
            found.append(f"The audit of {record.run} says {record.verdict}: {told}. {record.reason.rstrip('.')}.")
        if isinstance(record, TransferMatrix):
            beaten = sorted({danger.target for danger in record.dangers if danger.beats_white_box})
            found += [f"Others' examples beat the white box of {name}: its gradients are masked." for name in beaten]
    return found


def _of_attacks(views: Sequence[RunView]) -> list[str]:
    outcomes = [outcome for view in views for one in view.evaluations for outcome in one.attacks]
    found: list[str] = []
    names = {words.outcome_name(outcome).split("-")[0].split(" ")[0] for outcome in outcomes}
    if names and names <= set(_ONE_GRADIENT_ATTACK):
        found.append(
            "Accuracy under FGSM or PGD is an upper bound on robust accuracy: "
            "a stronger or adaptive attack can only lower it."
        )
    if any("rehearsed" in words.outcome_name(outcome) for outcome in outcomes):
        found.append(
            "AutoAttack was rehearsed with fewer steps or queries than published: do not quote it as AutoAttack."
        )
    found += [told for view in views if (told := _weaker_headline(view))]
    rejected = sum(outcome.rejected for outcome in outcomes)
    if rejected:
        found.append(
            f"{rejected} attacked points left the ball or the box and were not counted as adversarial examples."
        )
    return found


def _weaker_headline(view: RunView) -> str:
    """Return what AutoAttack left at the headline's threat, where the headline is of another attack."""
    quoted = view.headline
    if quoted is None or quoted.attack.startswith("autoattack"):
        return ""
    outcomes = [outcome for one in view.comparable for outcome in one.attacks if outcome.threat == quoted.threat]
    full = [outcome for outcome in outcomes if words.outcome_name(outcome) == "AutoAttack"]
    if not full:
        return ""
    most = max(full, key=lambda outcome: outcome.n)
    left = f"{words.percent(most.robust_accuracy)} {words.brackets(most.interval)} of n={most.n}"
    weaker = words.attack_name(quoted.attack, quoted.attack_parameters)
    return f"The headline of {view.name} is under {weaker}, n={quoted.n}; AutoAttack leaves {left}."


def _of_comparison(views: Sequence[RunView]) -> list[str]:
    quoted = [one for view in views if (one := view.headline)]
    measured = {(one.dataset.name, one.dataset.checksum, one.dataset.selection, one.n) for one in quoted}
    if len(measured) > 1:
        return ["The runs were evaluated on different samples: their rows are not strictly comparable."]
    if len(measured) == 1 and len({words.headline_conditions(one) for one in quoted}) > 1:
        return ["The headlines hold under different attacks or threats: compare within one column only."]
    return []
