"""By which stronger attacks is every sign settled? Those that this model calls for, by name."""

from torch import Tensor

from gossamer.attacks.apgd import APGD
from gossamer.evaluation.audit.lab import Lab
from gossamer.types import Attack

WHITE_BOX = ("margin", "apgd-dlr")


def follow_ups(lab: Lab) -> dict[str, Attack]:
    """Return the attacks by name, at the audited threat; from the twin where the model has no gradients."""
    return _carried(lab) if lab.facts.opaque else _white_box(lab)


def by_follow_ups(lab: Lab) -> Tensor:
    """Return what any of them broke: (N,) bool."""
    return lab.union(follow_ups(lab))


def _white_box(lab: Lab) -> dict[str, Attack]:
    hard = lab.pgd(loss="margin", restarts=lab.restarts, returns="first", early_drop=True)
    attacks = {"margin": lab.direct(hard)}
    if lab.classes >= 3:
        attacks["apgd-dlr"] = lab.direct(APGD(threat=lab.threat, steps=max(lab.budget.steps, 20), loss="dlr"))
    if lab.facts.random:
        attacks["eot"] = lab.direct(lab.pgd())
    ways = {name: way(hard) for name, way in lab.twins.items() if name != "rescaled"}
    rescaled = lab.twins.get("rescaled")
    if rescaled is not None:
        ways["rescaled"] = rescaled(lab.pgd(restarts=lab.restarts, returns="first", early_drop=True))
    return {**attacks, **ways}


def _carried(lab: Lab) -> dict[str, Attack]:
    """Return attacks that go on to their last step: the first point that fools the twin fools few other models."""
    if lab.twin is None:
        return {}
    losses = ("margin", "dlr") if lab.classes >= 3 else ("margin",)
    return {loss: lab.carried(lab.pgd(loss=loss, restarts=lab.restarts)) for loss in losses}
