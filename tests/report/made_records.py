"""An audit and every protocol's record, made up by hand: what a report must show of each."""

from dataclasses import replace

from gossamer.deploy.bench_record import BenchRecord, Entry, Timing
from gossamer.deploy.device import Device
from gossamer.intervals import mcnemar, paired_difference, wilson
from gossamer.runs import protocols, results
from gossamer.runs.audits import Audit, AuditedAttack, Measurement, Sign

N = 1000
EPS = 8 / 255
THREAT = "linf:8/255"
DATASET = results.Dataset(name="cifar10", part="test", checksum="c0ffee", selection="1000 of 10000 by class", n=N)
PGD = {"type": "gossamer.attacks.pgd.PGD", "threat": THREAT, "steps": 50, "restarts": 10}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def share(count, n=N):
    return protocols.Share(value=count / n, interval=wilson(count, n), n=n)


def environment(name):
    return {"device": "cpu", "command": f"gossamer protocol {name} runs/sparse --n 1000"}


def model(name, density=1.0, weights=1_000_000):
    nonzero = round(density * weights)
    return results.EvaluatedModel(name=name, weights=weights, nonzero=nonzero, density=nonzero / weights)


def effort():
    steps, restarts = (10, 50, 500), (1, 10)

    def row(name, start):
        left = {(s, r): round(start - 12 * i - 6 * j) for i, s in enumerate(steps) for j, r in enumerate(restarts)}
        points = tuple(
            protocols.EffortPoint(
                steps=s,
                restarts=r,
                raw=share(left[s, r] + 3),
                cumulative=share(left[s, r]),
                robust=(1,) * (left[s, r] + 3) + (0,) * (N - left[s, r] - 3),
            )
            for r in restarts
            for s in steps
        )
        return protocols.EffortRow(model=model(name), clean=share(812), points=points)

    return protocols.EffortTable(
        dataset=DATASET,
        seed=0,
        threat=THREAT,
        eps=EPS,
        attack={"type": "gossamer.attacks.pgd.PGD"},
        steps=steps,
        restarts=restarts,
        rows=(row("sparse", 470), row("dense", 521)),
        environment=environment("effort"),
    )


def transfer():
    kinds = {"dense": "resnet18", "sparse": "resnet18", "vgg-90": "vgg16", "natural": "vgg16"}
    left = {"dense": (700, 521), "sparse": (671, 470), "vgg-90": (640, 431), "natural": (120, 3)}
    models = tuple(
        protocols.MatrixModel(model=model(name), kind=kind, clean=share(812)) for name, kind in kinds.items()
    )
    names = list(kinds)
    accuracy = tuple(
        tuple(
            tuple(
                share(count if target == source else count + 90 * (1 + names.index(source))) for count in left[target]
            )
            for target in names
        )
        for source in names[:3]
    )
    danger = protocols.Danger(
        source="dense",
        target="sparse",
        eps=EPS,
        clean=0.812,
        transferred=0.56,
        white_box=0.47,
        share_of_damage=0.73,
        endangers=True,
        beats_white_box=False,
    )
    return protocols.TransferMatrix(
        dataset=DATASET,
        seed=0,
        norm="linf",
        eps=(4 / 255, EPS),
        attack=PGD,
        models=models,
        sources=(0, 1, 2),
        accuracy=accuracy,
        dangers=(danger,),
        sentences=(
            "At eps 4/255 no leaked model does half of the white box's damage to another beyond the intervals.",
            "At eps 8/255 a leaked dense brings sparse from 81.2% to 56.0% (own white box 47.0%).",
        ),
        examples=None,
        environment=environment("transfer"),
    )


def adversaries():
    kinds = ("natural", "pgd linf:8/255, 1 steps", "pgd linf:8/255, 7 steps")
    left = ((210, 40, 2, 0), (550, 402, 90, 11), (560, 521, 498, 487))
    return protocols.AdversaryMatrix(
        dataset=DATASET,
        seed=0,
        models=tuple(
            protocols.MatrixModel(model=model(f"m{i}"), kind=kind, clean=share(840 - 20 * i))
            for i, kind in enumerate(kinds)
        ),
        adversaries=tuple(
            protocols.TestAdversary(name=f"pgd-{count}", threat=THREAT, eps=EPS, parameters={"steps": count})
            for count in (1, 2, 4, 8)
        ),
        accuracy=tuple(tuple(share(count) for count in row) for row in left),
        environment=environment("adversaries"),
    )


def black_box():
    def row(name, queries):
        samples = tuple(
            protocols.Queried(index=i, success=i < len(queries), queries=(queries + [9000] * 200)[i], distance=None)
            for i in range(200)
        )
        return protocols.QueriedModel(
            name=name,
            asked=247,
            success=share(len(queries), 200),
            median_queries=queries[len(queries) // 2] if queries else None,
            mean_queries=sum(queries) / len(queries) if queries else None,
            samples=samples,
        )

    return protocols.BlackBoxTable(
        dataset=DATASET,
        seed=0,
        threat="l2:20",
        attack={"type": "gossamer.attacks.zoo.ZOO"},
        rows=(row("sparse", list(range(500, 8300, 60))), row("immune", [])),
        environment=environment("black-box"),
    )


def pruning():
    def row(name, density, kept):
        opinion = protocols.SecondOpinion(
            as_published=False,
            eps=EPS,
            robust=share(kept - 11, 500),
            not_found=2,
            index=tuple(range(500)),
            distance=(0.05,) * 500,
            settings={"steps": 200},
            trials=32,
            tuning_samples=64,
            tuned_to=0.04,
        )
        radii = tuple(
            protocols.AtRadius(threat=f"linf:{text}", eps=eps, robust=share(kept + extra))
            for text, eps, extra in (("0.031", 0.031, 7), ("8/255", EPS, 0))
        )
        return protocols.PrunedModel(
            model=model(name, density, 11_173_962),
            sparsity=1 - density,
            kept=model(name, density, 11_173_962).nonzero,
            clean=share(803),
            radii=radii,
            second_opinion=opinion if density < 1 else None,
        )

    return protocols.PruningBenchmark(
        dataset=DATASET,
        seed=0,
        attack={
            "name": "autoattack",
            "type": "gossamer.attacks.autoattack.AutoAttack",
            "version": "standard",
            "steps": 100,
        },
        rows=(row("dense", 1.0, 489), row("sparse-99", 0.01, 441)),
        environment=environment("pruning-benchmark"),
    )


def ensemble():
    member = protocols.Member(model=model("robust"), clean=share(803), robust=share(489), ensemble=share(702))
    other = protocols.Member(model=model("natural"), clean=share(941), robust=share(0), ensemble=share(688))
    return protocols.EnsembleTable(
        dataset=DATASET,
        seed=0,
        threat=THREAT,
        eps=EPS,
        attack=PGD,
        model=model("robust + natural", weights=2_000_000),
        parameters=2_034_567,
        clean=share(921),
        as_one=share(312),
        member_wise=share(655),
        flattery=0.343,
        members=(member, other),
        environment=environment("ensemble"),
    )


def stochastic():
    def spread(*values):
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
        return protocols.Spread(values=values, mean=mean, deviation=deviation)

    modes = (
        ("noise and EOT", True, 20, spread(0.401, 0.407, 0.411, 0.399, 0.404)),
        ("noise, one pass", True, 1, spread(0.552, 0.561, 0.544, 0.558, 0.549)),
        ("without noise", False, 1, spread(0.388, 0.388, 0.389, 0.388, 0.388)),
    )
    return protocols.StochasticTable(
        dataset=DATASET,
        seeds=(0, 1, 2, 3, 4),
        threat=THREAT,
        eps=EPS,
        attack=PGD,
        rows=(
            protocols.StochasticRow(
                model=model("noisy"),
                modes=tuple(
                    protocols.NoiseMode(
                        name=name, noise=noise, passes=passes, clean=spread(0.79, 0.8, 0.8), robust=robust
                    )
                    for name, noise, passes, robust in modes
                ),
            ),
        ),
        environment=environment("stochastic"),
    )


def corruptions():
    names = ("gaussian_noise", "shot_noise", "defocus_blur", "fog", "jpeg_compression", "spatter")
    found = tuple(
        protocols.Corruption(
            name=name,
            extra=name == "spatter",
            checksum="c0ffee",
            accuracy=tuple(share(7900 - 400 * i - 350 * severity, 10_000) for severity in range(5)),
        )
        for i, name in enumerate(names)
    )
    by_severity = tuple(sum(each.accuracy[s].value for each in found[:-1]) / 5 for s in range(5))
    rows = tuple(
        protocols.CorruptedModel(name=name, corruptions=found, by_severity=by_severity, mean=sum(by_severity) / 5)
        for name in ("sparse", "dense")
    )
    return protocols.CorruptionTable(
        folder="CIFAR-10-C", n=10_000, counted=5, rows=rows, environment=environment("corruptions")
    )


def classes():
    left = (61, 72, 31, 12, 28, 35, 55, 58, 66, 64)
    return protocols.ClassTable(
        run="sparse",
        attack="pgd-50-10",
        threat=THREAT,
        n=N,
        classes=tuple(
            protocols.ClassAccuracy(
                label=i, name=name, clean=share(min(100, count + 27), 100), robust=share(count, 100)
            )
            for i, (name, count) in enumerate(zip(CLASSES, left, strict=True))
        ),
        worst_clean="cat",
        worst_robust="cat",
    )


def matching(sparse="sparse", robust="falls short", threat=THREAT):
    def pair(sparse, parent, gained, lost, verdict):
        return protocols.PairedDifference(
            sparse=share(sparse, N),
            parent=share(parent, N),
            difference=(gained - lost) / N,
            interval=paired_difference(gained, lost, N),
            gained=gained,
            lost=lost,
            p_value=mcnemar(gained, lost),
            verdict=verdict,
        )

    return protocols.MatchingTable(
        dataset=DATASET,
        seed=0,
        threat=threat,
        attack=PGD,
        parent=model("dense"),
        rows=(
            protocols.MatchingRow(
                model=model(sparse),
                clean=pair(801, 795, 40, 34, "matches"),
                robust=pair(402, 471, 22, 91, robust),
            ),
        ),
        environment=environment("matching"),
    )


def smoothing():
    radii = (0.0, 0.25, 0.5, 0.75)
    left = (342, 251, 160, 71)
    samples = tuple(
        protocols.Certificate(index=i, label=0, prediction=None if i < 9 else 0, radius=0.0, lower=0.4)
        for i in range(500)
    )
    curve = tuple(
        protocols.CertifiedAt(radius=radius, accuracy=share(count, 500), guaranteed=count / 500 - 0.021)
        for radius, count in zip(radii, left, strict=True)
    )
    return protocols.SmoothingTable(
        dataset=replace(DATASET, n=500),
        seed=0,
        sigma=0.25,
        n0=100,
        n=100_000,
        alpha=0.001,
        confidence=0.999,
        rows=(protocols.SmoothedModel(name="smoothed", abstained=9, samples=samples, curve=curve),),
        environment=environment("smoothing"),
    )


def weights():
    layer = protocols.LayerWeights(
        name="conv1.weight",
        weights=72,
        nonzero=9,
        mean=0.01,
        deviation=0.125,
        magnitude=0.5,
        below=(63, 66),
        by_output=(9, 0),
        by_input=(4, 5, 0, 0),
        kernels=(6, 0, 0, 0, 1, 1, 0, 0, 0, 0),
        at_random=(2.4, 3.2, 1.6, 0.6, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0),
    )
    linear = replace(layer, name="fc.weight", kernels=None, at_random=None, magnitude=None)
    return protocols.WeightsTable(
        gammas=(0.001, 0.01),
        rows=(protocols.NetworkWeights(name="sparse", parameters=1_234, layers=(layer, linear)),),
        environment=environment("weights"),
    )


def latency():
    passes = (
        protocols.PassTime(batch=1, loaded=False, mean=0.0021, median=0.002, p95=0.003),
        protocols.PassTime(batch=100, loaded=True, mean=0.21, median=0.2, p95=0.3),
    )
    return protocols.LatencyTable(
        kind="c",
        device="toy processor",
        threads=1,
        rows=(protocols.TimedModel(name="sparse", density=0.125, bytes=4_096, passes=passes),),
        environment=environment("latency"),
    )


def audit(run="sparse", verdict="reject", settled=21, threat=THREAT):
    claimed, n = 94, 200
    black = Sign(
        name="black-box",
        fired=True,
        settled=False,
        says="Square breaks 44 of 94 samples that 40 steps of PGD left standing; stronger attacks break 73",
        measured=(Measurement(what="Square beats PGD", value=44 / n, count=44, n=n, interval=wilson(44, n)),),
        follow_ups=("bpda", "margin-pgd"),
        page="docs/audit/black-box.md",
    )
    noise = Sign(
        name="noise",
        fired=False,
        settled=None,
        says="random points break nothing that the gradient leaves",
        measured=(Measurement(what="median gap", value=3.25),),
        follow_ups=(),
        page="docs/audit/noise.md",
    )
    broken = (0,) * settled + (1,) * (claimed - settled) + (0,) * (n - claimed)
    attacks = tuple(
        AuditedAttack(
            attack=name,
            parameters={"type": "gossamer.attacks.pgd.PGD", "steps": 40, "loss": "margin"},
            threat=threat,
            eps=EPS,
            attacked=claimed,
            broken=broken,
        )
        for name in ("bpda", "margin-pgd")
    )
    return Audit(
        run=run,
        verdict=verdict,
        reason="73 of 200 samples stood under PGD and fell to another attack",
        dataset=replace(DATASET, n=n),
        n=n,
        seed=0,
        threat=threat,
        budget={
            "steps": 40,
            "more_steps": 200,
            "restarts": 5,
            "noise": 100,
            "queries": 1000,
            "passes": 16,
            "doublings": 2,
        },
        bounds={"reject": 0.1},
        judge="the model",
        clean_accuracy=162 / n,
        clean_interval=wilson(162, n),
        claimed_attack="PGD, 40 steps of 2.5 eps/n, 1 random start",
        claimed_robust_accuracy=claimed / n,
        claimed_interval=wilson(claimed, n),
        claimed_robust=(1,) * claimed + (0,) * (n - claimed),
        settled_robust_accuracy=settled / n,
        settled_interval=wilson(settled, n),
        settled_robust=(1,) * settled + (0,) * (n - settled),
        index=tuple(range(n)),
        signs=(noise, black),
        attacks=attacks,
        environment={},
    )


def autoattack(run):
    """An evaluation with stages: 812 right when clean, 470 robust in the end."""
    left = {"apgd-ce": 502, "apgd-t": 474, "fab-t": 473, "square": 470}
    before, stages = 812, []
    for name, count in left.items():
        stages.append(
            results.Stage(
                attack=name,
                parameters={},
                attacked=before,
                broken=before - count,
                robust_accuracy=count / N,
                seconds=61.0,
            )
        )
        before = count
    outcome = results.AttackOutcome(
        attack="autoattack",
        parameters={"version": "standard", "steps": 100, "queries": 5000, "eot": 20},
        threat=THREAT,
        norm="linf",
        eps=EPS,
        robust_accuracy=0.47,
        interval=wilson(470, N),
        n=N,
        seconds=244.0,
        robust=(1,) * 470 + (0,) * 530,
        rejected=0,
        borderline=2,
        stages=tuple(stages),
    )
    return results.Evaluation(
        run=run,
        dataset=DATASET,
        model=model(run),
        n=N,
        seed=0,
        clean_accuracy=0.812,
        clean_interval=wilson(812, N),
        robust_accuracy=0.47,
        interval=outcome.interval,
        attack="autoattack",
        attack_parameters=outcome.parameters,
        threat=THREAT,
        eps=EPS,
        density=1.0,
        nonzero=1_000_000,
        weights=1_000_000,
        seconds=250.0,
        batch_size=100,
        environment={},
        samples=results.Samples(
            index=tuple(range(N)),
            label=(0,) * N,
            clean_prediction=(0,) * 812 + (1,) * 188,
            clean_correct=(1,) * 812 + (0,) * 188,
        ),
        attacks=(outcome,),
    )


PROTOCOLS = {
    "effort": effort,
    "transfer": transfer,
    "adversaries": adversaries,
    "black-box": black_box,
    "pruning": pruning,
    "ensemble": ensemble,
    "stochastic": stochastic,
    "corruptions": corruptions,
    "matching": matching,
    "classes": classes,
    "certificates": smoothing,
    "weights": weights,
    "latency": latency,
}


def bench(milliseconds, device="toy processor", threads=1, densities=()):
    """A bench of artifacts by name, the median of one image in memory; an engine is faster than all.

    densities: of those artifacts of which they are known.
    """
    known = dict(densities)

    def timing(name, seconds, batch):
        return Timing(
            contestant=name,
            protocol="memory",
            batch=batch,
            threads=threads,
            calls=10,
            mean=seconds,
            median=seconds,
            p95=seconds,
            throughput=batch / seconds,
            rounds=(seconds,),
            against=None,
            speedups=None,
            speedup=None,
            joules=None,
        )

    def entry(name, kind):
        density = known.get(name)
        return Entry(name=name, kind=kind, bytes=None, density=density, start_up=None, peak=None, before=None)

    return BenchRecord(
        device=Device(
            name=device, cores=2, memory=None, system="toy", instructions="", versions={}, energy="not counted"
        ),
        runs_on="cpu",
        shape=(1, 8, 8),
        images="random",
        entries=(*(entry(name, "c") for name in milliseconds), entry("torch", "engine")),
        missing={},
        counts=None,
        timings=(
            *(timing(name, each / 1e3, 1) for name, each in milliseconds.items()),
            *(timing(name, each / 1e4, 16) for name, each in milliseconds.items()),
            timing("torch", min(milliseconds.values()) / 1e5, 1),
        ),
    )
