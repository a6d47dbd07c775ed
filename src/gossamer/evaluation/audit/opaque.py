"""Which signs can an ONNX file or a NumPy function show, which has no gradients, and why not the others?"""

from gossamer.evaluation.audit import bounds
from gossamer.evaluation.audit.bounds import share_of
from gossamer.evaluation.audit.followups import follow_ups
from gossamer.evaluation.audit.lab import SQUARE, Lab
from gossamer.evaluation.audit.signs import adaptation, black_box, count_of, inapplicable, large_eps, noise, sign_of
from gossamer.runs.audits import Measurement, Sign

NO_GRADIENTS = "not applicable: no gradients"


def see_signs(lab: Lab) -> tuple[Sign, ...]:
    """Run every attack that needs no gradient of the model itself, and return all signs."""
    for name, attack in follow_ups(lab).items():
        lab.run(name, attack)
    return (
        inapplicable("single-step", NO_GRADIENTS),
        _black_box(lab),
        *(noise(lab), _effort(lab), large_eps(lab)),
        *(inapplicable("gradients", NO_GRADIENTS), inapplicable("saturation", NO_GRADIENTS)),
        *(_randomness(lab), inapplicable("softmax", NO_GRADIENTS), adaptation(lab), _transfer(lab)),
    )


def _black_box(lab: Lab) -> Sign:
    if lab.twin is None:
        return inapplicable("black-box", "not applicable: the standard attack is itself without gradients")
    return black_box(lab)


def _effort(lab: Lab) -> Sign:
    """More queries still break much: the search had not converged."""
    seen, found = lab.union([SQUARE]), bounds.nobody(lab.n)
    names, measured = list[str](), list[Measurement]()
    for doubling in range(1, lab.budget.doublings + 2):
        names.append(f"{2**doubling * lab.budget.queries} queries")
        found = lab.run(names[-1], lab.square(2**doubling)) & ~seen
        measured.append(share_of(f"standing samples that {names[-1]} break first", found))
        seen = seen | found
        if not bounds.exceeds(found, bounds.UNFINISHED):
            break
    converged = not bounds.exceeds(found, bounds.UNFINISHED)
    says = f"{names[0]} break {measured[0].count} of {lab.n} more"
    return sign_of(lab, "effort", not converged or len(names) > 1, converged, says, measured, tuple(names[1:]))


def _randomness(lab: Lab) -> Sign:
    """Two calls with the same image differ, and no gradient can be averaged over draws."""
    found = lab.facts.behaviour.random
    measured = [share_of("images with other logits in a second call", found)]
    says = f"{count_of(found)} get other logits in a second call"
    return sign_of(lab, "randomness", lab.facts.random, False, says, measured, ())


def _transfer(lab: Lab) -> Sign:
    """Without a twin that predicts as the model does, no attack by gradients says anything of it."""
    if lab.twin is None:
        says = "no twin was given, so only a search by queries was tried: name the float network it was made from"
        return sign_of(lab, "transfer", True, False, says, (), ())
    differs = ~lab.agrees()
    measured = [share_of("clean images on which the twin predicts otherwise", differs)]
    says = f"the twin predicts otherwise on {count_of(differs)} clean images"
    return sign_of(lab, "transfer", bounds.exceeds(differs, bounds.REFUTED), False, says, measured, ())
