"""The package's networks and random ones as C match the yardstick."""

import itertools
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from c_code import EACH, QUICK, check, images, made, needs_compiler, runs_here, with_signs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import PACKAGE, Case, narrow, networks, package_case

from gossamer.deploy.capture import capture
from gossamer.deploy.csource import Compiled, Values, constants, write_c
from gossamer.deploy.graph import Graph
from gossamer.deploy.simplify import simplify

pytestmark = needs_compiler

COUNTS = (1, 3, 16, 17, 33)


def simplified(name: str, density: float = 1.0) -> Graph:
    return simplify(package_case(name, density)[1])


OF_THE_PACKAGE = [
    *((name, values) for name in ("resnet20", "digits-cnn") for values in get_args(Values)),
    ("mobilenetv2", "float32"),
    *(pytest.param("mobilenetv2", values, marks=pytest.mark.long) for values in ("int8", "signs")),
    *(pytest.param("vgg16", values, marks=pytest.mark.long) for values in get_args(Values)),
]

FURTHER = [name for name in PACKAGE if name not in ("resnet20", "digits-cnn", "mobilenetv2", "vgg16")]


@pytest.mark.parametrize(("name", "values"), OF_THE_PACKAGE)
def test_networks_of_the_package(name: str, values: Values, tmp_path: Path) -> None:
    graph = simplified(name)
    graph = with_signs(graph) if values == "signs" else graph
    network = made(graph, tmp_path, values, optimise=("-std=gnu99", "-O1"))
    check(network, graph, values, images(graph, 33), COUNTS)


def lists_at_a_time(written: Path, plan: str) -> list[int]:
    """Return how many lists a plan reads at a time, layer by layer."""
    return [int(found) for found in re.findall(rf" {plan}_\d+_0 = .*\.together = (\d+)", written.read_text())]


def check_threads(network: Compiled, x: torch.Tensor, counts: Sequence[int]) -> None:
    """Assert that several threads give the bits of one."""
    for count, threads in itertools.product(counts, (2, 3)):
        assert torch.equal(network(x[:count], threads=threads), network(x[:count], threads=1))


@pytest.mark.parametrize("density", [1.0, 0.36])
@pytest.mark.parametrize("values", get_args(Values))
def test_channels_read_in_small_chunks(
    values: Values, density: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "FIRST_CACHE", 300)
    monkeypatch.setattr(constants, "SECOND_CACHE", 600)
    graph = simplified("resnet20", density)
    graph = with_signs(graph) if values == "signs" else graph
    network = made(graph, tmp_path, values, openmp=True)
    assert (max(lists_at_a_time(tmp_path / "toy.c", "single")) > 1) == (density < 1.0 or values == "signs")
    x = images(graph, 9)
    check(network, graph, values, x, (1, 9))
    check_threads(network, x, (1, 9))


def longest_vectors() -> tuple[str, ...]:
    """Return flags for vectors of 64 bytes where this machine can compute them."""
    return next((EACH[width] for width in ("avx512", "avx512 in halves") if runs_here("cc", width)), ())


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("values", get_args(Values))
def test_small_maps_of_many_channels(values: Values, side: int, tmp_path: Path) -> None:
    graph = narrow(1024, 5, side, 0.1)
    graph = with_signs(graph) if values == "signs" else graph
    network = made(graph, tmp_path, values, openmp=True, flags=longest_vectors())
    assert lists_at_a_time(tmp_path / "toy.c", "single")[0] > 1
    x = images(graph, 17)
    check(network, graph, values, x, (1, 16, 17))
    check_threads(network, x, (1, 16, 17))


@pytest.mark.parametrize("channels", [4096, 4100])
@pytest.mark.parametrize("values", get_args(Values))
def test_more_channels_than_a_place_can_tell(values: Values, channels: int, tmp_path: Path) -> None:
    graph = narrow(channels, 3, 2, 0.02)
    graph = with_signs(graph) if values == "signs" else graph
    network = made(graph, tmp_path, values)
    assert f".apart = {int(channels > 4096)}" in (tmp_path / "toy.c").read_text()
    x = images(graph, 9)
    check(network, graph, values, x, (1, 9))


@pytest.mark.parametrize("density", [0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.05, 0.1, 0.3])
def test_blocks_read_the_lists_that_are_made_for_them(density: float, tmp_path: Path) -> None:
    for channels, side in ((64, 17), (256, 8), (512, 4), (512, 2)):
        write_c(narrow(channels, 4, side, density), tmp_path, "toy")
        assert set(lists_at_a_time(tmp_path / "toy.c", "block")) == {1}


@pytest.mark.long
@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("name", FURTHER)
def test_further_networks_of_the_package(name: str, values: Values, tmp_path: Path) -> None:
    graph = simplified(name)
    check(made(graph, tmp_path, values), graph, values, images(graph, 33), COUNTS)


def check_random(case: Case, values: Values, *, simple: bool) -> None:
    graph = capture(case.network, case.images())
    graph = simplify(graph) if simple else graph
    graph = with_signs(graph) if values == "signs" else graph
    with tempfile.TemporaryDirectory() as folder:
        network = made(graph, Path(folder), values, optimise=QUICK, singles=2)
        check(network, graph, values, images(graph, 19), (1, 16, 19))


RANDOM = given(case=networks(), values=st.sampled_from(get_args(Values)), simple=st.booleans())
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(QUIET, max_examples=15)
@RANDOM
def test_random_networks(case: Case, values: Values, simple: bool) -> None:
    check_random(case, values, simple=simple)


@pytest.mark.long
@settings(QUIET, max_examples=600)
@RANDOM
def test_many_random_networks(case: Case, values: Values, simple: bool) -> None:
    check_random(case, values, simple=simple)


def test_threads_give_the_same_bits(tmp_path: Path) -> None:
    graph = simplified("resnet20")
    network = made(graph, tmp_path, openmp=True)
    x = images(graph, 37)
    check_threads(network, x, (1, 16, 33, 37))


def test_one_image_in_the_memory_of_the_library(tmp_path: Path) -> None:
    graph = simplified("digits-cnn")
    network = made(graph, tmp_path)
    x = images(graph, 2)
    for image in x:
        assert torch.equal(torch.from_numpy(network.run_one(image.numpy())), network(image[None])[0])
