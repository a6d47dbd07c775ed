import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import kstest

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import NORMS, Norm, ThreatModel, format_eps, parse_eps

BUDGETS: dict[Norm, float] = {"linf": 8 / 255, "l2": 0.5, "l1": 2.0}


def images(count: int, seed: int, *, side: int = 4) -> torch.Tensor:
    # A third of the pixels lie on the box's faces, where projections are hardest.
    drawn = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 1.5 - 0.25
    return drawn.clamp(0, 1)


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.5", 0.5), (0.03, 0.03), (0, 0.0), ("0", 0.0), (" 1 / 4", 0.25)]
)
def test_parse_eps_reads(text: str | float, value: float) -> None:
    assert parse_eps(text) == value


@pytest.mark.parametrize("text", ["", "eight", "8/0", "8/255/2", "-1", "nan", "inf", True, -0.1, "1e999"])
def test_parse_eps_refuses(text: str | float) -> None:
    with pytest.raises(ConfigError, match="write 8/255"):
        parse_eps(text)


@pytest.mark.parametrize("text", ["linf:8/255", "l2:0.5", "l1:12", "l2:128/255", "linf:0", "linf:0.031", "linf:1"])
def test_threat_text_round_trips(text: str) -> None:
    assert str(ThreatModel.parse(text)) == text


@given(st.floats(0, 100))
def test_eps_text_round_trips_to_the_bit(eps: float) -> None:
    assert parse_eps(format_eps(eps)) == eps


@pytest.mark.parametrize("text", ["8/255", "linf", "l7:1", "linf:", ":1", "linf:x"])
def test_threat_refuses(text: str) -> None:
    with pytest.raises(ConfigError):
        ThreatModel.parse(text)


def test_linf_eps_above_one_is_a_forgotten_division() -> None:
    with pytest.raises(ConfigError, match=r"eps in pixel units of \[0, 1\], got 8.0; write 8/255 for 8"):
        ThreatModel("linf", 8)


@settings(deadline=None, max_examples=40)
@given(norm=st.sampled_from(NORMS), eps=st.floats(0, 1), push=st.floats(0, 10), seed=st.integers(0, 10_000))
def test_projection_is_inside_idempotent_and_leaves_inner_points(
    norm: Norm, eps: float, push: float, seed: int
) -> None:
    threat = ThreatModel(norm, eps * (1 if norm == "linf" else 10))
    x = images(3, seed)
    outside = x + push * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1))
    projected = threat.project(outside, x)
    assert not threat.violates(projected, x).any()
    assert projected.min() >= 0
    assert projected.max() <= 1
    torch.testing.assert_close(threat.project(projected, x), projected, atol=1e-6, rtol=0)
    inner = x + 0.9 * (projected - x)
    torch.testing.assert_close(threat.project(inner, x), inner, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("side", [32, 64])
def test_projection_and_start_stay_inside_in_many_dimensions(norm: Norm, side: int) -> None:
    threat = ThreatModel(norm, {"linf": 8 / 255, "l2": 3.0, "l1": 12.0}[norm])
    x = images(20, 0, side=side)
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for point in (threat.project(far, x), threat.random_start(x, Draws(3))):
        assert threat.distance(point, x).max() <= threat.eps + 1e-6
        assert not threat.violates(point, x).any()


@pytest.mark.parametrize("seed", range(5))
def test_l1_projection_is_the_nearest_point_of_ball_and_box(seed: int) -> None:
    x = images(1, seed, side=2).double()
    z = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours = ThreatModel("l1", 1.5).project(z, x).flatten().numpy()
    centre, goal, d = x.flatten().numpy(), z.flatten().numpy(), x.numel()
    # u = x + p - q with p, q >= 0 makes the l1-ball linear for the reference solver.
    change = np.concatenate([np.eye(d), -np.eye(d)], axis=1)
    solved = minimize(
        lambda v: ((centre + change @ v - goal) ** 2).sum(),
        np.zeros(2 * d),
        jac=lambda v: 2 * change.T @ (centre + change @ v - goal),
        bounds=[(0, 1 - c) for c in centre] + [(0, c) for c in centre],
        constraints={"type": "ineq", "fun": lambda v: 1.5 - v.sum(), "jac": lambda v: -np.ones(2 * d)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(ours, centre + change @ solved.x, atol=2e-5)


def test_projections_by_hand() -> None:
    x = torch.tensor([0.5, 0.5, 0.9]).view(1, 3, 1, 1)
    far = torch.tensor([0.9, 0.4, 1.9]).view(1, 3, 1, 1)
    torch.testing.assert_close(ThreatModel("linf", 0.2).project(far, x).flatten(), torch.tensor([0.7, 0.4, 1.0]))
    # l1: deltas .4, -.1, 1.0 with room .5, .5, .1; lambda .1 leaves .3, 0, .1 (the box), in all .4.
    torch.testing.assert_close(ThreatModel("l1", 0.4).project(far, x).flatten(), torch.tensor([0.8, 0.5, 1.0]))
    # l2: the delta shrinks by .5 / |(.4, -.1, 1)|, the last coordinate then meets the box.
    scale = 0.5 / math.sqrt(0.16 + 0.01 + 1.0)
    torch.testing.assert_close(
        ThreatModel("l2", 0.5).project(far, x).flatten(), torch.tensor([0.5 + 0.4 * scale, 0.5 - 0.1 * scale, 1.0])
    )


@pytest.mark.parametrize("norm", NORMS)
def test_eps_zero_leaves_only_x(norm: Norm) -> None:
    threat, x = ThreatModel(norm, 0), images(2, 0)
    assert torch.equal(threat.project(x + 1, x), x)
    assert torch.equal(threat.random_start(x, Draws()), x)


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_uniform_in_the_ball(norm: Norm) -> None:
    d = 12
    x = torch.full((4000, 3, 2, 2), 0.5)
    threat = ThreatModel(norm, 0.3)
    radius = threat.distance(threat.random_start(x, Draws(1)), x) / threat.eps
    # The share of a d-dimensional ball within radius r is r^d, whatever the norm.
    assert kstest((radius**d).numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_a_function_of_seed_and_sample(norm: Norm) -> None:
    threat, x = ThreatModel(norm, BUDGETS[norm]), images(5, 0)
    assert torch.equal(threat.random_start(x, Draws(1)), threat.random_start(x, Draws(1)))
    assert not torch.equal(threat.random_start(x, Draws(1)), threat.random_start(x, Draws(2)))
    keyed = Draws(1).per_sample(torch.arange(5))
    last = threat.random_start(x[3:], keyed.select(torch.tensor([3, 4])))
    assert torch.equal(threat.random_start(x, keyed)[3:], last)


def test_steepest_by_hand() -> None:
    grad = torch.tensor([3.0, -4.0, 0.0]).view(1, 3, 1, 1)
    expected = {"linf": [1.0, -1.0, 0.0], "l2": [0.6, -0.8, 0.0], "l1": [0.0, -1.0, 0.0]}
    for norm in NORMS:
        torch.testing.assert_close(ThreatModel(norm, 0.1).steepest(grad).flatten(), torch.tensor(expected[norm]))


def test_steepest_l1_fills_what_the_box_leaves() -> None:
    grad = torch.tensor([1.0, -4.0, 3.0, 2.0]).view(1, 4, 1, 1)
    x = torch.tensor([0.5, 0.0, 0.8, 0.5]).view(1, 4, 1, 1)
    # The largest coordinate is saturated, the next has .2 of room, the third takes the rest.
    step = ThreatModel("l1", 2.0).steepest(grad, x, size=0.5).flatten()
    torch.testing.assert_close(step, torch.tensor([0.0, 0.0, 0.2, 0.3]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_steepest_has_the_size_asked_at_every_gradient_scale(norm: Norm, scale: float) -> None:
    grad = scale * torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    threat = ThreatModel(norm, 0.5)
    size = threat.distance(threat.steepest(grad, size=0.25), torch.zeros_like(grad))
    torch.testing.assert_close(size, torch.full((4,), 0.25 if scale else 0.0, dtype=torch.float64))


def test_violates_ball_box_and_nan() -> None:
    x = torch.tensor([0.5, 0.5, 0.0, 0.5, 0.5]).view(5, 1, 1, 1)
    moved = torch.tensor([0.6, 0.61, -0.01, math.nan, math.inf]).view(5, 1, 1, 1)
    for norm in NORMS:
        assert ThreatModel(norm, 0.1).violates(moved, x).tolist() == [False, True, True, True, True]


def test_threat_is_a_value() -> None:
    assert ThreatModel("linf", 8 / 255) == ThreatModel.parse("linf:8/255")
    assert hash(ThreatModel("l2", 1)) == hash(ThreatModel("l2", 1.0))
