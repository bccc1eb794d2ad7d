"""--retrain: what a run takes of a network that was trained before, and what it tells of it."""

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

import main
from examples import write_pictures
from formats import exit_file
from inference import saved
from programs import assert_one_line_error, script, together
from runs import EXITS, FOLDER, NAME, SMALL, exit_files, stopped
from training.trainer import Trainer

pytestmark = pytest.mark.slow

STILL = ["--nEpochs", "1", "--schedule", "step", "--LR", "1e-9", "--weightDecay", "0"]  # learns next to nothing
NETWORK = SMALL[2:6]


def weights(folder):
    """The weights of all exits of a run, without what batch norms have counted."""
    found = {}
    for path in folder.glob("exit-*.safetensors"):
        found |= {name: t for name, t in load_file(path).items() if not name.endswith(("running_mean", "running_var"))}
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}


def header(folder):
    return exit_file.read_header(exit_file.path_in(folder, EXITS[-1]))


def alike(one, other):
    return torch.allclose(one, other, atol=1e-5)


def beginnings(capsys):
    """What runs have said that they begin with."""
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("weights: ")]


def pictures(folder, name, *classes):
    """The options of a short run on pictures of these classes."""
    write_pictures(folder / name / "train", dict.fromkeys(classes, 9))
    write_pictures(folder / name / "test", dict.fromkeys(classes, 2), seed=1)
    return ["--data", name, *STILL, "--nGPU", "0", "--nThreads", "0"]


def test_a_run_begins_with_the_weights_of_another_and_says_so(finished, tmp_path, capsys):
    main.main([*SMALL, *STILL, "--retrain", str(finished[1]), "--save", str(tmp_path)])
    assert beginnings(capsys) == [f"weights: those of {FOLDER}, trained for 2 epochs on DIGITS"]
    before, after = weights(finished[1]), weights(tmp_path / FOLDER)
    assert before.keys() == after.keys()
    assert all(alike(before[name], after[name]) for name in before)
    told = header(tmp_path / FOLDER)
    assert told["origin"] == [{"run": FOLDER, "dataset": "DIGITS", "epochs": 2, "heldOut": None}]
    assert told["options"]["retrain"] == FOLDER  # nothing of where it lay
    page = (tmp_path / FOLDER / "README.md").read_text()
    assert f" --retrain path/to/{FOLDER} " in page
    assert f"It began with the weights of {FOLDER}, trained for 2 epochs on DIGITS. " in page


def test_a_network_is_called_by_its_name_or_by_the_file_of_its_only_exit(finished, tmp_path, capsys):
    shutil.copytree(finished[1], tmp_path / "runs" / FOLDER)
    birds = [*pictures(tmp_path, "birds", "owl", "wren"), "--save", "runs"]
    main.main([*birds, *NETWORK, "--retrain", FOLDER.lower().replace("auxresnet", "AuxResNet")])
    plain = ["--depth", "8", "--nOutputs", "1"]
    main.main([*birds, *plain])
    main.main([*birds[:-1], "again", *plain, "--retrain", "runs/birds-ResNet-8/exit-8.safetensors"])
    assert [line.split(",")[0].split()[-1] for line in beginnings(capsys)] == [FOLDER, "birds-ResNet-8"]


def test_for_other_classes_the_linear_layers_begin_fresh(finished, tmp_path, capsys):
    line = [*pictures(tmp_path, "birds", "owl", "wren"), *NETWORK]
    main.main([*line, "--dropout", "0.1", "--retrain", str(finished[1]), "--save", str(tmp_path)])
    folder = tmp_path / "birds-AuxResNet-14-3-dropout-0.1"
    before, after = weights(finished[1]), weights(folder)
    linear = {name for name in before if ".linear." in name}
    assert len(linear) == 2 * len(EXITS)
    assert before.keys() == after.keys()
    assert all(alike(before[name], after[name]) for name in before.keys() - linear)
    assert all(len(after[name]) == 2 for name in linear)
    main.main([*line, "--retrain", str(folder), "--save", "again"])
    first = f"weights: those of {FOLDER}, trained for 2 epochs on DIGITS; the linear layers are fresh, because the "
    second = f"weights: those of {folder.name}, trained for 2 epochs on DIGITS, then 1 epoch on birds"
    assert beginnings(capsys) == [f"{first}classes are others", second]


def test_a_run_goes_on_to_the_same_bits_when_the_other_is_gone(finished, tmp_path):
    source = shutil.copytree(finished[1], tmp_path / "source")
    (tmp_path / "link").symlink_to(source)
    line = [*SMALL, "--nEpochs", "2", "--nThreads", "0", "--ema", "0.9", "--retrain"]
    main.main([*line, "link", "--save", "whole"])
    assert stopped([*line, "link", "--save", "parts"], Trainer, "step", 6) == 143
    shutil.rmtree(source)
    (tmp_path / "link").unlink()
    main.main([*line, "elsewhere/source", "--save", "parts", "--resume", "auto"])
    assert exit_files(tmp_path / "whole" / FOLDER) == exit_files(tmp_path / "parts" / FOLDER)
    (tmp_path / "whole" / FOLDER / "exit-9.safetensors").unlink()
    main.main(["--resume", f"whole/{FOLDER}"])
    assert exit_files(tmp_path / "whole" / FOLDER) == exit_files(tmp_path / "parts" / FOLDER)
    process = script("main.py", *line[:-1], "--save", "parts", "--resume")
    assert_one_line_error(process, 1, "retrain is (fresh weights), was link")


def trained(*options):
    """Train; a process that is not the first lets no network of another run be found."""
    if os.environ["RANK"] != "0":
        saved.find = None
    main.main(list(options))


def test_several_processes_begin_with_what_the_first_one_finds(finished, tmp_path):
    together(2, trained, *SMALL, *STILL, "--retrain", str(finished[1]), "--save", str(tmp_path), joined=False)
    before, after = weights(finished[1]), weights(tmp_path / FOLDER)
    assert all(alike(before[name], after[name]) for name in before)
    assert header(tmp_path / FOLDER)["shares"] == 2


def test_a_network_that_held_out_the_same_pictures_is_taken_and_no_other(finished, validated, tmp_path):
    folder = validated[1]
    line = [*SMALL, *STILL, "--trainSize", "1137", "--save"]
    main.main([*line, "held", "--valSize", "300", "--retrain", str(folder)])
    assert header(tmp_path / "held" / FOLDER)["heldOut"] == header(folder)["heldOut"]
    main.main([*pictures(tmp_path, "birds", "owl", "wren"), *NETWORK, "--retrain", str(finished[1])])
    indirect = f"birds-{NAME}"  # its weights have learnt all digits before the birds
    for source, count in ((finished[1], "300"), (folder, "299"), (indirect, "300")):
        process = script("main.py", *line, "again", "--valSize", count, "--retrain", source)
        assert_one_line_error(process, 1, f"--retrain {source}", f"--valSize {count}", "leave --valSize out")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--depth", "8", "--nOutputs", "1"], ["--depth 14 --nOutputs 3 --exits 5,9,14 --widen 1", "--depth 8"]),
        (["--exits", "3,9,14"], ["--exits 5,9,14", "--exits 3,9,14"]),
        (["--shortcutType", "B"], ["--shortcutType A", "--shortcutType B"]),
    ],
)
def test_another_network_is_refused(given, words, finished, tmp_path):
    process = script("main.py", *SMALL, *given, "--retrain", finished[1], "--save", tmp_path)
    assert_one_line_error(process, 1, f"--retrain {finished[1]}", *words)


def test_what_lacks_an_exit_or_is_damaged_is_refused(run_copy):
    save, folder = run_copy
    (folder / "exit-9.safetensors").write_bytes(b"")

    def refused(model, status, *words):
        process = script("main.py", *SMALL, *STILL, "--save", save / "new", "--retrain", model)
        assert_one_line_error(process, status, f"--retrain {model}", *words)

    advice = "a run's folder with all of its exits"
    refused(folder / "exit-14.safetensors", 1, "lacks exit-5.safetensors", "the folder of a run with all of its exits")
    refused(folder, 1, "exit-9.safetensors cannot be read", advice)
    refused("AuxResNet-14-3", 1, f"no exit files of {FOLDER}", advice)
    refused("gone", 2, "neither a network's name nor the path")
    assert not (save / "new" / FOLDER).exists()
