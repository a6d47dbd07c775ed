"""Which signs of a misleading number does a model show? One function a sign, which has it settled by attacks."""

import math

import torch
from torch import Tensor

from gossamer.attacks.fgsm import FGSM
from gossamer.evaluation.audit import bounds
from gossamer.evaluation.audit.bounds import share_of
from gossamer.evaluation.audit.followups import WHITE_BOX, by_follow_ups, follow_ups
from gossamer.evaluation.audit.lab import SQUARE, TWIN, Lab
from gossamer.evaluation.audit.noise import RandomNoise
from gossamer.evaluation.subject import seed_noise
from gossamer.evaluation.trials import at_eps
from gossamer.runs.audits import Measurement, Sign
from gossamer.seeding import Draws, derive
from gossamer.threat import ThreatModel

NOTHING_LEFT = "nothing is left standing that could be overstated"


def single_step(lab: Lab) -> Sign:
    """One gradient step breaks samples that many steps leave standing (Athalye et al., 2018, section 3.1)."""
    beaten = lab.run("fgsm", lab.direct(FGSM(threat=lab.threat)))
    return _weaker(lab, "single-step", beaten, "a single gradient step", ())


def black_box(lab: Lab) -> Sign:
    """A search without gradients, or examples of another network, break what the gradient leaves standing."""
    beaten = lab.run(SQUARE, lab.square())
    measured = [share_of("standing samples that Square breaks", beaten)]
    if lab.twin is not None and lab.standard != TWIN:
        moved = lab.run(TWIN, lab.carried(lab.pgd()))
        measured.append(share_of("standing samples that examples of the twin break", moved))
        beaten = beaten | moved
    return _weaker(lab, "black-box", beaten, "an attack without the model's gradient", measured)


def noise(lab: Lab) -> Sign:
    """Random points break as many samples as the gradient does, or others."""
    tries = RandomNoise(threat=lab.threat, tries=lab.budget.noise)
    by_noise = lab.run("noise", tries, on=lab.correct)
    by_standard = lab.broken[lab.standard]
    others = by_noise & lab.standing
    as_good = bounds.exceeds(by_noise, bounds.STRAY) and _is_as_many(by_noise, by_standard) and lab.could_mislead
    fired = as_good or bounds.exceeds(others, bounds.STRAY)
    measured = (
        share_of("samples that random points break", by_noise),
        share_of("samples that the standard attack breaks", by_standard),
        share_of("samples that random points alone break", others),
    )
    says = f"{lab.budget.noise} random points break {count_of(by_noise)}, {lab.standard} {count_of(by_standard)}"
    explained = _explained(lab, others) and not _is_as_many(by_noise, by_follow_ups(lab) | by_standard)
    return sign_of(lab, "noise", fired, explained, says, measured, tuple(follow_ups(lab)))


def large_eps(lab: Lab) -> Sign:
    """Samples survive a ball that holds images of every class (Athalye et al., 2018, section 3.1)."""
    left, measured = lab.candidates, list[Measurement]()
    radii = _rising(lab)
    for threat in radii:
        attack = lab.direct(at_eps(lab.standard_attack(), threat.eps))
        left = left & ~lab.run(lab.standard, attack, on=left, threat=threat)
        measured.append(share_of(f"accuracy at {threat}", left))
    fired = bounds.exceeds(left, bounds.STRAY)
    says = f"{count_of(left)} stand at {radii[-1]}, where an image can become any other"
    names = tuple(follow_ups(lab)) if fired else ()
    if fired:
        for name, attack in follow_ups(lab).items():
            left = left & ~lab.run(name, at_eps(attack, radii[-1].eps), on=left, threat=radii[-1])
        measured.append(share_of(f"accuracy at {radii[-1]} after the follow-ups", left))
        says += f"; {count_of(left)} after the follow-ups"
    return sign_of(lab, "large-eps", fired, not bounds.exceeds(left, bounds.STRAY), says, measured, names)


def effort(lab: Lab) -> Sign:
    """More steps or restarts still break much: the standard attack had not converged."""
    by_steps = lab.run("more steps", lab.pgd(steps=lab.budget.more_steps))
    by_restarts = lab.run("more restarts", lab.pgd(restarts=lab.budget.restarts, early_drop=True))
    fired = any(bounds.exceeds(flags, bounds.UNFINISHED) for flags in (by_steps, by_restarts))
    measured = [
        share_of(f"standing samples that {lab.budget.more_steps} steps break", by_steps),
        share_of(f"standing samples that {lab.budget.restarts} restarts break", by_restarts),
    ]
    says = f"{lab.budget.more_steps} steps break {count_of(by_steps)} more, {lab.budget.restarts} restarts "
    says += f"{count_of(by_restarts)}"
    if not fired:
        return sign_of(lab, "effort", fired, True, says, measured, ())
    names, converged = _double(lab, by_steps | by_restarts, measured)
    return sign_of(lab, "effort", fired, converged, says, measured, names)


def gradients(lab: Lab) -> Sign:
    """The gradient is zero, missing or not a number: an attack that follows it stays where it starts."""
    found = lab.facts.slopes
    fired = bounds.exceeds(found.useless, bounds.STRAY)
    measured = [
        share_of("images without a graph from output to input", found.missing),
        share_of("images with a margin gradient of zero", found.zero),
        share_of("images with a gradient that is not finite", found.broken),
    ]
    says = f"the gradient is useless at {count_of(found.useless)}"
    if not fired:
        return sign_of(lab, "gradients", fired, True, says, measured, ())
    names = [layer.name for layer in lab.facts.layers]
    if names:
        says += f", stopped by {', '.join(names[:3])}"
    blind = {name: _blind(lab, name) for name in lab.twins if name != "rescaled"}
    measured += [share_of(f"images that stay without a gradient after {name}", flags) for name, flags in blind.items()]
    settled = any(not bounds.exceeds(flags, bounds.STRAY) for flags in blind.values())
    says += f"; replaced slopes (BPDA) help: {', '.join(blind)}" if settled else "; no replaced slope helps"
    return sign_of(lab, "gradients", fired, settled, says, measured, tuple(blind))


def saturation(lab: Lab) -> Sign:
    """The cross-entropy's gradient rounds to zero while the margin's does not (Carlini & Wagner, 2017)."""
    found = lab.facts.slopes.saturated
    fired = bounds.exceeds(found, bounds.STRAY)
    gap = float(lab.facts.behaviour.gap.median())
    measured = (
        share_of("images at which only the cross-entropy has no gradient", found),
        Measurement(what="median difference of the two largest logits", value=gap),
    )
    says = f"the cross-entropy has no gradient at {count_of(found)} (median gap of logits {gap:.3g})"
    names = tuple(name for name in ("rescaled", *WHITE_BOX) if name in lab.broken)
    if fired:
        says += f"; logits rescaled or their margin taken, {count_of(lab.union(list(names)))} fall"
    return sign_of(lab, "saturation", fired, True, says, measured, names)


def randomness(lab: Lab) -> Sign:
    """Two calls with the same image differ: gradients and judgements need a mean of passes (Athalye et al., 2018)."""
    found = lab.facts.behaviour.random
    measured = [share_of("images with other logits in a second call", found)]
    says = f"{count_of(found)} get other logits in a second call"
    if not lab.facts.random:
        return sign_of(lab, "randomness", False, True, says, measured, ())
    says += f"; judged by the mean of {lab.budget.passes} calls, as the standard attack is here"
    names, seen, settled = ["eot"], lab.broken["eot"], not lab.could_mislead
    for doubling in range(1, lab.budget.doublings + 1):
        if settled:
            break
        passes = lab.budget.passes * 2**doubling
        names.append(f"eot {passes}")
        found = lab.run(names[-1], lab.averaged(lab.pgd(), passes))
        measured.append(share_of(f"standing samples that {passes} passes break first", found & ~seen))
        settled = not bounds.exceeds(found & ~seen, bounds.STRAY)
        seen = seen | found
    says += f"; gradients averaged over draws break {count_of(lab.union(names))} more"
    return sign_of(lab, "randomness", True, settled, says, measured, tuple(names))


def softmax(lab: Lab) -> Sign:
    """The outputs are probabilities: a loss that takes another softmax of them is flat."""
    found = lab.facts.behaviour.probabilities
    measured = [share_of("outputs in [0, 1] that sum to 1", found)]
    if not lab.facts.probabilities:
        return sign_of(lab, "softmax", False, True, "the outputs are no probabilities", measured, ())
    if "log" not in lab.twins:
        says = "the outputs are probabilities, and no gradient comes through where the softmax is undone"
        return sign_of(lab, "softmax", True, False, says, measured, ())
    blind = _blind(lab, "log")
    measured.append(share_of("images without a gradient after the softmax is undone", blind))
    says = f"the outputs are probabilities; with the softmax undone, {count_of(lab.broken['log'])} more fall"
    return sign_of(lab, "softmax", True, not bounds.exceeds(blind, bounds.STRAY), says, measured, ("log",))


def adaptation(lab: Lab) -> Sign:
    """The answer depends on earlier calls or on the batch: no image is robust by itself (Croce et al., 2022)."""
    seen = lab.facts.behaviour
    measured = (
        share_of("images with another answer after an earlier call", seen.adapts),
        share_of("images with another answer in another batch or order", seen.company),
    )
    says = f"{count_of(seen.adapts)} depend on earlier calls, {count_of(seen.company)} on the batch"
    fired = lab.facts.adapts or lab.facts.company
    if fired:
        says += "; it was judged as one of the many functions that it can be"
    return sign_of(lab, "adaptation", fired, False, says, measured, tuple(follow_ups(lab)) if fired else ())


def transfer(lab: Lab) -> Sign:
    """Examples crafted on a twin break what the attack on the model itself leaves standing."""
    own = lab.union([*WHITE_BOX, "eot", "more steps", "more restarts"])
    ways = [name for name in lab.twins if name != "rescaled"]
    back = lab.union(ways) & ~own
    given = lab.broken[TWIN] & ~own if lab.twin is not None else bounds.nobody(lab.n)
    fired = bounds.exceeds(back | given, bounds.STRAY)
    measured = [share_of(f"standing samples that only {name} breaks", lab.broken[name] & ~own) for name in ways]
    measured.append(share_of("standing samples that only examples of the twin break", given))
    says = f"{count_of(back | given)} fall to examples of a twin alone"
    names = tuple(ways) if lab.twin is None else (*ways, TWIN)
    return sign_of(lab, "transfer", fired, not bounds.exceeds(given & ~back, bounds.STRAY), says, measured, names)


def see_signs(lab: Lab) -> tuple[Sign, ...]:
    """Run every attack of an audit on what the standard one left standing, and return all signs."""
    for name, attack in follow_ups(lab).items():
        lab.run(name, attack)
    return (
        *(single_step(lab), black_box(lab), noise(lab), effort(lab), large_eps(lab)),
        *(gradients(lab), saturation(lab), randomness(lab), softmax(lab), adaptation(lab), transfer(lab)),
    )


def sign_of(
    lab: Lab,
    name: str,
    fired: bool,
    settled: bool,
    says: str,
    measured: list[Measurement] | tuple[Measurement, ...],
    attacks: tuple[str, ...],
) -> Sign:
    """Return a sign; where enough samples stand for nothing to be overstated, it counts as settled."""
    harmless = not lab.could_mislead and name != "adaptation"
    if fired and harmless and not settled:
        says = f"{says}; {NOTHING_LEFT}"
    return Sign(
        name=name,
        fired=fired,
        settled=(settled or harmless) if fired else None,
        says=says,
        measured=tuple(measured),
        follow_ups=attacks if fired else (),
        page=_page(name),
    )


def inapplicable(name: str, says: str) -> Sign:
    """Return a sign that a model cannot show, and why."""
    return Sign(
        name=name, fired=False, settled=None, says=says, measured=(), follow_ups=(), page=_page(name), applicable=False
    )


def _weaker(lab: Lab, name: str, beaten: Tensor, what: str, measured: list[Measurement] | tuple[()]) -> Sign:
    fired = bounds.exceeds(beaten, bounds.STRAY)
    rest = beaten & ~by_follow_ups(lab)
    says = f"{what} breaks {count_of(beaten)} that the standard attack left standing"
    shown = [*(measured or [share_of(f"standing samples that {what} breaks", beaten)])]
    shown.append(share_of("of these, left standing by every stronger attack too", rest))
    if fired:
        says += f"; stronger attacks leave {int(rest.sum())} of them"
    return sign_of(lab, name, fired, _explained(lab, beaten), says, shown, tuple(follow_ups(lab)))


def _explained(lab: Lab, beaten: Tensor) -> bool:
    """Return whether stronger white-box attacks break what a weaker attack broke."""
    return not bounds.exceeds(beaten & ~by_follow_ups(lab), bounds.STRAY)


def _double(lab: Lab, seen: Tensor, measured: list[Measurement]) -> tuple[tuple[str, ...], bool]:
    """Double the effort until it breaks little more; return the attacks run and whether that came to an end."""
    names: list[str] = []
    seen = seen | by_follow_ups(lab)
    for doubling in range(1, lab.budget.doublings + 1):
        steps, restarts = lab.budget.more_steps * 2**doubling, lab.budget.restarts
        names.append(f"{steps} steps, {restarts} restarts")
        found = lab.run(names[-1], lab.pgd(steps=steps, restarts=restarts, loss="margin", early_drop=True))
        measured.append(share_of(f"standing samples that {names[-1]} break first", found & ~seen))
        if not bounds.exceeds(found & ~seen, bounds.STRAY):
            return tuple(names), True
        seen = seen | found
    return tuple(names), False


def _blind(lab: Lab, name: str) -> Tensor:
    """Return at which images of the probe a single step by way of a twin leads nowhere: (P,) bool."""
    x, y = lab.probe()
    step = lab.twins[name](FGSM(threat=lab.threat, loss="margin"))
    seed_noise(derive(lab.seed, "audit", "blind", name), x.device)
    moved = step(lab.judge, x, y, draws=Draws(lab.seed, ("audit", "blind"))) != x
    return ~moved.flatten(1).any(dim=1).cpu()


def _rising(lab: Lab) -> list[ThreatModel]:
    """Return the threat at 2 and 4 eps, as far as they are smaller, and at a radius that reaches the grey image."""
    pixels = lab.dataset.float(torch.arange(1)).numel()
    reach = {"linf": 0.5, "l2": math.sqrt(pixels) / 2, "l1": pixels / 2}[lab.threat.norm]
    everything = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[lab.threat.norm]
    last = reach if lab.threat.eps < reach else everything
    radii = [*(eps for eps in (2 * lab.threat.eps, 4 * lab.threat.eps) if eps < last), last]
    return [ThreatModel(lab.threat.norm, eps) for eps in radii if eps > lab.threat.eps]


def _is_as_many(some: Tensor, others: Tensor) -> bool:
    return int(some.sum()) >= int(others.sum())


def count_of(flags: Tensor) -> str:
    """Return how many of how many flags: (N,) bool hold."""
    return f"{int(flags.sum())} of {len(flags)}"


def _page(name: str) -> str:
    return f"docs/audit/{name}.md"
