import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack import fab_projections
from scipy.optimize import linprog
from torch import Tensor

from gossamer.attacks.hyperplane import FIRST_FEW, dual_norm, length_of, move_to_hyperplane
from gossamer.threat import NORMS, Norm

HALF = torch.full((1, 3), 0.5, dtype=torch.float64)
WEIGHT = torch.tensor([[4.0, -2.0, 1.0]], dtype=torch.float64)


def _problem(seed: int, rows: int, size: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return points on and off the faces of the box, weights with zeros among them, and gaps from far below to above.

    The gaps span -1.3 to 1.3 times what the box allows to close.
    """
    draw = torch.Generator().manual_seed(seed)
    points = (1.4 * torch.rand(rows, size, generator=draw, dtype=dtype) - 0.2).clamp(0, 1)
    normal = torch.randn(rows, size, generator=draw, dtype=dtype) ** 3
    normal[torch.rand(rows, size, generator=draw) < 0.1] = 0
    gap = torch.linspace(-1.3, 1.3, rows, dtype=dtype)
    return points, normal, gap * _closable(points, normal, gap)


def _closable(points: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
    towards = torch.where(gap[:, None] >= 0, -normal, normal)
    return (towards.abs() * torch.where(towards > 0, 1 - points, points)).sum(dim=1)


def _bisected(norm: Norm, points: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
    """Return the projections of linf and l2 by bisection on the multiplier."""
    direction = -torch.sign(gap)[:, None] * (normal.sign() if norm == "linf" else normal)

    def moved(level: Tensor) -> Tensor:
        return (points + level[:, None] * direction).clamp(0, 1) - points

    low, high = torch.zeros_like(gap), torch.full_like(gap, 1e30)
    for _ in range(300):
        middle = (low + high) / 2
        still = ((moved(middle) * normal).sum(dim=1) + gap) * gap.sign() > 0
        low, high = torch.where(still, middle, low), torch.where(still, high, middle)
    return moved(high)


def test_hand_computed_moves() -> None:
    # Equal moves of 2/7 close a gap of 2; in proportion 2/21 of each weight; the largest weight alone needs 1/2.
    gap = torch.tensor([2.0], dtype=torch.float64)
    expected = {
        "linf": torch.tensor([[-2, 2, -2]]) / 7,
        "l2": 2 * torch.tensor([[-4, 2, -1]]) / 21,
        "l1": torch.tensor([[-0.5, 0, 0]]),
    }
    for norm in NORMS:
        torch.testing.assert_close(move_to_hyperplane(norm, HALF, WEIGHT, gap), expected[norm].double())


def test_what_the_box_stops_the_others_make_up_for() -> None:
    gap = torch.tensor([2.75], dtype=torch.float64)
    expected = {
        "linf": torch.tensor([[-11, 11, -11]]) / 28,
        "l2": torch.tensor([[-0.5, 0.3, -0.15]]),
        "l1": torch.tensor([[-0.5, 0.375, 0]]),
    }
    for norm in NORMS:
        torch.testing.assert_close(move_to_hyperplane(norm, HALF, WEIGHT, gap), expected[norm].double())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("size", [1, 2, 50, 300])
def test_equal_to_bisection(norm: Norm, size: int) -> None:
    points, normal, gap = _problem(size, 60, size)
    torch.testing.assert_close(
        move_to_hyperplane(norm, points, normal, gap), _bisected(norm, points, normal, gap), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_equal_to_linear_programming(norm: Norm) -> None:
    points, normal, gap = _problem(3, 14, 12)
    within = gap.abs() < _closable(points, normal, gap)
    found = length_of(norm, move_to_hyperplane(norm, points, normal, gap))
    for row in within.nonzero().flatten().tolist():
        assert found[row].item() == pytest.approx(_by_program(norm, points[row], normal[row], gap[row]), abs=1e-9)


def _by_program(norm: Norm, point: Tensor, normal: Tensor, gap: Tensor) -> float:
    """Minimise the sum (l1) or the largest (linf) of bounds t on |move|; variables (move, t)."""
    size = len(point)
    eye, bounds = torch.eye(size), size if norm == "l1" else 1
    bound = eye if norm == "l1" else torch.ones(size, 1)
    solution = linprog(
        c=[0.0] * size + [1.0] * bounds,
        A_ub=torch.cat([torch.cat([eye, -bound], dim=1), torch.cat([-eye, -bound], dim=1)]).numpy(),
        b_ub=[0.0] * 2 * size,
        A_eq=torch.cat([normal, torch.zeros(bounds)])[None].numpy(),
        b_eq=[-gap.item()],
        bounds=[(-p, 1 - p) for p in point.tolist()] + [(0, None)] * bounds,
    )
    assert solution.success
    return float(solution.fun)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [63, 100, 784])
def test_equal_to_the_authors_projections(norm: Norm, size: int) -> None:
    points, normal, gap = _problem(size, 101, size, torch.float32)
    # Beyond nine tenths of what the box allows the authors' sums lose their last coordinates in float32.
    moderate = gap.abs() < 0.9 * _closable(points, normal, gap)
    points, normal, gap = points[moderate], normal[moderate], gap[moderate]
    offset = (points * normal).sum(dim=1) - gap
    theirs = getattr(fab_projections, f"projection_{norm}")(points.clone(), normal.clone(), offset)
    torch.testing.assert_close(move_to_hyperplane(norm, points, normal, gap), theirs, atol=2e-4, rtol=1e-4)
    assert len(gap) > 50


@pytest.mark.parametrize("norm", NORMS)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 150), power=st.integers(-25, 25))
def test_in_the_box_on_the_plane_and_independent_of_scale(norm: Norm, seed: int, size: int, power: int) -> None:
    points, normal, gap = _problem(seed, 9, size)
    move = move_to_hyperplane(norm, points, normal, gap)
    assert ((points + move >= -1e-12) & (points + move <= 1 + 1e-12)).all()
    assert (move[normal == 0] == 0).all()
    left = ((move * normal).sum(dim=1) + gap).abs()
    torch.testing.assert_close(left, (gap.abs() - _closable(points, normal, gap)).clamp(min=0), atol=1e-9, rtol=1e-9)
    scaled = move_to_hyperplane(norm, points, normal * 2.0**power, gap * 2.0**power)
    assert torch.equal(scaled, move)


@pytest.mark.parametrize("norm", NORMS)
def test_without_the_box_the_length_is_the_gap_over_the_dual_norm(norm: Norm) -> None:
    points, normal, _ = _problem(5, 20, 80)
    points, gap = torch.full_like(points, 0.5), 1e-3 * torch.linspace(-1, 1, 20, dtype=torch.float64)
    move = move_to_hyperplane(norm, points, normal, gap)
    torch.testing.assert_close(length_of(norm, move), gap.abs() / dual_norm(norm, normal))


@pytest.mark.parametrize("norm", NORMS)
def test_degenerate_rows(norm: Norm) -> None:
    points, normal, gap = _problem(6, 5, 40, torch.float32)
    assert (move_to_hyperplane(norm, points, torch.zeros_like(normal), gap) == 0).all()
    assert (move_to_hyperplane(norm, points, normal, torch.zeros_like(gap)) == 0).all()
    corner = torch.where(normal > 0, 0.0, 1.0)
    assert (move_to_hyperplane(norm, corner, normal, torch.ones_like(gap)) == 0).all()
    far = points + move_to_hyperplane(norm, points, normal, torch.full_like(gap, 1e30))
    assert torch.equal(far[normal != 0], corner[normal != 0])
    tiny = torch.full_like(normal, 1e-42)
    assert move_to_hyperplane(norm, points, tiny, gap).isfinite().all()
    assert move_to_hyperplane(norm, points[:0], normal[:0], gap[:0]).shape == (0, 40)


@pytest.mark.parametrize("norm", NORMS)
def test_a_row_does_not_depend_on_its_company(norm: Norm) -> None:
    points, normal, gap = _problem(7, 40, 200, torch.float32)
    together = move_to_hyperplane(norm, points, normal, gap)
    for row in range(0, 40, 3):
        alone = move_to_hyperplane(norm, points[row : row + 1], normal[row : row + 1], gap[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=1e-5)


def test_rooms_that_shrink_geometrically_are_still_solved_exactly() -> None:
    # Each of the rooms 2^-i stops its coordinate at another level, the worst case for a search by tangents.
    points = (2.0 ** -torch.arange(1, 50, dtype=torch.float64)).expand(30, -1)
    normal = (4.0 ** torch.arange(1, 50, dtype=torch.float64)).expand(30, -1)
    gap = _closable(points, normal, torch.ones(30)) * torch.logspace(-25, -0.01, 30, dtype=torch.float64)
    for norm in NORMS:
        move = move_to_hyperplane(norm, points, normal, gap)
        torch.testing.assert_close((move * normal).sum(dim=1), -gap, rtol=1e-9, atol=0)


def test_l1_moves_the_fewest_coordinates_of_the_largest_weights() -> None:
    size = 4 * FIRST_FEW
    normal = torch.arange(size, 0, -1, dtype=torch.float64).expand(3, -1)
    points = torch.full((3, size), 0.5, dtype=torch.float64)
    for count in (3, FIRST_FEW, 3 * FIRST_FEW):
        gap = 0.5 * normal[:, :count].sum(dim=1) + 0.25 * normal[:, count]
        move = move_to_hyperplane("l1", points, normal, gap)
        torch.testing.assert_close(move[:, :count], torch.full_like(move[:, :count], -0.5))
        torch.testing.assert_close(move[:, count], torch.full_like(move[:, count], -0.25))
        assert (move[:, count + 1 :] == 0).all()


def test_dual_norms() -> None:
    assert [dual_norm(norm, WEIGHT).item() for norm in NORMS] == pytest.approx([7, math.sqrt(21), 4])
    assert [length_of(norm, WEIGHT).item() for norm in NORMS] == pytest.approx([4, math.sqrt(21), 7])
