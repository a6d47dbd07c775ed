"""Which attacks is an attack made of?"""

import dataclasses
from collections.abc import Iterator
from typing import Any, cast

from gossamer.attacks.bpda import BPDA
from gossamer.attacks.cascade import Ensemble
from gossamer.attacks.transfer import Transfer


def within(attack: Any) -> Iterator[Any]:
    """Yield an attack and, depth first, its members or the attacks in its fields."""
    yield attack
    for each in _inner(attack):
        yield from within(each)


def callers(attack: Any) -> Iterator[Any]:
    """Yield the innermost attacks that see the attacked model as it is: none of a Transfer or a BPDA."""
    if isinstance(attack, Transfer | BPDA):
        return
    inner = list(_inner(attack))
    if not inner:
        yield attack
    for each in inner:
        yield from callers(each)


def _inner(attack: Any) -> Iterator[Any]:
    if isinstance(attack, Ensemble):
        yield from (member for _, member in attack.members)
    elif dataclasses.is_dataclass(attack):
        for field in dataclasses.fields(attack):
            yield from _attacks(getattr(attack, field.name))


def _attacks(value: Any) -> Iterator[Any]:
    """Yield the attacks in a field's value, which may be in sequences or pairs with names."""
    if isinstance(value, tuple | list):
        for each in cast("tuple[Any, ...]", value):
            yield from _attacks(each)
    elif callable(value) and dataclasses.is_dataclass(value) and (hasattr(value, "threat") or hasattr(value, "attack")):
        yield value
