"""The package's networks and random ones as C match the yardstick."""

import re
import tempfile
from pathlib import Path
from typing import get_args

import pytest
import torch
from c_code import EACH, QUICK, check, images, made, needs_compiler, runs_here, with_signs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import PACKAGE, Case, chain, networks, package_case

from gossamer.deploy.capture import capture
from gossamer.deploy.csource import Values, constants
from gossamer.deploy.graph import Convolution, Flatten, Graph
from gossamer.deploy.simplify import simplify

pytestmark = needs_compiler

COUNTS = (1, 3, 16, 17, 33)


def simplified(name: str) -> Graph:
    return simplify(package_case(name)[1])


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


@pytest.mark.parametrize("most", [100, constants.FIRST_CACHE_TOGETHER])
@pytest.mark.parametrize("values", get_args(Values))
def test_channels_read_in_small_chunks(
    values: Values, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "FIRST_CACHE", 300)
    monkeypatch.setattr(constants, "FIRST_CACHE_TOGETHER", most)
    monkeypatch.setattr(constants, "SECOND_CACHE", 600)
    graph = simplified("resnet20")
    graph = with_signs(graph) if values == "signs" else graph
    network = made(graph, tmp_path, values, openmp=True)
    x = images(graph, 9)
    check(network, graph, values, x, (1, 9))
    check(network, graph, values, x, (1, 9), threads=2)


def narrow(channels: int, outputs: int, side: int, density: float) -> Graph:
    """Return a convolution of many channels on a small map, of which so many weights are kept."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, channels, 3, 3, generator=random) / 16
    weight *= torch.rand(weight.shape, generator=random) < density
    convolution = Convolution(weight=weight, bias=torch.randn(outputs, generator=random), margins=(1, 1, 1, 1))
    return chain((channels, side, side), convolution, Flatten())


def lists_at_a_time(written: Path) -> list[int]:
    """Return how many lists each plan reads at a time."""
    return [int(found) for found in re.findall(r"\.together = (\d+)", written.read_text())]


def longest_vectors() -> tuple[str, ...]:
    """Return flags for vectors of 64 bytes where this machine can compute them."""
    return next((EACH[width] for width in ("avx512", "avx512 in halves") if runs_here("cc", width)), ())


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("values", get_args(Values))
def test_small_maps_of_many_channels(values: Values, side: int, tmp_path: Path) -> None:
    graph = narrow(1024, 5, side, 0.1)
    graph = with_signs(graph) if values == "signs" else graph
    network = made(graph, tmp_path, values, openmp=True, flags=longest_vectors())
    single, block = lists_at_a_time(tmp_path / "toy.c")
    assert single > block == 1
    check(network, graph, values, images(graph, 17), (1, 16, 17))
    check(network, graph, values, images(graph, 17), (1, 16, 17), threads=2)


@pytest.mark.parametrize("values", get_args(Values))
def test_more_channels_than_a_place_can_tell(values: Values, tmp_path: Path) -> None:
    graph = narrow(4100, 3, 2, 0.02)
    graph = with_signs(graph) if values == "signs" else graph
    network = made(graph, tmp_path, values)
    assert lists_at_a_time(tmp_path / "toy.c") == [1, 1]
    check(network, graph, values, images(graph, 9), (1, 9))


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
    for count in (1, 16, 33, 37):
        assert torch.equal(network(x[:count], threads=3), network(x[:count], threads=1))


def test_one_image_in_the_memory_of_the_library(tmp_path: Path) -> None:
    graph = simplified("digits-cnn")
    network = made(graph, tmp_path)
    x = images(graph, 2)
    for image in x:
        assert torch.equal(torch.from_numpy(network.run_one(image.numpy())), network(image[None])[0])
