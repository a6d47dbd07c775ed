"""Which signs of a misleading number does a model show? One function a sign, which has it settled by attacks."""

import math

import torch
from torch import Tensor

from gossamer.attacks.apgd import APGD
from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.square import Square
from gossamer.attacks.transfer import Transfer
from gossamer.evaluation.audit import bounds
from gossamer.evaluation.audit.bounds import share_of
from gossamer.evaluation.audit.lab import Lab
from gossamer.evaluation.audit.noise import RandomNoise
from gossamer.evaluation.trials import at_eps
from gossamer.runs.audits import Measurement, Sign
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack

STANDARD = "pgd"
TWIN = "transfer from the twin"
WHITE_BOX = ("margin", "apgd-dlr")
NOTHING_LEFT = "nothing is left standing that could be overstated"


def white_box(lab: Lab) -> dict[str, Attack]:
    """Return the stronger attacks that every sign is settled by, by name, at the audited threat."""
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


def single_step(lab: Lab) -> Sign:
    """One gradient step breaks samples that many steps leave standing (Athalye et al., 2018, section 3.1)."""
    beaten = lab.run("fgsm", lab.direct(FGSM(threat=lab.threat)))
    return _weaker(lab, "single-step", beaten, "a single gradient step", ())


def black_box(lab: Lab, twin: torch.nn.Module | None) -> Sign:
    """A search without gradients, or examples of another network, break what the gradient leaves standing."""
    beaten = lab.run("square", Square(threat=lab.threat, queries=lab.budget.queries))
    measured = [share_of("standing samples that Square breaks", beaten)]
    if twin is not None:
        moved = lab.run(TWIN, Transfer(attack=lab.pgd(), source=twin))
        measured.append(share_of("standing samples that examples of the twin break", moved))
        beaten = beaten | moved
    return _weaker(lab, "black-box", beaten, "an attack without the model's gradient", measured)


def noise(lab: Lab) -> Sign:
    """Random points break as many samples as the gradient does, or others."""
    tries = RandomNoise(threat=lab.threat, tries=lab.budget.noise)
    by_noise = lab.run("noise", tries, on=lab.correct)
    by_gradient = lab.broken[STANDARD]
    others = by_noise & lab.standing
    as_good = bounds.exceeds(by_noise, bounds.STRAY) and _is_as_many(by_noise, by_gradient) and lab.could_mislead
    fired = as_good or bounds.exceeds(others, bounds.STRAY)
    measured = (
        share_of("samples that random points break", by_noise),
        share_of("samples that the standard attack breaks", by_gradient),
        share_of("samples that random points alone break", others),
    )
    says = f"{lab.budget.noise} random points break {_count(by_noise)}, the gradient {_count(by_gradient)}"
    explained = _explained(lab, others) and not _is_as_many(by_noise, _by_white_box(lab) | by_gradient)
    return _sign(lab, "noise", fired, explained, says, measured, _follow_ups(lab))


def large_eps(lab: Lab) -> Sign:
    """Samples survive a ball that holds images of every class (Athalye et al., 2018, section 3.1)."""
    left, measured = lab.candidates, list[Measurement]()
    radii = _rising(lab)
    for threat in radii:
        left = left & ~lab.run(STANDARD, lab.direct(at_eps(lab.pgd(), threat.eps)), on=left, threat=threat)
        measured.append(share_of(f"accuracy at {threat}", left))
    fired = bounds.exceeds(left, bounds.STRAY)
    says = f"{_count(left)} stand at {radii[-1]}, where an image can become any other"
    follow_ups = tuple(white_box(lab)) if fired else ()
    if fired:
        for name, attack in white_box(lab).items():
            left = left & ~lab.run(name, at_eps(attack, radii[-1].eps), on=left, threat=radii[-1])
        measured.append(share_of(f"accuracy at {radii[-1]} after the follow-ups", left))
        says += f"; {_count(left)} after the follow-ups"
    return _sign(lab, "large-eps", fired, not bounds.exceeds(left, bounds.STRAY), says, measured, follow_ups)


def effort(lab: Lab) -> Sign:
    """More steps or restarts still break much: the standard attack had not converged."""
    by_steps = lab.run("more steps", lab.pgd(steps=lab.budget.more_steps))
    by_restarts = lab.run("more restarts", lab.pgd(restarts=lab.budget.restarts, early_drop=True))
    fired = any(bounds.exceeds(flags, bounds.UNFINISHED) for flags in (by_steps, by_restarts))
    measured = [
        share_of(f"standing samples that {lab.budget.more_steps} steps break", by_steps),
        share_of(f"standing samples that {lab.budget.restarts} restarts break", by_restarts),
    ]
    says = f"{lab.budget.more_steps} steps break {_count(by_steps)} more, {lab.budget.restarts} restarts "
    says += f"{_count(by_restarts)}"
    if not fired:
        return _sign(lab, "effort", fired, True, says, measured, ())
    names, converged = _double(lab, by_steps | by_restarts, measured)
    return _sign(lab, "effort", fired, converged, says, measured, names)


def gradients(lab: Lab) -> Sign:
    """The gradient is zero, missing or not a number: an attack that follows it stays where it starts."""
    found = lab.facts.slopes
    fired = bounds.exceeds(found.useless, bounds.STRAY)
    measured = [
        share_of("images without a graph from output to input", found.missing),
        share_of("images with a margin gradient of zero", found.zero),
        share_of("images with a gradient that is not finite", found.broken),
    ]
    says = f"the gradient is useless at {_count(found.useless)}"
    if not fired:
        return _sign(lab, "gradients", fired, True, says, measured, ())
    names = [layer.name for layer in lab.facts.layers]
    if names:
        says += f", stopped by {', '.join(names[:3])}"
    blind = {name: _blind(lab, name) for name in lab.twins if name != "rescaled"}
    measured += [share_of(f"images that stay without a gradient after {name}", flags) for name, flags in blind.items()]
    settled = any(not bounds.exceeds(flags, bounds.STRAY) for flags in blind.values())
    says += f"; replaced slopes (BPDA) help: {', '.join(blind)}" if settled else "; no replaced slope helps"
    return _sign(lab, "gradients", fired, settled, says, measured, tuple(blind))


def saturation(lab: Lab) -> Sign:
    """The cross-entropy's gradient rounds to zero while the margin's does not (Carlini & Wagner, 2017)."""
    found = lab.facts.slopes.saturated
    fired = bounds.exceeds(found, bounds.STRAY)
    gap = float(lab.facts.behaviour.gap.median())
    measured = (
        share_of("images at which only the cross-entropy has no gradient", found),
        Measurement(what="median difference of the two largest logits", value=gap),
    )
    says = f"the cross-entropy has no gradient at {_count(found)} (median gap of logits {gap:.3g})"
    names = tuple(name for name in ("rescaled", *WHITE_BOX) if name in lab.broken)
    if fired:
        says += f"; logits rescaled or their margin taken, {_count(lab.union(list(names)))} fall"
    return _sign(lab, "saturation", fired, True, says, measured, names)


def randomness(lab: Lab) -> Sign:
    """Two calls with the same image differ: gradients and judgements need a mean of passes (Athalye et al., 2018)."""
    found = lab.facts.behaviour.random
    measured = [share_of("images with other logits in a second call", found)]
    says = f"{_count(found)} get other logits in a second call"
    if not lab.facts.random:
        return _sign(lab, "randomness", False, True, says, measured, ())
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
    says += f"; gradients averaged over draws break {_count(lab.union(names))} more"
    return _sign(lab, "randomness", True, settled, says, measured, tuple(names))


def softmax(lab: Lab) -> Sign:
    """The outputs are probabilities: a loss that takes another softmax of them is flat."""
    found = lab.facts.behaviour.probabilities
    measured = [share_of("outputs in [0, 1] that sum to 1", found)]
    if not lab.facts.probabilities:
        return _sign(lab, "softmax", False, True, "the outputs are no probabilities", measured, ())
    blind = _blind(lab, "log")
    measured.append(share_of("images without a gradient after the softmax is undone", blind))
    says = f"the outputs are probabilities; with the softmax undone, {_count(lab.broken['log'])} more fall"
    return _sign(lab, "softmax", True, not bounds.exceeds(blind, bounds.STRAY), says, measured, ("log",))


def adaptation(lab: Lab) -> Sign:
    """The answer depends on earlier calls or on the batch: no image is robust by itself (Croce et al., 2022)."""
    seen = lab.facts.behaviour
    measured = (
        share_of("images with another answer after an earlier call", seen.adapts),
        share_of("images with another answer in another batch or order", seen.company),
    )
    says = f"{_count(seen.adapts)} depend on earlier calls, {_count(seen.company)} on the batch"
    fired = lab.facts.adapts or lab.facts.company
    if fired:
        says += "; it was judged as one of the many functions that it can be"
    return _sign(lab, "adaptation", fired, False, says, measured, tuple(white_box(lab)) if fired else ())


def transfer(lab: Lab, twin: torch.nn.Module | None) -> Sign:
    """Examples crafted on a twin break what the attack on the model itself leaves standing."""
    own = lab.union([*WHITE_BOX, "eot", "more steps", "more restarts"])
    ways = [name for name in lab.twins if name != "rescaled"]
    back = lab.union(ways) & ~own
    given = lab.broken[TWIN] & ~own if twin is not None else bounds.nobody(lab.n)
    fired = bounds.exceeds(back | given, bounds.STRAY)
    measured = [share_of(f"standing samples that only {name} breaks", lab.broken[name] & ~own) for name in ways]
    measured.append(share_of("standing samples that only examples of the twin break", given))
    says = f"{_count(back | given)} fall to examples of a twin alone"
    names = tuple(ways) if twin is None else (*ways, TWIN)
    return _sign(lab, "transfer", fired, not bounds.exceeds(given & ~back, bounds.STRAY), says, measured, names)


def see_signs(lab: Lab, twin: torch.nn.Module | None) -> tuple[Sign, ...]:
    """Run every attack of an audit on what the standard one left standing, and return all signs."""
    for name, attack in white_box(lab).items():
        lab.run(name, attack)
    return (
        *(single_step(lab), black_box(lab, twin), noise(lab), effort(lab), large_eps(lab)),
        *(gradients(lab), saturation(lab), randomness(lab), softmax(lab), adaptation(lab), transfer(lab, twin)),
    )


def _sign(
    lab: Lab,
    name: str,
    fired: bool,
    settled: bool,
    says: str,
    measured: list[Measurement] | tuple[Measurement, ...],
    follow_ups: tuple[str, ...],
) -> Sign:
    harmless = not lab.could_mislead and name != "adaptation"
    if fired and harmless and not settled:
        says = f"{says}; {NOTHING_LEFT}"
    return Sign(
        name=name,
        fired=fired,
        settled=(settled or harmless) if fired else None,
        says=says,
        measured=tuple(measured),
        follow_ups=follow_ups if fired else (),
        page=f"docs/audit/{name}.md",
    )


def _weaker(lab: Lab, name: str, beaten: Tensor, what: str, measured: list[Measurement] | tuple[()]) -> Sign:
    fired = bounds.exceeds(beaten, bounds.STRAY)
    rest = beaten & ~_by_white_box(lab)
    says = f"{what} breaks {_count(beaten)} that the standard attack left standing"
    shown = [*(measured or [share_of(f"standing samples that {what} breaks", beaten)])]
    shown.append(share_of("of these, left standing by every stronger attack too", rest))
    if fired:
        says += f"; stronger attacks leave {int(rest.sum())} of them"
    return _sign(lab, name, fired, _explained(lab, beaten), says, shown, _follow_ups(lab))


def _explained(lab: Lab, beaten: Tensor) -> bool:
    """Return whether stronger white-box attacks break what a weaker attack broke."""
    return not bounds.exceeds(beaten & ~_by_white_box(lab), bounds.STRAY)


def _by_white_box(lab: Lab) -> Tensor:
    return lab.union(white_box(lab))


def _follow_ups(lab: Lab) -> tuple[str, ...]:
    return tuple(white_box(lab))


def _double(lab: Lab, seen: Tensor, measured: list[Measurement]) -> tuple[tuple[str, ...], bool]:
    """Double the effort until it breaks little more; return the attacks run and whether that came to an end."""
    names: list[str] = []
    seen = seen | _by_white_box(lab)
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
    moved = step(lab.judge, x, y, draws=Draws(lab.seed, ("audit", "blind"))) != x
    return ~moved.flatten(1).any(dim=1).cpu()


def _rising(lab: Lab) -> list[ThreatModel]:
    """Return the threat at 2 and 4 eps, as far as they are smaller, and at a radius that reaches the grey image."""
    pixels = lab.dataset.float(torch.arange(1)).numel()
    reach = {"linf": 0.5, "l2": math.sqrt(pixels) / 2, "l1": pixels / 2}[lab.threat.norm]
    everything = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[lab.threat.norm]
    last = reach if lab.threat.eps < reach else everything
    return [ThreatModel(lab.threat.norm, eps) for eps in (2 * lab.threat.eps, 4 * lab.threat.eps) if eps < last] + [
        ThreatModel(lab.threat.norm, last)
    ]


def _is_as_many(some: Tensor, others: Tensor) -> bool:
    return int(some.sum()) >= int(others.sum())


def _count(flags: Tensor) -> str:
    return f"{int(flags.sum())} of {len(flags)}"
