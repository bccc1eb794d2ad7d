"""Networks, answers, pictures and files to try the parts of the program on."""

import io
import os
import shutil
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.transforms import Normalise
from formats import exit_file
from inference import early_exit, saved
from inference.calibration import Answered
from models import names, networks
from runs import NAME

CPU = [torch.device("cpu")]
MACS = [10, 25, 40]  # to three exits, in no unit
NORMALISE = Normalise((128.0,) * 3, (64.0,) * 3)


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


def flipped(content, at=5000, bit=1):
    """The content of a file with one bit flipped, in the byte at that place."""
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


class Trap:
    """Unpickled, it would leave a folder behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


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


needs_compiler = pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler here, which PyTorch compiles with"
)


@torch.inference_mode()
def logits_of(model, images):
    """Those of each exit, by the network as it was trained."""
    return model.network(model.normalise(images))


def answers_of(folder, images, position):
    """N×classes probabilities of an exit of a run, by its weights alone."""
    model = saved.load({position: exit_file.path_in(folder, position)})
    return logits_of(model, images)[-1].softmax(1)


def early_answers(model, rule, images):
    """N×classes probabilities, and the N positions at which pictures leave by a rule."""
    found = logits_of(model, images)
    exits = early_exit.simulate(found, rule).exits
    probabilities = torch.stack([(z / t).softmax(1) for z, t in zip(found, rule.temperatures, strict=True)])
    return probabilities[exits, torch.arange(len(images))], torch.tensor(rule.positions)[exits]
