"""Own pictures of another size than 32×32, from training to whatever an application is given."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import checkpoints
import main
from benchmarks import tiles
from datasets import catalog, splits
from datasets.decoding import decode_one
from datasets.sizing import Sizing
from formats import exit_file
from inference import exported, saved
from models import metrics, names, networks
from programs import PROJECT, assert_one_line_error, script
from runs import exit_files, last_state, logged, stopped
from system.errors import UserError
from training.trainer import Trainer

pytestmark = pytest.mark.slow

SMALL = ["--depth", "8", "--nOutputs", "2", "--nGPU", "0", "--nThreads", "0", "--batchsize", "16", "--trainSize", "48"]
RUN = "pictures-AuxResNet-8-2"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of tiles of photographs, 96×64 or 64×96."""
    folder = tmp_path_factory.mktemp("own") / "pictures"
    tiles.write(folder)
    for split, kept in (("train", 30), ("test", 8)):
        for name in tiles.photographs():
            for path in sorted((folder / split / name).iterdir())[kept:]:
                path.unlink()
    return folder


@pytest.fixture(scope="module")
def trained(pictures):
    """The folder of a finished run at 64×64 that held pictures out, and what it printed."""
    save = pictures.parent / "runs"
    process = script("main.py", *options(pictures, save), "--inputSize", "64", "--valSize", "30", "--nEpochs", "2")
    assert process.returncode == 0, process.stderr
    return save / RUN, process.stdout


def options(pictures, save):
    return ["--data", pictures, "--dataDir", pictures.parent / "data", "--save", save, *SMALL]


def model(folder, position=8):
    return saved.load({position: folder / f"exit-{position}.safetensors"})


def probabilities(folder, path):
    """What the last exit of a run says of a picture file, by its weights and header alone."""
    header = exit_file.read_header(folder / "exit-8.safetensors")
    pixels = torch.from_numpy(decode_one(str(path), Sizing.of(header))).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(header[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        return model(folder).network((pixels - mean) / std)[-1].softmax(1)[0]


def test_the_size_is_in_headers_tables_and_cards(trained, pictures):
    folder, printed = trained
    header = exit_file.read_header(folder / "exit-8.safetensors")
    assert (header["input"], header["fit"]) == ([3, 64, 64], "crop")
    assert "inputSize=64" in printed
    macs = networks.cost(names.parse("AuxResNet-8-2"), 3, 8, 64).macs
    assert macs == pytest.approx(4 * networks.cost(names.parse("AuxResNet-8-2"), 3, 8, 32).macs, rel=1e-3)
    page = (folder / "README.md").read_text()
    for text in (f"{macs:,}", "Pictures are 64×64 pixels", "shorter side scaled", "N×64×64×3", "--inputSize 64 "):
        assert text in page
    assert "startSize" not in page
    process = script("test.py", pictures, folder, "--exit", "all", "--json", folder / "card.json")
    assert process.returncode == 0, process.stderr
    card = json.loads((folder / "card.json").read_text())
    assert card["exits"][-1]["macs"] == macs
    process = script("test.py", pictures, folder)
    assert process.stdout == f"error {card['exits'][-1]['error_percent']:.2f}\n"


def test_pictures_are_predicted_at_the_size_of_the_network(trained, pictures):
    folder, paths = trained[0], sorted((pictures / "test").rglob("*.png"))[::6]
    process = script("predict.py", folder, *paths, "--format", "json", "--top", "3")
    assert process.returncode == 0, process.stderr
    classes = exit_file.read_header(folder / "exit-8.safetensors")["classes"]
    for path, answer in zip(paths, json.loads(process.stdout), strict=True):
        expected = probabilities(folder, path)
        assert answer["classes"][0]["class"] == classes[int(expected.argmax())]
        assert answer["classes"][0]["probability"] == pytest.approx(expected.max().item(), abs=1e-4)


@pytest.mark.parametrize(("ending", "check"), [(".pt2", "0"), (".onnx", "12")])  # 0: on noise
def test_an_exported_file_takes_that_size(ending, check, trained, pictures, tmp_path):
    if ending == ".onnx":
        pytest.importorskip("onnxruntime", reason="ONNX files need the packages of requirements-export.txt")
    folder, target, path = trained[0], tmp_path / f"model{ending}", next((pictures / "test").rglob("*.png"))
    process = script("export.py", pictures, folder, "--to", target, "--check", check)
    assert process.returncode == 0, process.stderr
    runs = exported.read(target, 8, None)
    assert runs.sizing == Sizing(64)
    pixels = torch.from_numpy(decode_one(str(path), runs.sizing))[None]
    assert runs.answers(pixels)[0][0].numpy() == pytest.approx(probabilities(folder, path).numpy(), abs=1e-4)
    process = script("predict.py", target, path)
    assert process.returncode == 0, process.stderr
    with pytest.raises(Exception, match=r"64|INVALID_ARGUMENT"):  # each runtime has a class of its own
        runs.answers(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))


def test_through_torch_hub(trained, pictures):
    folder, path = trained[0], next((pictures / "test").rglob("*.png"))
    load = {"repo_or_dir": str(PROJECT), "model": "auxresnet", "source": "local"}
    hub = torch.hub.load(**load, name=str(folder))
    assert hub.preprocess(Image.open(path)).shape == (1, 64, 64, 3)
    (name, value), expected = hub.predict(path)[0], probabilities(folder, path)
    assert (name, value) == (hub.classes[int(expected.argmax())], pytest.approx(expected.max().item(), abs=1e-4))
    fresh = torch.hub.load(**load, name="AuxResNet-8-2", classes=3, input_size=96, pretrained=False)
    assert fresh(fresh.preprocess(np.zeros((50, 70, 3), np.uint8))).shape == (1, 3)
    assert fresh.preprocess(path).shape == (1, 96, 96, 3)
    with pytest.raises(ValueError, match="input_size is a multiple of 4 from 16 to 224, not 33"):
        torch.hub.load(**load, name="AuxResNet-8-2", classes=3, input_size=33, pretrained=False)


def test_a_policy_counts_with_that_size(trained, pictures, tmp_path):
    folder = trained[0]
    line = ("calibrate.py", pictures, folder, "--budgetMACs", "1G", "--dataDir", pictures.parent / "data")
    assert_one_line_error(script(*line), 1, "of held-out pictures there are 30, too few")
    shutil.copytree(pictures / "train", tmp_path / "others")
    process = script(*line, "--heldOut", tmp_path / "others")
    assert process.returncode == 0, process.stderr
    policy = json.loads((folder / "policy.json").read_text())
    assert policy["macs"] > networks.cost(names.parse("AuxResNet-8-2"), 3, 5, 64).macs
    process = script("test.py", pictures, folder, "--policy", "policy.json")
    assert process.returncode == 0, process.stderr


def test_what_contradicts_the_size_is_refused(trained, pictures):
    line = [*options(pictures, trained[0].parent), "--valSize", "30", "--nEpochs", "2", "--resume"]
    for size, given in (("32", []), ("48", ["--inputSize", "48"])):
        process = script("main.py", *line, *given)
        assert_one_line_error(process, 1, f"inputSize is {size}, was 64")
    assert_one_line_error(script("test.py", "DIGITS", trained[0]), 1, "DIGITS are 32×32, not 64×64", "give a folder")
    for data in ("CIFAR10", "digits"):
        process = script("main.py", "--data", data, "--inputSize", "64")
        assert_one_line_error(process, 2, "--inputSize 64 is for folders", "32×32", "leave it out")
    for more, words in (
        (["--startSize", "40"], ("--startSize 40 is above --inputSize 32", "8 to 32")),
        (["--inputSize", "16", "--cutout", "16"], ("--cutout 16 leaves nothing", "0 to 15")),
        (["--inputSize", "34"], ("'34' is not a multiple of 4", "32, 36")),
    ):
        assert_one_line_error(script("main.py", "--data", pictures, *more), 2, *words)


@pytest.mark.parametrize("call", [2, 5])  # of six steps, three of them in the first epoch
def test_pictures_grow_to_that_size_and_a_stopped_run_goes_on_to_the_same_bits(call, pictures, tmp_path):
    more = ["--inputSize", "48", "--startSize", "32", "--padding", "reflect", "--nEpochs", "2"]
    main.main([str(word) for word in (*options(pictures, tmp_path / "whole"), *more)])
    stopped((*options(pictures, tmp_path / "part"), *more), Trainer, "step", call)
    run = tmp_path / "part" / RUN
    assert last_state(run)["step"] == (call - 1) % 3
    main.main(["--resume", str(run)])
    assert exit_files(run) == exit_files(tmp_path / "whole" / RUN)
    assert logged(run) == logged(tmp_path / "whole" / RUN)


def test_mirror_images_are_asked_too(trained, pictures, tmp_path):
    found, data = model(trained[0]), splits.for_testing(catalog.find(str(pictures), tmp_path, sizing=Sizing(64)))
    with torch.inference_mode():
        network = found.network.eval()
        as_is, mirrored = (network(found.normalise(images))[-1] for images in (data.images, data.images.flip(2)))
    error = metrics.top_error((as_is + mirrored) / 2, data.targets)
    process = script("test.py", pictures, trained[0], "--mirror", "--nGPU", "0")
    assert process.stdout == f"error {error:.2f}\n"
    card = tmp_path / "card.json"
    script("test.py", pictures, trained[0], "--mirror", "--exit", "all", "--json", card, "--nGPU", "0")
    told, cost = json.loads(card.read_text()), networks.cost(found.configuration, 3, 8, 64)
    assert (told["mirror"], told["exits"][-1]["error_percent"]) == (True, pytest.approx(error))
    assert told["exits"][-1]["macs"] == 2 * cost.macs


def test_runs_of_older_versions_go_on_squeezing(pictures, tmp_path):
    """Their headers and states do not say how pictures were brought to size."""
    save = tmp_path / "runs"
    run = save / RUN
    main.main([str(word) for word in (*options(pictures, save), "--nEpochs", "1")])
    state = last_state(run)
    assert state.pop("fit") == "crop"
    del state["format"], state["data"]
    del state["options"]["inputSize"]
    checkpoints.RunFiles(run, ()).write_state(state)
    for path in run.glob("exit-*.safetensors"):
        header = exit_file.read_header(path)
        assert header.pop("fit") == "crop"
        path.write_bytes(exit_file.content(load_file(path), header))
    path = next((pictures / "test").rglob("*.png"))
    assert model(run).sizing == Sizing(32, "squeeze")
    process = script("predict.py", run, path, "--format", "json")
    expected = probabilities(run, path).max().item()
    assert json.loads(process.stdout)[0]["classes"][0]["probability"] == pytest.approx(expected, abs=1e-4)
    main.main(["--resume", str(run), "--nEpochs", "2"])
    assert exit_file.read_header(run / "exit-8.safetensors")["fit"] == "squeeze"
    assert last_state(run)["fit"] == "squeeze"
    assert "(both sides scaled)" in (run / "README.md").read_text()
    checkpoints.RunFiles(run, ()).write_state({**last_state(run), "fit": "stretch"})
    with pytest.raises(UserError, match="the training state has the fit stretch; there are: crop, squeeze"):
        main.main(["--resume", str(run)])
