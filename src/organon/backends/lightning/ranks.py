"""The processes that train together, one for each device. In a single process all of this does nothing.

All ranks must come to the same decisions, or those that go on wait for ever for those that do not. What a
rank knows alone (a signal, its memory is full, its checkpoint is damaged) is therefore agreed on first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch._C import _DistStoreError as DistStoreError  # torch.distributed hides both names from type checkers
from torch._C._distributed_c10d import TCPStore
from torch.distributed.tensor import DTensor, distribute_tensor

from organon.backends.lightning.launch import Place
from organon.backends.lightning.stop import Stopped
from organon.errors import TrainingError

BUCKET_BYTES = 64 * 2**20  # gradients that are added up in one call; larger ones go alone, without a copy
# Rank 0 may tokenise or save for long while the others wait. One that has died is noticed at once all the
# same: its connections break, and rank 0 watches the processes.
PATIENCE = timedelta(hours=4)
ARRIVAL = timedelta(minutes=15)
STOP = "stop"


@dataclass(frozen=True)
class Ranks:
    """Process ``rank`` (from 0) of ``world``. ``sharded``: they share one copy of the weights (FSDP)."""

    rank: int = 0
    world: int = 1
    device: torch.device | None = None  # of this process; in a single one there is no choice
    sharded: bool = False
    store: Any = field(default=None, repr=False, compare=False)  # torch's, for what is not a collective

    @property
    def is_main(self) -> bool:
        """Whether this process writes: files, logs, status."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` added up over all processes, in place."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag, whether it is set in any process; the same answer in all."""
        if self.world == 1:
            return flags
        return tuple(count > 0 for count in self.sum(torch.tensor(flags, dtype=torch.int32)).tolist())

    def same(self, value: Callable[[], Any]) -> Any:
        """Rank 0's ``value()``, in all processes: plain data, a few bytes. The others do not call it."""
        found = [value() if self.is_main else None]
        if self.world > 1:
            distributed.broadcast_object_list(found)
        return found[0]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            self.sum(torch.zeros(1))

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Rank 0 does this alone, then the others."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is done in here ends in ``Stopped`` in all processes if it does in one."""
        stopped = False
        try:
            yield
        except Stopped:
            stopped = True
        if self.any(stopped)[0]:
            raise Stopped

    def heeding(self, check: Callable[[], None]) -> Callable[[], None]:
        """``check``, which raises Stopped in rank 0, as one that raises it in every process soon after.

        To be called between micro-batches, and inside of `together`. It is no collective, since the
        processes have different numbers of micro-batches; but where weights are sharded, each forward
        pass is one, so that all must stop before the same.
        """
        if self.world == 1:
            return check
        if self.sharded:
            return lambda: self._check_together(check)
        return (lambda: self._check_and_tell(check)) if self.is_main else self._check_told

    def _check_together(self, check: Callable[[], None]) -> None:
        with self.together():
            check()

    def _check_and_tell(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Stopped:
            self.store.set(STOP, "1")
            raise

    def _check_told(self) -> None:
        if self.store.check([STOP]):
            raise Stopped

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients over all processes; one that had no rows counts as zero.

        A parameter without a gradient in any process keeps none. FSDP has added up its own already.
        """
        if self.world == 1:
            return
        mine = [p for p in parameters if not isinstance(p, DTensor)]
        if not mine:
            return
        has = self.any(*(p.grad is not None for p in mine))
        wanted = [p for p, found in zip(mine, has, strict=True) if found]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        pending = []
        for bucket in _buckets([p.grad for p in wanted if p.grad is not None]):
            alone = len(bucket) == 1 and bucket[0].is_contiguous()
            flat = bucket[0] if alone else torch.cat([gradient.reshape(-1) for gradient in bucket])
            pending.append((bucket, flat, distributed.all_reduce(flat, async_op=True)))
        for bucket, flat, work in pending:
            work.wait()
            if flat is not bucket[0]:
                parts = torch.split(flat, [gradient.numel() for gradient in bucket])
                torch._foreach_copy_(bucket, [part.view_as(g) for part, g in zip(parts, bucket, strict=True)])

    @torch.no_grad()
    def same_weights(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Rank 0's values in all processes."""
        if self.world > 1:
            for parameter in parameters:
                distributed.broadcast(parameter.data, 0)

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor``; if it is sharded, rank 0 has it whole then, in main memory. All must call this."""
        if not isinstance(tensor, DTensor):
            return tensor
        gathered = tensor.full_tensor()
        return gathered.cpu() if self.is_main else gathered.new_empty(0)


def share_of(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``whole``, which all processes have, on the device of ``like`` and sharded as that is."""
    if not isinstance(like, DTensor):
        return whole.to(like.device)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def number(value: torch.Tensor) -> float:
    """A scalar, also one that is the result of sharded tensors."""
    return float(value.full_tensor() if isinstance(value, DTensor) else value)


@contextmanager
def joined(place: Place, kind: str, *, sharded: bool = False) -> Iterator[Ranks]:
    """The ranks of the training, connected with one another. ``kind`` of device: cpu or cuda."""
    if place.world == 1:
        yield Ranks()
        return
    device = torch.device(kind, place.local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    if place.host == "127.0.0.1" and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it asks for this machine's name, which DNS may lack
    try:
        store = TCPStore(
            place.host,
            place.port,
            place.world,
            is_master=place.rank == 0,
            timeout=ARRIVAL,
            master_listen_fd=place.listener,
        )
    except DistStoreError as error:
        raise TrainingError(
            f"not all of {place.world} processes came within {ARRIVAL.total_seconds():.0f} s: {error}",
            where="training",
            fix="of several nodes, start the same command on each: srun --ntasks-per-node=1 organon train ...",
        ) from error
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.world,
        timeout=PATIENCE,
        device_id=device if kind == "cuda" else None,
    )
    # Not undone if the training fails: the others may have gone, and the process ends.
    ranks = Ranks(place.rank, place.world, device, sharded, store)
    yield ranks
    ranks.barrier()
    distributed.destroy_process_group()


def _buckets(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The tensors in order, those of one type that are small in groups of at most ``BUCKET_BYTES``."""
    group: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if group and (tensor.dtype != group[0].dtype or size + tensor.nbytes > BUCKET_BYTES):
            yield group
            group, size = [], 0
        group.append(tensor)
        size += tensor.nbytes
    if group:
        yield group
