"""Can the robust accuracy be trusted? The verdict of an audit for the top of the page, and all its evidence below."""

import shlex
from collections.abc import Sequence

from gossamer.report.parts import Cell, Part, Table, commands, measured_on, text
from gossamer.report.views import RunView
from gossamer.report.words import attack_name, brackets, described, percent, threat_of, verdict
from gossamer.runs.audits import Audit, AuditedAttack, Measurement, Sign
from gossamer.runs.results import Interval

_WORST_FIRST = ("reject", "doubt", "trust")
_BUDGETS = {
    "quick": (20, 60, 3, 30, 300, 8, 1),
    "standard": (40, 200, 5, 100, 1000, 16, 2),
    "thorough": (100, 1000, 10, 500, 5000, 64, 3),
}


def audited(audit: Audit, views: Sequence[RunView]) -> RunView | None:
    """Return the run of an audit: that whose folder holds it, else the only one of its name."""
    holders = [view for view in views if audit in view.measured]
    if holders:
        return holders[0]
    named = [view for view in views if view.path.resolve().name == audit.run]
    return named[0] if len(named) == 1 else None


def audit_of(view: RunView, audits: Sequence[Audit], views: Sequence[RunView]) -> Audit | None:
    """Return the audit to show beside a run's headline: at the headline's threat first, then the worst verdict.

    views: all runs of the page, two of which may have folders of one name.
    """
    own = [each for each in audits if each in view.measured or audited(each, views) is view]
    threat = view.headline.threat if view.headline else None
    return min(own, key=lambda each: (each.threat != threat, _WORST_FIRST.index(each.verdict)), default=None)


def fired(audit: Audit) -> str:
    """Return the signs that were seen, by name."""
    return f"signs seen: {', '.join(audit.fired)}" if audit.fired else f"none of {len(audit.signs)} signs seen"


def part(audit: Audit, key: str, run: RunView | None) -> Part:
    """Return the section with an audit's evidence; run: the audited one, where it is on the page."""
    attacks = [_attack(each, audit.n) for each in audit.attacks]
    return Part(
        key=key,
        title=f"Audit of {audit.run}: {verdict(audit.verdict)}",
        says="Can this robust accuracy be trusted? Every known sign that an evaluation misleads, and what settled it.",
        facts=[*measured_on(audit.dataset, audit.seed), threat_of(audit.threat), f"judged by {audit.judge}"],
        sentences=[f"{audit.reason.rstrip('.')}; {fired(audit)}."],
        tables=[
            Table(
                title="What is left of the claim",
                head=("accuracy", "share", "n"),
                rows=[
                    _accuracy("clean", audit.clean_accuracy, audit.clean_interval, audit.n),
                    _accuracy(
                        f"claimed: {audit.claimed_attack}",
                        audit.claimed_robust_accuracy,
                        audit.claimed_interval,
                        audit.n,
                    ),
                    _accuracy(
                        "settled: the worst case over every attack tried",
                        audit.settled_robust_accuracy,
                        audit.settled_interval,
                        audit.n,
                    ),
                ],
            ),
            Table(
                title="Signs",
                head=("sign", "state", "what was seen", "measured", "settled by", "explained in"),
                rows=[_sign(sign) for sign in sorted(audit.signs, key=lambda sign: not sign.fired)],
                look="prose",
            ),
            Table(
                title=f"The {len(attacks)} attacks",
                head=("attack", "threat", "tried on", "broken", "with"),
                rows=attacks,
                note=f"Counts are of the {audit.n} samples. Budget: {described(audit.budget)}.",
                look="prose",
                folded=True,
            ),
        ],
        commands=commands(audit.environment) or _command(audit, run),
    )


def _accuracy(name: str, value: float, interval: Interval, n: int) -> list[Cell]:
    return [text(name), text(percent(value), brackets(interval)), text(f"{n:,}")]


def _sign(sign: Sign) -> list[Cell]:
    state = "– not seen" if not sign.fired else "✓ seen, settled" if sign.settled else "✗ seen, open"
    measured = "\n".join(map(_measured, sign.measured))
    follow_ups = ", ".join(sign.follow_ups) or "–"
    return [text(sign.name), text(state), text(sign.says), text(measured or "–"), text(follow_ups), text(sign.page)]


def _measured(one: Measurement) -> str:
    if one.n is None:
        return f"{one.what}: {one.value:.4g}"
    told = f"{one.what}: {percent(one.value)}"
    told = told.replace(" %", "\N{NO-BREAK SPACE}%")
    return told + (f" {brackets(one.interval)}" if one.interval else "") + f", n={one.n:,}"


def _attack(attack: AuditedAttack, n: int) -> list[Cell]:
    named = ("type", "threat", "steps", "restarts")
    rest = {name: value for name, value in attack.parameters.items() if name not in named}
    return [
        text(attack_name(attack.attack, attack.parameters)),
        text(threat_of(attack.threat)),
        text(f"{attack.attacked:,} of {n:,}"),
        text(f"{sum(attack.broken):,}"),
        text(described(rest) or "–"),
    ]


def _command(audit: Audit, run: RunView | None) -> tuple[str, ...]:
    """Return the command that audits a run again; nothing where no command could: other models, other budgets."""
    spent = tuple(audit.budget.values())
    budget = next((name for name, values in _BUDGETS.items() if values == spent), None)
    if run is None or budget is None:
        return ()
    words = ["gossamer", "audit", str(run.path), "--threat", audit.threat, "--n", str(audit.n), "--budget", budget]
    words += ["--part", audit.dataset.part] * (audit.dataset.part != "test")
    return (shlex.join([*words, "--seed", str(audit.seed)]),)
