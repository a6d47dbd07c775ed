"""Networks as C for tests: written, compiled once a choice, compared with the yardstick."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gossamer.deploy import interpret
from gossamer.deploy.csource import Compiled, Values, compile_c, rounded, write_c
from gossamer.deploy.graph import Graph
from gossamer.errors import ConfigError
from gossamer.kernels.build import compiler

QUICK = ("-std=gnu99", "-O0")
SHARE = 1e-4
"""Of the largest logit: how far C may be from the yardstick."""


def has_compiler() -> bool:
    try:
        compiler()
    except ConfigError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="there is no C compiler on the path")


def made(
    graph: Graph,
    folder: Path,
    values: Values = "float32",
    *,
    flags: Sequence[str] = (),
    blob: bool = False,
    openmp: bool = False,
    singles: int = 6,
    optimise: Sequence[str] = QUICK,
) -> Compiled:
    """Return a graph as a loaded library."""
    written = write_c(graph, folder, "toy", values=values, blob=blob, singles=singles)
    return compile_c(written, flags=flags, openmp=openmp, optimise=optimise)


def check(
    network: Compiled, graph: Graph, values: Values, x: Tensor, counts: Iterable[int], *, threads: int = 1
) -> None:
    """Assert that a compiled network gives the yardstick's logits for the first few images, for each count."""
    expected = interpret.run(rounded(graph, values), x)
    allowed = SHARE * max(float(expected.abs().max()), 1e-6)
    for count in counts:
        got = network(x[:count], threads=threads)
        assert got.shape == expected[:count].shape
        assert float((got - expected[:count]).abs().max()) <= allowed, f"{count} images"


def run_program(program: Path) -> str:
    """Return what a program prints; assert that it ends well."""
    # Threads that wait do not spin: machines that run tests may have fewer cores than a test has threads.
    patient = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=120, env=patient)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def images(graph: Graph, count: int, seed: int = 0) -> Tensor:
    """Return images (count, C, H, W) in [0, 1]."""
    return torch.rand(count, *graph.shape, generator=torch.Generator().manual_seed(seed))
