"""How good is a trial? Its objectives, read from its run folder, where none is of the test set."""

import tempfile
from pathlib import Path

import torch

from gossamer.deploy.bench import Plan, bench
from gossamer.deploy.bench_record import read_bench
from gossamer.deploy.contestants import of_file
from gossamer.deploy.export import export
from gossamer.errors import RunError
from gossamer.kernels.build import compiler
from gossamer.recipe.build import build_threat
from gossamer.recipe.open import open_run
from gossamer.recipe.schema import Recipe
from gossamer.recipe.train import result_name
from gossamer.runs import RunFolder, results
from gossamer.sweep.search.spec import Search

LATENCY = "latency.json"
ROUNDS = 10


def needs_timing(search: Search, run: RunFolder) -> bool:
    """Tell whether a trained run has yet to be timed."""
    return "latency" in search.measures and not (run.artifacts / LATENCY).exists()


def check_timing(search: Search) -> None:
    """Raise ConfigError where latency is wanted and this machine has no C compiler."""
    if "latency" in search.measures:
        compiler("objective latency")


def time_run(run: RunFolder, data_dir: Path | None) -> None:
    """Time a run's network as the C file that it exports to, one image at a time on one thread, and keep the record.

    A stochastic network is timed as its noise-free twin, which is what ships. Raises ConfigError for a network that C
    cannot express, RunError where the file system refuses.
    """
    opened = open_run(run.path, data_dir)
    images = opened.part("held_out")
    example = images.float(torch.arange(min(2, len(images))))
    with tempfile.TemporaryDirectory(prefix="gossamer-") as folder:
        written = export(opened.twin(), example, "c", Path(folder) / "network.c")
        plan = Plan(batches=(1,), threads=(1,), rounds=ROUNDS, loading=False, fresh=False)
        # It was written here and now, by this process.
        measured = bench([of_file(written.path, trust=True, network=None)], images, plan, network=None)
    measured.save(run.artifacts / LATENCY)


def values_of(search: Search, recipe: Recipe, run: RunFolder) -> list[float]:
    """Return the objectives of a finished run, in order; raises RunError where it lacks one."""
    (judged,) = recipe.evaluation
    evaluation = results.read_evaluation(run.result(result_name(judged, build_threat(recipe))))
    if evaluation.dataset.part != "held_out":
        raise RunError(
            f"{run.path}",
            expected="an evaluation of the held-out split",
            got=f"one of {evaluation.dataset.part}",
            remedy="remove the run, and search again",
        )
    totals = results.read_network(run).totals
    found: dict[str, float] = {
        "clean": evaluation.clean_accuracy,
        "robust": evaluation.robust_accuracy,
        "nonzeros": evaluation.nonzero,
        "density": evaluation.density,
        "multiply_adds": totals.kept_multiply_adds,
    }
    if "latency" in search.measures:
        (timing,) = read_bench(run.artifacts / LATENCY).timings
        found["latency"] = timing.median
    return [float(found[measure]) for measure in search.measures]
