"""The C source holds under strict warnings, sanitizers, every vector width, and with what callers get wrong."""

import math
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from c_code import SHARE, images, made, needs_compiler, run_program
from networks import package_case

from gossamer.deploy import interpret
from gossamer.deploy.csource import Values, Written, rounded, write_c
from gossamer.deploy.csource.compile import ABOUT, compile_c, compile_sources
from gossamer.deploy.graph import (
    Add,
    Affine,
    Clip,
    Concatenate,
    Convolution,
    Flatten,
    Graph,
    Linear,
    Node,
    Operation,
    Pad,
    Pool,
    Shape,
    Thin,
)
from gossamer.deploy.simplify import simplify
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.kernels.build import compiler

pytestmark = needs_compiler

DRIVER = Path(__file__).with_name("c_driver.c")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
WIDTHS = {"sse": ("-mno-avx",), "avx2": ("-mavx2", "-mfma"), "avx512": ("-mavx512f",), "scalar": ("-DTOY_SCALAR",)}
X86 = ("sse", "avx2", "avx512")


def everything() -> Graph:
    """Return a network of odd sizes with every operation and both kinds of layer."""
    draws = torch.Generator().manual_seed(0)
    nodes: list[Node] = []

    def weights(*shape: int, density: float = 1.0, signs: bool = False) -> dict[str, torch.Tensor]:
        weight = torch.randn(*shape, generator=draws) * (torch.rand(*shape, generator=draws) < density)
        return {"weight": weight.sign() * 0.25 if signs else weight, "bias": torch.randn(shape[0], generator=draws)}

    def add(name: str, operation: Operation, inputs: list[str], *shape: int) -> str:
        nodes.append(Node(name=name, operation=operation, inputs=inputs, shape=shape))
        return name

    pixels: Shape = (3, 9, 11)
    add("norm", Affine(scale=torch.tensor([2.0, 1.0, 3.0]), shift=torch.zeros(3)), ["x"], *pixels)
    add("conv", Convolution(**weights(7, 3, 3, 3), margins=(1, 1, 1, 1)), ["norm"], 7, 9, 11)
    add("relu", Clip(low=0.0, high=math.inf), ["conv"], 7, 9, 11)
    halved = {"stride": (2, 2), "margins": (1, 1, 1, 1)}
    add("down", Convolution(**weights(6, 7, 3, 3, density=0.2), **halved), ["relu"], 6, 5, 6)
    add("short", Convolution(**weights(6, 7, 1, 1, density=0.5), stride=(2, 2)), ["relu"], 6, 5, 6)
    add("sum", Add(), ["down", "short"], 6, 5, 6)
    add("clip", Clip(low=-2.0, high=2.0), ["sum"], 6, 5, 6)
    add("deep", Convolution(**weights(6, 1, 3, 3, signs=True), groups=6, margins=(1, 1, 1, 1)), ["clip"], 6, 5, 6)
    add("three", Add(), ["deep", "clip", "deep"], 6, 5, 6)
    add("pool", Pool(kind="max", window=(3, 2), stride=(1, 2), margins=(1, 1, 0, 0)), ["three"], 6, 5, 3)
    add("mean", Pool(kind="mean", window=(2, 2), stride=(2, 2), margins=(0, 1, 0, 0)), ["clip"], 6, 3, 3)
    add("thin", Thin(step=(2, 1)), ["pool"], 6, 3, 3)
    add("joined", Concatenate(), ["thin", "mean"], 12, 3, 3)
    add("pad", Pad(channels=(1, 2), margins=(0, 1, 1, 0)), ["joined"], 15, 4, 4)
    add("flat", Flatten(), ["pad"], 240)
    add("hidden", Linear(**weights(20, 240, density=0.1)), ["flat"], 20)
    add("cut", Clip(low=0.0, high=6.0), ["hidden"], 20)
    add("logits", Linear(**weights(5, 20)), ["cut"], 5)
    return Graph(input="x", shape=pixels, nodes=nodes, output="logits")


def is_x86() -> bool:
    done = subprocess.run([*compiler(), "-dumpmachine"], capture_output=True, text=True, check=False)
    return done.stdout.startswith(("x86_64", "i686"))


def processor_has(width: str) -> bool:
    about = Path("/proc/cpuinfo")
    flags = about.read_text(encoding="utf-8").split() if about.exists() else []
    return {"sse": "sse2", "avx2": "avx2", "avx512": "avx512f", "scalar": "sse2"}[width] in flags


def driver_of(written: Written, folder: Path, *options: str) -> Path:
    program = folder / "program"
    compile_sources([written.source, DRIVER], program, [*options, "-I", str(folder), "-lm"])
    return program


def check_printed(printed: str, graph: Graph, values: Values) -> None:
    count = 35 * int(np.prod(graph.shape))
    x = torch.from_numpy((np.arange(count) * 7919 % 1000 / 1000).astype(np.float32)).view(35, *graph.shape)
    expected = interpret.run(rounded(graph, values), x)
    got = torch.tensor([float(line) for line in printed.split()]).view_as(expected)
    assert float((got - expected).abs().max()) <= SHARE * float(expected.abs().max())


@pytest.mark.parametrize("values", get_args(Values))
@pytest.mark.parametrize("width", WIDTHS)
def test_no_warning_at_any_width(width: str, values: Values, tmp_path: Path) -> None:
    if width in X86 and not is_x86():
        pytest.skip("the compiler is not one for x86")
    written = write_c(everything(), tmp_path, "toy", values=values, blob=values == "int8")
    threads = ("-fopenmp",) if values == "signs" else ()
    compile_sources([written.source], tmp_path / "toy.o", [*STRICT, *WIDTHS[width], *threads, "-O1", "-c"])


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_computes_the_same(width: str, tmp_path: Path) -> None:
    if not is_x86() or not processor_has(width):
        pytest.skip(f"the processor has no {width}")
    graph = everything()
    written = write_c(graph, tmp_path, "toy")
    program = driver_of(written, tmp_path, "-std=gnu99", "-O1", *WIDTHS[width])
    check_printed(run_program(program), graph, "float32")


@pytest.mark.parametrize("values", ["float32", pytest.param("int8", marks=pytest.mark.long), "signs"])
def test_sanitizers_find_nothing(values: Values, tmp_path: Path) -> None:
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    try:
        compile_sources([probe], tmp_path / "probe", SANITIZED)
    except RunError:
        pytest.skip("the compiler has no sanitizers")
    graph = everything()
    written = write_c(graph, tmp_path, "toy", values=values, singles=3)
    program = driver_of(written, tmp_path, "-std=gnu99", "-O1", "-march=native", "-fopenmp", *SANITIZED)
    check_printed(run_program(program), graph, values)


@pytest.mark.long
@pytest.mark.parametrize("width", [(), ("-DTOY_SCALAR",)])
def test_aarch64_under_qemu(width: tuple[str, ...], tmp_path: Path) -> None:
    tools = ("aarch64-linux-gnu-gcc", "qemu-aarch64")
    if not all(map(shutil.which, tools)):
        pytest.skip(f"needs {' and '.join(tools)}")
    graph = everything()
    written = write_c(graph, tmp_path, "toy")
    program = tmp_path / "program"
    command = [tools[0], "-std=gnu99", "-O2", "-static", *width, "-I", str(tmp_path)]
    subprocess.run([*command, str(written.source), str(DRIVER), "-lm", "-o", str(program)], check=True)
    done = subprocess.run([tools[1], str(program)], capture_output=True, text=True, check=True, timeout=300)
    check_printed(done.stdout, graph, "float32")


@pytest.mark.long
def test_clang_takes_it(tmp_path: Path) -> None:
    if not shutil.which("clang"):
        pytest.skip("there is no clang")
    written = write_c(everything(), tmp_path, "toy")
    for width in WIDTHS.values():
        command = ["clang", *STRICT, *width, "-O2", "-c", str(written.source), "-o", str(tmp_path / "toy.o")]
        subprocess.run(command, check=True)


def test_constants_beside_the_source(tmp_path: Path) -> None:
    graph = simplify(package_case("digits-cnn")[1])
    x = images(graph, 18)
    inside, beside = made(graph, tmp_path / "inside"), made(graph, tmp_path / "beside", blob=True)
    assert torch.equal(inside(x), beside(x))


def test_a_damaged_blob_is_refused(tmp_path: Path) -> None:
    written = write_c(simplify(package_case("digits-cnn")[1]), tmp_path, "toy", blob=True)
    assert written.blob is not None
    good = written.blob.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    other_version = bytearray(good)
    other_version[8] ^= 1
    for damaged in (b"", good[:64], good[:-1], good + b"\0", bytes(flipped), bytes(other_version), b"x" + good[1:]):
        written.blob.write_bytes(damaged)
        with pytest.raises(RunError, match="toy_set_blob"):
            compile_c(written, optimise=("-O0",))


def test_nothing_runs_before_the_blob_is_there(tmp_path: Path) -> None:
    written = write_c(simplify(package_case("digits-cnn")[1]), tmp_path, "toy", blob=True)
    main = tmp_path / "main.c"
    main.write_text(
        '#include "toy.h"\n'
        "static float in[TOY_CHANNELS * TOY_ROWS * TOY_COLUMNS], out[TOY_CLASSES];\n"
        "int main(void) { return toy_run(in, out) == TOY_NO_BLOB ? 0 : 1; }\n"
    )
    program = tmp_path / "program"
    compile_sources([written.source, main], program, ["-O0", "-I", str(tmp_path)])
    run_program(program)


@pytest.mark.parametrize("name", ["", "1net", "a b", "a;b", "a\n", "../a", "_a", "a" * 64, "né"])
def test_names_that_are_no_identifiers_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name of a C file"):
        write_c(everything(), tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_names_of_nodes_cannot_leave_their_comment(tmp_path: Path) -> None:
    nodes = [
        Node(name="*/ int evil(void); /*\n#error", operation=Clip(low=0, high=1), inputs=["@NAME@"], shape=(1, 2, 2)),
        Node(name="flat@UPPER@", operation=Flatten(), inputs=["*/ int evil(void); /*\n#error"], shape=(4,)),
    ]
    graph = Graph(input="@NAME@", shape=(1, 2, 2), nodes=nodes, output="flat@UPPER@")
    network = made(graph, tmp_path)
    assert "evil(" not in (tmp_path / "toy.c").read_text()
    assert network(torch.full((1, 1, 2, 2), 0.5)).tolist() == [[0.5] * 4]


def test_what_c_cannot_express_is_refused(tmp_path: Path) -> None:
    crop = Node(name="crop", operation=Pad(margins=(-1, 0, 0, 0)), inputs=["x"], shape=(1, 1, 2))
    with pytest.raises(ConfigError, match=r"node crop to C: .*margins of 0 or more.*onnx"):
        write_c(Graph(input="x", shape=(1, 2, 2), nodes=[crop], output="crop"), tmp_path, "toy")
    with pytest.raises(ConfigError, match="singles"):
        write_c(everything(), tmp_path, "toy", singles=0)


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    network = made(everything(), tmp_path)
    for x in (torch.zeros(0, 3, 9, 11), torch.zeros(1, 3, 11, 9), torch.zeros(3, 9, 11)):
        with pytest.raises(DataError, match="images for a compiled network"):
            network(x)


def test_both_plans_need_the_memory_that_the_header_says(tmp_path: Path) -> None:
    network = made(everything(), tmp_path)
    one, two, four = (network.arena_bytes(threads) for threads in (1, 2, 4))
    assert two > one
    assert four - two == 2 * (two - one)
    assert ABOUT.count("ARENA_BYTES") == 1
