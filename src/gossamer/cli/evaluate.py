"""`gossamer evaluate`: attack a run, or a model of one's own, and write what was measured."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from torch import nn

from gossamer.attacks.registry import build as build_attack
from gossamer.attacks.transfer import Transfer
from gossamer.cli.subjects import choose_one, own_data, own_model, read_options
from gossamer.data import DataSet
from gossamer.errors import ConfigError
from gossamer.evaluation.adapters import Outputs, as_module
from gossamer.evaluation.evaluate import Evaluation
from gossamer.evaluation.evaluate import evaluate as measure
from gossamer.evaluation.onnx_model import OnnxModel
from gossamer.evaluation.plan import digest
from gossamer.evaluation.shards import Shard, merge
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.workers import evaluate_in_processes
from gossamer.recipe.open import OpenRun, open_run
from gossamer.recipe.train import evaluation_name
from gossamer.runs import RunFolder, records
from gossamer.threat import ThreatModel, parse_eps
from gossamer.training.devices import place
from gossamer.training.progress import progress
from gossamer.types import Attack, Precision


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for on the command line, in plain values that can be sent to another process."""

    run: Path | None
    attack: str
    threat: str | None
    eps: str | None
    norm: str | None
    n: int | None
    options: tuple[str, ...]
    part: str
    model: str | None
    weights: Path | None
    outputs: str
    twin: str | None
    twin_weights: Path | None
    data: str | None
    data_options: tuple[str, ...]
    data_dir: Path | None
    batch_size: int | None
    seed: int
    device: str
    precision: str
    compiled: bool

    @property
    def file(self) -> Path | None:
        """The .onnx file to evaluate, where that is what the argument names."""
        return self.run if self.run is not None and self.run.suffix == ".onnx" else None

    def open_run(self) -> OpenRun | None:
        """Return the run, where it is one that is evaluated."""
        return open_run(self.run, self.data_dir) if self.run is not None and self.file is None else None


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="a run folder or .onnx file; leave out with --model")] = None,
    attack: Annotated[
        str, typer.Option(help="an attack (`gossamer list attacks`) or package.module:factory")
    ] = "pgd-50-10",
    threat: Annotated[str | None, typer.Option(help="norm and radius as linf:8/255; by default the run's own")] = None,
    eps: Annotated[
        str | None, typer.Option(help="radius such as 8/255, or several with commas; by default the run's own")
    ] = None,
    norm: Annotated[str | None, typer.Option(help="linf, l2 or l1; by default the run's own, else linf")] = None,
    n: Annotated[int | None, typer.Option("--n", help="how many samples; all if left out")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="an option of the attack, as steps=20; repeatable")
    ] = None,
    part: Annotated[str, typer.Option(help="test, train or held_out")] = "test",
    model: Annotated[str | None, typer.Option(help="package.module:factory of your own model")] = None,
    weights: Annotated[Path | None, typer.Option(help="safetensors file for --model")] = None,
    outputs: Annotated[str, typer.Option(help="what --model or the file gives: logits or probabilities")] = "logits",
    twin: Annotated[
        str | None, typer.Option(help="package.module:factory of a network on which the attack seeks its points")
    ] = None,
    twin_weights: Annotated[Path | None, typer.Option(help="safetensors file for --twin")] = None,
    data: Annotated[str | None, typer.Option(help="data set, where no run names it (`gossamer list datasets`)")] = None,
    data_option: Annotated[
        list[str] | None, typer.Option(help="an option of --data, as image_size=32; repeatable")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="where data sets lie; by default $GOSSAMER_DATA")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images at a time; found automatically if left out")] = None,
    seed: Annotated[int, typer.Option(help="seed of the attack's draws")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto")] = "auto",
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
    partial_folder: Annotated[
        Path | None, typer.Option("--partial", help="where partial results are kept until the end")
    ] = None,
    save_seconds: Annotated[float, typer.Option(help="how often partial results are saved")] = 30.0,
    json: Annotated[Path | None, typer.Option(help="where to write the result")] = None,
) -> None:
    """Measure clean and robust accuracy; with a run, the result is kept in its folder too.

    Killed, the same command goes on where it stopped: partial results lie in the run's folder, or beside --json.
    """
    choose_one(run, model)
    request = Request(
        run=run,
        attack=attack,
        threat=threat,
        eps=eps,
        norm=norm,
        n=n,
        options=tuple(option or ()),
        part=part,
        model=model,
        weights=weights,
        outputs=outputs,
        twin=twin,
        twin_weights=twin_weights,
        data=data,
        data_options=tuple(data_option or ()),
        data_dir=data_dir,
        batch_size=batch_size,
        seed=seed,
        device=device,
        precision=precision,
        compiled=compiled,
    )
    folder = None if run is None or request.file is not None else RunFolder.open(run)
    kept = partial_folder or _beside(folder, json, request)
    work = partial(_measure, request, kept, save_seconds)
    mine = Shard.of_process() if shard is None else Shard.parse(shard)
    with progress() as shown:
        if mine.of == 1:
            measured = evaluate_in_processes(work, workers, shown.evaluation)
        else:
            measured = _merged(_parts_folder(kept), mine, work(mine, shown.evaluation))
    if measured is None:
        return
    _remove_if_empty(kept)
    print(measured)
    if json is not None:
        _save(measured, json)
    if folder is not None:
        _save(measured, folder.result(evaluation_name(measured)))


def _measure(request: Request, kept: Path | None, save_seconds: float, shard: Shard, told: Progress) -> Evaluation:
    """Open what the request names, in this process, and evaluate one shard of it."""
    network, images, name, own = _subject(request)
    attacks = _attacks(request, own)
    return measure(
        network,
        images,
        attacks,
        n=request.n,
        batch_size=request.batch_size,
        seed=request.seed,
        device=place(request.device).device,
        precision=cast("Precision", _one_of("--precision", request.precision, ("float32", "bf16"))),
        compile=request.compiled,
        name=name,
        progress=told,
        partial=None if kept is None else _part(kept, shard),
        save_seconds=save_seconds,
        shard=shard,
    )


def _subject(request: Request) -> tuple[nn.Module, DataSet, str, ThreatModel | None]:
    """Return the network, the images, what results call it, and the threat it was trained for."""
    opened = request.open_run()
    if opened is not None:
        return opened.model().eval(), opened.part(request.part), opened.folder.name, opened.threat
    images = own_data(
        request.data, request.part, request.data_dir, read_options(list(request.data_options), "--data-option")
    )
    file = request.file
    own = OnnxModel(file) if file is not None else own_model(str(request.model), request.weights)
    outputs = cast("Outputs", _one_of("--outputs", request.outputs, ("logits", "probabilities")))
    return as_module(own, outputs=outputs).eval(), images, str(file or request.model), None


def _attacks(request: Request, own: ThreatModel | None) -> list[Attack]:
    options = read_options(list(request.options))
    threats = _threats(request.threat, request.eps, request.norm, own)
    attacks = [build_attack(request.attack, threat, **options) for threat in threats]
    if request.twin is None:
        return attacks
    source = as_module(own_model(request.twin, request.twin_weights, "--twin-weights")).eval()
    return [Transfer(attack=each, source=source) for each in attacks]


def _beside(folder: RunFolder | None, json: Path | None, request: Request) -> Path | None:
    """Return where partial results are kept: in the run's folder, else beside the result; None without either."""
    if folder is not None:
        asked = {key: str(value) for key, value in vars(request).items() if key not in ("run", "data_dir")}
        return folder.partial / f"evaluate-{digest(asked)}"
    return None if json is None else json.with_name(f"{json.name}.partial")


def _part(kept: Path, shard: Shard) -> Path:
    return kept if shard.of == 1 else kept / f"shard-{shard.rank}-of-{shard.of}"


def _parts_folder(kept: Path | None) -> Path:
    if kept is not None:
        return kept
    raise ConfigError(
        "--shard", expected="a folder that all shards see", got="none", remedy="write --partial FOLDER, or --json FILE"
    )


def _merged(kept: Path, shard: Shard, part: Evaluation) -> Evaluation | None:
    """Lay down this shard's part; return the merged evaluation where it was the last one missing, else None."""
    paths = [kept / f"part-{rank}-of-{shard.of}.json" for rank in range(shard.of)]
    part.save(paths[shard.rank])
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        print(f"shard {shard} is done; missing: {', '.join(missing)}")
        return None
    measured = merge([records.read(Evaluation, path) for path in paths])
    for path in paths:
        path.unlink(missing_ok=True)
    return measured


def _remove_if_empty(kept: Path | None) -> None:
    if kept is not None and kept.is_dir() and not any(kept.iterdir()):
        kept.rmdir()


def _save(measured: Evaluation, path: Path) -> None:
    measured.save(path)
    print(f"written: {path}")


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> str:
    if value in known:
        return value
    raise ConfigError(flag, expected=" or ".join(known), got=repr(value), remedy="check its spelling")


def _threats(text: str | None, eps: str | None, norm: str | None, own: ThreatModel | None) -> list[ThreatModel]:
    if text is not None and (eps, norm) != (None, None):
        raise ConfigError(
            "--threat", expected="no --eps and --norm beside it", got=text, remedy="write both in one, as linf:8/255"
        )
    if text is not None:
        return [ThreatModel.parse(text)]
    if eps is None and own is None:
        raise ConfigError("--eps", expected="a radius", got="none", remedy="write --eps 8/255")
    chosen: Any = norm or (own.norm if own else "linf")
    if eps is None:
        assert own is not None
        if chosen != own.norm:
            raise ConfigError("--eps", expected=f"a radius in {chosen}", got="none", remedy="write --eps 0.5, say")
        return [own]
    return [ThreatModel(chosen, parse_eps(each.strip())) for each in eps.split(",")]
