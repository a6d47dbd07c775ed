import os
import signal
import socket
import subprocess
import sys

import pytest

from gossamer.errors import RunError
from gossamer.runs import RunFolder
from gossamer.runs.lock import holder, writer

HOLD = """
import sys, time
from gossamer.runs import RunFolder
from gossamer.runs.lock import holder, writer
with writer(RunFolder.create(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_writer_is_told_who_writes_and_a_killed_one_leaves_the_run_free(tmp_path):
    run = RunFolder(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError) as refused, writer(run):
            pass
        assert f"another process (pid {holder.pid} on {socket.gethostname()}) writes this run" in str(refused.value)
        holder.send_signal(signal.SIGKILL)
    with writer(run):
        assert str(os.getpid()) in run.lock.read_text()


def test_one_process_cannot_write_twice_and_can_write_again(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    with writer(run), pytest.raises(RunError, match=f"pid {os.getpid()}"), writer(run):
        pass
    with writer(run):
        pass


def test_who_writes_is_told_without_writing(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    assert holder(run) is None
    assert not run.lock.exists()
    with writer(run):
        assert holder(run) == f"pid {os.getpid()} on {socket.gethostname()}"
    before = run.lock.read_bytes()
    assert holder(run) is None
    assert run.lock.read_bytes() == before
    with writer(run):
        pass
