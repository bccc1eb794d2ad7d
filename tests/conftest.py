"""What several tests share: the scripts as a user runs them, a small folder of pictures, a small finished run."""

import csv
import io
import itertools
import multiprocessing
import os
import pickle
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side; read when PyTorch is imported
os.environ.setdefault("TESTED_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))  # by test_gpu.py
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the other tests are of the CPU, because they compare bits

import numpy as np
import pytest
import torch
from PIL import Image

import main
from datasets import digits
from datasets.transforms import Normalise
from formats import state_file
from formats.log_file import TIMES
from inference import early_exit, policies, saved
from inference.calibration import Answered
from inference.early_exit import Rule
from inference.policies import Policy
from models import names, networks
from system import world
from system.errors import UserError

signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a script starts tests in the background

PROJECT = Path(__file__).parent.parent
CPU = [torch.device("cpu")]
MACS = [10, 25, 40]  # to three exits, in no unit
NORMALISE = Normalise((128.0,) * 3, (64.0,) * 3)
SMALL = ["--data", "DIGITS", "--depth", "14", "--nOutputs", "3", "--trainSize", "256", "--nGPU", "0"]
NAME, EXITS = "AuxResNet-14-3", (5, 9, 14)  # of its network
FOLDER = f"DIGITS-{NAME}"  # of its run


# New processes that have imported PyTorch and other packages, from a server that has not used them. Importing takes
# seconds, and hundreds of tests run a program.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "torchvision", "sklearn.datasets", "safetensors.torch", "matplotlib"])


def pytest_collection_modifyitems(items):
    """What needs a trained network is slow."""
    for item in items:
        if {"finished", "validated"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


def script(name, *arguments, cwd=PROJECT):
    """Run a script of the project as a user does; returns the finished process with its output as text."""
    argv = [str(PROJECT / name), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, stream) for stream in ("stdout", "stderr")]
        process = FORKS.Process(target=run_script, args=(argv, str(cwd), streams))
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(argv, 300)
        return subprocess.CompletedProcess(argv, process.exitcode, *(stream.read_text("utf-8") for stream in streams))


def run_script(argv, cwd, streams):
    """In a new process: the script `argv[0]` with its own streams, in its own folder."""
    for number, stream in enumerate(streams, 1):
        descriptor = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.chdir(cwd)
    sys.argv = argv
    sys.path.insert(0, str(PROJECT))
    runpy.run_path(argv[0], run_name="__main__")


def tracked(*patterns):
    """The files of the project under version control, by their paths in it."""
    command = ["git", "-c", "safe.directory=*", "ls-files", *patterns]  # whoever they belong to
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()


def children(process):
    """The processes that a process has started, and that are there."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # a thread may end meanwhile
            found += map(int, task.read_text().split())
    return found


def together(count, work, *arguments, joined=True):
    """What `work(*arguments)` returns in each of so many processes, in the order of their ranks. They are joined, or
    join themselves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with tempfile.TemporaryDirectory() as folder:
        answers = [Path(folder, str(rank)) for rank in range(count)]
        processes = [
            FORKS.Process(
                target=join, args=({**environment, "RANK": rank, "LOCAL_RANK": rank}, answer, work, arguments, joined)
            )
            for rank, answer in enumerate(answers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        late = [process for process in processes if process.exitcode is None]
        for process in late:
            process.kill()
        assert not late
        return [pickle.loads(answer.read_bytes()) for answer in answers]


def join(environment, answer, work, arguments, joined):
    """In a new process: take part in what `together` does, as torchrun would have it."""
    os.environ.update({name: str(value) for name, value in environment.items()}, TORCHELASTIC_RUN_ID="tests")
    with world.joined() if joined else nullcontext():
        answer.write_bytes(pickle.dumps(work(*arguments)))


def assert_one_line_error(process, status, *words):
    """The process ended with this status, nothing but one line on standard error, and these words in it."""
    assert process.returncode == status, process.stderr
    lines = [line for line in process.stderr.splitlines() if not line.startswith("no GPU found")]
    assert len(lines) == 1, process.stderr
    assert process.stdout == ""
    for word in words:
        assert word in lines[0]


def network(name=NAME):
    """The network of this name for ten classes, always with the same weights."""
    torch.manual_seed(0)
    return networks.build(names.parse(name), 10)


def synthetic(count, seed=0, exits=3, classes=10):
    """What exits say of pictures of known structure: some are easy, deeper exits see more, and all are too sure."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (count,), generator=draw)
    signal = 8 * torch.rand(count, 1, generator=draw) * torch.nn.functional.one_hot(targets, classes)
    noise = torch.randn(count, classes, generator=draw)  # what all exits get wrong alike
    own = torch.randn(exits, count, classes, generator=draw)
    logits = [2 * (signal * (0.5 + 0.25 * k) + noise + own[k] / (k + 1)) for k in range(exits)]
    return Answered(logits, targets, "synthetic")


def exit_files(folder):
    """The bytes of every exit file of a run, by name."""
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("exit-*.safetensors"))}
    assert files
    return files


def last_state(folder):
    """The training state of a run, which is the last one that was written, and whole."""
    state, wrong = state_file.read(folder)
    assert wrong is None
    return state


def epochs_saved(folder):
    """How many epochs the last state has behind it of a run that goes on and may be writing another; 0 where there is
    none yet."""
    try:
        return len(state_file.read(folder)[0]["log"])
    except UserError:
        return 0


def logged(folder):
    """The rows of a run's log as text, without their times."""
    with (folder / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def points(folder):
    """The points of every curve in TensorBoard's files: a list of (epoch, value) by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


BEGUN = []  # processes of a test


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    """A run outlives no test, also where that fails."""
    yield
    while BEGUN:
        process = BEGUN.pop()
        if process.poll() is None:
            for one in (process.pid, *children(process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            process.wait()


def begin(command, **settings):
    """A process that is ended with the test."""
    BEGUN.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **settings))
    return BEGUN[-1]


def wait_for_epochs(folder, count, process):
    """Until a run, or the one that goes on with it, has saved so many epochs."""
    end = time.monotonic() + 300
    while epochs_saved(folder) < count:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def start(save, *options):
    """A long run in a process of its own, which has saved its first epoch. An epoch has 80 steps."""
    command = [sys.executable, "main.py", "--data", "DIGITS", "--nGPU", "0", "--nEpochs", "500", "--save", str(save)]
    process = begin(
        [*command, "--depth", "8", "--trainSize", "320", "--batchsize", "4", *options],
        cwd=PROJECT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # also where nohup runs the tests
    )
    wait_for_epochs(save / "DIGITS-AuxResNet-8-2", 1, process)
    return process


def resume(save, *options):
    """Go on with a copy of a finished run, in this process."""
    main.main([*SMALL, "--nEpochs", "2", "--nThreads", "0", "--save", str(save), "--resume", *options])


needs_compiler = pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler here, which PyTorch compiles with"
)


def deprived(command):
    """A command as for a user who is not root, whom the rights of files concern."""
    if os.geteuid() != 0:
        return command
    if not shutil.which("setpriv"):
        pytest.skip("root reads and writes everything, unless setpriv takes that right")
    rights = "-dac_override,-dac_read_search"
    without = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    if subprocess.run([*without, "true"], capture_output=True).returncode:
        pytest.skip("setpriv may not take rights away here")
    return [*without, *command]


class FailingAt(torch.nn.Module):
    """A model as if it were compiled; at the step of this number, counted from 1, it fails when it has computed, as if
    its backward pass could not be."""

    def __init__(self, step, model):
        super().__init__()
        self.left, self.model = step, model

    def forward(self, images):
        self.left, logits = self.left - 1, self.model(images)
        if not self.left:
            raise torch._dynamo.exc.TorchDynamoException("no compiler\nand much more")
        return logits


class Trap:
    """Unpickled, it would leave a folder behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def uninterrupted_run(tmp_path_factory, line):
    """The folder given as --save of a run that nothing interrupts, in this process and without loader workers."""
    save = tmp_path_factory.mktemp("uninterrupted")
    main.main([*line, "--save", str(save), "--nThreads", "0"])
    return save


def flipped(content, at=5000, bit=1):
    """The content of a file with one bit flipped, in the byte at that place."""
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def signal_during(monkeypatch, owner, method, call, number=signal.SIGTERM):
    """Let this process get a signal in the given call, counted from 1, of a method or function."""
    real, calls = getattr(owner, method), itertools.count(1)

    def signalled(*arguments, **options):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, method, signalled)


def stopped(line, owner, method, call, number=signal.SIGTERM):
    """Run main.py in this process until a signal in that call ends it; returns its status."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        signal_during(patch, owner, method, call, number)
        main.main([str(word) for word in line])
    return ended.value.code


def write_pictures(folder, counts, size=(32, 32), suffix="png", seed=0):
    """Noise pictures `folder/<class>/<i>.<suffix>`; returns the pixels by path, in sorted order."""
    rng = np.random.default_rng(seed)
    written = {}
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            path = folder / name / f"{index:03}.{suffix}"
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
            written[path] = pixels
    return dict(sorted(written.items()))


def bomb(side):
    """A small PNG file that says to have side×side pixels."""
    file = io.BytesIO()
    Image.new("1", (1, 1)).save(file, "png")
    header = file.getvalue().replace(b"\0\0\0\1" * 2, side.to_bytes(4, "big") * 2, 1)
    return header[:29] + zlib.crc32(header[12:29]).to_bytes(4, "big") + header[33:]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run on DIGITS: the folder given as --save, the run's own folder, and what training printed."""
    save = tmp_path_factory.mktemp("finished")
    process = script("main.py", *SMALL, "--nEpochs", "2", "--save", save)
    assert process.returncode == 0, process.stderr
    return save, save / FOLDER, process.stdout


@pytest.fixture(autouse=True)
def as_many_threads_as_before():
    """A program that is run within the tests with --cpuThreads leaves the next test its number of threads: with another
    one, trainings have other bits."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run_copy(finished, tmp_path):
    """A copy of a finished run, to be spoilt: the folder given as --save, the run's own folder."""
    _, folder, _ = finished
    shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path, tmp_path / folder.name


@pytest.fixture(scope="session")
def validated(tmp_path_factory):
    """A finished run on DIGITS that held 300 pictures out: the folder given as --save, and the run's own folder."""
    save = tmp_path_factory.mktemp("validated")
    options = ("--trainSize", "1137", "--valSize", "300", "--nEpochs", "4")
    process = script("main.py", *SMALL, *options, "--save", save)
    assert process.returncode == 0, process.stderr
    return save, save / FOLDER


@torch.inference_mode()
def logits_of(model, images):
    """Those of each exit, by the network as it was trained."""
    return model.network(model.normalise(images))


def early_answers(model, rule, images):
    """N×classes probabilities, and the N positions at which pictures leave by a rule."""
    found = logits_of(model, images)
    exits = early_exit.simulate(found, rule).exits
    probabilities = torch.stack([(z / t).softmax(1) for z, t in zip(found, rule.temperatures, strict=True)])
    return probabilities[exits, torch.arange(len(images))], torch.tensor(rule.positions)[exits]


@pytest.fixture(scope="session")
def tested():
    """The 360 test pictures of DIGITS."""
    return digits.load(None, "test")


@pytest.fixture(scope="session")
def early_model(finished):
    """The whole network of a finished run, which pictures may leave early."""
    return saved.load({position: finished[1] / f"exit-{position}.safetensors" for position in EXITS})


@pytest.fixture(scope="session")
def early_policy(early_model, tested, tmp_path_factory):
    """A policy by which a third of the test pictures leave it at each exit, and its file."""
    found, temperatures = logits_of(early_model, tested.images), (1.5, 0.8, 1.0)
    first, second = (early_exit.probable(z, t).amax(1) for z, t in zip(found[:2], temperatures, strict=False))
    thresholds = [first.quantile(2 / 3).item()]
    thresholds += [second[first < thresholds[0]].median().item() + 1e-5, 0.0]
    rule = Rule(EXITS, temperatures, tuple(thresholds))
    histogram = early_exit.simulate(found, rule).exits.bincount().tolist()
    assert min(histogram) > 100
    about = {"pictures": 360, "error": 1.0, "macs": 2e7, "criterion": "budgetMACs", "limit": 2e7, "confidence": None}
    about |= {"model": policies.fingerprint(early_model.network), "dataset": "test", "histogram": tuple(histogram)}
    policy, path = Policy(**asdict(rule), **about), tmp_path_factory.mktemp("policy") / "policy.json"
    path.write_bytes(policies.as_json(policy))
    return policy, path


@pytest.fixture(scope="session")
def early_files(finished, early_policy, tmp_path_factory):
    """That network and policy as one ONNX file and as a bundle, and what was printed."""
    pytest.importorskip("onnxscript")
    folder, printed = tmp_path_factory.mktemp("early"), []
    for words in (("--to", folder / "model.onnx"), ("--bundle", folder / "bundle")):
        process = script("export.py", "DIGITS", NAME, "--save", finished[0], "--policy", early_policy[1], *words)
        assert (process.returncode, process.stderr) == (0, "")
        printed.append(process.stdout)
    return folder / "model.onnx", folder / "bundle", printed
