"""`gossamer audit`: can the robust accuracy of a run, of an artifact or of a model of one's own be trusted?"""

from typing import Annotated

import typer

from gossamer.cli import options
from gossamer.cli.keeping import command_of, partial_folder, with_command
from gossamer.cli.subjects import Source
from gossamer.errors import ConfigError
from gossamer.evaluation.audit import audit as examine
from gossamer.evaluation.ledger import forget
from gossamer.threat import ThreatModel
from gossamer.training.devices import place
from gossamer.training.progress import progress


def audit(
    run: options.Run = None,
    threat: options.Threat = None,
    n: Annotated[int, typer.Option("--n", help="how many samples, at least 30")] = 200,
    budget: Annotated[str, typer.Option(help="how hard to try: quick, standard or thorough")] = "standard",
    layer: Annotated[
        list[str] | None, typer.Option(help="a layer to be passed as if it were the identity; repeatable")
    ] = None,
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
    partial: options.PartialFolder = None,
    save_seconds: options.SaveSeconds = 30.0,
    json: options.Json = None,
) -> None:
    """Look for signs that a robust accuracy is overstated, settle each, and give a verdict: trust, doubt or reject.

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
    folder, subject = source.folder, source.open()
    judged_by = _threat(threat, subject.threat)
    layers = tuple(layer or ())
    asked = {"threat": judged_by, "n": n, "budget": budget, "layers": layers, "seed": seed}
    kept = partial or partial_folder("audit", vars(source) | asked, folder, json)
    with progress() as shown:
        found = examine(
            subject.network,
            subject.images,
            threat=judged_by,
            n=n,
            seed=seed,
            budget=budget,
            twin=source.open_twin(),
            layers=layers,
            batch_size=batch_size,
            device=place(device).device,
            name=subject.name,
            progress=shown.evaluation,
            partial=kept,
            save_seconds=save_seconds,
            keep_partial=True,
        )
    flags = {"--threat": judged_by, "--n": n, "--budget": budget, "--layer": layers, "--seed": seed}
    found = with_command(found, command_of(["gossamer", "audit", *source.words], flags | source.flags))
    print(found)
    for target in (json, None if folder is None else folder.result("audit")):
        if target is not None:
            found.save(target)
            print(f"written: {target}")
    if kept is not None:
        forget(kept)


def _threat(text: str | None, own: ThreatModel | None) -> ThreatModel:
    if text is not None:
        return ThreatModel.parse(text)
    if own is None:
        raise ConfigError("--threat", expected="norm and radius", got="none", remedy="write --threat linf:8/255")
    return own
