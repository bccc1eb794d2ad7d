"""Where exits may lie, where they lie by default, and what their losses weigh. Plain Python, no torch.

A position is the number of the layer that an exit follows: the stem convolution is layer 1, every basic block
adds 2, every bottleneck block 3. The last exit's position is the depth, as its classifier counts as a layer.
"""

from collections.abc import Sequence

from system.errors import UsageError

STAGES = 3
MAX_DEPTH = 2000
DEPTHS = range(8, MAX_DEPTH + 1)  # in which there are networks
DEEPEST_BASIC = 110  # of the depths that are both 6n + 2 and 9n + 2
PUBLISHED = {
    (26, 2): (19, 26),
    (44, 2): (39, 44),
    (56, 2): (45, 56),
    (56, 3): (35, 45, 56),
    (56, 5): (15, 25, 35, 45, 56),
}


def layers_per_block(depth: int) -> int:
    """2 (basic blocks) for a depth of 6n + 2, 3 (bottleneck) for 9n + 2. A depth of both forms is basic up to 110
    and bottleneck above, as the published networks are (ResNet-110 and ResNet-164, arXiv 1603.05027, table 2).

    Raises UsageError for any other depth, naming the nearest legal ones.
    """
    if fitting := _fitting(depth):
        return fitting[0 if depth <= DEEPEST_BASIC else -1]
    nearest = sorted(sorted(filter(_fitting, DEPTHS), key=lambda d: abs(d - depth))[:3])
    raise UsageError(
        f"depth {depth} is not one of {DEPTHS[0]} to {MAX_DEPTH} of the form 6n+2 (basic blocks) or 9n+2 (bottleneck); "
        f"nearest: {', '.join(map(str, nearest))}"
    )


def _fitting(depth: int) -> list[int]:
    """The layers that the blocks of a network of this depth may have; none, where there is no such network."""
    return [layers for layers in (2, 3) if depth in DEPTHS and (depth - 2) % (STAGES * layers) == 0]


def positions(depth: int) -> tuple[int, ...]:
    """Every legal exit position of a network, shallow to deep; the last is `depth`."""
    layers = layers_per_block(depth)
    blocks = (depth - 2) // layers
    return (*(layers * block + 1 for block in range(1, blocks)), depth)


def spread(depth: int, outputs: int) -> tuple[int, ...]:
    """The default exits: the published ones, else exit i of K follows block round(i · blocks / K)."""
    legal = positions(depth)
    if not 1 <= outputs <= len(legal):
        raise UsageError(
            f"nOutputs {outputs} does not fit a network of depth {depth}, which can have 1 to {len(legal)} exits"
        )
    if (depth, outputs) in PUBLISHED:
        return PUBLISHED[depth, outputs]
    blocks = len(legal)
    return tuple(legal[(2 * i * blocks + outputs) // (2 * outputs) - 1] for i in range(1, outputs + 1))


def check(depth: int, exits: Sequence[int]) -> tuple[int, ...]:
    """The exits sorted; UsageError where one repeats, is off a block boundary, or the last is missing."""
    legal = positions(depth)
    given = ",".join(map(str, exits))[:80]
    for position in exits:
        if position not in legal:
            nearest = sorted(sorted(legal, key=lambda p: abs(p - position))[:2])
            raise UsageError(
                f"exits {given}: {position} follows no block of a network of depth {depth}; "
                f"nearest legal positions: {', '.join(map(str, nearest))}"
            )
    if len(set(exits)) != len(exits):
        raise UsageError(f"exits {given} name one position twice; give each once")
    if depth not in exits:
        raise UsageError(f"exits {given} lack the last exit; add {depth}")
    return tuple(sorted(exits))


def loss_weights(weights: str | Sequence[float], exits: Sequence[int]) -> tuple[float, ...]:
    """The weight of each exit's loss: `sum` (all 1), `depth` ((position / last position)²), or one number each."""
    if weights == "sum":
        return (1.0,) * len(exits)
    if weights == "depth":
        return tuple((position / exits[-1]) ** 2 for position in exits)
    if len(weights) != len(exits):
        given = ",".join(f"{weight:g}" for weight in weights)
        raise UsageError(
            f"exitWeights {given} has {len(weights)} numbers, the network has {len(exits)} exits "
            f"({', '.join(map(str, exits))}); give one for each"
        )
    return tuple(weights)


def learning(weights: str | Sequence[float], exits: Sequence[int]) -> list[int]:
    """The exits whose losses weigh more than 0, shallow to deep; the others stay as they were drawn."""
    return [position for position, weight in zip(exits, loss_weights(weights, exits), strict=True) if weight]
