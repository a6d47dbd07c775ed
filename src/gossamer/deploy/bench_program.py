"""How is a network timed on a device without Python? By a C program that prints the record of a bench."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from gossamer.deploy.about import About, check_files, read_about
from gossamer.deploy.bench import counts_of
from gossamer.deploy.bench_record import BenchRecord
from gossamer.deploy.csource.emit import NAME
from gossamer.deploy.csource.templates import filled, template
from gossamer.errors import ConfigError
from gossamer.runs import atomic, records

KINDS = ("c", "c-int8")


def write_program(
    artifacts: Sequence[Path], path: Path, *, network: nn.Module | None = None, parent: nn.Module | None = None
) -> None:
    """Write a C program that times C artifacts beside one another and prints a `BenchRecord` as JSON.

    network: the plain network that they compute, whose work is counted; None where it is not at hand. parent: the dense
    one that its work is held against, where its own kernels are others. Runs and compiles nothing. Raises ConfigError
    for files of other kinds, without records, of one name or of images of different sizes; DataError for damaged ones.
    """
    abouts = [_about(artifact) for artifact in artifacts]
    _check(artifacts, abouts, path)
    names = [artifact.stem for artifact in artifacts]
    channels, rows, columns = abouts[0].shape
    counts = None if network is None else counts_of(network, torch.zeros(1, channels, rows, columns), parent)
    words = {
        "VERSION": version("gossamer"),
        "SCHEMA": BenchRecord.schema,
        "FILE": path.name,
        "SOURCES": " ".join(artifact.name for artifact in artifacts),
        "INCLUDES": "\n".join(f'#include "{name}.h"' for name in names),
        "CHECKS": "\n".join(_check_of(name) for name in names),
        "ARENAS": "\n".join(_arena(name) for name in names),
        "TABLE": "\n".join(_row(artifact, about) for artifact, about in zip(artifacts, abouts, strict=True)),
        "COUNTS": json.dumps("null" if counts is None else json.dumps(records.to_json(counts))),
        "NETWORKS": str(len(names)),
        "CHANNELS": str(channels),
        "ROWS": str(rows),
        "COLUMNS": str(columns),
        "CLASSES": str(max(about.classes for about in abouts)),
    }
    atomic.write_text(path, filled(template("bench.c"), words))


def _about(artifact: Path) -> About:
    about = read_about(artifact)
    if about is None or about.kind not in KINDS:
        raise ConfigError(
            str(artifact),
            expected=f"an artifact of kind {' or '.join(KINDS)} with its record beside it",
            got="no record" if about is None else about.kind,
            remedy="write gossamer export RUN --to c",
        )
    check_files(artifact, about)
    return about


def _check(artifacts: Sequence[Path], abouts: Sequence[About], path: Path) -> None:
    # Names of macros are in capitals.
    taken = {artifact.stem.upper() for artifact in artifacts}
    if len(taken) < len(artifacts) or not all(NAME.fullmatch(stem) for stem in taken):
        raise ConfigError(
            "bench --program",
            expected="files of different names, of letters, digits and underscores",
            got=", ".join(map(str, artifacts)),
            remedy="export with other names: --out door.c",
        )
    shapes = {about.shape for about in abouts}
    if len(shapes) > 1:
        raise ConfigError(
            "bench --program",
            expected="networks of images of one size",
            got=", ".join(map(str, sorted(shapes))),
            remedy="write a program for each size",
        )
    if path.suffix != ".c" or path.stem.upper() in taken or not NAME.fullmatch(path.stem):
        raise ConfigError(
            "--program",
            expected="a C file to write, of letters, digits and underscores, of another name than the artifacts",
            got=str(path),
            remedy=f"write {artifacts[0].stem}_bench.c",
        )


def _arena(name: str) -> str:
    return f"static size_t arena_of_{name}(int threads) {{ return {name.upper()}_ARENA_BYTES(threads); }}"


def _check_of(name: str) -> str:
    """Return a line that compiles only where a network's header says what its record, which nothing seals, said."""
    upper = name.upper()
    same = " && ".join(f"{upper}_{each} == {each}" for each in ("CHANNELS", "ROWS", "COLUMNS"))
    return f"typedef char record_of_{name}_is_true[{same} && {upper}_CLASSES <= CLASSES ? 1 : -1];"


def _row(artifact: Path, about: About) -> str:
    name = artifact.stem
    blob = f"{name}.blob"
    dense = int(about.parent.nonzero == about.parent.dense_weights)
    texts = (artifact.name, about.kind, f"{about.parent.density:.9g}")
    quoted = ", ".join(json.dumps(each) for each in texts)
    beside, set_blob = (f'"{blob}"', f"{name}_set_blob") if blob in about.files else ("NULL", "NULL")
    return f"    {{{quoted}, {beside}, {about.bytes}, {dense}, {name}_run_threads, {set_blob}, arena_of_{name}}},"
