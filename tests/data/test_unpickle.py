import collections
import os
import pickle

import numpy as np
import pytest

from gossamer.data.unpickle import read_pickle
from gossamer.errors import DataError


class Calls:
    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_reads_containers_and_arrays(protocol):
    value = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "raw": b"\xff\x00"}
    read = read_pickle(pickle.dumps(value, protocol=protocol), subject="here")
    assert np.array_equal(read["data"], value["data"])
    assert read["labels"] == [1, 2]
    assert read["raw"] == b"\xff\x00"


ARRAYS = [
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.full((1, 3), 0.1, dtype=np.float32),
    np.array(True),
]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_keep_their_numbers_type_and_shape(protocol):
    read = read_pickle(pickle.dumps({"a": [(each,) for each in ARRAYS]}, protocol=protocol), subject="here")
    for (found,), wanted in zip(read["a"], ARRAYS, strict=True):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert np.array_equal(found, wanted)
        assert not found.flags.writeable
    scalars = read_pickle(pickle.dumps({"n": [np.int64(3), np.float32(0.5)]}, protocol=protocol), subject="here")
    assert scalars == {"n": [3, 0.5]}


def test_reads_a_stream(tmp_path):
    (tmp_path / "file").write_bytes(pickle.dumps({"a": np.arange(3)}))
    with (tmp_path / "file").open("rb") as stream:
        assert read_pickle(stream, subject="here")["a"].tolist() == [0, 1, 2]


class Said:
    """An array as a pickle may say it, true or not."""

    def __init__(self, content=b"ab", code="u1", shape=(2,), kind=(3, "|", None, None, None, -1, -1, 0), of=np.ndarray):
        self.type = Typed(code, kind)
        self.content, self.shape, self.of = content, shape, of

    def __reduce__(self):
        return np.zeros(0).__reduce__()[0], (self.of, (0,), b"b"), (1, self.shape, self.type, False, self.content)


class Typed:
    def __init__(self, code, state):
        self.code, self.state = code, state

    def __reduce__(self):
        return np.dtype, (self.code, False, True), self.state


def test_reads_an_array_as_numpy_says_it():
    assert read_pickle(pickle.dumps({"a": Said()}), subject="here")["a"].tolist() == [97, 98]


@pytest.mark.parametrize(
    "said",
    [
        Said(shape=(3,)),
        Said(shape=(10**9, 10**9)),
        Said(shape="ab"),
        Said(code="O8", content=[os.mkdir]),
        Said(code="O8", content=b"\x00" * 16),
        Said(code="V8", kind=(3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0), content=b"\x00" * 16),
        Said(code="u1", kind=(3, "|", None, ("f",), {"f": (np.dtype("u1"), 0)}, 1, 1, 0)),
        Said(content=[1, 2]),
        Said(of=dict),
        Calls(np.ndarray, (10**6,)),
        np.dtype("u1"),
        np.array([None, {}]),
        np.zeros(2, dtype=[("a", "u1"), ("b", "O")]),
        np.ma.array([1, 2]),
    ],
)
def test_refuses_arrays_that_are_not_what_they_say(said):
    with pytest.raises(DataError, match="plain containers and numpy arrays"):
        read_pickle(pickle.dumps({"a": said}), subject="here")


def test_reads_what_python_2_wrote():
    # {'label': 'airplane'} as Python 2 writes it: a byte string, which Python 3 has no opcode for.
    assert read_pickle(b"\x80\x02}U\x05labelU\x08airplanes.", subject="here") == {"label": "airplane"}


def test_refuses_to_run_anything(tmp_path):
    trace = tmp_path / "trace"
    content = pickle.dumps({"data": Calls(os.mkdir, str(trace))})
    with pytest.raises(DataError, match=r"posix.mkdir is not admitted"):
        read_pickle(content, subject="here")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"data": collections.OrderedDict()}),
        pickle.dumps({"data": Calls(eval, "1")}),
        pickle.dumps({"data": Calls(getattr, "text", "upper")}),
        b"\x80\x02}X\x01\x00\x00\x00ac_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86Rs.",
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": [1, 2, 3]})[:-4],
        b"",
        b"not a pickle",
    ],
)
def test_refuses_everything_else(content):
    with pytest.raises(DataError, match="plain containers and numpy arrays"):
        read_pickle(content, subject="here")
