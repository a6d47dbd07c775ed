"""How long does one PGD-10 adversarial training step take, beside the same step written with other libraries?

Contestants take turns within one process per network, from the same weights, on the same images, in an order that
changes every round. Ratios are formed within a round, so that a machine that slows down slows both sides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import contestants
import record
from agreement import agreement
from contestants import CONTESTANTS, Contestant, Part, Setting

GOALS = {"gossamer": 1.3, "gossamer-compiled": 1.6, "gossamer-train": 1.1}
NETWORKS = ("resnet18", "resnet20")
# Milliseconds an image for one gradient with respect to the input, measured on 2 cores before any of this was built.
EARLIER_MS = {
    "resnet18": {"torchattacks": 18.7, "gossamer": 13.5, "gossamer-compiled": 9.9},
    "resnet20": {"torchattacks": 2.95, "gossamer": 1.90, "gossamer-compiled": 1.77},
}
GRADIENT = "input gradient"

Seconds = dict[str, list[float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each network, write results/adversarial-step-NETWORK.json and print its path."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    for network in options.networks:
        setting = Setting(network=network, batch=options.batch, steps=options.steps, threads=options.threads)
        if options.peak:
            print(json.dumps(peak_memory(options.peak, setting)))
            continue
        load = os.getloadavg()
        result = measure(setting, options.contestants, options.rounds, options.check_batch)
        print(record.write(result, options.out, load=load))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="times that each contestant steps (default 7)")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NETWORK", help="default: both residual")
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--batch", type=int, default=128, help="images a step (default 128)")
    parser.add_argument("--steps", type=int, default=10, help="steps of PGD (default 10)")
    parser.add_argument("--check-batch", type=int, default=16, help="images for the check of agreement (default 16)")
    parser.add_argument("--threads", type=int, default=record.cores(), help="default: every core")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the JSON files")
    parser.add_argument("--peak", choices=list(CONTESTANTS), help="take one step, print this process's peak memory")
    return parser.parse_args(arguments)


def measure(setting: Setting, names: Sequence[str], rounds: int, check_batch: int) -> record.Result:
    """Return everything that is measured of one network."""
    agreed = agreement(names, replace(setting, batch=check_batch, random_start=False))
    weights = contestants.initial_weights(setting)
    taking_part = {name: contestants.make(name, weights, setting) for name in names}
    x, y = contestants.images(setting.batch)
    warm_up(taking_part, weights, x, y)
    predicted = predict(taking_part, setting, x, y)
    steps, parts = race(taking_part, weights, rounds, x, y)
    peaks = {name: _in_fresh_process(name, setting) for name in names}
    explained = explain(taking_part, steps, parts)
    compared = ratios(steps)
    return record.Result(
        name=f"adversarial-step-{setting.network}",
        title=f"One PGD-{setting.steps} adversarial training step, {setting.network}, batch {setting.batch}",
        rounds=rounds,
        claims=[_claim(name, setting, value) for name, value in compared.items()],
        tables=[
            _contestants_table(steps, peaks, compared, setting),
            _explained_table(explained, predicted),
            _agreement_table(agreed),
        ],
        details={
            "setting": asdict(setting),
            "contestants": {name: CONTESTANTS[name].summary for name in names},
            "seconds": steps,
            "part_seconds": parts,
            "ratios": compared,
            "peak_memory_mib": peaks,
            "prediction": predicted,
            "explained": explained,
            "agreement": agreed,
        },
        packages=_packages(names),
        threads=setting.threads,
    )


def warm_up(taking_part: Mapping[str, Contestant], weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> None:
    """Let everyone step once and do each part once: memory is claimed, graphs are compiled, nothing is timed."""
    for one in taking_part.values():
        one.model.load_state_dict(dict(weights))
        one.step(x, y)
        for part in one.parts.values():
            part.work(x, y)


def predict(taking_part: Mapping[str, Contestant], setting: Setting, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Return each step's seconds as earlier timings of its input gradient foretell them, before steps are timed.

    The rest of the step (loss, optimiser, refresh) is timed here, twice, the shorter counting.
    """
    earlier = EARLIER_MS.get(setting.network, {})
    seconds: dict[str, float] = {}
    for name, milliseconds in earlier.items():
        if name not in taking_part:
            continue
        rest = sum(
            part.count * min(_seconds(part, x, y) for _ in range(2))
            for label, part in taking_part[name].parts.items()
            if label != GRADIENT
        )
        seconds[name] = setting.steps * setting.batch * milliseconds / 1000 + rest
    plain = seconds.get("torchattacks")
    faster = {name: plain / value for name, value in seconds.items() if plain is not None and name != "torchattacks"}
    return {"input_gradient_ms_per_image": earlier, "seconds": seconds, "ratios": faster}


def race(
    taking_part: Mapping[str, Contestant], weights: Mapping[str, Tensor], rounds: int, x: Tensor, y: Tensor
) -> tuple[Seconds, dict[str, Seconds]]:
    """Return seconds a step by contestant, and seconds a part by contestant and part, one of each a round."""
    names = list(taking_part)
    steps: Seconds = {name: [] for name in names}
    parts: dict[str, Seconds] = {name: {part: [] for part in one.parts} for name, one in taking_part.items()}
    for number in range(rounds):
        for name in _rotated(names, number):
            one = taking_part[name]
            one.model.load_state_dict(dict(weights))
            steps[name].append(_seconds(Part(count=1, work=one.step), x, y))
        for name in _rotated(names, number):
            for label, part in taking_part[name].parts.items():
                parts[name][label].append(_seconds(part, x, y))
    return steps, parts


def ratios(steps: Seconds) -> dict[str, dict[str, Any]]:
    """Return how many times as fast we are as the faster peer that attacks in the same mode, round by round."""
    found: dict[str, dict[str, Any]] = {}
    for name in steps:
        if not name.startswith("gossamer"):
            continue
        peers = [peer for peer in steps if CONTESTANTS[peer].peer and CONTESTANTS[peer].mode == CONTESTANTS[name].mode]
        if not peers:
            continue
        fastest = min(peers, key=lambda peer: statistics.median(steps[peer]))
        each = [theirs / ours for theirs, ours in zip(steps[fastest], steps[name], strict=True)]
        found[name] = {"to": fastest, **record.spread(each)}
    return found


def explain(
    taking_part: Mapping[str, Contestant], steps: Seconds, parts: Mapping[str, Seconds]
) -> dict[str, dict[str, Any]]:
    """Return, for each contestant, its step as the sum of its parts and what is left; medians, in seconds."""
    found: dict[str, dict[str, Any]] = {}
    for name, one in taking_part.items():
        each = {label: statistics.median(parts[name][label]) for label in one.parts}
        total = sum(part.count * each[label] for label, part in one.parts.items())
        whole = statistics.median(steps[name])
        found[name] = {
            "parts": {label: {"count": part.count, "seconds": each[label]} for label, part in one.parts.items()},
            "sum": total,
            "step": whole,
            "left": whole - total,
        }
    return found


def peak_memory(name: str, setting: Setting) -> dict[str, float]:
    """Return this process's peak resident memory in MiB, before and after its first step (compiling included)."""
    one = contestants.make(name, contestants.initial_weights(replace(setting, batch=2)), setting)
    x, y = contestants.images(setting.batch)
    before = record.peak_mib()
    one.step(x, y)
    return {"before": before, "peak": record.peak_mib()}


def _in_fresh_process(name: str, setting: Setting) -> dict[str, float]:
    command = [sys.executable, __file__, "--peak", name, "--networks", setting.network]
    numbers = [f"--{key}={value}" for key, value in asdict(setting).items() if key in ("batch", "steps", "threads")]
    done = subprocess.run([*command, *numbers], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _seconds(part: Part, x: Tensor, y: Tensor) -> float:
    began = time.perf_counter()
    part.work(x, y)
    return time.perf_counter() - began


def _rotated(names: Sequence[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def _packages(names: Sequence[str]) -> list[str]:
    wanted = {"torchattacks": "torchattacks", "art": "adversarial-robustness-toolbox"}
    return [package for prefix, package in wanted.items() if any(name.startswith(prefix) for name in names)]


def _claim(name: str, setting: Setting, value: Mapping[str, Any]) -> record.Claim:
    return record.Claim(
        what=f"{name} on {setting.network}: times as fast as {value['to']}, median of rounds",
        measured=value["median"],
        unit="times",
        goal=GOALS.get(name),
    )


def _contestants_table(
    steps: Seconds, peaks: Mapping[str, Mapping[str, float]], compared: Mapping[str, Any], setting: Setting
) -> record.Table:
    rows: list[list[record.Cell]] = []
    for name, seconds in steps.items():
        ratio = compared.get(name)
        shown = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else None
        rows.append(
            [
                name,
                CONTESTANTS[name].mode,
                statistics.median(seconds),
                min(seconds),
                setting.batch / statistics.median(seconds),
                shown,
                peaks[name]["peak"],
                peaks[name]["peak"] - peaks[name]["before"],
            ]
        )
    return record.Table(
        caption="Seconds a step, and how many times as fast as the faster peer of the same mode (range over rounds)",
        columns=[
            "Contestant",
            "Attack mode",
            "Median s",
            "Least s",
            "Images/s",
            "Times as fast",
            "Peak MiB",
            "of it in the step",
        ],
        rows=rows,
    )


def _explained_table(explained: Mapping[str, Any], predicted: Mapping[str, Any]) -> record.Table:
    rows: list[list[record.Cell]] = []
    for name, value in explained.items():
        parts = ", ".join(f"{part['count']} x {label} {part['seconds']:.3g}" for label, part in value["parts"].items())
        rows.append([name, predicted["seconds"].get(name), value["step"], value["sum"], value["left"], parts])
    return record.Table(
        caption="Where the step's seconds go: foretold from earlier timings, measured, and the sum of measured parts",
        columns=["Contestant", "Foretold s", "Measured s", "Sum of parts s", "Left s", "Parts, seconds each"],
        rows=rows,
    )


def _agreement_table(agreed: Mapping[str, Mapping[str, Any]]) -> record.Table:
    columns = {
        "with": "Beside",
        "adversarial_loss": "Adversarial loss",
        "robust_accuracy": "Accuracy",
        "equal_pixels": "Equal pixels",
        "weights_float32": "Weights apart, float32",
        "weights_float64": "float64",
        "agrees": "Agrees",
    }
    return record.Table(
        caption="The same numbers? From shared weights, without random starts: one attack, then one step",
        columns=["Contestant", *columns.values()],
        rows=[[name, *(value[column] for column in columns)] for name, value in agreed.items()],
    )


if __name__ == "__main__":
    main()
