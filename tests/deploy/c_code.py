"""Networks as C for tests: written, compiled once a choice or by every compiler, compared with the yardstick."""

import functools
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gossamer.deploy import interpret
from gossamer.deploy.csource import Compiled, Values, Written, compile_c, rounded, write_c
from gossamer.deploy.graph import Convolution, Graph, Linear, Node
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


write_shared = functools.partial(write_c, worth_a_thread=1)
"""Small as a network is, threads share an image of it."""

needs_compiler = pytest.mark.skipif(not has_compiler(), reason="there is no C compiler on the path")


def needs(*tools: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where one of these programs is missing."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    return pytest.mark.skipif(bool(missing), reason=f"there is no {', no '.join(missing)} on the path")


by_each_compiler = pytest.mark.parametrize("cc", [pytest.param(cc, marks=needs(cc)) for cc in ("gcc", "clang")])

DRIVER = Path(__file__).with_name("c_driver.c")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
UNSET = ("-fsanitize=memory", "-fno-sanitize-recover=all", "-g", "-DUNSET")
"""Of clang: what is read before it is written."""

WIDTHS: Mapping[str, tuple[str, ...]] = {
    "sse": ("-mno-avx",),
    "avx2": ("-mavx2", "-mfma"),
    "avx512": ("-mavx512f",),
    "scalar": ("-DTOY_SCALAR",),
}
DISGUISES: Mapping[str, tuple[str, ...]] = {
    "avx512 in halves": ("-mavx2", "-mfma", "-D__AVX512F__"),
    "the tiles of neon": ("-mno-avx", "-D__aarch64__"),
}
"""The vectors of processors that this one is not, as it computes them."""
EACH = {**WIDTHS, **DISGUISES}
ASKED_OF_PROCESSOR = {"avx2": ("avx2", "fma"), "avx512": ("avx512f",), "avx512 in halves": ("avx2", "fma")}


def skip_unless_it_runs(cc: str, width: str) -> None:
    """Skip a test of a width that this machine cannot run."""
    if not runs_here(cc, width):
        asked = " and ".join(ASKED_OF_PROCESSOR.get(width, ("vectors of x86",)))
        pytest.skip(f"the processor has no {asked}: compiled only, as qemu 7.2 does not run AVX-512 either")


def runs_here(cc: str, width: str) -> bool:
    """Tell whether this machine runs what a compiler makes for a width."""
    if width == "scalar":
        return True
    about = Path("/proc/cpuinfo")
    has = about.read_text(encoding="utf-8").split() if about.exists() else []
    return is_x86(cc) and all(feature in has for feature in ASKED_OF_PROCESSOR.get(width, ()))


@functools.cache
def is_x86(cc: str) -> bool:
    done = subprocess.run([cc, "-dumpmachine"], capture_output=True, text=True, check=False)
    return done.stdout.startswith(("x86_64", "i686"))


@functools.cache
def runs_with(cc: str, *options: str) -> bool:
    """Tell whether a compiler has what these options need, and its programs start."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "probe.c", Path(folder) / "probe"
        source.write_text("#ifdef _OPENMP\n#include <omp.h>\n#endif\nint main(void) { return 0; }\n")
        done = subprocess.run([cc, *options, str(source), "-o", str(program)], capture_output=True, check=False)
        return done.returncode == 0 and subprocess.run([str(program)], capture_output=True, check=False).returncode == 0


def threads_of(cc: str) -> tuple[str, ...]:
    """Return the option for threads, where this compiler has them."""
    return ("-fopenmp",) if runs_with(cc, "-fopenmp") else ()


def compiled(command: Sequence[str], sources: Sequence[Path], to: Path, options: Sequence[str]) -> Path:
    """Return what a compiler makes of sources; assert that it takes them."""
    full = [*command, *options, "-I", str(sources[0].parent), *map(str, sources), "-o", str(to)]
    done = subprocess.run(full, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return to


def check_driven(
    command: Sequence[str],
    written: Written,
    graph: Graph,
    values: Values,
    options: Sequence[str],
    *,
    most: int = 35,
    runner: Sequence[str] = (),
) -> None:
    """Assert that the driver is content with a network, and that its logits are the yardstick's.

    command: of the compiler; runner: what starts its programs; most: images.
    """
    beside = [] if written.blob is None else [str(written.blob)]
    defined = ["-std=gnu99", f"-DMOST={most}", *(["-DBESIDE"] if beside else [])]
    folder = written.source.parent
    program = compiled(command, [written.source, DRIVER], folder / "program", [*defined, *options, "-lm"])
    printed = run_program([*runner, str(program), *beside])
    x = (torch.arange(most * math.prod(graph.shape)) * 7919 % 1000 / 1000).view(most, *graph.shape)
    expected = interpret.run(rounded(graph, values), x)
    got = torch.tensor([float(line) for line in printed.split()]).view_as(expected)
    assert float((got - expected).abs().max()) <= allowed(expected)


def allowed(expected: Tensor) -> float:
    """Return how far logits may be from those expected."""
    return SHARE * max(float(expected.abs().max()), 1e-6)


def with_signs(graph: Graph) -> Graph:
    """Return the graph with one magnitude in each output channel of every other layer."""
    nodes = []
    for number, node in enumerate(graph.nodes):
        operation = node.operation
        if isinstance(operation, Convolution | Linear) and number % 2 == 0:
            scales = operation.weight.abs().flatten(1).mean(1).view(-1, *[1] * (operation.weight.ndim - 1))
            changed = {**vars(operation), "weight": operation.weight.sign() * scales}
            operation = type(operation)(**changed)
        nodes.append(Node(name=node.name, operation=operation, inputs=node.inputs, shape=node.shape))
    return Graph(input=graph.input, shape=graph.shape, nodes=nodes, output=graph.output)


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
    written = write_shared(graph, folder, "toy", values=values, blob=blob, singles=singles)
    return compile_c(written, flags=flags, openmp=openmp, optimise=optimise)


def check(
    network: Compiled, graph: Graph, values: Values, x: Tensor, counts: Iterable[int], *, threads: int = 1
) -> None:
    """Assert that a compiled network gives the yardstick's logits for the first few images, for each count."""
    expected = interpret.run(rounded(graph, values), x)
    for count in counts:
        got = network(x[:count], threads=threads)
        assert got.shape == expected[:count].shape
        assert float((got - expected[:count]).abs().max()) <= allowed(expected), f"{count} images"


def run_program(command: Sequence[str]) -> str:
    """Return what a program prints; assert that it ends well."""
    # Threads that wait do not spin: machines that run tests may have fewer cores than a test has threads.
    patient = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=patient)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-3000:]}"
    return done.stdout


def images(graph: Graph, count: int, seed: int = 0) -> Tensor:
    """Return images (count, C, H, W) in [0, 1]."""
    return torch.rand(count, *graph.shape, generator=torch.Generator().manual_seed(seed))
