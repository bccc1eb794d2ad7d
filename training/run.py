"""A training run: the parts that one command line asks for, joined, epoch after epoch, and the files that it leaves."""

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

import checkpoints
import opts
from datasets import catalog
from datasets.loaders import Batch, training_batches
from datasets.transforms import Normalise
from formats import log_file, state_file
from models.metrics import Result
from models.multiexit import MultiExit
from models.names import Configuration
from options import stored
from reports import page, scalars, tables
from reports.progress import Progress
from system import devices, files, processors, strict, world
from system.arithmetic import CompilerFailed
from system.errors import Stopped, UserError, is_shortage, memory_for, out_of_memory, reason
from system.output import tell
from system.stopping import Stop, stoppable
from system.text import quoted
from system.workers import WorkerDied
from training import folders, introduction, origin, setup
from training.display import Display
from training.evaluator import Evaluator
from training.finite import NotFinite
from training.state import State

PROGRAM = Path(__file__).parents[1] / "main.py"


@contextmanager
def started(options: argparse.Namespace, configuration: Configuration) -> Iterator["Run"]:
    """A run, new or resumed, in a folder that it has to itself; stopped by a signal, it saves its state, says how to
    go on, and ends the process. Raises UserError for whatever its options cannot have on this machine."""
    if options.tensorboard and world.is_first():
        scalars.require_package()
    options, folder = folders.settle(options, configuration)
    stopped = None
    with stoppable() as stop, folders.kept_for_this_run(folder, options) as check_held:
        try:
            with stop.breaking():
                run = Run(options, configuration, folder, stop, check_held)
        except Stopped as signalled:
            tell(f"stopped by {signalled} before the first step; the same command starts again")
            sys.exit(signalled.status)
        try:
            run.begin()
            yield run
        except Stopped as signalled:
            world.broadcast(run.save_state)  # by the first process; the others wait for it
            stopped = signalled
        except (WorkerDied, CompilerFailed) as error:
            run.save_state()
            if stop.number is None:
                without = "--nThreads 0" if isinstance(error, WorkerDied) else "--compile false"
                raise UserError(f"{error}; go on with {run.resume_command} {without}") from error
            stopped = Stopped(stop.number)  # the signal was sent to all processes, to that which failed, too
        except Exception as error:
            if is_shortage(error):
                raise out_of_memory(f"in {run.progress.doing}", run.less_memory, error) from error
            if isinstance(error, torch.AcceleratorError):
                text = f"the GPU failed: {reason(error)}; go on from the last save with {run.resume_command}"
                raise UserError(text) from error
            raise
        finally:
            run.close()
    if stopped:
        tell(f"stopped by {stopped}; the state is saved; go on with: {run.resume_command}")
        sys.exit(stopped.status)


class Evaluated(NamedTuple):
    """A network that exit files may be made of, and how it did."""

    network: MultiExit
    result: Result


class Run:
    """The parts of a run, joined: its data, its trainer, where it stands, its files. `check_held` raises UserError once
    its folder is no longer where it was."""

    def __init__(
        self,
        options: argparse.Namespace,
        configuration: Configuration,
        folder: Path,
        stop: Stop,
        check_held: Callable[[], None],
    ) -> None:
        self.configuration, self.stop = configuration, stop
        self.files = checkpoints.RunFiles(folder, configuration.exits, check_held)
        # What a run that goes on was: its state, and the options that it keeps.
        resumed = options.resume is not None
        saved = world.broadcast(lambda: state_file.take_up(folder)) if resumed else None
        self.options_before = setup.options_before(options, saved) if saved else None
        if self.options_before:
            options = opts.resumed(options, self.options_before)
        # What this machine and these pictures make of the options.
        devices.compute_in(options.cpuThreads)
        self.devices = devices.choose(options.nGPU)
        self.origin = origin.find(options, configuration, saved)
        self.sizing = setup.sizing(options, saved)
        self.data = setup.data(options, self.sizing)
        self.identity = setup.identified(self.data, saved)
        self.held_out = self.identity[self.data.evaluated_name]["sha256"] if self.data.validates else None
        origin.check_held_out(self.origin, options, self.held_out)
        self.macs = setup.training_macs(configuration, self.data, self.sizing.side, options.nEpochs)
        self.chosen_by_auto = [name for name in opts.AUTO if getattr(options, name) == "auto"]
        self.options = options = self._choose(options, resumed)
        self.augmentation = setup.augmentation(options, self.data)
        self.plan = setup.plan(options, len(self.data.train))
        # What learns, what is tested, and where both stand.
        normalise, classes = Normalise(self.data.mean, self.data.std), len(self.data.classes)
        batch = self.plan.pictures_after(1)
        with memory_for(f"for {configuration.name}", "give a smaller --depth or --widen"):
            weights = self.origin.weights_for(self.data.classes)
            self.trainer = setup.trainer(options, configuration, classes, normalise, self.devices, batch, stop, weights)
        self.evaluator = Evaluator(self.trainer, self.data, self.plan, self.augmentation)
        self.state = State(self.trainer, self.data.evaluated_name)
        self.save_due = self._next_save()
        self.agreement = world.Agreement()
        if saved:
            self.state.restore(saved, self.plan)
        self.extended = setup.extended(options, self.options_before, saved, self.state.begun) if saved else []
        threads = torch.get_num_threads() if self.devices[0].type == "cpu" else 0
        self.crowding = processors.crowded(threads, world.host_size())
        self.waiting = processors.Waiting(0 if self.crowding else threads)
        self.batches = self._batches()
        # What the user is told meanwhile.
        pictures = len(self.data.train)
        done = self.state.epochs_done * pictures + self.state.sums.pictures
        self.progress = Progress(pictures, options.nEpochs, done, configuration.exits)
        title, tell_above = f"{configuration.name} on {catalog.label(options.data)}", self.progress.tell
        self.display = Display(title, self.files, self.data.evaluated_name, options.tensorboard, tell_above)

    def _choose(self, options: argparse.Namespace, resumed: bool) -> argparse.Namespace:
        """The options with what suits this machine, as the first process finds it. A signal to all processes is one to
        the compiler, too, that is tried in this: nothing follows from its end."""
        try:
            chosen = world.broadcast(lambda: vars(setup.choose(options, self.macs, self.devices, resumed)))
        except UserError as error:
            if self.stop.number is None:
                raise
            raise Stopped(self.stop.number) from error  # the others lose this process, and have the signal
        self.stop.check()
        return argparse.Namespace(**chosen)

    @property
    def resume_command(self) -> str:
        """What the user types to go on."""
        launcher = "python" if world.size() == 1 else f"torchrun --nproc_per_node {world.host_size()}"
        if world.size() > world.host_size():
            launcher += " ..."  # what says where the other hosts are
        folder = str(self.files.folder)
        folder = f"./{folder}" if folder.startswith("-") or folder == opts.AUTO_RESUME else folder
        return f"{launcher} {quoted(str(files.near(PROGRAM)))} --resume {quoted(folder)}"

    @property
    def less_memory(self) -> str:
        """What the user may do where memory is short. A smaller batch takes a new run, because what is learnt depends
        on it; fewer workers do not."""
        shares = "" if self.options.shareGradInput else " or --shareGradInput true"
        return (
            f"a new run with a smaller --batchsize than {self.options.batchsize}{shares} needs less, fewer --nThreads "
            f"need less in this one; once there is more, go on with {self.resume_command}"
        )

    def begin(self) -> None:
        """Say what is going to happen, write what a resume needs before the first step."""
        self._introduce()
        self.state.clock.start()
        self.files.write(stored.FILE, strict.dumps(vars(self.options)))
        if not self.state.begun:
            self.save_state()
        self._mend_exits()
        if self.state.log:
            self.display.show(self.state.log, last=True)  # the run that was interrupted may not have drawn them

    def _introduce(self) -> None:
        options, before, state, device = self.options, self.options_before, self.state, self.devices[0]
        lines = (
            introduction.subject(self.configuration, self.data, catalog.label(options.data)),
            introduction.settings(options, self.chosen_by_auto),
            introduction.beginning(self.origin, self.data.classes),
            introduction.where(self.files.folder, state, self.plan, resumed=before is not None),
        )
        if before:
            note = introduction.extension(options, before, state, self.plan)
        else:
            note = introduction.hint(options, self.macs, device)
        print("\n".join(filter(None, (*lines, note))), flush=True)
        for warning in filter(None, (*introduction.warnings(options, not before, device), self.crowding)):
            tell(warning)

    def _batches(self) -> Iterator[Batch]:
        state = self.state
        return training_batches(
            self.data.train,
            self.plan.after(state.epochs_done, state.steps_done),
            seed=self.options.manualSeed,
            workers=self.options.nThreads,
            augmentation=self.augmentation,
            pin=self.devices[0].type == "cuda",
        )

    def train(self, epoch: int) -> Result:
        """Train one epoch (counted from 0), or what a resumed run has left of it."""
        self.progress.epoch(epoch, "training")
        left = islice(self.stop.awaiting(self.batches), self.plan.steps - self.state.steps_done)
        with self.state.clock.on("training"):
            for step in self.trainer.steps(left, self.state.sums):
                self.state.steps_done = step.index + 1
                self.progress.step(step.whole, self._result)
                if self.agreement.due():
                    self.stop.check()
                if advice := self.waiting.advice():
                    self.progress.tell(advice)
                if time.monotonic() >= self.save_due:
                    self.save_state()
            return self._result()

    def _result(self) -> Result:
        """The result of the epoch so far; waits for the device. Raises NotFinite where there is none."""
        self.trainer.watch.check()
        return self.state.sums.result()

    def evaluate(self, epoch: int) -> Evaluated | None:
        """What is worth keeping of the network, with its loss and errors on the validation split, or on the test
        pictures where there is none.

        In the precision of training, after the last epoch in float32. None in an epoch that `--testEvery` passes over.
        """
        last = epoch + 1 == self.options.nEpochs
        if (epoch + 1) % self.options.testEvery and not last:
            return None
        self.progress.epoch(epoch, "testing")
        with self.state.clock.on("testing"):
            network = self.evaluator.network_to_keep(epoch)
            result = self.evaluator.evaluate(network, self.data.evaluated, None if last else self.trainer.dtype)
        if not math.isfinite(result.loss):
            raise NotFinite(f"the {self.data.evaluated_name} loss", f"after epoch {epoch + 1}")
        return Evaluated(network, result)

    def save(self, epoch: int, trained: Result, evaluated: Evaluated | None) -> None:
        """Log the epoch and write the files: the log, the state to resume from, the exits, if there is something worth
        keeping (with a validation split: if this epoch is the best so far), and then the curves. After a crash in
        between, the exits that are missing are made from the state when the run goes on."""
        state, exits, name = self.state, self.configuration.exits, self.data.evaluated_name
        result = evaluated and evaluated.result
        rate = self.trainer.learning_rate(self.plan.progress(epoch, self.plan.steps - 1))
        row = log_file.row(epoch, exits, trained, name, result, rate, len(self.data.train), state.clock.seconds())
        state.log.append(row)
        state.begin_epoch()  # what follows takes time of the next one
        self.files.write(log_file.FILE, tables.as_csv(state.log))  # all rows: none is missing, or there twice
        self.save_state()
        if evaluated and state.kept_epoch() == state.epochs_done:
            self.files.write_exits(evaluated.network, self._header(), result.errors)
        self.display.show(state.log, last=epoch + 1 == self.options.nEpochs)
        self.progress.line(tables.epoch_line(row, self.options.nEpochs, exits, name))

    @world.first_only
    def save_state(self) -> None:
        """Write all that a resume needs to go on from here. Raises NotFinite where there is nothing worth going on."""
        with self.state.clock.on("other"):
            about = {"fit": self.sizing.fit, "data": self.identity}
            past = {"extended": self.extended, "origin": self.origin.trainings}
            self.files.write_state({"options": vars(self.options), **about, **past, **self.state.saved()})
        self.save_due = self._next_save()

    def _next_save(self) -> float:
        """When, by the monotonic clock, the state is to be saved within an epoch."""
        return time.monotonic() + 60 * self.options.saveEvery

    def _header(self) -> dict[str, Any]:
        """What every exit file says of the run; with a validation split also the SHA-256 of its pictures."""
        name = self.data.evaluated_name
        known = {"heldOut": self.held_out} if self.held_out else {}
        return {
            "name": self.configuration.name,
            "network": asdict(self.configuration),
            "dataset": catalog.label(self.options.data),
            "classes": self.data.classes,
            **self.sizing.fields(),
            "mean": self.data.mean,
            "std": self.data.std,
            "errorOn": name,
            **known,
            "shares": world.size() * len(self.devices),
            "extended": self.extended,
            "origin": self.origin.trainings,
            "epochs": self.state.epochs_done,
            "options": opts.shaping(self.options, self.origin.run),
        }

    def finish(self) -> dict[str, Sequence[float]]:
        """The errors of the exits that are kept, in percent, by what they are: `test error`, and with a validation
        split, whose best epoch is tested now, `validation error`. Mends the log, if that has come to harm, and writes
        the page about the run."""
        self._mend_log()
        kept = world.broadcast(partial(self.files.read_errors, self.state.kept_epoch()))
        errors = self._best_epoch(kept) if self.data.validates else {"test error": kept}
        if world.is_first():
            self.files.write(page.FILE, page.of_run(self.files.exits).encode())
        return errors

    @world.first_only
    def _mend_log(self) -> None:
        """Write the log anew if its file is missing, or has other rows than the training state."""
        if not log_file.holds(self.files.folder, self.state.log):
            self.files.write(log_file.FILE, tables.as_csv(self.state.log))
            path = self.files.folder / log_file.FILE
            self.progress.tell(f"{path} was missing or damaged; it is written anew from the training state")

    def _mend_exits(self) -> None:
        """Where the exits of the epoch that was done last are to be kept, and a file is missing, damaged, or of another
        epoch, write all of them anew: the training state has the weights, the log the errors. The weights of an earlier
        epoch that did best are in no other file; then the user is only told."""
        state, name, kept = self.state, self.data.evaluated_name, self.state.kept_epoch()
        current = kept == state.epochs_done and not state.steps_done  # the state has the weights of that epoch
        if not kept or not (current or self.data.validates):
            return
        damage = world.broadcast(partial(self.files.damage, kept))
        if damage and current:
            tell(f"{damage}; the exits are written anew from the training state")
            network, last = self.evaluator.network_to_keep(state.epochs_done - 1), state.log[-1]
            errors = [last[log_file.error_column(name, position)] for position in self.configuration.exits]
            self.files.write_exits(network, self._header(), errors)
        elif damage:
            tell(f"the exits of the best epoch so far are missing or damaged: {damage}")

    def _best_epoch(self, errors: list[float]) -> dict[str, Sequence[float]]:
        """The epoch that did best on the validation split, with these `errors` there, is tested. Its validation error,
        too, is measured in float32, and takes the place of that of 16 bits in the headers of the exit files."""
        self.progress.epoch(self.state.epochs_done - 1, "testing what is kept")
        network = copy.deepcopy(self.trainer.network)  # a state that is saved now needs its own
        network.load_state_dict(world.broadcast(lambda: self.files.read_exits(network).state_dict()))
        if self.trainer.dtype:
            errors = self.evaluator.evaluate(network, self.data.evaluated).errors
            self.files.write_errors(network, errors)
        with self.stop.breaking():
            test = self.data.test()
        tested = {"test error": self.evaluator.evaluate(network, test).errors} if test else {}
        return {"validation error": errors, **tested}

    def close(self) -> None:
        """End the loader's workers and what shows the log, and take the bar away."""
        self.batches.close()
        self.display.close()
        self.progress.close()

    def report(self, errors: Mapping[str, Sequence[float]]) -> None:
        """Print the table of exits: what each costs, its `errors` as `finish` gave them, where its file is."""
        classes, side = len(self.data.classes), self.sizing.side
        print(f"\n{tables.exit_table(self.configuration, classes, side, errors, self.files.exits)}")
