"""Where a network runs: the CPU, one GPU, or several that share each batch."""

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from system import world
from system.errors import UserError, reason
from system.output import tell

CPU = torch.device("cpu")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def choose(count: int | None) -> list[torch.device]:
    """The devices for `--nGPU count`; None takes one GPU if there is one, else the CPU, and says so. Of several
    processes on a host each has a GPU of its own.

    Raises UserError where the machine has fewer GPUs than were asked for, where they do not work, or where another
    process would compute on the CPU and this one on a GPU: they would wait for each other.
    """
    chosen = _of_this_host(count)
    own, first = chosen[0].type, world.broadcast(lambda: chosen[0].type)
    if own != first:
        raise UserError(
            f"this process would compute on {own}, the first one on {first}; give all --nGPU 0 for the CPU, or see "
            "that PyTorch finds the GPUs of every host"
        )
    return chosen


def _of_this_host(count: int | None) -> list[torch.device]:
    """The same, whatever other hosts choose."""
    # A GPU may be there, and its driver too old: then it is counted, and cannot be had.
    there, processes = torch.cuda.device_count() if torch.cuda.is_available() else 0, world.host_size()
    if count is None and not there:
        tell("no GPU found: running on the CPU")
    count = min(1, there) if count is None else count
    if count > 1 and world.size() > 1:
        raise UserError(
            f"--nGPU {count}: each of several processes has one GPU; leave it out, or give --nGPU 0 for the CPU"
        )
    if count * processes > there:
        legal = f"give at most {there}, or --nGPU 0 for the CPU" if there else "give --nGPU 0 for the CPU"
        wanted = f"--nGPU {count}" if processes == 1 else f"--nproc_per_node {processes}"
        raise UserError(f"{wanted}: this machine has {there or 'no'} GPUs; {legal}")
    if not count:
        return [CPU]
    torch.backends.cudnn.benchmark = True
    if world.size() > 1:
        torch.cuda.set_device(world.host_rank())  # NCCL asks which one it is
    chosen = [torch.device("cuda", world.host_rank() + index) for index in range(count)]
    for device in chosen:
        check_works(device)
    return chosen


def check_works(device: torch.device) -> None:
    """Raise UserError where a GPU does not compute, because PyTorch or cuDNN has no code for it, another program has
    it, or one of several is broken."""
    try:
        one = torch.ones(1, 1, 1, 1, device=device)
        nn.functional.conv2d(one, one).item()
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
        raise UserError(f"{device} cannot be used: {reason(error)}; give --nGPU 0 for the CPU") from error


def seed(number: int, devices: Sequence[torch.device]) -> None:
    """Seed what is drawn; further devices by numbers of their own, so that dropout differs from one share of a batch to
    the next."""
    torch.manual_seed(number)
    for index, device in enumerate(devices[1:], 1):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number + index)


def generators(devices: Sequence[torch.device]) -> list[Tensor]:
    """The states of the generators of those of the devices that are GPUs."""
    return [torch.cuda.get_rng_state(device) for device in _gpus(devices)]


def set_generators(devices: Sequence[torch.device], states: Sequence[Tensor]) -> None:
    """Give those of the devices that are GPUs the states that `generators` had of as many."""
    for device, state in zip(_gpus(devices), states, strict=True):
        torch.cuda.set_rng_state(state, device)


def _gpus(devices: Sequence[torch.device]) -> list[torch.device]:
    return [device for device in devices if device.type == "cuda"]


def compute_in(threads: int | None) -> None:
    """Let the processor compute in so many threads for `--cpuThreads threads`; None: as many as PyTorch takes."""
    if threads is not None:
        torch.set_num_threads(threads)


def _keep_freed_memory() -> None:
    """Ask the C library to keep freed blocks for the next step instead of returning them to the system.

    It would hand back hundreds of megabytes after each step and have them cleared, page by page, in the next.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "mallopt"):  # glibc; elsewhere the default stays
        library.mallopt(M_MMAP_THRESHOLD, 1 << 30) or library.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # older ones' limit
        library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def place(model: nn.Module, devices: Sequence[torch.device]) -> nn.Module:
    """The model, moved to the first of its devices and to channels last; with several, in a `DataParallel` that splits
    each batch among them."""
    if devices[0].type == "cpu":
        _keep_freed_memory()  # from now on: pictures have been read by then, some of them for nothing
    model = model.to(devices[0], memory_format=torch.channels_last)
    return Shared(model, list(devices)) if len(devices) > 1 else model


class Shared(nn.DataParallel):
    """A model that several GPUs compute, each a share of the batch, in the precision of whoever asks: the threads of a
    `DataParallel` know whether that is autocast's, but take float16 for any 16 bits."""

    def parallel_apply(self, replicas: Sequence[nn.Module], inputs: Sequence[Any], kwargs: Any) -> list[Any]:
        """The answers of the replicas to their shares."""
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")

        def within(replica: nn.Module) -> Callable[..., Any]:
            return torch.autocast("cuda", dtype, enabled)(replica.forward)

        return super().parallel_apply([within(replica) for replica in replicas], inputs, kwargs)
