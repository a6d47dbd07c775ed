"""The C of random networks of odd sizes touches no memory but its own, and reads none that is unset.

Each network is compiled with sanitizers for one of the widths, and driven by c_driver.c: every number of images from 1
to 17 in 1 to 3 threads, in memory of exactly the sizes that its header asks for, placed as badly as that allows.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from unittest import mock

import pytest
from c_code import (
    EACH,
    SANITIZED,
    UNSET,
    WIDTHS,
    by_each_compiler,
    check_driven,
    needs_compiler,
    runs_here,
    runs_with,
    threads_of,
    with_signs,
    write_shared,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from networks import Case, networks

from gossamer.deploy.capture import capture
from gossamer.deploy.csource import Values, constants
from gossamer.deploy.simplify import simplify

pytestmark = needs_compiler

MOST = 17
ODD = st.sampled_from([1, 1, 2, 3, 5, 7, 11, 13, 16, 17, 23])
SMALL = {"FIRST_CACHE": 60, "SECOND_CACHE": 120}
CACHES = {
    "as always": {"FIRST_CACHE": constants.FIRST_CACHE},
    "small": {**SMALL, "FIRST_CACHE_TOGETHER": 60},
    "small, lists read as one": SMALL,
}
"""Floats: so few that even these networks read their channels in chunks."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How a network is written and compiled. simple: simplified before; caches: of CACHES."""

    width: str
    values: Values
    simple: bool
    beside: bool
    caches: str
    unset: bool
    singles: int


CHOICES = st.builds(
    Choices,
    width=st.sampled_from(list(EACH)),
    values=st.sampled_from(get_args(Values)),
    simple=st.booleans(),
    beside=st.booleans(),
    caches=st.sampled_from(list(CACHES)),
    unset=st.sampled_from([False, False, True]),
    singles=st.integers(1, 7),
)
RANDOM = given(case=networks(most_blocks=3, sides=ODD), choices=CHOICES)
# Each example is compiled: those that fail are shown as they are.
QUIET = settings(
    deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.reuse, Phase.generate)
)


def check_safe(cc: str, case: Case, choices: Choices) -> None:
    graph = capture(case.network, case.images())
    graph = simplify(graph) if choices.simple else graph
    graph = with_signs(graph) if choices.values == "signs" else graph
    width = EACH[choices.width] if runs_here(cc, choices.width) else WIDTHS["scalar"]
    # The sanitizer of memory does not know what the threads of OpenMP have written.
    sanitizer = UNSET if choices.unset and runs_with(cc, *UNSET) else (*SANITIZED, *threads_of(cc))
    small = mock.patch.multiple(constants, **CACHES[choices.caches])
    with tempfile.TemporaryDirectory() as folder, small:
        written = write_shared(
            graph, Path(folder), "toy", values=choices.values, blob=choices.beside, singles=choices.singles
        )
        check_driven([cc], written, graph, choices.values, ["-O0", *width, *sanitizer], most=MOST)


def skip_without_sanitizers(cc: str) -> None:
    if not runs_with(cc, *SANITIZED):
        pytest.skip(f"{cc} has no sanitizers")


@by_each_compiler
@settings(QUIET, max_examples=3)
@RANDOM
def test_random_networks_stay_in_their_memory(cc: str, case: Case, choices: Choices) -> None:
    skip_without_sanitizers(cc)
    check_safe(cc, case, choices)


@pytest.mark.long
@by_each_compiler
@settings(QUIET, max_examples=200)
@RANDOM
def test_many_random_networks_stay_in_their_memory(cc: str, case: Case, choices: Choices) -> None:
    skip_without_sanitizers(cc)
    check_safe(cc, case, choices)
