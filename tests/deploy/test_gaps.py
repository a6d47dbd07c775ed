import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gossamer.deploy.gaps import Coded, decode, encode
from gossamer.errors import DataError


def mask_of(size, positions):
    mask = np.zeros(size, np.bool_)
    mask[list(positions)] = True
    return mask


def uniform(size, count, seed):
    return mask_of(size, np.random.default_rng(seed).choice(size, count, replace=False))


def entropy_bits(size, count):
    d = count / size
    return 0.0 if d in (0, 1) else -size * (d * math.log2(d) + (1 - d) * math.log2(1 - d))


def again(coded, mask, **changed):
    given_ = {"size": mask.size, "count": int(mask.sum()), **changed}
    return decode(coded, **given_, subject="positions")


# Gaps 5, 0, 33. k = 3 takes 12 bits and 4 zeros, the fewest; lowest bits 101 000 001, quotients 1, 1, 00001.
BY_HAND = mask_of(64, [5, 6, 40])
BY_HAND_BYTES = [0b10100000, 0b11100001]


def test_gaps_by_hand():
    coded = encode(BY_HAND)
    assert (coded.coding, coded.parameter, coded.data.tolist()) == ("gaps", 3, BY_HAND_BYTES)
    assert np.array_equal(again(coded, BY_HAND), BY_HAND)


def test_gaps_of_zeros_by_hand():
    coded = encode(~BY_HAND)
    assert (coded.coding, coded.parameter, coded.data.tolist()) == ("gaps-of-zeros", 3, BY_HAND_BYTES)
    assert np.array_equal(again(coded, ~BY_HAND), ~BY_HAND)


def test_a_bitmap_where_gaps_are_no_smaller():
    mask = mask_of(10, [0, 3, 4, 9])
    coded = encode(mask)
    assert (coded.coding, coded.parameter, coded.data.tolist()) == ("bitmap", 0, [0b10011000, 0b01000000])
    assert np.array_equal(again(coded, mask), mask)


def test_no_positions_where_all_is_kept_or_zeros_cost_less_than_their_positions():
    assert encode(np.ones(9, np.bool_)).coding == "all"
    one_zero = ~mask_of(1000, [700])  # Its position takes 11 bits.
    assert encode(one_zero, value_bits=8).coding == "all"
    assert encode(one_zero, value_bits=32).coding == "gaps-of-zeros"
    assert encode(one_zero).coding == "gaps-of-zeros"
    assert decode(encode(one_zero, value_bits=8), size=1000, count=1000, subject="positions").all()


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 1000])
def test_nothing_and_everything_come_back(size):
    for mask in (np.zeros(size, np.bool_), np.ones(size, np.bool_)):
        assert np.array_equal(again(encode(mask), mask), mask)
        assert encode(mask).data.size == 0


@settings(max_examples=300, deadline=None)
@given(
    size=st.integers(1, 3000),
    density=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    value_bits=st.sampled_from([None, 8, 16, 32]),
)
def test_every_mask_comes_back(size, density, seed, value_bits):
    mask = uniform(size, round(size * density), seed)
    coded = encode(mask, value_bits=value_bits)
    if coded.coding == "all":
        assert np.array_equal(decode(coded, size=size, count=size, subject="positions"), np.ones(size, np.bool_))
        assert value_bits is not None or mask.all()
        return
    assert np.array_equal(again(coded, mask), mask)
    assert coded.data.size <= -(-size // 8)


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=20))
def test_the_parameter_is_the_best_one(gaps):
    mask = mask_of(sum(gaps) + len(gaps), np.cumsum(np.array(gaps) + 1) - 1)
    assume(2 * len(gaps) <= mask.size)
    bits = [len(gaps) * (k + 1) + sum(gap >> k for gap in gaps) for k in range(25)]
    coded = encode(mask)
    assert coded.data.size == min(-(-min(bits) // 8), -(-mask.size // 8))
    if coded.coding == "gaps":
        assert bits[coded.parameter] == min(bits)


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1000, 100_000),
    density=st.floats(0.005, 0.5),
    seed=st.integers(0, 2**32),
    clustered=st.booleans(),
)
def test_positions_are_within_115_percent_of_their_entropy(size, density, seed, clustered):
    """Whatever the mask: 1.109 of the entropy and a byte, hence 1.15 from an entropy of 171 bits on."""
    count = math.ceil(size * density)
    mask = mask_of(size, range(size - count, size)) if clustered else uniform(size, count, seed)
    bound, bits = entropy_bits(size, count), 8 * encode(mask).data.size
    assert bits < 1.109 * bound + 8
    if bound >= 171:
        assert bits <= 1.15 * bound
    for value_bits in (8, 16, 32):
        assert bits + count * value_bits <= 1.15 * (bound + count * value_bits)
    if size >= 5400:
        assert bits + 8 * -(-count // 8) <= 1.15 * (bound + count)


@pytest.mark.parametrize("density", [0.005, 0.01, 0.05, 0.1, 0.2, 0.3, 0.382, 0.4, 0.5])
def test_positions_of_large_uniform_masks_are_within_105_percent_of_their_entropy(density):
    size = 1_000_000
    mask = uniform(size, round(size * density), 0)
    assert 8 * encode(mask).data.size <= 1.045 * entropy_bits(size, round(size * density))


def gap_code(data, parameter=3, coding="gaps"):
    return Coded(coding=coding, parameter=parameter, data=np.array(data, np.uint8))


@pytest.mark.parametrize(
    ("coded", "size", "count", "got"),
    [
        (gap_code(BY_HAND_BYTES), 64, 4, "1"),
        (gap_code(BY_HAND_BYTES), 64, 2, "4"),
        (gap_code(BY_HAND_BYTES), 40, 3, "40"),
        (gap_code([*BY_HAND_BYTES, 0]), 64, 3, "8"),
        (gap_code([0b10100000, 0b11100011]), 64, 3, "4"),
        (gap_code(BY_HAND_BYTES[:1]), 64, 3, "1 bytes"),
        (gap_code([0] * 100_000), 64, 3, "100000 bytes"),
        (gap_code(BY_HAND_BYTES, parameter=7), 64, 3, "7"),
        (gap_code(BY_HAND_BYTES, parameter=-1), 64, 3, "-1"),
        (gap_code(BY_HAND_BYTES), 64, -1, "-1"),
        (gap_code(BY_HAND_BYTES), 64, 65, "65"),
        (gap_code(BY_HAND_BYTES), 2**40, 3, "3"),
        (gap_code([0x80, 0x00], 0, "bitmap"), 9, 2, "1 set"),
        (gap_code([0x80, 0x40], 0, "bitmap"), 9, 2, "2 set"),
        (gap_code([0x80], 0, "bitmap"), 9, 1, "1 bytes"),
        (gap_code([0x80, 0x00], 1, "bitmap"), 9, 1, "1"),
        (gap_code([], 0, "all"), 9, 8, "0 bytes and 8 values"),
        (gap_code([0], 0, "all"), 9, 9, "1 bytes and 9 values"),
    ],
)
def test_what_no_encoder_wrote_is_refused(coded, size, count, got):
    with pytest.raises(DataError, match=r"^positions: ") as caught:
        decode(coded, size=size, count=count, subject="positions")
    assert str(caught.value.got) == got


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_any_bytes_give_a_mask_of_the_right_size_and_count_or_an_error(data):
    size = data.draw(st.integers(0, 200))
    count = data.draw(st.integers(0, size))
    coded = Coded(
        coding=data.draw(st.sampled_from(["all", "bitmap", "gaps", "gaps-of-zeros"])),
        parameter=data.draw(st.integers(0, 8)),
        data=np.frombuffer(data.draw(st.binary(max_size=40)), np.uint8),
    )
    try:
        mask = decode(coded, size=size, count=count, subject="positions")
    except DataError:
        return
    assert mask.shape == (size,)
    assert mask.sum() == count


@pytest.mark.parametrize("parameter", [0, 5, 20])
def test_a_long_code_takes_no_memory_beyond_what_size_and_count_allow(parameter):
    code = np.full(20_000_000, 0xFF, np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            decode(Coded(coding="gaps", parameter=parameter, data=code), size=2**21, count=1000, subject="positions")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**21
    finally:
        tracemalloc.stop()
