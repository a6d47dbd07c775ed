"""What a bench writes is what a comparison of runs reads; other files are left alone."""

import pytest

from gossamer.deploy.bench_record import BenchRecord, Entry, Timing
from gossamer.deploy.device import profile
from gossamer.errors import RunError
from gossamer.runs import RunFolder, atomic
from gossamer.runs.timings import SCHEMA, holds_timings, read_timings, timing_files


def bench():
    entry = Entry(name="net.c", kind="c", bytes=10, density=0.1, start_up=None, peak=None, before=None)
    timing = Timing(
        contestant="net.c",
        protocol="memory",
        batch=1,
        threads=2,
        calls=4,
        mean=0.3,
        median=0.25,
        p95=0.4,
        throughput=4.0,
        rounds=(0.25,),
        against=None,
        speedups=None,
        speedup=None,
        joules=None,
    )
    return BenchRecord(
        device=profile(),
        runs_on="cpu",
        shape=(1, 8, 8),
        images="random",
        entries=(entry,),
        missing={},
        counts=None,
        timings=(timing,),
    )


def test_a_bench_in_the_run_folder_is_found_and_read(tmp_path):
    run = RunFolder(tmp_path)
    bench().save(run.artifacts / "bench.json")
    bench().save(run.result("bench"))
    atomic.write_json(run.result("network"), {"schema": "gossamer/network/1"})
    atomic.write_json(run.result("list"), [1])
    (run.results / "broken.json").write_text("{")
    assert timing_files(run) == [run.result("bench"), run.artifacts / "bench.json"]
    read = read_timings(run.result("bench"))
    assert (read.schema, read.device.name) == (bench().schema, bench().device.name) == (SCHEMA, profile().name)
    (call,) = read.timings
    assert (call.contestant, call.batch, call.threads, call.median) == ("net.c", 1, 2, 0.25)


def test_another_version_is_told_from_no_bench_and_refused(tmp_path):
    path = tmp_path / "bench.json"
    atomic.write_json(path, {"schema": "gossamer/bench/99"})
    assert holds_timings(path)
    with pytest.raises(RunError, match="gossamer/bench/99"):
        read_timings(path)
    assert not holds_timings(tmp_path / "missing.json")
