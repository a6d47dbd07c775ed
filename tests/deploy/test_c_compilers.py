"""The C source holds under strict warnings, sanitizers, every vector width, and with what callers get wrong."""

import math
import re
import subprocess
from pathlib import Path
from typing import get_args

import pytest
import torch
from c_code import (
    DISGUISES,
    SANITIZED,
    STRICT,
    UNSET,
    WIDTHS,
    by_each_compiler,
    check_driven,
    compiled,
    images,
    is_x86,
    made,
    needs,
    needs_compiler,
    run_program,
    runs_with,
    skip_unless_it_runs,
    threads_of,
    write_shared,
)
from networks import chain, package_case

from gossamer.deploy.csource import Values
from gossamer.deploy.csource.compile import ABOUT, compile_c
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
from gossamer.kernels.build import compiler, native

pytestmark = needs_compiler


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
    add("four", Pool(kind="max", window=(2, 2), stride=(2, 2)), ["relu"], 7, 4, 5)
    add("cells", Convolution(**weights(5, 7, 3, 3, density=0.1), **halved), ["four"], 5, 2, 3)
    add("half", Convolution(**weights(15, 5, 3, 3, density=0.3), margins=(1, 1, 1, 1)), ["cells"], 15, 2, 3)
    add("wide", Pad(channels=(0, 0), margins=(1, 1, 0, 1)), ["half"], 15, 4, 4)
    add("pad", Pad(channels=(1, 2), margins=(0, 1, 1, 0)), ["joined"], 15, 4, 4)
    add("both", Add(), ["wide", "pad"], 15, 4, 4)
    add("flat", Flatten(), ["both"], 240)
    add("hidden", Linear(**weights(20, 240, density=0.1)), ["flat"], 20)
    add("cut", Clip(low=0.0, high=6.0), ["hidden"], 20)
    add("logits", Linear(**weights(5, 20)), ["cut"], 5)
    return Graph(input="x", shape=pixels, nodes=nodes, output="logits")


WARNED = {"gcc": ("-O1", "-c"), "clang": ("-fsyntax-only",)}
"""What a compiler must do to see all that it warns of: gcc learns some of it as it optimises."""
CROSS = "aarch64-linux-gnu-gcc"
OTHERS = [pytest.param(values, marks=pytest.mark.long) for values in ("int8", "signs")]


@by_each_compiler
@pytest.mark.parametrize("values", get_args(Values))
@pytest.mark.parametrize("width", WIDTHS)
def test_no_warning_at_any_width(width: str, values: Values, cc: str, tmp_path: Path) -> None:
    if width != "scalar" and not is_x86(cc):
        pytest.skip(f"{cc} is not one for x86")
    threads = threads_of(cc) if values == "signs" else ()
    inside = write_shared(everything(), tmp_path / "inside", "toy", values=values)
    beside = write_shared(everything(), tmp_path / "beside", "toy", values=values, blob=True)
    options = [*STRICT, *WIDTHS[width], *threads]
    compiled([cc], [inside.source], tmp_path / "toy.o", [*options, *WARNED[cc]])
    compiled([cc], [beside.source], tmp_path / "toy.o", [*options, "-fsyntax-only"])


@by_each_compiler
def test_no_warning_where_nothing_is_weighted(cc: str, tmp_path: Path) -> None:
    graph = chain((1, 4, 4), Pool(kind="mean", window=(2, 2), stride=(2, 2)), Flatten())
    for blob in (False, True):
        written = write_shared(graph, tmp_path / str(blob), "toy", blob=blob)
        compiled([cc], [written.source], tmp_path / "toy.o", [*STRICT, *WARNED[cc]])


@by_each_compiler
@pytest.mark.parametrize("values", ["float32", *OTHERS])
@pytest.mark.parametrize("width", [*WIDTHS, *DISGUISES])
def test_every_width_computes_the_same(width: str, values: Values, cc: str, tmp_path: Path) -> None:
    skip_unless_it_runs(cc, width)
    graph = everything()
    written = write_shared(graph, tmp_path, "toy", values=values)
    options = ["-O1", *WIDTHS[width]] if width in WIDTHS else ["-O0", *DISGUISES[width]]
    check_driven([cc], written, graph, values, options)


@by_each_compiler
@pytest.mark.parametrize("level", ["-O0", pytest.param("-O2", marks=pytest.mark.long)])
@pytest.mark.parametrize("values", ["float32", pytest.param("int8", marks=pytest.mark.long), "signs"])
def test_sanitizers_find_nothing(values: Values, level: str, cc: str, tmp_path: Path) -> None:
    options = [level, native(), *threads_of(cc), *SANITIZED]
    if not runs_with(cc, *options):
        pytest.skip(f"{cc} has no sanitizers")
    graph = everything()
    written = write_shared(graph, tmp_path, "toy", values=values, blob=values == "int8", singles=3)
    check_driven([cc], written, graph, values, options)


@by_each_compiler
@pytest.mark.parametrize("dense", [True, False])
def test_a_large_plane_is_computed_where_long_has_32_bits(dense: bool, cc: str, tmp_path: Path) -> None:
    """As on Windows and on 32-bit processors: with an int for every long, and overflows an error."""
    options = ["-O1", "-DTOY_SCALAR", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    if not runs_with(cc, *options):
        pytest.skip(f"{cc} has no sanitizers")
    weight = torch.zeros(2, 1, 3, 3)
    weight[:, 0, 1:, 1] = torch.tensor([[1.0, -0.5], [0.25, 2.0]])
    weight += 0.125 * dense
    side = 460
    graph = chain(
        (1, side, side),
        Convolution(weight=weight, bias=torch.zeros(2), margins=(1, 1, 1, 1)),
        Thin(step=(46, 46)),
        Flatten(),
    )
    written = write_shared(graph, tmp_path, "toy", singles=1)
    assert f"USE_{'DENSE' if dense else 'SPARSE'}_FLOATS" in written.source.read_text()
    for path in (written.source, written.header):
        path.write_text(re.sub(r"\blong\b", "int", path.read_text()))
    check_driven([cc], written, graph, "float32", options, most=2)


@needs("clang")
@pytest.mark.parametrize("values", ["float32", *OTHERS])
def test_nothing_unset_is_read(values: Values, tmp_path: Path) -> None:
    options = ["-O1", *UNSET]
    if not runs_with("clang", *options):
        pytest.skip("clang has no sanitizer of memory")
    graph = everything()
    check_driven(["clang"], write_shared(graph, tmp_path, "toy", values=values), graph, values, options)


@needs(CROSS)
@pytest.mark.parametrize("values", ["float32", *OTHERS])
def test_no_warning_on_aarch64(values: Values, tmp_path: Path) -> None:
    written = write_shared(everything(), tmp_path, "toy", values=values, blob=values == "int8")
    threads = ("-fopenmp",) if values == "signs" else ()
    compiled([CROSS], [written.source], tmp_path / "toy.o", [*STRICT, *threads, "-O1", "-c"])


@pytest.mark.long
@needs(CROSS, "clang")
@pytest.mark.parametrize("values", get_args(Values))
def test_no_warning_of_clang_on_aarch64(values: Values, tmp_path: Path) -> None:
    written = write_shared(everything(), tmp_path, "toy", values=values, blob=values == "int8")
    command = ["clang", "--target=aarch64-linux-gnu"]
    compiled(command, [written.source], tmp_path / "toy.o", [*STRICT, "-O1", "-c"])


@pytest.mark.long
@needs(CROSS, "qemu-aarch64")
@pytest.mark.parametrize("values", get_args(Values))
@pytest.mark.parametrize(
    "options",
    [("-O2", "-static"), ("-O2", "-static", "-DTOY_SCALAR"), ("-O0", *SANITIZED)],
    ids=["neon", "scalar", "sanitized"],
)
def test_aarch64_under_qemu(
    options: tuple[str, ...], values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Leaks are looked for by a tracer, which qemu-user has none of.
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")
    graph = everything()
    written = write_shared(graph, tmp_path, "toy", values=values, blob=values == "int8")
    check_driven(
        [CROSS], written, graph, values, options, most=17, runner=["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
    )


NEEDED = {"memcpy", "memset", "memcmp"}
"""What a compiler may call wherever it compiles, C library or not."""
OF_THE_LINKER = {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


@needs("nm")
@pytest.mark.parametrize("values", get_args(Values))
@pytest.mark.parametrize("threads", [False, True], ids=["one thread", "OpenMP"])
def test_nothing_is_called_that_a_device_may_lack(threads: bool, values: Values, tmp_path: Path) -> None:
    written = write_shared(everything(), tmp_path, "toy", values=values, blob=values == "int8")
    object_file = tmp_path / "toy.o"
    openmp = ("-fopenmp",) if threads else ()
    compiled([compiler()[0]], [written.source], object_file, ["-std=gnu99", "-O3", native(), *openmp, "-c"])
    listed = subprocess.run(["nm", "-u", str(object_file)], check=True, capture_output=True, text=True).stdout
    called = {line.split()[-1].partition("@")[0] for line in listed.splitlines()}
    others = called - NEEDED - OF_THE_LINKER
    assert threads or not others
    assert all(name.startswith(("omp_", "GOMP_", "__kmpc_")) for name in others)


def test_constants_beside_the_source(tmp_path: Path) -> None:
    graph = simplify(package_case("digits-cnn")[1])
    x = images(graph, 18)
    inside, beside = made(graph, tmp_path / "inside"), made(graph, tmp_path / "beside", blob=True)
    assert torch.equal(inside(x), beside(x))


def test_a_damaged_blob_is_refused(tmp_path: Path) -> None:
    written = write_shared(simplify(package_case("digits-cnn")[1]), tmp_path, "toy", blob=True)
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
    written = write_shared(simplify(package_case("digits-cnn")[1]), tmp_path, "toy", blob=True)
    main = tmp_path / "main.c"
    main.write_text(
        '#include "toy.h"\n'
        "static float in[TOY_CHANNELS * TOY_ROWS * TOY_COLUMNS], out[TOY_CLASSES];\n"
        "int main(void) { return toy_run(in, out) == TOY_NO_BLOB ? 0 : 1; }\n"
    )
    program = compiled(compiler(), [written.source, main], tmp_path / "program", ["-O0", "-lm"])
    run_program([str(program)])


@pytest.mark.parametrize("name", ["", "1net", "a b", "a;b", "a\n", "../a", "_a", "a" * 64, "né"])
def test_names_that_are_no_identifiers_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name of a C file"):
        write_shared(everything(), tmp_path, name)
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
        write_shared(Graph(input="x", shape=(1, 2, 2), nodes=[crop], output="crop"), tmp_path, "toy")
    with pytest.raises(ConfigError, match="singles"):
        write_shared(everything(), tmp_path, "toy", singles=0)


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
