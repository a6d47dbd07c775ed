import pytest
import torch
from torch import Tensor, nn

from gossamer.attacks.registry import build
from gossamer.attacks.spatial import Spatial, move, spatial_robustness
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel

SMALL = Spatial(angles=5, shifts=3)


def _places(*rows: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


@pytest.fixture
def random_images() -> Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_quarter_turns_are_counter_clockwise(random_images: Tensor) -> None:
    for turns in (1, 2, -1):
        turned = move(random_images, _places((90.0 * turns, 0, 0)).expand(4, 3))
        assert torch.allclose(turned, torch.rot90(random_images, turns, dims=(2, 3)), atol=1e-5)


def test_half_a_turn_of_an_oblong_image() -> None:
    x = torch.rand(1, 1, 4, 9, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(move(x, _places((180, 0, 0))), x.flip(2, 3), atol=1e-5)


def test_shifts_go_right_and_down_and_fill_as_asked() -> None:
    x = torch.rand(1, 2, 4, 8, generator=torch.Generator().manual_seed(1)) + 0.0
    right = move(x, _places((0, 0.25, 0)))
    assert torch.allclose(right[..., 2:], x[..., :-2], atol=1e-5)
    assert (right[..., :2].abs() < 1e-5).all()
    down = move(x, _places((0, 0, 0.25)), fill="edge")
    assert torch.allclose(down[:, :, 1:], x[:, :, :-1], atol=1e-5)
    assert torch.allclose(down[:, :, 0], x[:, :, 0], atol=1e-5)


def test_between_pixels_it_is_bilinear() -> None:
    x = torch.tensor([0.0, 0.2, 0.8, 1.0]).view(1, 1, 1, 4)
    moved = move(x, _places((0, 1 / 8, 0)), fill="edge")
    assert moved.flatten().tolist() == pytest.approx([0.0, 0.1, 0.5, 0.9], abs=1e-6)


def test_turned_first_shifted_then() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 4] = 1
    moved = move(x, _places((90, 0.2, 0)))
    assert moved[0, 0, 0, 3].item() == pytest.approx(1, abs=1e-4)


def test_images_of_one_batch_move_on_their_own_and_stay_in_the_box(random_images: Tensor) -> None:
    places = _places((0, 0, 0), (17, 0.1, 0), (-30, 0, 0.05), (3, -0.1, -0.1))
    moved = move(random_images, places)
    assert torch.equal(moved[0], random_images[0])
    for i in range(4):
        assert torch.allclose(move(random_images[i : i + 1], places[i : i + 1])[0], moved[i], atol=1e-6)
    assert ((moved >= 0) & (moved <= 1)).all()


class Compass(nn.Module):
    """Sees the brightest pixel of a bar through the centre: class 0 while the top of the image's middle is bright."""

    def forward(self, x: Tensor) -> Tensor:
        top = x[:, 0, 0, x.shape[3] // 2]
        return torch.stack([top - 0.5, 0.5 - top], dim=1)


def test_the_worst_angle_of_a_bar_is_known() -> None:
    # One bright half-bar upwards, broad enough that 10 degrees keep it over the pixel looked at and 30 do not.
    x = torch.zeros(1, 1, 21, 21)
    x[:, :, :11, 8:13] = 1
    y = torch.tensor([0])
    narrow = Spatial(degrees=10, shift=0.0, angles=3, shifts=1)
    assert spatial_robustness(Compass(), x, y, narrow).robust.tolist() == [True]
    wide = Spatial(degrees=30, shift=0.0, angles=3, shifts=1)
    found = spatial_robustness(Compass(), x, y, wide)
    assert found.robust.tolist() == [False]
    assert found.angle.abs().tolist() == [30.0]
    assert found.shift.tolist() == [[0.0, 0.0]]


def test_the_worst_shift_of_a_ramp_is_the_farthest() -> None:
    # Brightness rises to the right; the model reads the middle, so the worst place lies farthest to the right.
    x = torch.linspace(0, 1, 11).view(1, 1, 1, 11).expand(2, 1, 11, 11).clone()

    def model(images: Tensor) -> Tensor:
        middle = images[:, 0, 5, 5]
        return torch.stack([middle, 0.4 + 0 * middle], dim=1)

    found = spatial_robustness(
        model, x, torch.zeros(2, dtype=torch.int64), Spatial(degrees=0.0, angles=1, shift=2 / 11)
    )
    assert found.shift[:, 0].tolist() == pytest.approx([2 / 11, 2 / 11])
    assert found.angle.tolist() == [0.0, 0.0]
    assert not found.robust.any()


def test_the_grid_has_the_places_of_the_paper() -> None:
    seen = 0

    def model(images: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        return torch.stack([0 * images.sum(dim=(1, 2, 3)) + 1, 0 * images.sum(dim=(1, 2, 3))], dim=1)

    x, y = torch.rand(1, 1, 4, 4), torch.tensor([0])
    assert torch.equal(Spatial()(model, x, y), x)
    assert seen == 1 + 31 * 5 * 5


@pytest.mark.parametrize("search", ["grid", "random"])
def test_flags_agree_with_the_points_and_the_model_stays(
    convnet: nn.Module, images: Tensor, labels: Tensor, search: str
) -> None:
    before = {name: value.clone() for name, value in convnet.state_dict().items()}
    attack = Spatial(search=search, angles=5, shifts=3, tries=6)  # pyright: ignore
    result = spatial_robustness(convnet, images, labels, attack, draws=Draws(1))
    points = attack(convnet, images, labels, draws=Draws(1))
    assert torch.equal(result.robust, convnet(points).argmax(dim=1) == labels)
    assert (result.robust <= (convnet(images).argmax(dim=1) == labels)).all()
    assert ((points >= 0) & (points <= 1)).all()
    places = torch.cat([result.angle[:, None], result.shift], dim=1)
    assert attack.admits(places).all()
    assert torch.equal(attack.apply(images, places), points)
    assert all(torch.equal(value, before[name]) for name, value in convnet.state_dict().items())


def test_more_tries_only_find_worse_places(convnet: nn.Module, images: Tensor, labels: Tensor) -> None:
    keyed = Draws(1).per_sample(torch.arange(16))
    few = spatial_robustness(convnet, images, labels, Spatial(search="random", tries=2), draws=keyed).robust
    many = spatial_robustness(convnet, images, labels, Spatial(search="random", tries=8), draws=keyed).robust
    assert (many <= few).all()
    part = torch.tensor([3, 9])
    alone = Spatial(search="random", tries=4)
    whole = alone.search_places(convnet, images, labels, draws=keyed)
    assert torch.equal(alone.search_places(convnet, images[part], labels[part], draws=keyed.select(part)), whole[part])


def test_places_outside_and_fields_refused() -> None:
    assert SMALL.admits(_places((30, 0.1, -0.1), (31, 0, 0), (0, 0.11, 0), (torch.nan, 0, 0))).tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert build("spatial", ThreatModel("linf", 8 / 255), search="random", tries=3) == Spatial(search="random", tries=3)
    for wrong in ({"degrees": -1}, {"shift": 1.5}, {"angles": 0}, {"tries": 0}, {"fill": "grey"}, {"search": "best"}):
        with pytest.raises(ConfigError):
            Spatial(**wrong)
