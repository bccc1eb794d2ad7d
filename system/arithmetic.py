"""What the machine is good at: 16-bit arithmetic and compiled code, found out by trying.

A processor's name says little: a container, an environment variable or a missing compiler changes what it can do.
"""

import functools
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.nn import functional as F

from system.errors import UserError, reason

DTYPES = {"float": None, "bf16": torch.bfloat16, "half": torch.float16}  # what autocast computes in; None: as it is
NATIVE = 1.2  # where bf16 is computed natively it is this many times as fast as float32, or more: 1.9 on AVX512-BF16
# The multiply-adds of a training, forward and backward, from which on compiled steps have made up for the wait: 0.8e14
# (AuxResNet-26-2) and 1.1e14 (AuxResNet-56-5) on two cores with AVX512-BF16, and a margin; some ten minutes of work.
# The figure for GPUs is not measured, only as much larger as they are fast.
WORTH_COMPILING = {"cpu": 1.5e14, "cuda": 1e16}


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """A context in which a network computes in `dtype`; None: as it is."""
    return torch.autocast(device.type, dtype) if dtype else nullcontext()  # the former takes 2 % of a picture's time


@functools.cache  # the same answer all through a run
def computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is native to a device: faster than float32, not emulated.

    A GPU is asked. On a processor a small convolution is timed in both, in one thread, so that other work on the
    machine changes nothing.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = {dtype: [] for dtype in (torch.float32, torch.bfloat16)}
        for _ in range(12):
            for dtype, measured in seconds.items():
                measured.append(_convolve(dtype))
    except RuntimeError:  # no bfloat16 at all
        return False
    finally:
        torch.set_num_threads(threads)
    return min(seconds[torch.float32]) > NATIVE * min(seconds[torch.bfloat16])


def _convolve(dtype: torch.dtype) -> float:
    """Seconds that a convolution of 32×64×16×16 activations takes."""
    images = torch.ones(32, 64, 16, 16, dtype=dtype).to(memory_format=torch.channels_last)
    kernels = torch.ones(64, 64, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    start = time.perf_counter()
    F.conv2d(images, kernels, padding=1)
    return time.perf_counter() - start


def compiles(device: torch.device) -> bool:
    """Whether `torch.compile` works here: a compiler is there, and what it makes can be loaded. Takes some seconds."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns of a CUDA compiler without a GPU
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(64, device=device))
    except Exception:  # compilers, their absence and their output fail in many ways
        return False
    return True


def check_compiles(device: torch.device) -> None:
    """Raise UserError where `torch.compile` does not work, for --compile true."""
    if not compiles(device):
        raise UserError(
            "--compile true: PyTorch finds no compiler here that works, C++ for a CPU or Triton for a GPU; "
            "install one, or give --compile false"
        )


class CompilerFailed(UserError):
    """`torch.compile` failed at code of this program, though it works."""


@contextmanager
def compiling() -> Iterator[None]:
    """For work by compiled code, which is made when it is first needed. Raises CompilerFailed: the compiler may have
    been killed, or found no room on the disk."""
    try:
        yield
    except RuntimeError as error:
        compiler = sys.modules.get("torch._dynamo.exc")  # takes seconds to import, and is there if it has failed
        if not compiler or not isinstance(error, compiler.TorchDynamoException):
            raise
        said = reason(getattr(error, "inner_exception", error))
        raise CompilerFailed(f"torch.compile failed ({said}); --compile false does without it") from error


def choose_precision(asked: str, device: torch.device) -> str:
    """The precision for `--precision asked`: what was asked for, or, for `auto`, bf16 where it is native."""
    if asked != "auto":
        return asked
    return "bf16" if computes_bf16(device) else "float"


def choose_compile(macs: float, device: torch.device) -> bool:
    """Whether a training of so many multiply-adds, forward and backward, should be compiled."""
    return macs >= WORTH_COMPILING[device.type] and compiles(device)


def slow(precision: str, device: torch.device) -> str | None:
    """What to tell a user whose precision the device does not compute natively; None if there is nothing to tell."""
    if precision == "bf16" and not computes_bf16(device):
        return "--precision bf16 is emulated on this machine, which is slow; --precision auto or float is quicker"
    if precision == "half" and device.type == "cpu":
        return "--precision half is slow on a CPU; --precision auto or float is quicker"
    return None
