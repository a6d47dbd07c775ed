"""`gossamer evaluate`: attack a run, an artifact or a model of one's own, and write what was measured."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from gossamer.attacks.registry import build as build_attack
from gossamer.attacks.transfer import Transfer
from gossamer.cli import options
from gossamer.cli.keeping import command_of, partial_folder, with_command
from gossamer.cli.subjects import Source, one_of, read_options, threats
from gossamer.errors import ConfigError
from gossamer.evaluation.evaluate import Evaluation
from gossamer.evaluation.evaluate import evaluate as measure
from gossamer.evaluation.ledger import forget
from gossamer.evaluation.plan import digest
from gossamer.evaluation.shards import Shard, merge
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.workers import evaluate_in_processes
from gossamer.recipe.train import evaluation_name
from gossamer.runs import atomic, records
from gossamer.threat import ThreatModel
from gossamer.training.devices import place
from gossamer.training.progress import progress
from gossamer.types import Attack, Precision


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for on the command line, in plain values that can be sent to another process."""

    source: Source
    attack: str
    threat: str | None
    eps: str | None
    norm: str | None
    n: int | None
    options: tuple[str, ...]
    batch_size: int | None
    seed: int
    device: str
    precision: str
    compiled: bool

    @property
    def asked(self) -> dict[str, object]:
        """Every option by name."""
        own = {name: value for name, value in vars(self).items() if name != "source"}
        return own | vars(self.source)

    @property
    def question(self) -> str:
        """What identifies the evaluation whose shards belong together, wherever each of them lies and runs."""
        aside = ("run", "data_dir", "device", "batch_size", "weights", "twin_weights")
        counted = {name: str(value) for name, value in self.asked.items() if name not in aside}
        given = {"file": self.source.file, "weights": self.source.weights, "twin": self.source.twin_weights}
        files = {name: atomic.sha256(path) for name, path in given.items() if path is not None and path.is_file()}
        return digest({**counted, **files})

    @property
    def command(self) -> str:
        """The command line that asks for it."""
        flags: dict[str, object] = {
            "--attack": self.attack,
            "--threat": self.threat,
            "--eps": self.eps,
            "--norm": self.norm,
            "--n": self.n,
            "--option": self.options,
            "--batch-size": self.batch_size,
            "--seed": self.seed,
            "--precision": None if self.precision == "float32" else self.precision,
            "--compile": self.compiled,
        }
        return command_of(["gossamer", "evaluate", *self.source.words], flags | self.source.flags)


def evaluate(
    run: options.Run = None,
    attack: Annotated[
        str, typer.Option(help="an attack (`gossamer list attacks`) or package.module:factory")
    ] = "pgd-50-10",
    threat: options.Threat = None,
    eps: options.Radii = None,
    norm: options.Norm = None,
    n: options.Count = None,
    option: options.AttackOptions = None,
    part: options.Part = "test",
    model: options.Model = None,
    weights: options.Weights = None,
    outputs: options.Outputs = "logits",
    twin: options.Twin = None,
    twin_weights: options.TwinWeights = None,
    data: options.Data = None,
    data_option: options.DataOptions = None,
    data_dir: options.DataDir = None,
    trust: options.Trust = False,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: Annotated[
        str, typer.Option(help="in which candidates are sought: float32 or bf16; the model always judges in its own")
    ] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="seek candidates on kernels compiled for this processor")
    ] = False,
    workers: Annotated[int, typer.Option(help="processes that share the samples and the threads")] = 1,
    shard: Annotated[
        str | None,
        typer.Option(help="RANK/OF: every OF-th sample alone, as torchrun sets it; the last part to end merges all"),
    ] = None,
    partial_results: options.PartialFolder = None,
    save_seconds: options.SaveSeconds = 30.0,
    json: options.Json = None,
) -> None:
    """Measure clean and robust accuracy; with a run, the result is kept in its folder too.

    Killed, the same command goes on where it stopped: partial results lie in the run's folder, or beside --json.
    """
    source = Source(
        run=run,
        model=model,
        weights=weights,
        outputs=outputs,
        twin=twin,
        twin_weights=twin_weights,
        data=data,
        data_options=tuple(data_option or ()),
        data_dir=data_dir,
        part=part,
        trust=trust,
    )
    request = Request(
        source=source,
        attack=attack,
        threat=threat,
        eps=eps,
        norm=norm,
        n=n,
        options=tuple(option or ()),
        batch_size=batch_size,
        seed=seed,
        device=device,
        precision=precision,
        compiled=compiled,
    )
    folder = source.folder
    kept = partial_results or partial_folder("evaluate", request.asked, folder, json)
    work = partial(_measure, request, kept, save_seconds)
    mine = Shard.of_process() if shard is None else Shard.parse(shard)
    if mine.of > 1 and workers > 1:
        raise ConfigError("--workers", expected="1 beside --shard", got=workers, remedy="start more shards")
    with progress() as shown:
        if mine.of == 1:
            measured = evaluate_in_processes(work, workers, shown.evaluation)
        else:
            measured = _merged(_parts_folder(kept), request.question, mine, work(mine, shown.evaluation))
    if measured is None:
        return
    measured = with_command(measured, request.command)
    print(measured)
    for target in (json, None if folder is None else folder.result(evaluation_name(measured))):
        if target is not None:
            measured.save(target)
            print(f"written: {target}")
    if kept is not None:
        _clear(kept, request.question, workers if mine.of == 1 else mine.of)


def _measure(request: Request, kept: Path | None, save_seconds: float, shard: Shard, told: Progress) -> Evaluation:
    """Open what the request names, in this process, and evaluate one shard of it."""
    subject = request.source.open()
    return measure(
        subject.network,
        subject.images,
        _attacks(request, subject.threat),
        n=request.n,
        batch_size=request.batch_size,
        seed=request.seed,
        device=place(request.device).device,
        precision=cast("Precision", one_of("--precision", request.precision, ("float32", "bf16"))),
        compile=request.compiled,
        name=subject.name,
        dense_weights=subject.dense_weights,
        progress=told,
        partial=None if kept is None else _part(kept, shard),
        save_seconds=save_seconds,
        keep_partial=True,
        shard=shard,
    )


def _attacks(request: Request, own: ThreatModel | None) -> list[Attack]:
    given = read_options(request.options)
    attacks = [build_attack(request.attack, threat, **given) for threat in _threats(request, own)]
    source = request.source.open_twin()
    return attacks if source is None else [Transfer(attack=each, source=source) for each in attacks]


def _threats(request: Request, own: ThreatModel | None) -> list[ThreatModel]:
    text = request.threat
    if text is None:
        return threats(request.eps, request.norm, own)
    if (request.eps, request.norm) != (None, None):
        raise ConfigError(
            "--threat", expected="no --eps and --norm beside it", got=text, remedy="write both in one, as linf:8/255"
        )
    return [ThreatModel.parse(text)]


def _part(kept: Path, shard: Shard) -> Path:
    return kept if shard.of == 1 else kept / shard.label


def _files(kept: Path, question: str, count: int) -> list[Path]:
    """Return where each of so many shards lays down what it measured; those of another question are no part of it."""
    return [kept / f"part-{rank}-of-{count}-{question}.json" for rank in range(count)]


def _clear(kept: Path, question: str, count: int) -> None:
    """Remove what so many shards left, now that the result is written."""
    for path in _files(kept, question, count):
        path.unlink(missing_ok=True)
    for rank in range(count):
        forget(_part(kept, Shard(rank, count)))
    forget(kept)


def _parts_folder(kept: Path | None) -> Path:
    if kept is not None:
        return kept
    raise ConfigError(
        "--shard", expected="a folder that all shards see", got="none", remedy="write --partial FOLDER, or --json FILE"
    )


def _merged(kept: Path, question: str, shard: Shard, part: Evaluation) -> Evaluation | None:
    """Lay down this shard's part; return the merged evaluation where it was the last one missing, else None."""
    paths = _files(kept, question, shard.of)
    part.save(paths[shard.rank])
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        print(f"shard {shard} is done; missing: {', '.join(missing)}")
        return None
    return merge([records.read(Evaluation, path) for path in paths])
