"""What the programs do on a GPU, beside what the CPU says of the same files. The other tests see none (conftest.py)."""

import csv
import os
import signal
import subprocess
import sys

import pytest

from examples import write_pictures
from formats import exit_file
from programs import PROJECT, begin
from runs import FOLDER, last_state, logged

pytestmark = pytest.mark.slow

RUN = ("main.py", "--data", "DIGITS", "--depth", "14", "--nOutputs", "3", "--schedule", "cosine")
ON_CPU = ("--nGPU", "0")
WAYS = [
    "--recipe fast --precision bf16",
    "--recipe fast --precision bf16 --compile true",
    "--precision half --dropout 0.1",
    "--precision half --compile true",
    "--shareGradInput true --dropout 0.1 --ema 0.9",
    "--mixup 0.2 --startSize 16 --cutout 8 --padding reflect --exitSchedule deepen --distill 1",
]


def environment():
    """That of the tests, with the GPUs that they were started with."""
    visible = os.environ["TESTED_GPUS"]
    others = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return others if visible == "all" else {**others, "CUDA_VISIBLE_DEVICES": visible}


def run(*command):
    """What a program of the project prints; it succeeds, on a GPU unless it was told otherwise."""
    line = [sys.executable, *map(str, command)]
    process = subprocess.run(line, cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=300)
    if "finds no compiler here that works" in process.stderr:
        pytest.skip("no compiler works here")
    assert process.returncode == 0, process.stderr
    assert "no GPU found" not in process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def gpus():
    """How many GPUs there are."""
    ask = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    count = int(run("-c", ask))
    if not count:
        pytest.skip("there is no GPU")
    return count


@pytest.fixture(scope="module")
def trained(gpus, tmp_path_factory):
    """The folder of a run that held 300 pictures out."""
    save = tmp_path_factory.mktemp("gpu")
    run(*RUN, "--nEpochs", "4", "--trainSize", "1137", "--valSize", "300", "--save", save)
    return save / FOLDER


@pytest.fixture
def pictures(tmp_path):
    """A folder of 40 pictures."""
    write_pictures(tmp_path / "pictures", {"noise": 40})
    return tmp_path / "pictures"


def agreeing(*paths):
    """Of how many of the 40 pictures two files of predict.py say the same."""
    told = [[(row["path"], row["class"]) for row in csv.DictReader(path.open())] for path in paths]
    assert len(told[0]) == 40
    return sum(one == other for one, other in zip(*told, strict=True))


def stopped(*command):
    """Train on until an epoch is done, and stop by SIGTERM."""
    line = [sys.executable, "-u", *map(str, command)]
    process = begin(line, cwd=PROJECT, env=environment(), stdout=subprocess.PIPE)
    while not process.stdout.readline().startswith("epoch"):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "no GPU found" not in told


def test_the_cpu_agrees_on_what_was_trained(trained):
    errors = [float(run("test.py", "DIGITS", trained, *where).split()[1]) for where in ((), ON_CPU)]
    assert errors[0] == pytest.approx(errors[1], abs=0.6)  # two of 360 pictures
    assert errors[1] < 50
    assert "timed on CPU" not in run("test.py", "DIGITS", trained, "--exit", "all")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_train(way, gpus, tmp_path):
    run(*RUN, *way.split(), "--nEpochs", "5", "--save", tmp_path)
    (folder,) = tmp_path.iterdir()
    rows = logged(folder)
    assert len(rows) == 5
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert list(exit_file.files_in(folder)) == [5, 9, 14]


def test_a_run_that_was_stopped_goes_on_elsewhere(gpus, tmp_path):
    """From the GPU to the CPU, and back."""
    stopped(*RUN, "--nEpochs", "400", "--save", tmp_path)
    for where in (ON_CPU, ("--nGPU", "1")):
        done = len(logged(tmp_path / FOLDER))
        stopped("main.py", "--resume", tmp_path / FOLDER, *where)
        assert len(logged(tmp_path / FOLDER)) > done
        assert len(last_state(tmp_path / FOLDER)["random_cuda"]) == int(where[-1])


def test_pictures_leave_early(trained, pictures, tmp_path):
    run("calibrate.py", "DIGITS", trained, "--budgetMACs", "20M", "--out", tmp_path)
    policy = ("--policy", tmp_path / "policy.json")
    ways = ((), ON_CPU, ("--compile", "true"))
    errors = [float(run("test.py", "DIGITS", trained, *policy, *way).split()[1]) for way in ways]
    assert errors == pytest.approx([errors[1]] * len(ways), abs=0.6)
    for name, way in (("gpu", ()), ("cpu", ON_CPU)):
        run("predict.py", trained, pictures, *policy, *way, "--out", tmp_path / f"{name}.csv")
    assert agreeing(tmp_path / "gpu.csv", tmp_path / "cpu.csv") >= 38


def test_an_exported_file_answers_as_the_exit(trained, pictures, tmp_path):
    file = tmp_path / "model.pt2"
    run("export.py", "DIGITS", trained, "--exit", "9", "--to", file)
    run("predict.py", trained, pictures, "--exit", "9", "--out", tmp_path / "exit.csv")
    run("predict.py", file, pictures, "--out", tmp_path / "file.csv")
    assert agreeing(tmp_path / "exit.csv", tmp_path / "file.csv") >= 38


@pytest.mark.parametrize("launched", [("--nGPU", "2"), ()], ids=["DataParallel", "torchrun"])
def test_several_share_a_batch(launched, gpus, tmp_path):
    if gpus < 2:
        pytest.skip("there is one GPU")
    launcher = () if launched else ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    run(*launcher, *RUN, *launched, "--nEpochs", "3", "--save", tmp_path)
    assert len(logged(tmp_path / FOLDER)) == 3
