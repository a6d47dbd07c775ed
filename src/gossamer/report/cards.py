"""Which numbers of a run stand in large type? The headline, the verdict on it, and what the network costs."""

from dataclasses import dataclass

from gossamer.report import audits, words
from gossamer.report.views import RunView
from gossamer.runs.audits import Audit


@dataclass(frozen=True, kw_only=True)
class Card:
    """A number in large type, its interval, and what it holds under; look: a CSS class; link: where more is said."""

    title: str
    value: str
    interval: str = ""
    under: str
    look: str = ""
    link: str = ""


def cards(view: RunView, audit: Audit | None, link: str) -> list[Card]:
    """Return a run's cards; audit: the one of this run, link: the anchor of its evidence."""
    found = _headline(view)
    if audit is not None:
        found.append(_verdict(audit, link))
    return found + _network(view)


def _headline(view: RunView) -> list[Card]:
    headline = view.headline
    if headline is None:
        return []
    return [
        Card(
            title="robust accuracy",
            value=words.percent(headline.robust_accuracy),
            interval=words.brackets(headline.interval),
            under=f"under {words.headline_conditions(headline)}",
        ),
        Card(
            title="clean accuracy",
            value=words.percent(headline.clean_accuracy),
            interval=words.brackets(headline.clean_interval),
            under=f"{headline.dataset.name} {headline.dataset.part}, n={headline.n}",
        ),
    ]


def _verdict(audit: Audit, link: str) -> Card:
    settled = f"{words.percent(audit.settled_robust_accuracy)} {words.brackets(audit.settled_interval)}"
    claimed = f"{words.percent(audit.claimed_robust_accuracy)} {words.brackets(audit.claimed_interval)}"
    held = f"{words.threat_of(audit.threat)}, n={audit.n}"
    return Card(
        title="audit",
        value=words.verdict(audit.verdict),
        under=f"PGD claims {claimed}, settled {settled}; {held}; {audits.fired(audit)}.",
        look=audit.verdict,
        link=link,
    )


def _network(view: RunView) -> list[Card]:
    found: list[Card] = []
    counted = view.network.totals if view.network else view.headline
    if counted is not None:
        kept = f"{counted.nonzero:,} of {counted.weights:,} weights; sparsity {words.percent(1 - counted.density)}"
        found.append(Card(title="density", value=words.percent(counted.density), under=kept))
    if view.network:
        ratio, totals = view.network.work_ratio, view.network.totals
        under = f"{totals.kept_multiply_adds:,} of {totals.multiply_adds:,} multiply-adds an image"
        value = f"{ratio:.3g}×" if ratio is not None else "–"
        found.append(Card(title="work ratio", value=value, under=under))
    return found
