"""What do several processes that train one network share out, and on what must they agree?"""

import hashlib
import os
from collections.abc import Generator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from gossamer.errors import ConfigError, RunError
from gossamer.seeding import Draws, Part

_CPU = torch.device("cpu")
# What one rank does alone while others wait: a teacher's labels, a last evaluation. The steps' own exchanges have
# torch's limit.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among those that torchrun started for one training; alone, every method changes nothing.

    Every rank takes every world-th image of each batch, beginning with its own, and holds the whole of everything else:
    weights, masks, the optimiser's buffers, the objective's state.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    device: torch.device = _CPU

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    def part(self, n: int) -> Part | None:
        """Return which of a batch of n images are this rank's; None: all."""
        return Part(tuple(range(self.rank, n, self.world)), n) if self.several else None

    def draws(self, draws: Draws, part: Part | None) -> Draws:
        """Return the draws of this rank's part of a batch."""
        return Draws(draws.seed, draws.keys, part=part)

    def check_divides(self, n: int, subject: str) -> None:
        """Raise ConfigError where a batch of n images has no equal parts."""
        if n % self.world:
            raise ConfigError(
                subject,
                expected=f"a multiple of the {self.world} processes",
                got=n,
                remedy="change it, or start another number of processes",
            )

    def average(self, gradients: Sequence[Tensor | None]) -> None:
        """Replace gradients by their mean over the ranks, in one exchange for each of their types."""
        if not self.several:
            return
        present = [gradient for gradient in gradients if gradient is not None]
        for kind in dict.fromkeys(gradient.dtype for gradient in present):
            chosen = [gradient for gradient in present if gradient.dtype == kind]
            flat = torch.cat([gradient.reshape(-1) for gradient in chosen])
            dist.all_reduce(flat)
            flat /= self.world
            _write_back(flat, chosen)

    def sums(self, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return scalars, the same names on every rank, summed over the ranks as float64."""
        if not self.several:
            return values
        names = sorted(values)
        total = torch.stack([values[name].to(self.device, torch.float64) for name in names])
        dist.all_reduce(total)
        return dict(zip(names, total.unbind(), strict=True))

    def any(self, flag: bool) -> bool:
        """Return whether a flag is up on some rank."""
        if not self.several:
            return flag
        raised = torch.tensor(float(flag))
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=_patient_group())
        return bool(raised)

    def all(self, flag: Tensor) -> bool:
        """Return whether a flag () bool is up on every rank."""
        return not self.any(not bool(flag))

    def take_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of the first rank, in place, in one exchange for each of their types."""
        if not self.several:
            return
        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            chosen = [tensor.detach() for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.to(self.device).reshape(-1) for tensor in chosen])
            dist.broadcast(flat.view(torch.uint8), src=0)
            _write_back(flat, chosen)

    def exchange(self, state: MutableMapping[str, Tensor], rows: Tensor) -> None:
        """Write into every rank's copy of each tensor what the others did to their rows; rows: (N,) of this one's."""
        if not self.several or not state:
            return
        everyone = [each.to(torch.int64) for each in self._gathered(rows.to(self.device, torch.int64))]
        for tensor in state.values():
            where = [each.to(tensor.device) for each in everyone]
            for places, values in zip(where, self._gathered(tensor[where[self.rank]]), strict=True):
                tensor[places] = values.to(tensor.device)

    def check_same(self, what: str, tensors: Mapping[str, Tensor]) -> None:
        """Raise RunError on every rank where tensors are not of the same bits on all of them."""
        if not self.several:
            return
        mine = torch.frombuffer(bytearray(_digest(tensors)), dtype=torch.uint8).to(self.device)
        others = [rank for rank, digest in enumerate(self._gathered(mine)) if not torch.equal(digest, mine)]
        if others:
            raise RunError(
                what,
                expected=f"the same bits on all {self.world} processes",
                got=f"others on {', '.join(map(str, others))} than on {self.rank}",
                remedy="go on from the last checkpoint; if it comes again, a draw or a sum differs between "
                "processes: look at components of your own, or report it",
            )

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.several:
            self.any(flag=False)

    @contextmanager
    def first_then_others(self) -> Generator[None]:
        """Let the first rank do what is inside before the others do, also where it raises there, and wait for all."""
        if not self.first:
            self.wait()
        try:
            yield
        finally:
            if self.first:
                self.wait()
        self.wait()

    def agree(self, code: int) -> int:
        """Return the first rank's code."""
        told = torch.tensor(code, device=self.device)
        self.take_first([told])
        return int(told)

    def _gathered(self, tensor: Tensor) -> list[Tensor]:
        """Return every rank's tensor, all of one shape; as bytes, since not every type may travel."""
        raw = tensor.to(self.device).contiguous()
        sent = raw.reshape(-1).view(torch.uint8)
        received = [torch.empty_like(sent) for _ in range(self.world)]
        dist.all_gather(received, sent)
        return [each.view(raw.dtype).view(raw.shape) for each in received]


ALONE = Ranks()


def of_environment() -> Ranks:
    """Return this process's rank as torchrun's environment says, without joining anybody."""
    asked = {name: os.environ.get(name, default) for name, default in _ENVIRONMENT.items()}
    if not all(value.isdecimal() for value in asked.values()) or int(asked["RANK"]) >= int(asked["WORLD_SIZE"]):
        raise ConfigError(
            "RANK, WORLD_SIZE and LOCAL_RANK",
            expected="whole numbers, as torchrun sets them",
            got=", ".join(f"{name}={value}" for name, value in asked.items()),
            remedy="start with torchrun, or unset them",
        )
    return Ranks(rank=int(asked["RANK"]), world=int(asked["WORLD_SIZE"]), local=int(asked["LOCAL_RANK"]))


_ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def join(device: str) -> Ranks:
    """Join the processes that torchrun started, on GPUs over NCCL, else over gloo; alone without torchrun.

    device: the recipe's; `auto` and `cuda` mean the GPU of the local rank. Raises ConfigError.
    """
    mine = of_environment()
    if not mine.several:
        return mine
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            "machine.device",
            expected="auto, cpu or cuda under torchrun, which gives each process its own GPU",
            got=device,
            remedy="leave it out, and choose GPUs with CUDA_VISIBLE_DEVICES",
        )
    if on_gpu and mine.local >= torch.cuda.device_count():
        raise ConfigError(
            "processes a machine",
            expected=f"at most one for each of {torch.cuda.device_count()} GPUs",
            got=f"local rank {mine.local}",
            remedy="lower --nproc-per-node, or train on the CPU with --set machine.device=cpu",
        )
    where = torch.device("cuda", mine.local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(where)
    if not dist.is_initialized():
        # Once a process: those who meet a second time may find the first meeting's addresses.
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    _patient_group()
    return Ranks(rank=mine.rank, world=mine.world, local=mine.local, device=where)


def leave() -> None:
    """End what `join` began, where all processes come to their end; after an error there is nobody to agree with."""
    if dist.is_initialized():
        _patient_group.cache_clear()
        dist.destroy_process_group()


@cache
def _patient_group() -> dist.ProcessGroup | None:
    """Return the group in which ranks wait for each other, on the CPU, so that no GPU is waited for."""
    return cast("dist.ProcessGroup | None", dist.new_group(backend="gloo", timeout=PATIENCE))


@torch.no_grad()
def _write_back(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the pieces of one long tensor, in order, into tensors of those sizes."""
    for tensor, piece in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(piece.view(tensor.shape))


def _digest(tensors: Mapping[str, Tensor]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        raw = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name}:{tuple(tensors[name].shape)}".encode())
        digest.update(raw.numpy().tobytes())
    return digest.digest()
