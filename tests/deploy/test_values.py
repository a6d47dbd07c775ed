import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gossamer.deploy.values import GREATEST, expand, pack, quantise, settled, stored_scales, stored_shape
from gossamer.errors import DataError

KINDS = ("float32", "float16", "int8", "signs")


def weights(values):
    return np.array(values, np.float32)


def through(weight, kind, *, whole=False, **options):
    """Quantise, store, and expand again."""
    quantised = quantise(weight, kind, layer="conv", **options)
    codes = quantised.codes.reshape(-1)
    mask = np.ones(codes.size, np.bool_) if whole else codes != 0
    stored = pack(codes[mask], kind)
    assert stored.shape == stored_shape(int(mask.sum()), kind)
    found = expand(stored, quantised.scales, mask, kind=kind, channels=weight.shape[0], subject="conv")
    return found, quantised


def test_int8_by_hand():
    """The greatest magnitude of a channel is 127; halves round to even; a channel without weights has no scale."""
    weight = weights([[127, -63.5, 0, 0.4], [0, 0, 0, 0], [0, -1.27, 0.01, 0.0125]])
    found, quantised = through(weight, "int8")
    assert quantised.codes.tolist() == [[127, -64, 0, 0], [0, 0, 0, 0], [0, -127, 1, 1]]
    assert quantised.scales.tolist() == [1, np.float16(0.01)]
    assert found == pytest.approx(weights([[127, -64, 0, 0], [0, 0, 0, 0], [0, -1.27, 0.01, 0.01]]), rel=1e-3)


def test_signs_by_hand():
    weight = weights([[0.5, 0, -0.5], [-0.5, -0.5, 0]])
    found, quantised = through(weight, "signs")
    assert quantised.scales.tolist() == [0.5]
    assert pack(quantised.codes[weight != 0], "signs").tolist() == [0b10000000]
    assert np.array_equal(found, weight)


def test_signs_with_a_scale_for_each_channel_that_keeps_a_weight():
    weight = weights([[0.5, 0, -0.5], [0, 0, 0], [-2, 2, 0]])
    found, quantised = through(weight, "signs")
    assert quantised.scales.tolist() == [0.5, 2.0]
    assert np.array_equal(found, weight)


def test_signs_of_unequal_weights_are_refused():
    weight = weights([[1, 0, -3], [4, 4, 4]])
    with pytest.raises(DataError, match=r"weights of conv: .*several.*float32 or int8"):
        quantise(weight, "signs", layer="conv")


def test_float16_replaces_int8_where_scales_cost_more_than_it_saves():
    three, two = weights([[1, 2, 3], [0, 0, 0]]), weights([[1, 2, 0], [0, 0, 0]])
    assert [settled(three, kind) for kind in KINDS] == list(KINDS)
    assert [settled(two, kind) for kind in KINDS] == ["float32", "float16", "float16", "signs"]
    assert settled(two * 1e5, "int8") == "int8"
    # A scale that float16 has not costs 32 bits.
    assert settled(three * 1e-4, "int8") == "float16"


def test_scales_are_float16_where_it_has_normal_numbers_for_all():
    usual = quantise(weights([[127 * 0.1], [127 * 0.3]]), "int8", layer="conv").scales
    assert usual.tolist() == [np.float16(0.1), np.float16(0.3)]
    assert stored_scales(usual).dtype == np.float16
    small = quantise(weights([[127 * 0.1], [127 * 1e-6]]), "int8", layer="conv").scales
    assert small == pytest.approx([0.1, 1e-6], rel=1e-6)
    assert stored_scales(small).dtype == np.float32
    assert stored_scales(weights([1e5])).dtype == np.float32


def test_channels_too_small_for_float16_stay_int8():
    tiny = weights([[1, 2, 3, 4], [1e-8, 0, 2e-8, 0]])
    assert settled(tiny, "int8") == "int8"
    assert settled(weights([[1, 2, 3, 4], [6.2e-5, 0, 1e-8, 0]]), "int8") == "float16"
    found, _ = through(tiny, "int8")
    assert (found != 0).tolist() == (tiny != 0).tolist()


def test_float16_drops_what_rounds_to_zero_and_refuses_what_is_too_large():
    found, _ = through(weights([[1e-9, 1, 0]]), "float16")
    assert found.tolist() == [[0, 1, 0]]
    with pytest.raises(DataError, match="65504 for float16, got 70000"):
        quantise(weights([[7e4, 1]]), "float16", layer="conv")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(kind, bad):
    with pytest.raises(DataError, match="weights of conv: expected finite numbers"):
        quantise(weights([[bad, 1]]), kind, layer="conv")


FLOATS = st.one_of(st.just(0.0), st.floats(-GREATEST, GREATEST, width=32), st.floats(-10, 10, width=32))
LAYERS = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8), elements=FLOATS)


@settings(max_examples=300, deadline=None)
@given(LAYERS, st.booleans())
def test_float32_is_exact(weight, whole):
    assert np.array_equal(through(weight, "float32", whole=whole)[0], weight)


@settings(max_examples=300, deadline=None)
@given(LAYERS, st.booleans())
def test_int8_is_within_half_a_scale_and_zero_stays_zero(weight, whole):
    found, quantised = through(weight, "int8", whole=whole)
    # A subnormal scale is itself rounded to a multiple of 2^-149, so the greatest code may stand for less.
    scale = np.abs(weight).max(axis=1, keepdims=True).astype(np.float64) / 127
    assert (np.abs(found.astype(np.float64) - weight) <= 0.5 * scale * (1 + 2**-10) + 127 * 2.0**-149).all()
    assert (found[weight == 0] == 0).all()
    assert np.isfinite(found).all()
    assert (quantised.scales > 0).all()


@settings(max_examples=300, deadline=None)
@given(LAYERS, st.data())
def test_signs_of_binary_layers_are_exact(weight, data):
    magnitudes = data.draw(arrays.arrays(np.float32, (weight.shape[0], 1), elements=st.floats(0.125, 1e6, width=32)))
    binary = np.sign(weight) * magnitudes
    assert np.array_equal(through(binary, "signs")[0], binary)


@pytest.mark.parametrize(
    ("stored", "scales", "kind", "got"),
    [
        (np.array([0b10100000], np.uint8), [1.0], "signs", "bits that are set"),
        (np.array([-128, 1], np.int8), [1.0], "int8", "-128"),
        (np.array([3, 1], np.int8), [1.0, 1.0, 1.0], "int8", "3 scales"),
        (np.array([3, 1], np.int8), [], "int8", "0 scales"),
        (np.array([3, 1], np.int8), [1.0, -1.0], "int8", "others"),
        (np.array([3, 1], np.int8), [GREATEST], "int8", "others"),
        (np.array([3, 1], np.int8), [np.nan], "int8", "others"),
    ],
)
def test_what_no_quantiser_gave_is_refused(stored, scales, kind, got):
    mask = np.array([True, False, False, True])
    with pytest.raises(DataError, match=r"^conv: ") as caught:
        expand(stored, weights(scales), mask, kind=kind, channels=2, subject="conv")
    assert str(caught.value.got) == got
