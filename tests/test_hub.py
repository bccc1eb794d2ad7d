"""The networks through torch.hub: in a process of its own, from elsewhere, among modules of the same names."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import digits
from examples import answers_of, write_pictures
from programs import PROJECT

pytestmark = pytest.mark.slow

IMPOSTORS = {
    "models.py": "build = 'not ours'",
    "datasets/__init__.py": "from datasets import catalog",
    "datasets/catalog.py": "NAMES = ('not ours',)",
    "test.py": "",
    "errors.py": "",
    "opts.py": "",
    "system.py": "",
}
AMONG_IMPOSTORS = """
import errors, json, models, opts, sys, system, test, torch
import datasets.catalog
modules, path = dict(sys.modules), list(sys.path)

model = torch.hub.load(sys.argv[1], "auxresnet", dataset="digits", name="AuxResNet-14-3", exit=5, save=sys.argv[2],
                       source="local")
found = model.predict(sys.argv[3:])
fresh = torch.hub.load(sys.argv[1], "auxresnet", name="ResNet-8", pretrained=False, classes=3, source="local")
fresh.train()(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).log().sum().backward()
try:
    torch.hub.load(sys.argv[1], "auxresnet", name="ResNet-9", source="local")
except ValueError as error:
    assert "depth 9" in str(error)

assert sys.path == path
assert all(sys.modules[name] is module for name, module in modules.items())
names = {name.split(".")[0] for name in sys.modules.keys() - modules.keys()}
assert not names & {"inference", "checkpoints", "formats", "reports", "training", "options", "hubconf"}, names
assert models.build == "not ours" and datasets.catalog.NAMES == ("not ours",)
import datasets.catalog as again
assert again is datasets.catalog
print(json.dumps([found, model.classes, model.card["position"]]))
"""


@pytest.fixture(scope="module")
def pictures(tested, tmp_path_factory):
    folder, images = tmp_path_factory.mktemp("hub-pictures"), tested.images[:4]
    for index, image in enumerate(images):
        Image.fromarray(image.numpy()).save(folder / f"{index}.png")
    return [folder / f"{index}.png" for index in range(4)], images


def load(**arguments):
    return torch.hub.load(str(PROJECT), "auxresnet", source="local", **arguments)


def test_among_modules_of_the_same_names(finished, pictures, tmp_path):
    for name, text in IMPOSTORS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "main_program.py").write_text(AMONG_IMPOSTORS)
    command = [sys.executable, "main_program.py", PROJECT, finished[0], *pictures[0]]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    found, classes, position = json.loads(process.stdout)
    probabilities, indices = answers_of(finished[1], pictures[1], 5).max(1)
    assert [name for name, _ in found] == [str(index) for index in indices.tolist()]
    assert [value for _, value in found] == pytest.approx(probabilities.tolist(), abs=1e-4)
    assert (classes, position) == ([str(digit) for digit in range(10)], 5)


def test_every_form_of_a_picture(finished, pictures):
    paths, images = pictures
    model = load(name=str(finished[1]))
    assert model.card["position"] == 14
    forms = [paths[0], str(paths[0]), Image.open(paths[0]), images[0].numpy(), images[0], images[0].numpy()[:, :, 0]]
    for form in forms:  # the digits are grey
        assert torch.equal(model.preprocess(form), images[:1])
    as_one = torch.cat([model.preprocess(path) for path in paths])
    assert model.predict(as_one) == model.predict(paths)
    alone = [found for path in paths for found in model.predict(path)]
    assert [name for name, _ in alone] == [name for name, _ in model.predict(paths)]
    large = np.zeros((70, 50, 3), np.uint8)
    assert model.preprocess(large).shape == (1, 32, 32, 3)
    torch.testing.assert_close(model(as_one), answers_of(finished[1], images, 14))


def test_predicting_leaves_a_training_network_as_it_is(finished, pictures):
    model = load(name=str(finished[1])).train()
    model.network.stem.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.predict(pictures[1])
    assert model.training
    assert not model.network.stem.training
    assert model.predict([]) == []
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_fresh_network_has_the_classes_of_the_data_set():
    model = load(dataset="digits", name="AuxResNet-14-3", exit=9, pretrained=False)
    assert model.classes == tuple("0123456789")
    assert (model.card["mean"], model.card["std"]) == digits.load(None, "train").statistics()
    assert model.training
    assert model.card["dataset"] == "DIGITS"
    assert model.network.exits == (9,)
    assert len(model.predict(np.zeros((8, 8, 3), np.uint8))) == 1


@pytest.mark.parametrize(
    ("dataset", "mean", "std"),
    [("CIFAR10", (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)), ("pets", (0, 0, 0), (255, 255, 255))],
)
def test_a_fresh_network_for_other_classes_normalises_as_its_data_set_does(dataset, mean, std):
    model = load(dataset=dataset, name="ResNet-8", classes=7, pretrained=False)
    white = torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)
    assert model.normalise(white).flatten().tolist() == pytest.approx(((255 - np.array(mean)) / std).tolist())
    assert (model.card["mean"], model.card["std"]) == (mean, std)


def test_the_whole_network_answers_as_its_exits_do(finished, pictures):
    model = load(name=str(finished[1]), exit="all")
    images = model.preprocess(pictures[0][0])
    assert model.network.exits == (5, 9, 14)
    for position, logits in zip(model.network.exits, model.network(model.normalise(images)), strict=True):
        torch.testing.assert_close(logits.softmax(1), answers_of(finished[1], images, position))
    torch.testing.assert_close(model(images), answers_of(finished[1], images, 14))
    assert model.card["position"] == 14


def test_a_fresh_network_with_all_its_exits_can_be_trained_on_the_sum_of_their_losses(pictures):
    model = load(name="AuxResNet-14-3", exit="all", pretrained=False, classes=10)
    logits = model.network(model.normalise(pictures[1]))
    assert (model.network.exits, model.card["position"]) == ((5, 9, 14), 14)
    sum(torch.nn.functional.cross_entropy(z, torch.arange(4)) for z in logits).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_fresh_network_with_other_classes_takes_all_trained_weights_but_those_of_its_classes(finished):
    fresh = load(name="AuxResNet-14-3", exit="all", pretrained=False, classes=7)
    trained = load(name=str(finished[1]), exit="all").state_dict()
    taken = {name: weight for name, weight in trained.items() if ".linear." not in name}
    left = fresh.load_state_dict(taken, strict=False)
    assert not left.unexpected_keys
    assert all(".linear." in name for name in left.missing_keys)
    assert len(left.missing_keys) == 6  # weight and bias of three heads


def test_a_fresh_network_needs_no_test_pictures(tmp_path):
    write_pictures(tmp_path / "pets" / "train", {"cat": 3, "dog": 3})
    model = load(dataset=tmp_path / "pets", name="ResNet-8", pretrained=False)
    assert (model.classes, model.card["dataset"]) == (("cat", "dog"), "pets")


def test_what_is_pretrained_is_found_without_more_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there are no runs of those names
    model = load(exit=15)
    assert (model.card["name"], model.card["dataset"], model.card["position"]) == ("AuxResNet-56-5", "CIFAR10", 15)
    assert load(name=PROJECT / "pretrained" / "CIFAR10-AuxResNet-56-5", exit=15).card == model.card
    assert "cat" in model.classes


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "nothing"}, "'nothing' is neither a network's name nor the path"),
        ({"exit": 7}, "no exit 7 in .*there are: 15, 25"),
        ({"dataset": "SVHN"}, "no exit files of SVHN-AuxResNet-56-5"),
        ({"name": "AuxResNet-14-3", "exit": 7, "pretrained": False, "classes": 2}, "no exit 7; there are: 5, 9, 14"),
        ({"dataset": "nowhere", "pretrained": False}, "nowhere has no train/"),
        ({"name": "ResNet-8", "pretrained": False, "classes": 0}, "classes is .* from 1 to 100,000, not 0"),
        ({"name": "ResNet-8", "pretrained": False, "classes": "3"}, "classes is .* not '3'"),
        ({"exit": "last"}, "exit is a position such as 45, 'all', or None for the last exit that learnt, not 'last'"),
        ({"exit": [45]}, "exit is a position such as 45, 'all', .* not .45."),
        ({"exit": np.array([15, 25])}, "exit is a position such as 45, 'all', .* not array"),
        ({"classes": 3}, "classes is for fresh networks; a trained one has its own; give pretrained=False"),
        ({"input_size": 64}, "input_size is for fresh networks"),
        ({"dataset": None}, "dataset is a text or a path, not None"),
        ({"name": 5}, "name is a text or a path, not 5"),
        ({"save": None}, "save is a text or a path, not None"),
        ({"data_dir": 5, "pretrained": False}, "data_dir is a text or a path, not 5"),
    ],
)
def test_mistakes_are_told(arguments, text):
    with pytest.raises(ValueError, match=text):
        load(**arguments)


def cut_short():
    """An image whose file ends too early, which Pillow finds out when it is used."""
    content = io.BytesIO()
    Image.new("RGB", (64, 64)).save(content, "BMP")
    return Image.open(io.BytesIO(content.getvalue()[:-1000]))


@pytest.mark.parametrize(
    ("picture", "text"),
    [
        (np.zeros((8, 8, 4), np.uint8), "a picture is H×W×3 or H×W values of uint8, not .8, 8, 4. of uint8"),
        (np.zeros((8, 8, 3)), "a picture is .* not .* of float64"),
        (5, "a picture is"),
        ([[1, 2], [3]], "what was given is no picture that can be read: "),
        ("missing.png", "missing.png cannot be read"),
        (np.zeros((0, 4, 3), np.uint8), "it has no pixels"),
        (np.zeros((0, 0), np.uint8), "it has no pixels"),
        (Image.new("RGB", (0, 5)), "it has no pixels"),
        (Image.new("F", (5, 5)), "its values are neither of 8 nor of 16 bits"),
        (cut_short(), "what was given is no picture that can be read: image file is truncated"),
    ],
)
def test_what_is_no_picture_is_told(picture, text):
    model = load(name="ResNet-8", pretrained=False, classes=2)
    with pytest.raises(ValueError, match=text) as raised:
        model.preprocess(picture)
    assert type(raised.value).__name__ == "UserError"


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 64, 64, 3, dtype=torch.uint8), torch.zeros(2, 32, 32, 3), torch.zeros(2, 3, 32, 32).byte()],
)
def test_several_pictures_of_another_size_or_kind_are_told(images):
    model = load(name="ResNet-8", pretrained=False, classes=2)
    text = f"several pictures are N×32×32×3 of uint8, not 2×.* of {images.dtype}"
    with pytest.raises(ValueError, match=text):
        model.predict(images)


def test_many_pictures_are_decoded_and_computed_batch_by_batch(pictures):
    model, steps = load(name="ResNet-8", pretrained=False, classes=2), []
    preprocess = model.preprocess
    model.preprocess = lambda picture: steps.append("decoded") or preprocess(picture)
    model.register_forward_pre_hook(lambda _, given: steps.append(len(given[0])))
    found = model.predict(pictures[0] * 70)
    assert steps == ["decoded"] * 250 + [250] + ["decoded"] * 30 + [30]
    assert found == model.predict(torch.cat([pictures[1]] * 70))
    assert steps[-2:] == [250, 30]
    model.card["input"] = [3, 224, 224]
    model.predict(torch.zeros(10, 224, 224, 3, dtype=torch.uint8))
    assert steps[-2:] == [5, 5]
