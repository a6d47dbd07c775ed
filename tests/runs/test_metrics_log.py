import errno
import math
import os

import pytest

from gossamer.errors import RunError
from gossamer.runs import RunFolder
from gossamer.runs.metrics import MetricsLog, read


@pytest.fixture
def log(tmp_path):
    return MetricsLog(RunFolder.create(tmp_path / "run"))


def test_an_empty_log_has_no_lines(log):
    assert (log.offset, read(log.run)) == (0, [])
    log.cut(0)
    assert not log.run.metrics.exists()


def test_lines_come_back_with_null_for_what_is_not_finite(log):
    log.append({"phase": "train", "epoch": 1, "loss": math.nan, "held_out/pgd": 0.25, "density": None})
    log.append({"phase": "train", "epoch": 2, "loss": math.inf})
    assert read(log.run) == [
        {"phase": "train", "epoch": 1, "loss": None, "held_out/pgd": 0.25, "density": None},
        {"phase": "train", "epoch": 2, "loss": None},
    ]


def test_cut_brings_the_log_back_to_the_byte(log):
    log.append({"epoch": 1})
    offset, before = log.offset, log.run.metrics.read_bytes()
    log.append({"epoch": 2})
    with log.run.metrics.open("a") as file:
        file.write('{"epo')
    log.cut(offset)
    assert log.run.metrics.read_bytes() == before
    log.append({"epoch": 2})
    assert [line["epoch"] for line in read(log.run)] == [1, 2]


def test_cut_refuses_a_log_that_lost_lines(log):
    log.append({"epoch": 1})
    with pytest.raises(RunError, match="at least the 1000 bytes"):
        log.cut(1000)


@pytest.mark.parametrize("torn", ['{"epo', '{"epoch": 2}', "{"])
def test_a_torn_last_line_is_left_out(log, torn):
    log.append({"epoch": 1})
    with log.run.metrics.open("a") as file:
        file.write(torn)
    assert read(log.run) == [{"epoch": 1}]


@pytest.mark.parametrize("line", ["half", "3", "[1]"])
def test_damage_inside_is_an_error_that_names_the_line(log, line):
    log.run.metrics.write_text(f'{{"epoch": 1}}\n{line}\n{{"epoch": 3}}\n')
    with pytest.raises(RunError, match="line 2"):
        read(log.run)


def test_a_full_disk_leaves_the_log_as_it_was(log, monkeypatch):
    log.append({"epoch": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="free space"):
            log.append({"epoch": 2})
    assert read(log.run) == [{"epoch": 1}]
