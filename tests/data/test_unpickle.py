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


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_reads_containers_and_arrays(protocol):
    value = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "raw": b"\xff\x00"}
    read = read_pickle(pickle.dumps(value, protocol=protocol), subject="here")
    assert np.array_equal(read["data"], value["data"])
    assert read["labels"] == [1, 2]
    assert read["raw"] == b"\xff\x00"


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
