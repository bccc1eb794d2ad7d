"""Fuzz the readers of files that may come from strangers: exit files, training states, opt.json, log.csv, policies.

pip install atheris
python -m benchmarks.fuzz                               # an hour on one core
python -m benchmarks.fuzz --minutes 5 --corpus corpus   # what was found interesting is kept, and gone on from

Atheris (coverage-guided, on libFuzzer) changes bytes and keeps what reaches new branches. Each input begins with a
byte that chooses the reader. A reader may return or raise UserError; whatever else it raises is printed once for each
place, and a crash ends the run. What lies behind a checksum, in an archive or in another format is fuzzed from within,
too: the harness seals it anew, so that the fuzzer is not stopped at the door.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import atheris

READERS = "calibrate checkpoints datasets formats inference models options opts reports system training".split()
LIBRARIES = ("json", "csv", "zipfile", "torch._weights_only_unpickler")
with atheris.instrument_imports(include=[*READERS, *LIBRARIES]):
    import torch
    from safetensors.torch import load_file, save

    import opts
    from datasets.transforms import Normalise
    from formats import exit_file, log_file, state_file
    from inference import policies, saved
    from models import names, networks
    from options import stored
    from system.errors import UserError
    from training.optimizers import Optimization
    from training.plan import Plan
    from training.state import State
    from training.trainer import Trainer

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures"
RUNS = [FIXTURES / kind / "DIGITS-AuxResNet-8-2" for kind in ("finished", "interrupted")]
POSITION = 5
EXIT = RUNS[0] / f"exit-{POSITION}.safetensors"
POLICY = policies.Policy(
    (5, 8), (1.0, 1.5), (0.9, 0.0), "0" * 64, "DIGITS validation", 10, 1.0, 1000, (4, 6), "budgetMACs", 1000.0, None
)


class Harness:
    """The readers by number; each takes the bytes that are fuzzed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tensors = folder, load_file(EXIT)
        self.archives = [(run / "latest.pt").read_bytes().rpartition(state_file.SEAL)[0] for run in RUNS]
        self.trainers = {name: trainer(name) for name in ("sgd", "muon")}
        self.readers: tuple[Callable[[bytes], object], ...] = (
            self.exit_file, self.header, self.state, self.options, self.log, self.policy,
            *(partial(self.pickle, archive) for archive in self.archives),
        )  # fmt: skip

    def exit_file(self, content: bytes) -> None:
        """A whole exit file."""
        path = self._file(EXIT.name, content)
        saved.load({POSITION: path})

    def header(self, content: bytes) -> None:
        """The JSON in the header of an exit file."""
        text = content.decode(errors="surrogateescape").encode(errors="replace").decode()
        metadata = {"format": "auxresnet-exit", "formatVersion": "1", "program": "AuxResNet", "header": text}
        self.exit_file(save(self.tensors, metadata))

    def state(self, content: bytes) -> None:
        """An archive of PyTorch's, sealed."""
        self._file("latest.pt", content + state_file.SEAL + hashlib.sha256(content).hexdigest().encode())
        self.restore()

    def pickle(self, archive: bytes, content: bytes) -> None:
        """The pickle in such an archive, beside the tensors that it speaks of."""
        self.state(exchanged(archive, content))

    def restore(self) -> None:
        """Read the state, and go on from it as a run does."""
        found, _ = state_file.read(self.folder)
        options = opts.from_saved(found.get("options"))
        plan = Plan(options.trainSize or 64, options.batchsize, options.nEpochs, 0, 32, 32)
        State(self.trainers[options.optimizer], "test").restore(found, plan)

    def options(self, content: bytes) -> None:
        """opt.json."""
        self._file("opt.json", content)
        opts.from_saved(stored.recorded(self.folder, opts.MAIN))

    def log(self, content: bytes) -> None:
        """log.csv."""
        self._file("log.csv", content)
        log_file.read(self.folder)

    def policy(self, content: bytes) -> None:
        """policy.json."""
        policies.read(self._file("policy.json", content))

    def _file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def seeds(self) -> Iterator[bytes]:
        """Real files, each for its reader, and nothing at all."""
        header = json.dumps(exit_file.read_header(EXIT)).encode()
        (self.folder / "policy.json").write_bytes(policies.as_json(POLICY))
        real = [[EXIT.read_bytes()], [header], self.archives]
        real += [[(run / name).read_bytes() for run in RUNS] for name in ("opt.json", "log.csv")]
        real += [[(self.folder / "policy.json").read_bytes()], *([_pickle_of(archive)] for archive in self.archives)]
        for number, contents in enumerate(real):
            yield from (bytes([number]) + content for content in (*contents, b""))


def trainer(optimizer: str) -> Trainer:
    """What trains the network of the fixtures."""
    network = networks.build(names.parse("AuxResNet-8-2"), 10)
    device, normalise = torch.device("cpu"), Normalise((0.0,) * 3, (1.0,) * 3)
    return Trainer(network, normalise, [device], optimization=Optimization(optimizer, decay_norms=optimizer == "sgd"))


def _pickle_of(archive: bytes) -> bytes:
    with ZipFile(io.BytesIO(archive)) as file:
        return file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))


def exchanged(archive: bytes, pickled: bytes) -> bytes:
    """An archive of PyTorch's with another pickle in it."""
    content = io.BytesIO()
    with ZipFile(io.BytesIO(archive)) as old, ZipFile(content, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    return content.getvalue()


def main() -> None:
    """Fuzz for a time. libFuzzer prints executions and coverage, and ends the process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--corpus", type=Path, help="folder of inputs; default: a new one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    harness = Harness(Path(tempfile.mkdtemp()))
    corpus = arguments.corpus or Path(tempfile.mkdtemp())
    corpus.mkdir(exist_ok=True)
    for seed in harness.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    findings: set[str] = set()

    def one(data: bytes) -> None:
        if not data:
            return
        start = time.monotonic()
        try:
            harness.readers[data[0] % len(harness.readers)](data[1:])
        except UserError:
            pass
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            found = f"{type(error).__name__} in {place.filename}:{place.lineno}"
            if found not in findings:
                findings.add(found)
                path = corpus.parent / f"finding-{hashlib.sha256(data).hexdigest()[:16]}"
                path.write_bytes(data)
                print(f"\nFINDING {len(findings)}: {found}, {path}", file=sys.stderr)
                traceback.print_exc()
        if (seconds := time.monotonic() - start) > 5:
            print(f"\nSLOW: {seconds:.1f} s, reader {data[0] % len(harness.readers)}", file=sys.stderr)

    limits = (f"-max_total_time={60 * arguments.minutes:.0f}", "-rss_limit_mb=4096", "-timeout=60")
    atheris.Setup(
        [sys.argv[0], *limits, "-print_final_stats=1", f"-artifact_prefix={corpus.parent}{os.sep}", str(corpus)], one
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
