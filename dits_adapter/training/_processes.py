"""Processes that train together, on several GPUs or machines: `torchrun … -m dits_adapter.cli train …`.

Every process adapts its share of a batch and compares it with the videos of all, and the mean of their gradients
is that of one process with the whole batch. What has a closed form is made by each; what is chosen is chosen by
the first process, which tells the others; the first one writes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from dits_adapter._wording import counted
from dits_adapter.encoders._torch import pick_device
from dits_adapter.errors import DITSError, InputError

__all__ = [
    "average_gradients",
    "count",
    "from_first",
    "gather",
    "is_first",
    "naming_lost_process",
    "place",
    "processes",
    "share",
    "share_weights",
    "wait_for_all",
    "whole_shares",
]

T = TypeVar("T")

_LAUNCHED = "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"
"""Environment variables of a process that torchrun, or a launcher like it, started."""


@contextmanager
def processes(device: str) -> Iterator[str]:
    """Join the processes that a launcher started with this one, and part from them at the end.

    Without a launcher, or where a group of torch.distributed is there already, nothing happens.

    Args:
        device: a torch device or `"auto"`.

    Yields:
        The device of this process: of several on GPUs, each has its own.

    Raises:
        InputError: a device that the processes cannot train on together.
        DITSError: as `naming_lost_process`.
    """
    launched = all(name in os.environ for name in _LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1
    if not launched or count() > 1:
        yield device
        return
    if not distributed.is_available():
        raise InputError("this torch is built without torch.distributed; start one process, without torchrun.")
    chosen, backend = _device_and_backend(device)
    distributed.init_process_group(backend)
    try:
        with warnings.catch_warnings(), naming_lost_process():
            if not is_first():
                warnings.simplefilter("ignore")  # the first one says them
            yield chosen
    finally:
        distributed.destroy_process_group()


@contextmanager
def naming_lost_process() -> Iterator[None]:
    """Translate the error with which a process meets the end of another one.

    Raises:
        DITSError: another process of the training has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if count() == 1 or not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        raise DITSError(
            f"process {place()} of {count()} ends because another one has; what that one said is the reason."
        ) from error


def _device_and_backend(device: str) -> tuple[str, str]:
    """Return the device of this process, and the backend through which such devices meet."""
    kind = pick_device(device).type
    if kind == "cpu":
        if not distributed.is_gloo_available():
            raise InputError("this torch lacks gloo, through which processes on CPUs meet; start one process.")
        return "cpu", "gloo"
    if kind != "cuda":
        raise InputError(f"several processes train on CPUs or CUDA GPUs, not on {kind}; add --device cpu.")
    if not distributed.is_nccl_available():
        raise InputError("this torch lacks NCCL, through which processes on GPUs meet; add --device cpu.")
    local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= here:
        raise InputError(
            f"process {local + 1} on this machine has no GPU, there are {here}; start {here} with torchrun "
            f"--nproc-per-node {here}, or add --device cpu."
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}", "nccl"


def count() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def place() -> int:
    """Return the number of this process, counted from 0."""
    return distributed.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Return True in the process that chooses and writes."""
    return place() == 0


def share(rows: int) -> slice:
    """Return this process's share of the rows of a batch.

    Raises:
        InputError: rows that the processes cannot share evenly.
    """
    each, left = divmod(rows, count())
    if left:
        raise InputError(f"batches of {rows} pairs cannot be shared by {count()} processes; set batch_size.")
    return slice(place() * each, (place() + 1) * each)


def whole_shares(rows: int) -> int:
    """Return the most rows up to a number that the processes can share evenly.

    Raises:
        InputError: fewer rows than processes.
    """
    if rows < count():
        raise InputError(f"{counted(rows, 'pair is', 'pairs are')} too few for {count()} processes; start fewer.")
    return rows - rows % count()


def gather(tensor: Tensor) -> Tensor:
    """Concatenate the rows of all processes in their order; gradients flow back to the process they belong to."""
    if count() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Concatenation of the rows of all processes, as many of each; torch's own function of that is deprecated."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(count())]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient[share(len(gradient))]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    works = [distributed.all_reduce(gradient, async_op=True) for gradient in gradients]
    for work, gradient in zip(works, gradients, strict=True):
        work.wait()
        gradient /= count()


def share_weights(module: nn.Module) -> None:
    """Give all processes the weights of the first."""
    if count() > 1:
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, src=0)


def from_first(make: Callable[[], T]) -> T:
    """Return what the first process makes; the others wait for it."""
    if count() == 1:
        return make()
    made = [make() if is_first() else None]
    distributed.broadcast_object_list(made, src=0)
    return made[0]  # type: ignore[return-value]


def wait_for_all() -> None:
    """Wait until all processes have come here."""
    if count() > 1:
        distributed.barrier()
