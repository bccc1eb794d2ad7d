"""The processes that train together: how many they are, which one this is, and sums over all of them.

A program that was started alone is a world of one. Nothing else asks for a rank.
"""

from torch import Tensor, distributed


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if _several() else 0


def size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _several() else 1


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in place."""
    if _several():
        distributed.all_reduce(tensor)
    return tensor


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
