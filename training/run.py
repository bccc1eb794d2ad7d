"""A training run: the data, the network and the optimizer of one command line, its epochs, and what it leaves."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import checkpoints
import opts
from datasets import catalog
from datasets.loaders import training_batches, varied_sample
from datasets.pictures import SIDE
from datasets.transforms import Augmentation, Normalise
from inference.evaluation import Result, Sums
from models import names
from models.auxresnet import AuxResNet, cost
from reports import plots
from reports.tables import Progress, epoch_line, exit_table
from system import arithmetic
from system import devices
from system.errors import UserError
from system.lock import locked
from system.stopping import Stopped, stoppable
from training import schedules
from training.trainer import Trainer

STATISTICS = 2500  # training pictures to measure batch norm statistics on, where that is needed; more are no better


def warn(text: str) -> None:
    """Tell the user something on standard error."""
    print(text, file=sys.stderr)


@contextmanager
def started(
    options: argparse.Namespace, configuration: names.Configuration, weights: Sequence[float]
) -> Iterator["Run"]:
    """A run, new or resumed, in a folder that it has to itself; stopped by a signal, it saves its state, says how to
    go on, and ends the process. Raises UserError for whatever its options cannot have on this machine."""
    folder = Path(options.save, names.run_folder(opts.label(options.data), configuration.name))
    folder = Path(options.resume) if options.resume else folder
    checkpoints.check_folder(folder, options.resume is not None)
    stopped = None
    with locked(folder, warn), stoppable() as check_stopped:
        run = Run(options, configuration, weights, folder, check_stopped)
        try:
            run.write_first_files()
            yield run
        except Stopped as stop:
            run.save_state()
            stopped = stop
        except RuntimeError as error:
            _, worker, fate = str(error).partition("DataLoader worker")
            if not worker:
                raise
            text = f"a loader worker died ({worker + fate}); go on with {run.resume_command} --nThreads 0"
            raise UserError(text) from error
        finally:
            run.progress.close()
    if stopped:
        warn(f"stopped by {stopped}; the state is saved; go on with: {run.resume_command}")
        sys.exit(stopped.status)


class Run:
    """The parts of a run, joined: its data, its trainer, its place in the course of the epochs, its files."""

    def __init__(
        self,
        options: argparse.Namespace,
        configuration: names.Configuration,
        weights: Sequence[float],
        folder: Path,
        check_stopped: Callable[[], None],
    ) -> None:
        self.configuration, self.folder = configuration, folder
        self.files = {position: checkpoints.exit_path(folder, position) for position in configuration.exits}
        self.dataset = opts.label(options.data)
        self.check_stopped = check_stopped
        checkpoints.check_folder(folder, options.resume is not None)
        state = checkpoints.read_state(folder, warn) if options.resume is not None else None
        before = opts.from_saved(state["options"]) if state else None
        if before:
            options = opts.keep_chosen(options, before)
            opts.check_resumable(options, before)

        where = devices.choose(options.nGPU)
        self.data = catalog.for_training(
            options.data, Path(options.dataDir), options.svhnExtra, options.trainSize, options.valSize
        )
        once = cost(configuration, len(self.data.classes), configuration.exits[-1]).macs
        self.macs = 3 * once * len(self.data.train) * options.nEpochs  # a backward pass takes two forward passes
        self.augmentation = Augmentation(
            pad=self.data.source.pad,
            flip=self.data.source.flip,
            alternate=options.alternateFlip,
            cutout=options.cutout,
            fill=self.data.mean,
            first_side=options.startSize,
        )
        left_to_the_machine = [name for name in opts.AUTO if getattr(options, name) == "auto"]
        self.options = options = self._chosen(options, where)
        torch.manual_seed(options.manualSeed)
        self.network = AuxResNet(configuration, len(self.data.classes))
        self.network.share_grad_input = options.shareGradInput
        self.trainer = Trainer(self.network, Normalise(self.data.mean, self.data.std), weights, where, options)
        self.log: list[dict[str, Any]] = []
        self.best: float | None = None  # lowest error of the last exit on the validation pictures
        self.steps = -(-len(self.data.train) // options.batchsize)  # in an epoch
        self._begin_epoch()
        if state:
            self._restore(state)
        self._introduce(before)
        self._advise(left_to_the_machine, where[0])
        self.batches = self._batches(pin=where[0].type == "cuda")
        pictures = len(self.data.train)
        done = self.epochs_done * pictures + self.sums.pictures
        self.progress = Progress(pictures, options.nEpochs, done, configuration.exits)

    def _chosen(self, options: argparse.Namespace, where: list[torch.device]) -> argparse.Namespace:
        """The options with what suits this machine, and a training of this length, in place of `auto`."""
        precision, compiled = arithmetic.choose_precision(options.precision, where[0]), options.compile
        if compiled == "auto":
            possible = len(where) == 1 and not options.shareGradInput
            compiled = possible and arithmetic.choose_compile(self.macs, where[0])
        return argparse.Namespace(**{**vars(options), "precision": precision, "compile": compiled})

    def _advise(self, left_to_the_machine: Sequence[str], device: torch.device) -> None:
        """Say what was chosen in place of `auto`, and what could be better about precision and number of epochs."""
        if left_to_the_machine:
            chosen = {name: getattr(self.options, name) for name in left_to_the_machine}
            print(f"chosen for this machine: {opts.written(chosen)}", flush=True)
        authors = self.options.recipe == "paper" and self.options.precision == "float"
        if authors and self.macs >= arithmetic.WORTH_COMPILING[device.type] and arithmetic.computes_bf16(device):
            print("this machine computes bf16 natively: --precision auto --compile auto would be much faster")
        for note in (arithmetic.slow(self.options.precision, device), opts.outside_recipe(self.options)):
            if note:
                warn(note)

    def _batches(self, pin: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return training_batches(
            self.data.train,
            batch_size=self.options.batchsize,
            epochs=self.options.nEpochs,
            done=self.epochs_done * self.steps + self.step,
            seed=self.options.manualSeed,
            workers=self.options.nThreads,
            augmentation=self.augmentation,
            pin=pin,
        )

    def _begin_epoch(self) -> None:
        self.step = 0  # steps done in this epoch
        self.sums = Sums(len(self.configuration.exits), self.trainer.device)
        self.seconds, self.clock = 0.0, time.monotonic()  # spent on this epoch up to the clock

    @property
    def epochs_done(self) -> int:
        """How many epochs are trained and saved."""
        return len(self.log)

    @property
    def resume_command(self) -> str:
        """What the user types to go on."""
        return f"python main.py --resume {shlex.quote(str(self.folder))}"

    def _introduce(self, before: argparse.Namespace | None) -> None:
        data, exits = self.data, ", ".join(map(str, self.configuration.exits))
        print(f"{self.configuration.name} on {self.dataset}: exits {exits}; {len(data.classes)} classes, ", end="")
        print(f"{len(data.train):,} training and {len(data.held_out):,} {data.held_out_name} pictures")
        if parts := opts.recipe_parts(self.options):
            print(f"recipe: {self.options.recipe} ({parts})")
        print(f"options: {opts.describe(self.options)}")
        place = f"epoch {self.epochs_done}" + (f" and {self.step} of {self.steps} steps" if self.step else "")
        print(f"folder: {self.folder}/{f' (resumed after {place})' if before else ''}", flush=True)
        if before and before.nEpochs != self.options.nEpochs:
            old, new = (
                self.trainer.learning_rate(self._progress(0, n)) for n in (before.nEpochs, self.options.nEpochs)
            )
            print(f"nEpochs raised from {before.nEpochs} to {self.options.nEpochs}: ", end="")
            print(f"from here on the learning rate is that of the longer schedule, {new:.4g} where it was {old:.4g}")

    def _progress(self, step: int, epochs: int) -> float:
        """The part that is done, `step` steps into this epoch, of a run of so many epochs."""
        return schedules.progress(self.epochs_done, step, self.steps, epochs)

    def train(self, epoch: int) -> Result:
        """Train one epoch (counted from 0), or what a resumed run has left of it."""
        self.clock = time.monotonic()
        self.save_due = self.clock + 60 * self.options.saveEvery
        self.progress.epoch(epoch, "training")
        return self.trainer.train_epoch(
            islice(self.batches, self.steps - self.step),
            lambda step: self._progress(step, self.options.nEpochs),
            self.sums,
            self._after_step,
            epoch,
            self.step,
        )

    def _after_step(self, pictures: int, result: Result | None) -> None:
        self.step += 1
        self.progress.step(pictures, result)
        self.check_stopped()
        if time.monotonic() >= self.save_due:
            self.save_state()

    def evaluate(self, epoch: int) -> Result | None:
        """Loss and errors on the held-out pictures: the validation split, or the test pictures where there is none.

        In the precision of training, after the last epoch in float32. None in an epoch that `--testEvery` passes over.
        """
        last = epoch + 1 == self.options.nEpochs
        if (epoch + 1) % self.options.testEvery and not last:
            return None
        self.progress.epoch(epoch, "testing")
        first_side = schedules.side(self._progress(0, self.options.nEpochs), self.options.startSize, SIDE)
        sample = varied_sample(self.data.train, STATISTICS, self.options.manualSeed, self.augmentation)
        self.judged = self.trainer.judged(sample, first_side == SIDE, lambda count: self.check_stopped())
        return self.trainer.evaluate(self.judged, self.data.held_out, lambda count: self.check_stopped(), exact=last)

    def save(self, epoch: int, trained: Result, held_out: Result | None) -> None:
        """Log the epoch and write the files: the exits, if they were tested (with a validation split: if this epoch is
        the best so far), the log, the curves and, last, the state to resume from."""
        exits, name = self.configuration.exits, self.data.held_out_name
        seconds = self._seconds()
        row = {
            "epoch": epoch + 1,
            "seconds": round(seconds, 1),
            "train_loss": trained.loss,
            f"{name}_loss": held_out.loss if held_out else None,
        }
        row |= {f"train_error_{p}": error for p, error in zip(exits, trained.errors, strict=True)}
        tested = held_out.errors if held_out else [None] * len(exits)
        row |= {f"{name}_error_{p}": error for p, error in zip(exits, tested, strict=True)}
        self.log.append(row)
        self._begin_epoch()
        if held_out and (not self.data.validates or self.best is None or held_out.errors[-1] < self.best):
            self.best = held_out.errors[-1]
            self._write_exits(held_out)
        checkpoints.write_log(self.folder / "log.csv", self.log)
        title = f"{self.configuration.name} on {self.dataset}"
        checkpoints.write(self.folder / "curves.png", plots.draw_run(title, self.log, exits, name))
        self.save_state()
        self.progress.line(epoch_line(epoch, self.options.nEpochs, seconds, exits, trained, name, held_out))

    def _seconds(self) -> float:
        return self.seconds + time.monotonic() - self.clock

    def _write_exits(self, held_out: Result) -> None:
        shared = {
            "name": self.configuration.name,
            "network": asdict(self.configuration),
            "dataset": self.dataset,
            "classes": self.data.classes,
            "input": [3, 32, 32],
            "mean": self.data.mean,
            "std": self.data.std,
            "errorOn": self.data.held_out_name,
            "epochs": self.epochs_done,
            "options": vars(self.options),
        }
        for position, error in zip(self.configuration.exits, held_out.errors, strict=True):
            header = {**shared, "position": position, "error": error}
            checkpoints.write_exit(self.files[position], self.judged.exit_state(position), header)

    def write_first_files(self) -> None:
        """Write what a resume needs before the first step."""
        checkpoints.write_json(self.folder / "opt.json", vars(self.options))
        if not self.log and not self.step:
            self.save_state()

    def save_state(self) -> None:
        """Write all that a resume needs to go on from here. Raises NotFinite where there is nothing worth going on."""
        self.trainer.watch.check()
        state = {
            "options": vars(self.options),
            "network": self.network.state_dict(),
            "training": self.trainer.state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
            "log": self.log,
            "best": self.best,
            "step": self.step,
            "sums": self.sums.state(),
            "seconds": self._seconds(),
        }
        checkpoints.write_state(self.folder, state)
        self.save_due = time.monotonic() + 60 * self.options.saveEvery

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.network.load_state_dict(state["network"])
            self.trainer.restore(state["training"])
            torch.set_rng_state(state["random"])
            if len(state["random_cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["random_cuda"])
            self.log, self.best = state["log"], state["best"]
            self.step, self.seconds = state["step"], state["seconds"]
            self.sums.restore(state["sums"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"the training state in {self.folder} does not fit its options: {reason}") from error

    def finish(self) -> None:
        """Test what is kept, in float32. With a validation split that is the best epoch on it: its validation error,
        too, is measured in float32, and takes the place of that of 16 bits in the headers of the exit files."""
        exits = self.configuration.exits
        if not self.data.validates:
            self.errors = [self.log[-1][f"test_error_{position}"] for position in exits]
            return
        self.progress.epoch(self.epochs_done - 1, "testing what is kept")
        for path, expected in ((self.files[p], self.network.exit_state(p)) for p in exits):
            self.network.load_state_dict(checkpoints.read_weights(path, expected), strict=False)
        if self.options.precision != "float":
            validated = self.trainer.evaluate(self.network, self.data.held_out, lambda count: self.check_stopped())
            for position, error in zip(exits, validated.errors, strict=True):
                header = {**checkpoints.read_header(self.files[position]), "error": error}
                checkpoints.write_exit(self.files[position], self.network.exit_state(position), header)
        self.errors = self.trainer.evaluate(self.network, self.data.test(), lambda count: self.check_stopped()).errors

    def report(self) -> None:
        """Print the table of exits: what each costs, how well it does on the test pictures, where its file is."""
        print(f"\n{exit_table(self.configuration, len(self.data.classes), self.errors, self.files)}")
