"""A training run: the data, the network and the optimizer of one command line, its epochs, and what it leaves."""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import checkpoints
import curves
import datasets
import devices
import opts
from datasets.loaders import training_batches
from datasets.transforms import Normalise
from evaluation import Result
from models import names
from models.auxresnet import AuxResNet
from report import Progress, epoch_line, exit_table
from trainer import Trainer, learning_rate


class Run:
    """One run, new or resumed. Raises UserError for whatever its options cannot have on this machine."""

    def __init__(
        self, options: argparse.Namespace, configuration: names.Configuration, weights: Sequence[float]
    ) -> None:
        self.options, self.configuration = options, configuration
        self.dataset = opts.label(options.data)
        own_folder = Path(options.save, names.run_folder(self.dataset, configuration.name))
        self.folder = Path(options.resume) if options.resume else own_folder
        resumed = options.resume is not None
        checkpoints.check_folder(self.folder, resumed)
        state = checkpoints.read_state(self.folder) if resumed else None
        if state:
            opts.check_resumable(options, state["options"])

        where = devices.choose(options.nGPU)
        self.data = datasets.for_training(
            options.data, Path(options.dataDir), options.svhnExtra, options.trainSize, options.valSize
        )
        torch.manual_seed(options.manualSeed)
        self.network = AuxResNet(configuration, len(self.data.classes))
        self.network.share_grad_input = options.shareGradInput
        self.trainer = Trainer(self.network, Normalise(self.data.mean, self.data.std), weights, where, options)
        self.log: list[dict[str, Any]] = []
        self.best: float | None = None  # lowest error of the last exit on the validation pictures
        if state:
            self._restore(state)
        self._introduce()

        count = len(self.data.train)
        self.steps = -(-count // options.batchsize)
        self.batches = training_batches(
            self.data.train,
            batch_size=options.batchsize,
            epochs=options.nEpochs,
            first_epoch=self.epochs_done,
            seed=options.manualSeed,
            workers=options.nThreads,
            pad=self.data.source.pad,
            flip=self.data.source.flip,
            pin=where[0].type == "cuda",
        )
        self.progress = Progress(count, options.nEpochs, self.epochs_done, configuration.exits)

    @property
    def epochs_done(self) -> int:
        """How many epochs are trained and saved."""
        return len(self.log)

    def _introduce(self) -> None:
        data, exits = self.data, ", ".join(map(str, self.configuration.exits))
        print(f"{self.configuration.name} on {self.dataset}: exits {exits}; {len(data.classes)} classes, ", end="")
        print(f"{len(data.train):,} training and {len(data.held_out):,} {data.held_out_name} pictures")
        print(f"options: {opts.describe(self.options)}")
        resumed = f" (resumed after epoch {self.epochs_done})" if self.epochs_done else ""
        print(f"folder: {self.folder}/{resumed}", flush=True)

    def train(self, epoch: int) -> Result:
        """Train one epoch (counted from 0)."""
        options = self.options
        self.started = time.monotonic()
        self.progress.epoch(epoch, "training")

        def rate(step: int) -> float:
            progress = (epoch * self.steps + step) / (options.nEpochs * self.steps)
            return learning_rate(progress, options.schedule, options.LR)

        batches = islice(self.batches, self.steps)
        return self.trainer.train_epoch(batches, rate, self.progress.step)

    def evaluate(self, epoch: int) -> Result:
        """Loss and errors on the held-out pictures: the validation split, or the test pictures where there is none."""
        self.progress.epoch(epoch, "testing")
        return self.trainer.evaluate(self.data.held_out)

    def save(self, epoch: int, trained: Result, held_out: Result) -> None:
        """Log the epoch and write the files: the exits (with a validation split: if this epoch is the best so far),
        the log, the curves and, last, the state to resume from."""
        exits, name = self.configuration.exits, self.data.held_out_name
        seconds = time.monotonic() - self.started
        row = {
            "epoch": epoch + 1,
            "seconds": round(seconds, 1),
            "train_loss": trained.loss,
            f"{name}_loss": held_out.loss,
        }
        row |= {f"train_error_{p}": error for p, error in zip(exits, trained.errors, strict=True)}
        row |= {f"{name}_error_{p}": error for p, error in zip(exits, held_out.errors, strict=True)}
        self.log.append(row)
        if not self.data.validates or self.best is None or held_out.errors[-1] < self.best:
            self.best = held_out.errors[-1]
            self._write_exits(held_out)
        checkpoints.write_log(self.folder / "log.csv", self.log)
        with checkpoints.atomic(self.folder / "curves.png") as picture:
            curves.draw(picture, f"{self.configuration.name} on {self.dataset}", self.log, exits, name)
        checkpoints.write_state(self.folder, self._state())
        self.progress.line(epoch_line(epoch, self.options.nEpochs, seconds, exits, trained, name, held_out))

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
            path = checkpoints.exit_path(self.folder, position)
            checkpoints.write_exit(path, self.network.exit_state(position), header)

    def _state(self) -> dict[str, Any]:
        return {
            "options": vars(self.options),
            "network": self.network.state_dict(),
            "training": self.trainer.state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
            "log": self.log,
            "best": self.best,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.trainer.restore(state["training"])
        torch.set_rng_state(state["random"])
        if len(state["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.log, self.best = state["log"], state["best"]

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """Write what a resume needs before the first epoch; say how to resume when interrupted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoints.write_json(self.folder / "opt.json", vars(self.options))
        if not self.log:
            checkpoints.write_state(self.folder, self._state())
        try:
            yield
        except KeyboardInterrupt:
            command = f"python main.py --resume {shlex.quote(str(self.folder))}"
            print(f"interrupted; epochs saved: {self.epochs_done}; go on with: {command}", file=sys.stderr)
            sys.exit(130)
        finally:
            self.progress.close()

    def report(self) -> None:
        """Print the table of exits: what each costs, how well it does on the test pictures, where its file is."""
        exits, classes = self.configuration.exits, len(self.data.classes)
        if self.data.validates:
            errors = self._test_kept().errors
        else:
            errors = [self.log[-1][f"test_error_{position}"] for position in exits]
        files = {position: checkpoints.exit_path(self.folder, position) for position in exits}
        print(f"\n{exit_table(self.configuration, classes, errors, files)}")

    def _test_kept(self) -> Result:
        """The test result of the exit files, which hold the best epoch on the validation pictures."""
        for position in self.configuration.exits:
            weights, _ = checkpoints.read_exit(checkpoints.exit_path(self.folder, position))
            self.network.load_state_dict(weights, strict=False)
        return self.trainer.evaluate(self.data.test())
