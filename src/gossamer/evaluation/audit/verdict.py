"""Trust, doubt or reject? What the attacks of an audit broke and which signs stayed open, in one word."""

from gossamer.evaluation.audit import bounds
from gossamer.evaluation.audit.lab import Lab
from gossamer.runs.audits import Sign, Verdict


def decide(lab: Lab, signs: tuple[Sign, ...]) -> tuple[Verdict, str]:
    """Return the verdict and its reason.

    reject: attacks of the audit break more than `REFUTED` of all samples among those that the standard attack left
    standing, beyond chance. doubt: more than `OVERSTATED`, or a sign that its follow-up did not settle. trust:
    otherwise; the number to quote is the settled one all the same. Signs that the model cannot show are named.
    """
    verdict, reason = _decided(lab, signs)
    without = [sign.name for sign in signs if not sign.applicable]
    return verdict, f"{reason}; not applicable: {', '.join(without)}" if without else reason


def _decided(lab: Lab, signs: tuple[Sign, ...]) -> tuple[Verdict, str]:
    fallen = lab.union(lab.broken) & lab.standing
    count = int(fallen.sum())
    found = f"{count} of {lab.n} samples that the standard attack left standing fall to other attacks"
    least = f"at least {bounds.at_least(count, lab.n):.1%} of all with {bounds.CONFIDENCE:.0%} confidence"
    if bounds.exceeds(fallen, bounds.REFUTED):
        each = {name: int((flags & lab.standing).sum()) for name, flags in lab.broken.items()}
        strongest = max(each, key=lambda name: each[name])
        return "reject", f"{found}, most of them ({each[strongest]}) to {strongest}; {least}"
    if bounds.exceeds(fallen, bounds.OVERSTATED):
        return "doubt", f"{found}; {least}: quote the settled number"
    unsettled = [sign.name for sign in signs if sign.settled is False]
    if unsettled:
        return "doubt", f"{', '.join(unsettled)} could not be settled; {count} of {lab.n} fell to other attacks"
    return "trust", f"{found}, as may happen to a sound number"
