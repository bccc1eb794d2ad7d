"""The environment of all tests, and what several of them share: finished runs, a policy, files made of them."""

import os
import shutil
import signal
from contextlib import suppress
from dataclasses import asdict

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side; read when PyTorch is imported
os.environ.setdefault("TESTED_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))  # by test_gpu.py
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the other tests are of the CPU, because they compare bits

import pytest
import torch
from hypothesis import settings

from datasets import digits
from examples import logits_of
from formats import exit_file
from inference import early_exit, policies, saved
from inference.early_exit import Rule
from inference.policies import Policy
from programs import BEGUN, children, script
from runs import EXITS, FOLDER, NAME, SMALL

# Examples are the same every time, so that what failed fails again; pytest --hypothesis-profile=others draws others.
settings.register_profile("others", max_examples=5000, deadline=None)
settings.register_profile("same", max_examples=2000, derandomize=True, deadline=None)
settings.load_profile("same")

signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a script starts tests in the background


def pytest_collection_modifyitems(items):
    """What needs a trained network is slow."""
    for item in items:
        if {"finished", "validated"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


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


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """What a program finds in the current folder, or leaves there, is no other test's."""
    monkeypatch.chdir(tmp_path)


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


@pytest.fixture(scope="session")
def tested():
    """The 360 test pictures of DIGITS."""
    return digits.load(None, "test")


@pytest.fixture(scope="session")
def early_model(finished):
    """The whole network of a finished run, which pictures may leave early."""
    return saved.load(exit_file.files_in(finished[1]))


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
