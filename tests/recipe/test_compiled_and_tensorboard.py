"""What is asked for apart: compiled training that resumes, and scalars for TensorBoard."""

import os
import signal
from pathlib import Path

import pytest
from lifecycle import assert_same_run, finish, recipe, start, wait_for

from gossamer.recipe.train import train


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_run_resumes_to_the_same_bits_with_static_shapes(tmp_path: Path) -> None:
    values = recipe(machine={"compile": True})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(values, out=whole)
    process = start(values, stopped)
    wait_for(stopped / "last.json", process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert not (stopped / "states" / "final.safetensors").exists()
    train(values, out=stopped)
    assert_same_run(whole, stopped)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scalars_are_written_for_tensorboard_where_asked(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    assert finish(recipe(machine={"tensorboard": True}), tmp_path / "run") == 0
    seen = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    seen.Reload()
    assert {"loss", "robust_accuracy", "density"} <= set(seen.Tags()["scalars"])
    assert [event.step for event in seen.Scalars("density")] == [3, 6]
