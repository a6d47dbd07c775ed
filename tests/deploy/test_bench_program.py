"""A C program times C artifacts without Python: strict C, the record of a bench, and nothing it should not take."""

import dataclasses
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from c_code import SANITIZED, STRICT, by_each_compiler, compiled, needs, needs_compiler, threads_of
from shipped import images, labelled, small

from gossamer.deploy.about import about_path, read_about, write_about
from gossamer.deploy.bench import Plan, bench
from gossamer.deploy.bench_figure import write_figure
from gossamer.deploy.bench_program import write_program
from gossamer.deploy.bench_record import BenchRecord, read_bench
from gossamer.deploy.contestants import of_file
from gossamer.deploy.export import export
from gossamer.errors import ConfigError, DataError
from gossamer.kernels.build import compiler

QUICK = ["--batch", "1,3", "--threads", "1", "--rounds", "2", "--repeats", "3"]


def test_what_macos_hides_is_asked_for_before_its_headers(tmp_path: Path):
    path = export(small(), images(1), "c", tmp_path / "net").path
    write_program([path], tmp_path / "timed.c")
    text = (tmp_path / "timed.c").read_text()
    assert "_SC_NPROCESSORS_ONLN" in text
    head = text.partition("#include")[0]
    assert "#ifdef __APPLE__\n#define _DARWIN_C_SOURCE\n#endif\n" in head


@pytest.fixture
def artifacts(tmp_path: Path) -> list[Path]:
    """A sparse network, a dense one, and one with its constants beside it."""
    sparse = export(small(), images(1), "c", tmp_path / "sparse").path
    dense = export(small(density=2), images(1), "c", tmp_path / "dense").path
    beside = export(small(density=0.1), images(1), "c-int8", tmp_path / "beside", blob=True).path
    return [sparse, dense, beside]


def built(
    artifacts: list[Path], *options: str, cc: str = "cc", runner: tuple[str, ...] = (), folder: str = "build"
) -> tuple[str, ...]:
    """Return what starts the program that times artifacts, compiled where nothing else lies."""
    place = artifacts[0].parent / folder
    place.mkdir()
    write_program(artifacts, place / "timed.c", network=small())
    sources = [place / "timed.c", *artifacts]
    beside = ("-I", str(artifacts[0].parent), "-Wno-overlength-strings")
    return (*runner, str(compiled([cc], sources, place / "timed", [*options, *beside])))


def ran(program: tuple[str, ...], *flags: str, folder: Path) -> subprocess.CompletedProcess[str]:
    patient = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(
        [*program, *flags], cwd=folder, capture_output=True, text=True, check=False, timeout=300, env=patient
    )


def recorded(program: tuple[str, ...], *flags: str, folder: Path) -> BenchRecord:
    done = ran(program, *QUICK, *flags, folder=folder)
    assert done.returncode == 0, done.stderr
    (folder / "device.json").write_text(done.stdout)
    return read_bench(folder / "device.json")


def check(found: BenchRecord, artifacts: list[Path], threads: int = 1) -> None:
    """Assert that a record holds what Python's bench of the same artifacts holds, of some speed."""
    plan = Plan(batches=(1, 3), threads=(threads,), rounds=2, repeats=3, warm_up=1, fresh=False)
    beside = bench(
        [of_file(path, trust=True, network=None) for path in artifacts], labelled(small()), plan, network=small()
    )
    assert [(each.name, each.kind, each.bytes) for each in found.entries] == [
        (each.name, each.kind, each.bytes) for each in beside.entries
    ]
    for entry, expected in zip(found.entries, beside.entries, strict=True):
        assert entry.density == pytest.approx(expected.density)
        assert entry.failure is None
        assert entry.start_up > 0
        assert entry.peak >= entry.before > 0
    assert (found.shape, found.counts, found.missing) == (beside.shape, beside.counts, {})
    assert [(each.contestant, each.protocol, each.batch, each.threads, each.calls) for each in found.timings] == [
        (each.contestant, each.protocol, each.batch, each.threads, each.calls) for each in beside.timings
    ]
    for timing in found.timings:
        assert timing.throughput == pytest.approx(timing.batch / timing.mean)
        assert 0 < min(timing.rounds) <= timing.median <= timing.p95
        assert timing.against == "dense.c"
        (theirs,) = [
            each
            for each in found.timings
            if each.contestant == "dense.c" and (each.protocol, each.batch) == (timing.protocol, timing.batch)
        ]
        ratios = [a / b for a, b in zip(theirs.rounds, timing.rounds, strict=True)]
        assert timing.speedups == pytest.approx(ratios)
        assert timing.speedup == pytest.approx(sum(ratios) / 2)


@by_each_compiler
def test_the_program_is_strict_c_and_prints_the_record_of_a_bench(cc: str, artifacts: list[Path]):
    program = built(artifacts, *STRICT, *SANITIZED, cc=cc)
    found = recorded(program, "--name", 'A "small"\tboard', folder=artifacts[0].parent)
    check(found, artifacts)
    assert found.device.name == 'A "small"?board'
    assert found.device.cores >= 1
    assert found.device.versions.keys() == {"gossamer", "compiler"}


@needs_compiler
def test_threads_that_a_program_has_not_are_refused(artifacts: list[Path]):
    done = ran(built(artifacts, "-std=gnu99"), "--threads", "1,4", folder=artifacts[0].parent)
    assert done.returncode != 0
    assert "compiled without -fopenmp it has one thread" in done.stderr


@needs_compiler
def test_names_that_differ_in_case_alone_are_refused(tmp_path: Path):
    paths = [export(small(), images(1), "c", tmp_path / name).path for name in ("door", "Door")]
    with pytest.raises(ConfigError, match="files of different names"):
        write_program(paths, tmp_path / "timed.c", network=None)


@needs_compiler
def test_threads_are_openmps(artifacts: list[Path]):
    if not threads_of("cc"):
        pytest.skip("the compiler has no OpenMP")
    program = built(artifacts, "-std=gnu99", "-O1", "-fopenmp")
    found = recorded(program, "--threads", "2", folder=artifacts[0].parent)
    check(found, artifacts, threads=2)


@needs_compiler
def test_devices_are_drawn_beside_one_another(artifacts: list[Path], tmp_path: Path):
    found = recorded(built(artifacts, "-std=gnu99"), "--name", "board", folder=tmp_path)
    here = bench([of_file(artifacts[0], trust=True, network=None)], labelled(small()), Plan(rounds=1), network=None)
    write_figure([found, here], tmp_path / "figure.html")
    assert "board" in (tmp_path / "figure.html").read_text()


@needs_compiler
def test_a_network_without_its_constants_is_named_and_the_others_go_on(artifacts: list[Path], tmp_path: Path):
    program = built(artifacts, "-std=gnu99")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = recorded(program, folder=elsewhere)
    assert found.missing == {"beside.c": "its blob is not in this folder"}
    assert {each.contestant for each in found.timings} == {"sparse.c", "dense.c"}
    assert [each.failure for each in found.entries] == [None, None, "it did not start"]
    (elsewhere / "beside.blob").write_bytes((tmp_path / "beside.blob").read_bytes()[:-1] + b"x")
    assert "exported with" in recorded(program, folder=elsewhere).missing["beside.c"]


@needs_compiler
@pytest.mark.parametrize(
    "flags",
    ["--batch", "--batch 0", "--batch 1,,2", "--repeats 10001", "--threads many", "--fast 1", "--rounds 1,2"],
)
def test_wrong_flags_end_it_with_how_it_is_used(flags: str, artifacts: list[Path]):
    done = ran(built(artifacts[:1], "-std=gnu99"), *flags.split(), folder=artifacts[0].parent)
    assert done.returncode == 2
    assert "usage: bench" in done.stderr
    assert done.stdout == ""


def test_what_cannot_be_timed_is_refused(artifacts: list[Path], tmp_path: Path):
    made = tmp_path / "timed.c"
    other = tmp_path / "other"
    shutil.copytree(tmp_path, other)
    with pytest.raises(ConfigError, match="different names"):
        write_program([artifacts[0], other / artifacts[0].name], made)
    with pytest.raises(ConfigError, match="another name"):
        write_program(artifacts, artifacts[0])
    with pytest.raises(ConfigError, match="another name"):
        write_program(artifacts, tmp_path / "a b.c")
    wide = export(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2)), torch.rand(1, 2, 2, 2), "c", tmp_path / "w"
    )
    with pytest.raises(ConfigError, match="one size"):
        write_program([artifacts[0], wide.path], made)
    onnx = export(small(), images(1), "sparse", tmp_path / "file").path
    with pytest.raises(ConfigError, match="kind c or c-int8"):
        write_program([onnx], made)
    artifacts[0].write_text("changed")
    with pytest.raises(DataError, match="SHA-256"):
        write_program(artifacts, made)
    about_path(artifacts[1]).unlink()
    with pytest.raises(ConfigError, match="no record"):
        write_program([artifacts[1]], made)
    assert not made.exists()


@needs_compiler
@pytest.mark.parametrize("claim", [{"classes": 1}, {"shape": (2, 6, 5)}])
def test_a_record_that_makes_memory_too_small_does_not_compile(claim: dict[str, object], tmp_path: Path):
    path = export(small(), images(1), "c", tmp_path / "net").path
    write_about(path, dataclasses.replace(read_about(path), **claim))
    write_program([path], tmp_path / "timed.c")
    done = subprocess.run(
        [*compiler(), "-fsyntax-only", str(tmp_path / "timed.c")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "record_of_net_is_true" in done.stderr


@needs_compiler
def test_its_first_lines_say_how_it_is_compiled(artifacts: list[Path], tmp_path: Path):
    write_program(artifacts, tmp_path / "timed.c")
    line = re.search(r"^ \* +(cc .*)$", (tmp_path / "timed.c").read_text(), re.MULTILINE)
    assert line is not None
    kept = [word for word in line[1].split() if word != "-fopenmp" or threads_of("cc")]
    subprocess.run(kept, cwd=tmp_path, check=True)
    assert recorded(("./bench",), folder=tmp_path).counts is None


@pytest.mark.long
@needs("aarch64-linux-gnu-gcc", "qemu-aarch64")
def test_it_runs_on_aarch64(artifacts: list[Path]):
    program = built(
        artifacts, *STRICT, "-O2", "-static", cc="aarch64-linux-gnu-gcc", runner=("qemu-aarch64",), folder="arm"
    )
    found = recorded(program, folder=artifacts[0].parent)
    check(found, artifacts)
    assert found.device.instructions == "NEON"
    assert "aarch64" in found.device.system


def test_every_word_of_the_program_is_filled_in(artifacts: list[Path], tmp_path: Path):
    for count in itertools.count(1):
        write_program(artifacts[:count], tmp_path / "timed.c")
        assert not re.search("@[A-Z]+@", (tmp_path / "timed.c").read_text())
        if count == len(artifacts):
            break
