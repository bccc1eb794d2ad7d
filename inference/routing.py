"""A policy at work: test pictures that really leave early, and how fast that is beside single exits."""

import statistics
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from datasets.pictures import Pictures
from inference import asking, early_exit, evaluation, latency, saved
from inference.classifier import Answers
from inference.early_exit import Routing, Rule
from inference.latency import Latency
from inference.policies import Policy
from inference.saved import SavedModel
from models import metrics
from models.multiexit import MultiExit
from reports.adaptive import Contender
from system.machine import Machine

BATCHES = 20  # of `latency.timed_batch_size` pictures
SINGLES = 200  # pictures that are timed one by one
WARM_UP = 2  # batches and pictures that are not counted
GRAPHS = 4  # forms that a part of a network is compiled in: the usual one, and some for other memory layouts

Classify = Callable[[Tensor], Tensor]  # N×side×side×3 uint8 on the host -> N classes on the host


def router(model: SavedModel, rule: Rule, machine: Machine, compiled: bool = False) -> Callable[[Tensor], Routing]:
    """What routes N×side×side×3 uint8 pictures by a rule on the machine's first device, with `compiled` batches of two
    and more by compiled code."""
    normalise, alone, several = _networks(model, machine.device, compiled)

    def route(images: Tensor) -> Routing:
        network = alone if len(images) == 1 else several
        smallest = 1 if network is alone else 2  # compiled code is for two pictures and more
        with machine.autocast():
            return early_exit.route(network, normalise(images.to(machine.device)), rule, smallest)

    return route


def answers(model: SavedModel, rule: Rule, machine: Machine) -> Answers:
    """What N×side×side×3 uint8 pictures that leave by a rule are told, on the machine's first device."""
    normalise, network = asking.ready(model, [machine.device])

    @torch.inference_mode()
    def ask(images: Tensor) -> tuple[Tensor, Tensor]:
        with machine.autocast():
            probabilities, exits = early_exit.outcomes(network, normalise(images.to(machine.device)), rule)
        return probabilities.cpu(), torch.tensor(rule.positions)[exits.cpu()]

    return ask


def single(model: SavedModel, position: int, machine: Machine, compiled: bool = False) -> Classify:
    """One exit's standalone model as a function, in the form that `router` has."""
    normalise, alone, several = _networks(saved.standalone(model, position), machine.device, compiled)

    @torch.inference_mode()
    def classify(images: Tensor) -> Tensor:
        network = alone if len(images) == 1 else several
        with machine.autocast():
            return network(normalise(images.to(machine.device)))[-1].argmax(1).cpu()

    return classify


def _networks(model: SavedModel, device: torch.device, compiled: bool) -> tuple[nn.Module, MultiExit, MultiExit]:
    """What normalises pictures, and the network for one picture and that for several.

    Only the latter is compiled, because the way into compiled code takes longer than it saves for one picture. Segments
    and heads are compiled each by itself, for any size of a batch from two on, and no code is made for one picture.
    """
    normalise, network = asking.ready(model, [device])
    if not compiled:
        return normalise, network, network
    _, several = asking.ready(model, [device])
    parts = [*several.segments, *several.heads.values()]
    torch._dynamo.config.recompile_limit += GRAPHS * len(parts)  # parts of all networks share it
    for part in parts:
        part.compile(dynamic=True)
    return normalise, network, several


def compare(
    model: SavedModel, policy: Policy, pictures: Pictures, machine: Machine, compiled: bool = False
) -> tuple[list[Contender], tuple[int, ...]]:
    """The policy on test pictures, beside the last exit and the cheapest one that errs no more than the policy; and how
    many pictures leave at each exit. `compiled` is as for `router`."""
    macs = model.macs_to_exits
    route = router(model, policy, machine, compiled)
    parts = [route(images) for images, _ in evaluation.batches(pictures)]
    whole = Routing(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))
    figures = whole.figures(pictures.targets, macs)
    logits, targets = asking.collect(model, pictures, machine)
    errors = [metrics.top_error(z, targets) for z in logits]
    as_good = next((i for i, error in enumerate(errors) if error <= figures["error"]), -1)
    chosen = {f"exit {policy.positions[i]}": i for i in (-1, as_good)}
    classify = {name: single(model, policy.positions[i], machine, compiled) for name, i in chosen.items()}
    measured = speeds({"policy": lambda images: route(images).classes.cpu(), **classify}, pictures)
    known = {"policy": (figures["error"], figures["macs"])} | {name: (errors[i], macs[i]) for name, i in chosen.items()}
    rows = [Contender(name, *known[name], rate, *alone) for name, (rate, alone) in measured.items()]
    return rows, figures["histogram"]


def speeds(contenders: Mapping[str, Classify], pictures: Pictures) -> dict[str, tuple[float, Latency]]:
    """How fast each one is, from the bytes of pictures to classes on the host: pictures a second in batches of
    `latency.timed_batch_size`, and the latency of one picture. All take turns on the same pictures, of all classes, so
    that what else the machine does slows all of them alike."""
    size = latency.timed_batch_size(pictures.images.shape[1])
    images = pictures.sample(size * BATCHES).images  # more than SINGLES, whatever their size
    batches = images.split(size)
    whole = [batch for batch in batches if len(batch) == len(batches[0])]
    ways = list(contenders.values())
    many = map(statistics.median, latency.in_turns(ways, whole, WARM_UP))
    one = map(latency.of, latency.in_turns(ways, images[:SINGLES].split(1), WARM_UP))
    found = ((len(batches[0]) / seconds, alone) for seconds, alone in zip(many, one, strict=True))
    return dict(zip(contenders, found, strict=True))
