from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from torch import nn

from gossamer.errors import ConfigError
from gossamer.options import construct, typed


@dataclass(frozen=True, kw_only=True)
class Made:
    share: float
    count: int | None = None
    kind: Literal["one", "two"] = "one"
    whether: bool = False
    shares: Sequence[float] = (0.5,)
    spec: str | Mapping[str, float] = "plain"
    step: complex = 0j
    module: nn.Module | None = None
    seen: dict[str, int] = field(default_factory=dict[str, int])


def function(*, size: int, act: Callable[[int], int] = abs) -> int:
    return act(size)


def test_options_take_the_declared_types() -> None:
    assert construct(Made, {"share": 1, "count": "3"}, "it") == Made(share=1.0, count=3)
    made = construct(Made, {"share": 0.5, "shares": [1, 0.25], "spec": {"a": 1}, "whether": True}, "it")
    assert made == Made(share=0.5, shares=[1.0, 0.25], spec={"a": 1.0}, whether=True)
    assert construct(function, {"size": "-2"}, "it") == 2


def test_what_only_python_writes_is_taken_as_it_is() -> None:
    module = nn.Identity()
    assert construct(Made, {"share": 1, "module": module}, "it").module is module


def test_readers_read_and_what_is_given_is_no_option() -> None:
    made = construct(Made, {"step": "2j"}, "it", readers={"step": complex}, given={"share": 0.25})
    assert made == Made(share=0.25, step=2j)
    with pytest.raises(ConfigError, match=r"it\.share: expected one of count, .*got an unknown option"):
        construct(Made, {"share": 0.5}, "it", given={"share": 0.25})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, r"it\.share: expected a value, got nothing; add it"),
        ({"shaer": 1}, r"it\.shaer: expected one of share, .*did you mean share\?"),
        ({"share": "a"}, r"it\.share: expected a valid number.*got 'a'"),
        ({"share": True}, r"it\.share: expected a number, got True"),
        ({"share": 1, "count": False}, r"it\.count: expected a number, got False"),
        ({"share": 1, "count": 1.5}, r"it\.count: expected a valid integer"),
        ({"share": 1, "kind": "three"}, r"it\.kind: expected 'one' or 'two', got 'three'"),
        ({"share": 1, "whether": "no-such"}, r"it\.whether: expected a valid boolean"),
        ({"share": 1, "shares": [0.5, True]}, r"it\.shares: expected a number, got \[0\.5, True\]"),
        ({"share": 1, "spec": {"a": True}}, r"it\.spec: expected a number"),
    ],
)
def test_other_values_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        construct(Made, options, "it")


def test_options_are_typed_without_the_missing_ones() -> None:
    assert typed(function, {}, "it") == {}
    assert typed(Made, {"count": "3"}, "it") == {"count": 3}
    with pytest.raises(ConfigError, match=r"it\.count: expected one of share"):
        typed(Made, {"count": 3}, "it", known=("share",))
