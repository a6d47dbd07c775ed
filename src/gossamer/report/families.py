"""Which rows are one line over density? Those of one method and objective, told apart where a density would repeat."""

from collections.abc import Sequence

from gossamer.report.groups import Group
from gossamer.report.words import threat_of

_ALWAYS = ("method", "objective")
_IF_SEVERAL = ("model", "data", "threat")
_FREE = ("method.density", "density")


def families(groups: Sequence[Group]) -> dict[int, str]:
    """Return the name of the line that each row is on, by the row's place.

    Where two rows of one method and objective have the same density, what their recipes differ in tells lines apart.
    """
    shown = [*_ALWAYS, *(key for key in _IF_SEVERAL if len({group.named(key) for group in groups}) > 1)]
    alike: dict[str, list[Group]] = {}
    for group in groups:
        label = " · ".join(threat_of(group.named(key)) if key == "threat" else group.named(key) for key in shown)
        alike.setdefault(label, []).append(group)
    return {place: name for label, members in alike.items() for place, name in _split(label, members).items()}


def _split(label: str, members: Sequence[Group]) -> dict[int, str]:
    apart = _apart(members)
    lines: dict[tuple[str | None, ...], list[Group]] = {}
    for group in members:
        lines.setdefault(tuple(group.fields.get(key) for key in apart), []).append(group)
    if len(lines) == 1:
        return {group.place: label for group in members}
    names: dict[int, str] = {}
    for values, line in lines.items():
        told = ", ".join(
            f"{key.rpartition('.')[2]} {value or 'none'}" for key, value in zip(apart, values, strict=True)
        )
        own = line[0].name if len(line) == 1 or len(told) > 40 else told
        names |= {group.place: f"{label} ({own})" for group in line}
    return names


def _apart(members: Sequence[Group]) -> list[str]:
    """Return the fields in which rows of equal density differ."""
    at: dict[str, list[Group]] = {}
    for group in members:
        at.setdefault(f"{group.density.mean:.2g}" if group.density else "", []).append(group)
    found: dict[str, None] = {}
    for same in at.values():
        for key in dict.fromkeys(key for group in same for key in group.fields):
            if key not in _FREE and len({group.fields.get(key) for group in same}) > 1:
                found[key] = None
    return list(found)
