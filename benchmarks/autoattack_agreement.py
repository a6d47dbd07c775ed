"""Does standard AutoAttack find what the authors' release finds? Both attack one network, with several seeds each.

Everything already attacked is kept in a folder, chunk by chunk, so that the hours this takes survive a kill.
"""

import argparse
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import record
from gossamer.evaluation import evaluate, wilson
from gossamer.evaluation.subject import at_rest
from gossamer.recipe.open import open_run
from gossamer.runs import atomic
from gossamer.threat import ThreatModel

OURS, REFERENCE = "gossamer", "pyautoattack"

Flags = list[bool]
Contestant = Callable[[Tensor, Tensor, int], Flags]


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack what is not attacked yet, write results/autoattack-agreement-NAME.json and print its path."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    load = os.getloadavg()
    run = open_run(options.run, options.data_dir)
    model, test = run.model(), run.part("test")
    x, y = test.float(torch.arange(options.n)), test.labels[: options.n]
    with at_rest(model):
        clean = _right(model, x, y).tolist()
    contestants: dict[str, Contestant] = {
        REFERENCE: partial(_reference, model, run.threat, options.batch),
        OURS: partial(_ours, model, run.threat, options.batch),
    }
    kept = options.kept / f"{run.folder.name}-{_fingerprint(model, x, options.chunk)}"
    seeds = {REFERENCE: options.reference_seeds, OURS: options.our_seeds}
    robust = {
        name: [_attacked(contestants[name], x, y, kept / f"{name}-{seed}", seed, options.chunk) for seed in seeds[name]]
        for name in contestants
    }
    print(record.write(_result(run.folder.name, str(run.threat), clean, robust, options), load=load))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--data-dir", type=Path, help="where the data lie; by default $GOSSAMER_DATA")
    parser.add_argument("--kept", type=Path, default=Path("runs/agreement"), help="where what is done is kept")
    parser.add_argument("--n", type=int, default=1000, help="the first n test images (default 1000)")
    parser.add_argument("--reference-seeds", type=int, nargs="*", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--our-seeds", type=int, nargs="*", default=[0], help="default: 0")
    parser.add_argument("--chunk", type=int, default=250, help="images attacked between two savings (default 250)")
    parser.add_argument("--batch", type=int, default=125, help="images a batch (default 125)")
    parser.add_argument("--threads", type=int, default=record.cores(), help="default: every core")
    return parser.parse_args(arguments)


def _fingerprint(model: nn.Module, x: Tensor, chunk: int) -> str:
    """Return what tells these weights, images and chunks from others, so that none are taken for them."""
    digest = hashlib.sha256(str(chunk).encode())
    for tensor in (x, *model.state_dict().values()):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _attacked(contestant: Contestant, x: Tensor, y: Tensor, folder: Path, seed: int, chunk: int) -> Flags:
    folder.mkdir(parents=True, exist_ok=True)
    flags: Flags = []
    for begin in range(0, len(y), chunk):
        path = folder / f"{begin}-{min(begin + chunk, len(y))}.json"
        if not path.exists():
            began = time.perf_counter()
            found = contestant(x[begin : begin + chunk], y[begin : begin + chunk], seed)
            atomic.write_json(path, {"robust": found, "seconds": time.perf_counter() - began})
        flags += json.loads(path.read_text(encoding="utf-8"))["robust"]
        print(f"{folder.name}: {sum(flags)} of {len(flags)} robust", flush=True)
    return flags


def _ours(model: nn.Module, threat: ThreatModel, batch: int, x: Tensor, y: Tensor, seed: int) -> Flags:
    made = evaluate(model, (x, y), "autoattack", threat=threat, batch_size=batch, seed=seed)
    return [bool(flag) for flag in made.attacks[0].robust]


def _reference(model: nn.Module, threat: ThreatModel, batch: int, x: Tensor, y: Tensor, seed: int) -> Flags:
    from pyautoattack import AutoAttack  # noqa: PLC0415

    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[threat.norm]
    attack = AutoAttack(model, norm=norm, eps=threat.eps, version="standard", seed=seed, device="cpu")
    with at_rest(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = attack.run_standard_evaluation(x, y, batch_size=batch)
        x_adv = found[0] if isinstance(found, tuple) else found
        return (_right(model, x_adv, y) & _right(model, x, y)).tolist()


@torch.no_grad()
def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([model(part) for part in x.split(250)]).argmax(dim=1) == y


def _result(
    name: str, threat: str, clean: Flags, robust: dict[str, list[Flags]], options: argparse.Namespace
) -> record.Result:
    counts = {by: [sum(flags) for flags in runs] for by, runs in robust.items()}
    n = len(clean)
    return record.Result(
        name=f"autoattack-agreement-{name}",
        title=f"Standard AutoAttack on {name}: ours beside the authors' release",
        rounds=len(options.reference_seeds),
        claims=_claims(counts, n) if counts[OURS] and counts[REFERENCE] else [],
        tables=[
            record.Table(
                caption=f"{threat}, the first {n} test images, clean accuracy {sum(clean) / n:.3f}",
                columns=["by", "seed", "robust accuracy", "n", "samples unlike the first seed of the first"],
                rows=_rows(robust, {REFERENCE: options.reference_seeds, OURS: options.our_seeds}, n),
            )
        ],
        details={"clean": clean, "robust": robust},
        packages=[REFERENCE],
        threads=options.threads,
    )


def _claims(counts: dict[str, list[int]], n: int) -> list[record.Claim]:
    seeds = len(counts[REFERENCE])
    ours = counts[OURS][0] / n
    what = f"robust accuracy by ours (one seed), n = {n}, beside the {{}} of {seeds} seeds of {REFERENCE}"
    low, high = min(counts[REFERENCE]) / n, max(counts[REFERENCE]) / n
    return [
        record.Claim(what=what.format("lowest"), measured=ours, goal=low),
        record.Claim(what=what.format("highest"), measured=ours, goal=high, sense="at most"),
    ]


def _rows(robust: dict[str, list[Flags]], seeds: dict[str, list[int]], n: int) -> list[list[record.Cell]]:
    first = next(runs[0] for runs in robust.values() if runs)
    rows: list[list[record.Cell]] = []
    for by, runs in robust.items():
        for seed, flags in zip(seeds[by], runs, strict=True):
            low, high = wilson(sum(flags), n)
            differ = sum(a != b for a, b in zip(flags, first, strict=True))
            rows.append([by, seed, f"{sum(flags) / n:.3f} [{low:.3f}, {high:.3f}]", n, differ])
    return rows


if __name__ == "__main__":
    main()
