"""What a trained network runs on: devices, and the arithmetic that they compute in."""

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch

from system import arithmetic, devices
from system.output import tell


class Machine(NamedTuple):
    """The devices that share each batch, and the precision: `float`, `bf16` or `half`."""

    devices: list[torch.device]
    precision: str

    @property
    def device(self) -> torch.device:
        """The first device, which holds what is not shared."""
        return self.devices[0]

    @property
    def dtype(self) -> torch.dtype | None:
        """What `arithmetic.autocast` computes in; None: float32."""
        return arithmetic.DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager:
        """A context in which a network computes in this precision."""
        return arithmetic.autocast(self.device, self.dtype)


ON_CPU = Machine([devices.CPU], "float")


def choose(count: int | None, precision: str) -> Machine:
    """The machine for `--nGPU count` and `--precision precision`. Where it does not compute that natively, it says so
    on standard error. Raises UserError as `devices.choose` does."""
    chosen = devices.choose(count)
    precision = arithmetic.choose_precision(precision, chosen[0])
    if note := arithmetic.slow(precision, chosen[0]):
        tell(note)
    return Machine(chosen, precision)
