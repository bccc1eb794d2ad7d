"""The network of a policy in the wrapper of earlyon (pip install earlyon; measured with 0.3.0), to compare with.

Its modules, temperatures and thresholds are the same, so one picture leaves at the same exit; the way there differs. A
batch leaves together, at the first exit at which all its pictures are sure.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from inference.policies import Policy


def router(normalise: nn.Module, network: nn.Module, policy: Policy, single: bool) -> Callable[[Tensor], int]:
    """N×H×W×3 uint8 -> the exit at which they leave, counted from 0; N is 1 if `single`."""
    from earlyon.core.types import EarlyExitConfig, ExitPoint
    from earlyon.core.wrappers import EarlyExitWrapper

    *heads, last = network.heads.values()
    layers = [f"segment{position}" for position in policy.positions]
    parts = {"normalise": normalise, "stem": network.stem, **dict(zip(layers, network.segments, strict=True))}
    points = [
        ExitPoint(f"exit{layer}", layer, head.linear.in_features)
        for layer, head in zip(layers[:-1], heads, strict=True)
    ]
    names = [point.name for point in points]
    config = EarlyExitConfig(
        "AuxResNet",
        last.linear.out_features,
        points,
        confidence_thresholds=list(policy.thresholds[:-1]),
        temperatures=dict(zip([*names, "final"], policy.temperatures, strict=True)),
    )
    backbone = nn.Sequential(OrderedDict([*parts.items(), ("head", last)]))
    exits = dict(zip(names, heads, strict=True))
    wrapper = EarlyExitWrapper(backbone, exits, nn.Identity(), config, input_shape=(1, 32, 32, 3)).eval()
    ask = wrapper if single else wrapper.forward_inference_batched
    return lambda images: ask(images).exit_taken % len(policy.positions)  # -1: the last
