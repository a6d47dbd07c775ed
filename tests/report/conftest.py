"""Synthetic run folders: every number in them is made up, and written through the same code that real runs use."""

import math
import shutil

import pytest
import torch

from gossamer.runs import RunFolder, atomic, panel, results, status
from gossamer.runs.environment import environment
from gossamer.runs.metrics import MetricsLog

N = 360
CLASSES = ("zero", "one", "two")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1600",
)
RECIPE = """\
name: synthetic/toy
data: {name: synthetic-digits, held_out: 100}
model: {name: toy-net, width: 4}
threat: linf:0.15
objective: OBJECTIVE
method: {name: METHOD, density: DENSITY}
seed: SEED
"""


@pytest.fixture
def begun(tmp_path):
    """A function that makes a run with a recipe alone."""

    def make(name, method="dense", density=1.0, seed=7, objective="trades"):
        run = RunFolder.create(tmp_path / name)
        values = {"METHOD": method, "DENSITY": density, "SEED": seed, "OBJECTIVE": objective}
        recipe = RECIPE
        for word, value in values.items():
            recipe = recipe.replace(word, str(value))
        run.recipe.write_text(recipe)
        return run

    return make


@pytest.fixture
def finished(begun):
    """A function that makes a run with every piece."""

    def make(name, method="dense", density=1.0, classes=CLASSES, strength=1.0):
        run = begun(name, method, density)
        atomic.write_json(run.env, environment(threads=2))
        log(run, density)
        write_status(run, "done")
        for eps in (0.05, 0.1, 0.15, 0.2, 0.3):
            results.write_evaluation(run, f"pgd-{eps}", evaluation(name, eps, density, strength))
        results.write_network(run, network(density))
        panel.write(run, "pgd", pictures(classes))
        return run

    return make


@pytest.fixture
def short(begun):
    """A function that makes a run with one evaluation and its network, as many are made of."""

    def make(name, method="dense", density=1.0, strength=1.0, kernels=None, pictured=False, **recipe):
        run = begun(name, method, density, **recipe)
        log(run, density)
        write_status(run, "done")
        results.write_evaluation(run, "pgd", evaluation(name, 0.15, density, strength))
        results.write_network(run, network(density, kernels))
        if pictured:
            panel.write(run, "pgd", pictures(CLASSES, size=32, channels=3))
        return run

    return make


@pytest.fixture
def browser(tmp_path):
    """A fresh headless Chromium that logs its console and its network."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is not installed")
    from selenium import webdriver  # noqa: PLC0415
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def write_status(run, state, message=""):
    told = status.Status(
        state=state,
        phase="finetune",
        epoch=4,
        step=800,
        message=message,
        started="2026-01-02T03:04:05+00:00",
        updated="2026-01-02T04:04:05+00:00",
        seconds_trained=3725.0,
    )
    status.write(run, told)


def log(run, density):
    lines = MetricsLog(run)
    for step, phase in enumerate(["pretrain"] * 6 + ["finetune"] * 4, start=1):
        kept = 1.0 if phase == "pretrain" else density
        lines.append(
            {
                "phase": phase,
                "epoch": step if step <= 6 else step - 6,
                "step": 80 * step,
                "learning_rate": 0.1,
                "loss": 2 / step + 0.3,
                "natural_loss": 1.5 / step + 0.1,
                "adversarial_loss": math.nan if step == 2 else 2 / step + 0.4,
                "clean_accuracy": 1 - 0.6 / step,
                "robust_accuracy": 0.85 - 0.6 / step,
                "density": kept,
                "active": kept,
                "images_per_second": 900.0,
                "seconds": 12.0,
                "held_out/clean": 0.97 - 0.6 / step,
                "held_out/pgd": 0.82 - 0.6 / step,
                "sparsifier/revived": 400 // step,
            }
        )


def evaluation(run, eps, density, strength=1.0, attack="pgd-50-10", n=N):
    correct = round(0.95 * n)
    robust = round(correct * math.exp(-2 * eps / strength))
    share = robust / n
    margin = 1.96 * math.sqrt(share * (1 - share) / n)
    parameters = {"steps": 50, "restarts": 10, "step": "2.5eps/n"} if attack.startswith("pgd") else {}
    outcome = results.AttackOutcome(
        attack=attack,
        parameters=parameters,
        threat=f"linf:{eps}",
        norm="linf",
        eps=eps,
        robust_accuracy=share,
        interval=(share - margin, share + margin),
        n=n,
        seconds=12.5,
        robust=(1,) * robust + (0,) * (n - robust),
        rejected=0,
    )
    return results.Evaluation(
        run=run,
        dataset=results.Dataset(name="synthetic-digits", part="test", checksum="c0ffee", selection="first 360", n=n),
        model=results.EvaluatedModel(name="toy-net", weights=1000, nonzero=round(1000 * density), density=density),
        n=n,
        seed=0,
        clean_accuracy=correct / n,
        clean_interval=(0.92, 0.97),
        robust_accuracy=share,
        interval=outcome.interval,
        attack=attack,
        attack_parameters=parameters,
        threat=outcome.threat,
        eps=eps,
        density=density,
        nonzero=round(1000 * density),
        weights=1000,
        seconds=13.0,
        batch_size=100,
        environment={},
        samples=results.Samples(
            index=tuple(range(n)),
            label=(0,) * n,
            clean_prediction=(0,) * correct + (1,) * (n - correct),
            clean_correct=(1,) * correct + (0,) * (n - correct),
        ),
        attacks=(outcome,),
    )


def network(density, kernels=None):
    edges = tuple(-1 + i / 10 for i in range(21))
    counts = tuple(round(density * 40 * math.exp(-((i - 9.5) ** 2) / 8)) for i in range(20))
    histogram = results.Histogram(edges=edges, counts=counts, zeros=round(1000 * (1 - density)))
    names = [f"block{b}.{i}.conv{c}" for b in range(1, 4) for i in range(2) for c in (1, 2)]
    layers = []
    for place, name in enumerate(names):
        share = min(1.0, density * 8 * math.exp(-0.4 * place)) if density < 1 else 1.0
        weights = 400 * 2**place
        layers.append(
            results.Layer(
                name=name,
                block=name[:6],
                shape=(weights // 9, 1, 3, 3),
                weights=weights,
                nonzero=round(share * weights),
                density=round(share * weights) / weights,
                multiply_adds=4_000_000,
                kept_multiply_adds=round(4_000_000 * share),
                histogram=histogram,
                kernels=kernels,
            )
        )
    weights, nonzero = sum(each.weights for each in layers), sum(each.nonzero for each in layers)
    dense, kept = sum(each.multiply_adds for each in layers), sum(each.kept_multiply_adds for each in layers)
    totals = results.Totals(
        weights=weights,
        nonzero=nonzero,
        density=nonzero / weights,
        multiply_adds=dense,
        kept_multiply_adds=kept,
    )
    return results.Network(layers=tuple(layers), totals=totals, work_ratio=dense / kept, histogram=histogram)


def pictures(classes, count=8, size=28, channels=1):
    draws = torch.Generator().manual_seed(0)
    rows = torch.arange(size).view(1, 1, size, 1) / size
    columns = torch.arange(size).view(1, 1, 1, size) / size
    phases = torch.arange(count).view(count, 1, 1, 1)
    clean = (0.5 + 0.5 * torch.sin(6 * rows + 5 * columns + phases)).expand(-1, channels, -1, -1)
    images = (clean * 255).round().to(torch.uint8)
    noise = (torch.rand(images.shape, generator=draws) > 0.5).float() * 0.3 - 0.15
    adversarial = (images.float() / 255 + noise).clamp(0, 1)
    eps = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
    ladder = torch.stack([(images[0].float() / 255 + noise[0] * e / 0.15).clamp(0, 1) for e in eps])
    captions = panel.Captions(
        attack="PGD-50 ×10",
        threat="linf:0.15",
        classes=classes,
        labels=(0, 1, 2) * (count // 3) + (0,) * (count % 3),
        clean_predictions=(0, 1, 2) * (count // 3) + (0,) * (count % 3),
        clean_confidences=(0.97,) * count,
        adversarial_predictions=(1,) * count,
        adversarial_confidences=(0.61,) * count,
        ladder=panel.Ladder(
            eps=eps, label=0, predictions=(0, 0, 0, 1, 1, 1), confidences=(0.97, 0.9, 0.7, 0.5, 0.7, 0.9)
        ),
    )
    return panel.Panel(images=images, adversarial=adversarial, ladder=ladder, captions=captions)
