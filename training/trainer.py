"""Multi-way training: one step after another, each at the learning rate and the weights that its progress gives.

Losses and errors are summed on the device; the host reads them when it shows them, and at the end of an epoch. In
between it only hands over work, so that a GPU never waits for it.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from datasets.loaders import Batch, Step
from datasets.sizing import SIDE, SIDES
from models.losses import Objective
from models.metrics import Sums
from models.multiexit import MultiExit
from models.norm import over_all_processes
from system import world
from system.arithmetic import autocast, compiling
from system.devices import place
from system.stopping import Stop
from system.strict import is_number
from training import mixing, optimizers
from training.averaging import Average
from training.finite import FiniteWatch
from training.likeness import like
from training.optimizers import Optimization
from training.schedules import ExitWeights, LearningRate
from training.undoing import Undo

SCALER = ("scale", "_growth_tracker")  # what moves in the state of a gradient scaler


class Trainer:
    """A network on its devices, with its optimizers, loss and schedules.

    `normalise` turns N×H×W×3 uint8 pictures into the network's input; pictures travel as bytes. `dtype` is what the
    network computes in (None: float32), `average` the decay of the weights' moving average (0: none), `mixup` the α of
    mixing pictures (0: none are mixed). With `compiled_batch`, batches of so many pictures are trained on with compiled
    code. With `sync_norms` batch norms take the statistics of the whole batch, which all processes share; without, each
    process takes those of its own part. `seed` is that of mixing, and of what each of several processes draws. `stop`
    may break a step off, and then it leaves no trace.
    """

    def __init__(
        self,
        network: MultiExit,
        normalise: nn.Module,
        devices: Sequence[torch.device],
        *,
        exit_weights: ExitWeights | None = None,
        objective: Objective | None = None,
        optimization: Optimization | None = None,
        learning_rate: LearningRate | None = None,
        dtype: torch.dtype | None = None,
        average: float = 0.0,
        mixup: float = 0.0,
        compiled_batch: int = 0,
        sync_norms: bool = False,
        seed: int = 0,
        stop: Stop | None = None,
    ) -> None:
        self.network, self.normalise, self.devices, self.device = network, normalise, devices, devices[0]
        self.exit_weights = exit_weights or ExitWeights((1.0,) * len(network.exits))
        self.objective, self.learning_rate = objective or Objective(), learning_rate or LearningRate()
        self.dtype, self.mixup, self.compiled_batch, self.seed = dtype, mixup, compiled_batch, seed
        self.sync_norms = sync_norms and world.size() > 1
        for name, parameter in network.named_parameters():  # of several processes, each waits for all that do
            parameter.requires_grad_(network.learns(name, self.exit_weights.weights))
        self.model = world.joint(place(nn.Sequential(normalise, network), devices))
        if world.size() > 1:
            self._lay_out_gradients()
        # The next two hold the network's buffers, so they are made after `place`, which puts others in their place.
        self.undo = Undo(network, self.device)
        self.statistics = {name: buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}
        self.compiled = _compiled(self.model) if compiled_batch else self.model
        self.average = Average(network, average) if average else None
        muon_dtype = torch.bfloat16 if dtype is torch.bfloat16 else torch.float32
        self.optimizers = (optimization or Optimization()).of(network, self.learning_rate.peak, muon_dtype)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16)
        if self.scaler.is_enabled():
            optimizers.at_rest(self.optimizers[0])
        self.watch = FiniteWatch(network, self.statistics, gradients=not self.scaler.is_enabled())
        self.stop = stop or Stop()
        # Several processes would wait for the one that is broken off; the threads of a `DataParallel` would go on.
        self.may_break = world.size() == 1 and not isinstance(self.model, nn.DataParallel)
        self.repeatable = self.may_break or compiled_batch > 0  # of other steps that fail, nothing is saved
        if self.may_break:
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(_let_signals_in)

    def _lay_out_gradients(self) -> None:
        """One backward pass from which nothing is learnt. DistributedDataParallel orders its messages anew after the
        first one; among three processes and more the order changes how sums are rounded, and so a run that goes on
        would have other bits in its first step."""
        self.model.eval()
        sum(logits.sum() for logits in self.model(torch.zeros(1, SIDE, SIDE, 3, device=self.device))).backward()
        self.network.zero_grad(set_to_none=True)

    def steps(self, batches: Iterable[Batch], sums: Sums) -> Iterator[Step]:
        """Train on one batch after another; yields each step when it is done, its loss and errors added to `sums`.

        Losses and gradients are watched; `watch.check()`, which waits for the device, raises NotFinite.
        """
        self.model.train()
        for batch in batches:
            step = batch.step
            rate = self.learning_rate(step.progress)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            images, targets = (tensor.to(self.device, non_blocking=True) for tensor in (batch.images, batch.targets))
            world.draw_apart(self.seed, step.epoch, step.index)
            part = len(targets) / step.whole
            if not part:  # the other processes wait for this one; its answers count for nothing
                images, targets = images.new_zeros(1, step.side, step.side, 3), targets.new_zeros(1)
            wanted = targets
            if self.mixup:
                share = mixing.share(self.mixup, self.seed, step.epoch, step.index)
                images, wanted = mixing.mixed(images, targets, self.network.classes, share)
            loss, losses, logits = self.step(images, wanted, self.exit_weights(step.progress), part)
            results = Sums(len(losses), self.device)
            if part:
                results.add(loss, logits, targets)
            world.combine([results.loss, results.wrong], list(self.statistics.values()), part)
            results.pictures = step.whole
            sums.include(results)
            self.watch.add(step, losses)
            yield step

    def step(
        self, images: Tensor, targets: Tensor, weights: Sequence[float], part: float = 1.0
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Forward, backward through the weighted sum of all losses, and one step of each optimizer: the loss that is
        minimised, the cross-entropy of each of K exits (K, detached), and the logits of each (N×classes). `images` is
        N×H×W×3, from 0 to 255; `targets` are N classes, or N×classes probabilities. `part` is the share of this process
        in the batch of all processes; gradients are those of the whole batch."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss, losses, logits = self._without_trace(images, targets, weights, part)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)  # with a scaler: skipped, at a lower scale, if a gradient is not finite
        self.scaler.update()
        if self.average:
            self.average.update()
        return loss, losses, logits

    def _forward_and_backward(
        self, images: Tensor, targets: Tensor, weights: Sequence[float], part: float
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        model = self.compiled if len(targets) == self.compiled_batch else self.model
        norms = over_all_processes(self.network, part > 0) if self.sync_norms else nullcontext()
        # Losses are means over the pictures here, and gradients become means over the processes. Of two processes, one
        # with 3 of 4 pictures counts 2 · 3/4 times, the other 2 · 1/4 times: the mean is that over all 4.
        scale = world.size() * part
        with norms:
            with autocast(self.device, self.dtype):
                logits = model(images)
            logits = [z.float() for z in logits]
            loss, losses = self.objective(logits, targets, weights)
            self.scaler.scale(scale * loss).backward()
        return loss, losses, logits

    def _without_trace(self, *batch: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Forward and backward. Where that fails or is broken off, batch norm statistics and dropout's generators are
        put back, so that the step can be done again."""
        if not self.repeatable:
            return self._forward_and_backward(*batch)
        self.undo.remember()
        try:  # written out, because a signal may come in a context manager's own code, too, before that catches any
            with self._breakable():
                return self._forward_and_backward(*batch)
        except BaseException:
            self.undo.restore()
            raise

    @contextmanager
    def _breakable(self) -> Iterator[None]:
        """For the forward and the backward pass, which may take minutes where they are compiled, and a signal must not
        wait for them. Raises CompilerFailed."""
        with compiling():
            if not self.may_break:
                yield
                return
            # Without threads of its own, the backward pass of a GPU, too, lets signals in (`_let_signals_in`).
            with torch.autograd.set_multithreading_enabled(False), self.stop.breaking():
                yield

    def state(self) -> dict[str, Any]:
        """What training needs to go on, besides the weights of the network."""
        average = self.average.state() if self.average else None
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "average": average,
        }

    def restore(self, state: dict[str, Any], steps: int) -> None:
        """Go on from what `state` gave after so many steps. Raises KeyError, TypeError or ValueError where it is not
        what this training would have given."""
        begun = steps > 0 and not self.scaler.is_enabled()  # a scaler may have skipped all of them
        for number, (optimizer, momenta) in enumerate(zip(self.optimizers, state["optimizers"], strict=True)):
            optimizers.restore(optimizer, momenta, f"optimizers.{number}", begun)
        own = self.scaler.state_dict()  # empty where there is none
        scaler = like(state["scaler"], own, "scaler")
        if own:
            if not (is_number(scaler["scale"], 1e-30, 1e30) and is_number(scaler["_growth_tracker"], 0, 1e9, int)):
                raise ValueError("scaler has a scale or a count that no scaler has")
            optimizers.at_rest(self.optimizers[0])  # a state of before the first step that was not skipped has none
            self.scaler.load_state_dict({**own, **{name: scaler[name] for name in SCALER}})
        if self.average:
            self.average.restore(state["average"])
            if self.average.steps != steps:
                raise ValueError(f"the average is that of {self.average.steps} steps, not of {steps}")


def _let_signals_in(_: Tensor) -> None:
    """Does nothing. It is called after each gradient, because Python handles signals between its own instructions only,
    and a backward pass has none."""


def _compiled(model: nn.Module) -> nn.Module:
    """The model, compiled. Code is made for each size of pictures; beyond PyTorch's limit, eight of them, the steps
    would not be compiled."""
    warnings.filterwarnings("ignore", message="Error detected in")  # where a signal breaks compiling off
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, len(SIDES))
    return torch.compile(model, dynamic=False)
