import pytest
import torch

from gossamer.errors import RunError
from gossamer.evaluation.batches import Batches, default_batch_size

CPU = torch.device("cpu")
CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"


def hungry(limit, error):
    seen = []

    def work(part):
        seen.append(len(part))
        if len(part) > limit:
            raise error
        return part * 10

    return work, seen


@pytest.mark.parametrize(
    "error",
    [RuntimeError(CPU_MESSAGE), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), MemoryError()],
)
def test_out_of_memory_halves_the_batch_and_loses_no_sample(error):
    work, seen = hungry(3, error)
    done = torch.cat(list(Batches(10).run(work, torch.arange(11))))
    assert done.tolist() == list(range(0, 110, 10))
    assert seen == [10, 5, 2, 2, 2, 2, 2, 1]


def test_the_smaller_size_is_kept_for_the_next_work():
    batches = Batches(8)
    list(batches.run(hungry(2, MemoryError())[0], torch.arange(8)))
    assert batches.size == 2


def test_one_sample_that_does_not_fit_is_an_error():
    with pytest.raises(RunError, match="room for one sample"):
        list(Batches(4).run(hungry(0, RuntimeError(CPU_MESSAGE))[0], torch.arange(4)))


def test_another_error_passes_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(Batches(4).run(hungry(0, RuntimeError("shapes cannot be multiplied"))[0], torch.arange(4)))


def test_default_batch_size_shrinks_with_the_image():
    assert default_batch_size(3 * 32 * 32, CPU) == 128
    assert default_batch_size(3 * 64 * 64, CPU) == 32
    assert default_batch_size(3 * 1024 * 1024, CPU) == 8
    assert default_batch_size(4, CPU) == 512
