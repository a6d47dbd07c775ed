"""How many samples at a time: work runs over batches that halve when memory runs out."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gossamer.errors import RunError

MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def default_batch_size(pixels: int, device: torch.device) -> int:
    """Return a modest batch size for images of `pixels` values (C * H * W): 128 CIFAR images on a CPU."""
    room = 128 * 3 * 32 * 32 * (1 if device.type == "cpu" else 4)
    return max(8, min(512, room // max(pixels, 1)))


class Batches:
    """Runs work over a range of samples in batches; a size that ran out of memory stays halved from then on."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[Tensor], Tensor], positions: Tensor) -> Iterator[Tensor]:
        """Yield `work(part)` for consecutive parts of positions: (M,) int64, in order.

        Raises RunError where one sample alone does not fit into memory.
        """
        start = 0
        while start < len(positions):
            part = positions[start : start + self.size]
            done = self._attempt(work, part)
            if done is None:
                self.size = max(1, len(part) // 2)
                continue
            yield done
            start += len(part)

    def _attempt(self, work: Callable[[Tensor], Tensor], part: Tensor) -> Tensor | None:
        try:
            return work(part)
        except (RuntimeError, MemoryError) as error:
            if not _is_memory(error):
                raise
            if len(part) == 1:
                raise RunError(
                    "memory",
                    expected="room for one sample",
                    got=str(error).splitlines()[0] if str(error) else type(error).__name__,
                    remedy="use a smaller model or image, or a device with more memory",
                ) from error
        # Outside the handler: its traceback holds the tensors of the failed attempt.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        message in str(error) for message in MEMORY_MESSAGES
    )
