"""How many samples at a time: work runs over batches that halve when memory runs out."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from gossamer.data import DataSet
from gossamer.errors import RunError
from gossamer.types import Model

T = TypeVar("T")

MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


GPU_IMAGES = 1024
SHARE_OF_MEMORY = 0.5
PROBE = 4
UNKNOWN_MEMORY = 4 * 2**30


def default_batch_size(pixels: int, device: torch.device) -> int:
    """Return the most images of `pixels` values (C * H * W) that gain speed together: 128 CIFAR images on a CPU."""
    if device.type != "cpu":
        return GPU_IMAGES
    return max(8, min(512, 128 * 3 * 32 * 32 // max(pixels, 1)))


def fitting_batch_size(model: Model, dataset: DataSet, device: torch.device) -> int:
    """Return how many images an attack on this model can take at a time: half of the memory that is free.

    What an image needs is measured: by what a forward pass keeps for the backward one, twice over for the gradients.
    """
    images = dataset.float(torch.arange(min(PROBE, len(dataset))), device=device)
    needed = max(1, 2 * _kept_for_backward(model, images) // len(images))
    fitting = int(SHARE_OF_MEMORY * _free_memory(device)) // needed
    return max(1, min(fitting, default_batch_size(images[0].numel(), device)))


def _kept_for_backward(model: Model, images: Tensor) -> int:
    """Return the bytes of the distinct tensors that a forward pass keeps, at least those of a few images."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images.detach().requires_grad_(True))
    return max(sum(kept.values()), 4 * images.nbytes)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return UNKNOWN_MEMORY
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else UNKNOWN_MEMORY


class Batches:
    """How many samples go together; a size that ran out of memory stays halved from then on."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[Tensor], T], positions: Tensor) -> Iterator[T]:
        """Yield `work(part)` for consecutive parts of positions: (M,) int64, in order.

        Raises RunError where one sample alone does not fit into memory.
        """
        start = 0
        while start < len(positions):
            part = positions[start : start + self.size]
            done = self.attempt(partial(work, part), len(part))
            if done is not None:
                yield done
                start += len(part)

    def attempt(self, work: Callable[[], T], count: int) -> T | None:
        """Return `work()` on `count` samples, or None where memory ran out and the size was halved.

        Raises RunError where one sample alone does not fit into memory.
        """
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not _is_memory(error):
                raise
            if count == 1:
                raise RunError(
                    "memory",
                    expected="room for one sample",
                    got=str(error).splitlines()[0] if str(error) else type(error).__name__,
                    remedy="use a smaller model or image, or a device with more memory",
                ) from error
        # Outside the handler: its traceback holds the tensors of the failed attempt.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.size = max(1, count // 2)
        return None


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        message in str(error) for message in MEMORY_MESSAGES
    )
