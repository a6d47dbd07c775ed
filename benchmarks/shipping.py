"""What does a trained run become? Every kind of artifact: exported, verified by attack as it ships, and timed."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import record
from artifact_speed import PACKAGES
from gossamer.attacks.registry import build as build_attack
from gossamer.deploy.artifact import open_artifact
from gossamer.deploy.bench import Plan, bench
from gossamer.deploy.bench_record import BenchRecord, Timing, read_bench
from gossamer.deploy.contestants import ENGINES, Contestant, of_file
from gossamer.deploy.export import KINDS, default_name
from gossamer.deploy.verification import Verification
from gossamer.deploy.verify import Asked, verify
from gossamer.evaluation.setting import Setting
from gossamer.models.folding import plain_copy
from gossamer.recipe.open import OpenRun, open_run
from gossamer.runs import records

SPARSE_VALUES = ("float32", "float16", "int8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write results/shipping-RUN.json, and beside it in results/shipping-RUN/ verifications and bench in full."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--attack", default="autoattack-plus")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--engines", nargs="+", choices=tuple(ENGINES), default=tuple(ENGINES))
    parser.add_argument("--no-bench", action="store_true", help="keep the bench of before")
    parser.add_argument("--no-verify", action="store_true", help="keep the verifications of before")
    parser.add_argument("--keep", type=Path, help="where artifacts and parts of verifications lie; by default nowhere")
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    load = os.getloadavg()
    name = f"shipping-{options.run.name}"
    full = options.results / name
    full.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        run = open_run(options.run)
        paths = [_exported(options.run, kind, values, folder) for kind, values in _wanted()]
        if not options.no_verify:
            for path in paths:
                found = _verified(path, run, options.attack, options.n, folder / "cells")
                found.save(full / f"verify-{path.name}.json")
        if not options.no_bench:
            _timed(paths, run, options.threads, options.engines).save(full / "bench.json")
    if not (full / "bench.json").exists() or not any(full.glob("verify-*.json")):
        print(f"{full}: the table is written when there are verifications and a bench")
        return
    print(record.write(_result(name, options.run.name, full), options.results, load=load))


def _wanted() -> list[tuple[str, str]]:
    every = {kind: SPARSE_VALUES if kind == "sparse" else entry.values[:1] for kind, entry in KINDS.items()}
    return [(kind, each) for kind, values in every.items() for each in values]


def _exported(run: Path, kind: str, values: str, folder: Path) -> Path:
    path = folder / default_name(run.name, kind, values)
    if not path.exists():
        command = ["export", str(run), "--to", kind, "--values", values, "--out", str(path)]
        subprocess.run([sys.executable, "-m", "gossamer", *command], check=True)
    return path


def _verified(path: Path, run: OpenRun, attack: str, n: int, cells: Path) -> Verification:
    cells.mkdir(parents=True, exist_ok=True)
    parent = plain_copy(run.twin())
    subject = open_artifact(path, module=parent, trust=True)
    asked = Asked(attack=build_attack(attack, run.threat), threat=run.threat)
    found = verify(subject, parent, Setting(data=run.part("test"), n=n, device="cpu", folder=cells), asked)
    print(found, flush=True)
    return found


def _timed(paths: Sequence[Path], run: OpenRun, threads: Sequence[int], engines: Sequence[str]) -> BenchRecord:
    network = plain_copy(run.twin())
    contestants = [of_file(path, trust=True, network=network) for path in paths]
    contestants += [Contestant(name=engine, kind="engine", network=network) for engine in engines]
    found = bench(contestants, run.part("test"), Plan(threads=threads), network=network)
    print(found, flush=True)
    return found


def _result(name: str, run: str, full: Path) -> record.Result:
    timed = read_bench(full / "bench.json")
    verified = [records.read(Verification, path) for path in sorted(full.glob("verify-*.json"))]
    settings = list(dict.fromkeys((each.protocol, each.batch, each.threads) for each in timed.timings))
    return record.Result(
        name=name,
        title=f"{run} as artifacts: exported, attacked and timed as they ship",
        rounds=len(timed.timings[0].rounds),
        claims=(),
        tables=[_verifications(verified), _costs(timed), _speeds(timed, settings)],
        details={"images": timed.images, "missing": dict(timed.missing)},
        packages=PACKAGES,
    )


def _verifications(verified: Sequence[Verification]) -> record.Table:
    rows: list[list[record.Cell]] = []
    for each in verified:
        shipped, parent = each.shipped, each.parent
        assert parent is not None
        assert each.parity is not None
        rows.append(
            [
                shipped.path,
                shipped.kind,
                shipped.bytes,
                f"{shipped.bytes / shipped.dense_bytes:.1%}" if shipped.dense_bytes else "",
                f"{each.parity.error:.1g}",
                f"{each.parity.agreement:.2%}",
                f"{each.artifact.clean_accuracy:.1%}",
                f"{each.artifact.robust_accuracy:.1%}",
                str(each.robust_gap),
                "passed" if each.passed else "; ".join(each.failures),
            ]
        )
    first, parent = verified[0].artifact, verified[0].parent
    assert parent is not None
    return record.Table(
        caption=(
            f"Attacked as they ship ({first.threat}, n = {first.n}): {first.attack}. The parent has "
            f"{parent.clean_accuracy:.1%} clean and {parent.robust_accuracy:.1%} robust under the same attacks; gap: "
            "how much lower the artifact is, with its 95 % interval"
        ),
        columns=[
            "file",
            "kind",
            "bytes",
            "of the dense parent",
            "logits off by",
            "labels equal",
            "clean",
            "robust",
            "gap",
            "verdict",
        ],
        rows=rows,
    )


def _costs(timed: BenchRecord) -> record.Table:
    rows: list[list[record.Cell]] = [
        [
            each.name,
            each.bytes,
            None if each.start_up is None else round(1e3 * each.start_up),
            None if each.peak is None or each.before is None else round((each.peak - each.before) / 2**20, 1),
            each.failure or "",
        ]
        for each in timed.entries
    ]
    counts = timed.counts
    work = "" if counts is None else f"; an image is {counts.kept.multiplications:,} multiply-adds of kept weights, "
    work += "" if counts is None else f"{counts.dense.multiplications:,} of all: work ratio {counts.work_ratio:.2f}"
    return record.Table(
        caption=(
            "Size, start-up of a new process (a C file is compiled in it, an engine converts the network) and memory "
            f"of its own{work}; energy: {timed.device.energy}"
        ),
        columns=["contestant", "bytes", "start-up, ms", "MiB", "failure"],
        rows=rows,
    )


def _speeds(timed: BenchRecord, settings: Sequence[tuple[str, int, int]]) -> record.Table:
    by_key = {(each.contestant, each.protocol, each.batch, each.threads): each for each in timed.timings}
    rows: list[list[record.Cell]] = [
        [entry.name, *(_cell(by_key.get((entry.name, *setting))) for setting in settings)] for entry in timed.entries
    ]
    heads = [
        f"{batch} {'in memory' if protocol == 'memory' else 'with loading'}, {threads} threads"
        for protocol, batch, threads in settings
    ]
    return record.Table(
        caption=(
            "Milliseconds a batch: median / mean / 95th percentile; in brackets the speed against the fastest dense "
            "engine of the column"
        ),
        columns=["contestant", *heads],
        rows=rows,
    )


def _cell(timing: Timing | None) -> str:
    if timing is None:
        return ""
    times = " / ".join(f"{1e3 * seconds:.2f}" for seconds in (timing.median, timing.mean, timing.p95))
    return times if timing.speedup is None else f"{times} ({timing.speedup:.2f})"


if __name__ == "__main__":
    main()
