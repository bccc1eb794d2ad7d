"""What the README says about using a model works as it stands there."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import write_pictures
from programs import PROJECT, tracked

pytestmark = pytest.mark.slow

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SECTION = re.search(r"## Use the model\n(.*?)\n## ", (PROJECT / "README.md").read_text(), re.DOTALL)[1]
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the commands are at home: the project, pictures, and a few that stand in for CIFAR-10."""
    folder = tmp_path_factory.mktemp("use")
    for name in {path.split("/")[0] for path in tracked()}:  # and no runs that lie beside it
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
    by_command, by_hub, by_loop, exported, by_onnx, early = printed
    name, probability = re.fullmatch(r"cat\.png  (\w+) ([01]\.\d{4})\n", by_command).groups()
    assert name in CLASSES
    assert ast.literal_eval(by_hub) == [(name, pytest.approx(float(probability), abs=1e-4))]
    assert by_loop == "[45, 56]: [1, 10] [1, 10]\n"
    assert "model.onnx" in exported
    assert by_onnx == f"{name}\n"
    answers = [re.fullmatch(r"cat\.png  (\w+) (\d\.\d{4})  (exit (?:19|26))", line) for line in early.splitlines()]
    by_policy, by_bundle = (answer.groups() for answer in answers if answer)
    assert by_policy[::2] == by_bundle[::2]
    assert float(by_policy[1]) == pytest.approx(float(by_bundle[1]), abs=1e-4)
    rows = (place / "classes.csv").read_text().splitlines()
    assert rows[0] == "path,rank,class,probability"
    assert len(rows) == 1 + 3 * 3


def test_they_are_short():
    assert len(BLOCKS) == 6
    assert all(len([line for line in text.splitlines() if line]) <= 6 for _, text in BLOCKS)
