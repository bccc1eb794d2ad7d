"""What the README says about using a model works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, write_pictures
from PIL import Image

import opts

pytestmark = pytest.mark.slow

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SECTION = re.search(r"## Use the model\n(.*?)\n## ", (PROJECT / "README.md").read_text(), re.DOTALL)[1]
# What is printed is marked as text; what needs a policy is run in test_export_policy.py, on a smaller network.
ALL = [block for block in re.findall(r"```(\w*)\n(.*?)```", SECTION, re.DOTALL) if block[0] != "text"]
BLOCKS = [block for block in ALL if "--policy" not in block[1]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the commands are at home: the project, pictures, and a few that stand in for CIFAR-10."""
    folder = tmp_path_factory.mktemp("use")
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in {path.split("/")[0] for path in tracked.splitlines()}:  # and no runs that lie beside it
        (folder / name).symlink_to(PROJECT / name)
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "AuxResNet").symlink_to(PROJECT)
    write_pictures(folder / "data" / "cifar10" / "test", dict.fromkeys(CLASSES, 2))
    write_pictures(folder / "pictures", {"holidays": 3})
    Image.fromarray(np.full((60, 40, 3), 128, np.uint8)).save(folder / "cat.png")
    return folder


def run(language, text, place):
    """What a block prints, run as a user does."""
    python = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
    process = subprocess.run([*command, text], cwd=place, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_the_ways_to_use_a_model(place):
    pytest.importorskip("onnxscript")
    printed = [run(language, text, place) for language, text in BLOCKS]
    by_command, by_hub, by_loop, exported, by_onnx = printed
    name, probability = re.fullmatch(r"cat\.png  (\w+) (0\.\d+|1\.0000)\n", by_command).groups()
    assert name in CLASSES
    assert by_hub.startswith(f"[('{name}', {probability[:-1]}")
    assert by_loop == "[45, 56]: [1, 10] [1, 10]\n"
    assert "model.onnx" in exported
    assert by_onnx == f"{name}\n"
    rows = (place / "classes.csv").read_text().splitlines()
    assert rows[0] == "path,rank,class,probability"
    assert len(rows) == 1 + 3 * 3


def test_they_are_short():
    assert len(BLOCKS) == 5
    assert all(len([line for line in text.splitlines() if line]) <= 6 for _, text in ALL)


def test_the_commands_that_need_a_policy_are_legal():
    lines = [line for _, text in ALL if "--policy" in text for line in text.splitlines()]
    one, bundle = (opts.EXPORT.parsed(line.split()[2:]) for line in lines if line.startswith("python export.py"))
    assert (one.to, one.bundle, bundle.to) == ("early.onnx", None, None)
    assert lines[-1].startswith(f"python {bundle.bundle}/run.py")
