import pytest
import torch

from gossamer.seeding import Draws
from gossamer.sparsity import HeldMask, Horizon, NoSparsifier
from gossamer.sparsity.admm import ADMM, Interval
from gossamer.sparsity.binary_weights import Binary
from gossamer.sparsity.dynamic_mask import DynamicMask
from gossamer.sparsity.factorised import Factorised
from gossamer.sparsity.gradual import GradualPruning
from gossamer.sparsity.pwoa import EpochwiseADMM
from gossamer.sparsity.sets import Sparse
from gossamer.sparsity.settling import SettlingMask
from gossamer.sparsity.tightening import Plan, TightenedADMM
from gossamer.sparsity.twin import TwinRepresentation

EPOCHS, STEPS = 6, 4
SET = Sparse()
PLAN = Plan(epochs=EPOCHS, eps=(), steps=(), hold=1, density=lambda share: 1.0 - 0.5 * share)

CASES = {
    "none": (NoSparsifier, []),
    "held": (HeldMask, []),
    "moving": (lambda: DynamicMask(density=0.5, every=5, until=1.0), [5, 10, 15, 20]),
    "gradual": (lambda: GradualPruning(density=0.2, schedule="linear", begin=0.0, end=0.5, every=5), [5, 10, 12]),
    "around": (
        lambda: Binary(GradualPruning(density=0.2, schedule="linear", begin=0.0, end=0.5, every=5)),
        [5, 10, 12],
    ),
    "admm": (lambda: ADMM(density=0.5, constraint=SET, rho=0.1, interval=Interval(2)), [8, 16, 24]),
    "admm, steps": (lambda: ADMM(density=0.5, constraint=SET, rho=0.1, interval=Interval(9, "steps")), [9, 18]),
    # Nothing moves after the last epoch.
    "pwoa": (lambda: EpochwiseADMM(density=0.5, constraint=SET, every=3), [4, 8, 12, 16, 20]),
    "pwoa, copy kept": (lambda: EpochwiseADMM(density=0.5, constraint=SET, every=3, restart=False), [12]),
    # Every six steps, and as an epoch tightens the set.
    "tightened": (
        lambda: TightenedADMM(density=0.5, constraint=SET, rho=0.1, interval=Interval(6, "steps"), plan=PLAN),
        [4, 6, 8, 12, 16, 18, 20, 24],
    ),
    "factors": (lambda: Factorised(density=0.5), []),
    "quantised factors": (lambda: Factorised(density=0.5, bits=1, interval=7), [7, 14, 21]),
    "twin": (lambda: TwinRepresentation(density=0.5, cut_after=3), [12]),
    "twin, cut at once": (lambda: TwinRepresentation(density=0.5, cut_after=0), []),
    "settling": (lambda: SettlingMask(density=0.5, window=3), [4, 8, 12, 16, 20, 24]),
}


def kept(sparsifier):
    """What a sparsifier holds beside trained weights."""
    return {**sparsifier.state_dict(), **{f"mask {name}": mask for name, mask in sparsifier.masks().items()}}


def differ(before, after):
    return before.keys() != after.keys() or any(
        not torch.equal(value.nan_to_num(-1), after[name].nan_to_num(-1)) for name, value in before.items()
    )


@pytest.mark.parametrize("case", CASES)
def test_what_happens_now_and_then_is_told(case):
    make, expected = CASES[case]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    sparsifier = make()
    sparsifier.attach(model, Draws(), Horizon(epochs=EPOCHS, steps_per_epoch=STEPS, image_shape=(1, 1, 6)))
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    moved = []
    for step in range(EPOCHS * STEPS):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        before = {name: value.clone() for name, value in kept(sparsifier).items()}
        sparsifier.before_step(step, optimizer)
        optimizer.step()
        sparsifier.after_step(step, optimizer)
        if (step + 1) % STEPS == 0:
            sparsifier.after_epoch(step // STEPS, {"loss": 1.0})
        if differ(before, kept(sparsifier)):
            moved.append(step + 1)
    assert [done for done in range(1, EPOCHS * STEPS + 1) if sparsifier.due(done)] == expected
    # The masks of factors are their largest entries, chosen at every step.
    assert moved == expected or case in ("factors", "quantised factors")
