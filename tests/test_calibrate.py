"""calibrate.py and test.py --policy as a user runs them: what they leave and print, what they say to mistakes."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import calibrate
import main
import test as program
from datasets import catalog, splits
from examples import answers_of, logits_of, write_pictures
from formats import exit_file
from inference import asking, early_exit, latency, policies, routing, saved
from inference.calibration import Answered
from inference.latency import Latency
from models import metrics, names
from programs import assert_one_line_error, script
from reports import adaptive
from runs import EXITS, FOLDER, NAME, SMALL
from system import arithmetic
from system.errors import UserError
from system.machine import ON_CPU

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def calibrated(validated, tmp_path_factory):
    """A run with a policy for 20 million multiply-adds, and what calibrate.py printed."""
    save = tmp_path_factory.mktemp("calibrated")
    folder = shutil.copytree(validated[1], save / validated[1].name)
    process = script("calibrate.py", "digits", NAME, "--save", save, "--budgetMACs", "20M", "--nGPU", "0")
    assert process.returncode == 0, process.stderr
    return save, folder, process.stdout


def test_a_policy_and_its_sweep_are_left_in_the_run(calibrated):
    _, folder, output = calibrated
    policy = policies.read(folder / "policy.json")
    assert (policy.positions, policy.pictures, policy.dataset) == (EXITS, 300, "DIGITS validation")
    assert (policy.criterion, policy.limit, policy.confidence) == ("budgetMACs", 20e6, None)
    assert 19.5e6 < policy.macs <= 20e6
    assert sum(policy.histogram) == 300
    assert (folder / "adaptive.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((folder / "adaptive.csv").open()))
    assert [row["exit"] for row in rows[:4]] == ["5", "9", "14", ""]
    macs, oracle = ([float(row[name]) for row in rows[3:]] for name in ("macs", "oracle"))
    assert macs == sorted(macs)
    assert oracle == sorted(oracle, reverse=True)
    table = [line.split() for line in output.splitlines()[2:5]]
    assert [row[0] for row in table] == ["5", "9", "14"]
    assert f"policy: error {policy.error:.2f} %" in output
    assert str(folder) in output.splitlines()[-1]


def test_a_policy_that_cannot_be_drawn_is_left_and_told(calibrated, tmp_path, monkeypatch, capsys):
    def no_plot(*_):
        raise UserError("no plot could be drawn")

    monkeypatch.setattr(adaptive, "draw", no_plot)
    with pytest.raises(UserError, match="no plot could be drawn"):
        calibrate.main(["DIGITS", str(calibrated[1]), "--budgetMACs", "20M", "--nGPU", "0", "--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adaptive.csv", "policy.json"]
    told, before = capsys.readouterr().out, calibrated[2]
    assert told == before.partition("written: ")[0]


def test_the_held_out_pictures_are_those_of_the_training(calibrated):
    _, folder, _ = calibrated
    data = splits.for_training(catalog.find("DIGITS", Path()), 1137, 300)
    held = splits.held_out(catalog.find("DIGITS", Path()), 300)
    assert held.images.equal(data.evaluated.images)
    model = saved.load(exit_file.files_in(folder))
    logits, targets = asking.collect(model, held, ON_CPU)
    policy = policies.read(folder / "policy.json")
    figures = early_exit.simulate(logits, policy).figures(targets, model.macs_to_exits)
    assert figures == {name: getattr(policy, name) for name in figures}
    assert 100 * (logits[-1].argmax(1) != targets).float().mean().item() == pytest.approx(model.header["error"])


def test_test_py_routes_by_a_policy(calibrated, tested):
    save, folder, _ = calibrated
    process = script("test.py", "DIGITS", NAME, "--save", save, "--policy", "policy.json", "--nGPU", "0")
    assert process.returncode == 0, process.stderr
    by_path = script("test.py", "DIGITS", folder, "--policy", folder / "policy.json", "--nGPU", "0")
    first, _, title, _, policy, last, *_ = process.stdout.splitlines()
    assert by_path.stdout.splitlines()[0] == first
    assert title.split() == ["error", "multiply-adds", "img/s", "mean", "ms", "median", "ms", "p95", "ms"]
    assert (policy.split()[0], last.split()[:2]) == ("policy", ["exit", "14"])
    assert float(policy.split()[1]) == float(first.split()[1])
    assert "against exit 14, the policy is" in process.stdout
    model = saved.load(exit_file.files_in(folder))
    logits, targets = asking.collect(model, tested, ON_CPU)
    simulated = early_exit.simulate(logits, policies.read(folder / "policy.json"))
    wrong = (simulated.classes != targets).sum().item()
    assert abs(float(first.split()[1]) - 100 * wrong / 360) < 0.3  # one picture may lie within rounding of a threshold
    shares = torch.bincount(simulated.exits, minlength=3) / 3.6
    printed = [float(share) for share in re.findall(r"\d+: ([\d.]+) %", process.stdout)]
    assert printed == pytest.approx(shares.tolist(), abs=0.4)


def test_a_policy_of_the_current_folder_comes_before_that_of_the_run(calibrated, tmp_path):
    save, folder, _ = calibrated
    line = ("DIGITS", NAME, "--save", save, "--nGPU", "0")
    assert script("calibrate.py", *line, "--budgetMACs", "12M", "--out", tmp_path).returncode == 0
    found, by_path, of_run = (
        script("test.py", *line, "--policy", given, cwd=tmp_path).stdout.splitlines()[0]
        for given in ("policy.json", tmp_path / "policy.json", folder / "policy.json")
    )
    assert found == by_path != of_run


def test_a_policy_leaves_out_exits_that_learnt_nothing(tmp_path):
    line = [*SMALL, "--nEpochs", "1", "--valSize", "100", "--exitWeights", "1,0,1", "--save", str(tmp_path)]
    main.main(line)
    process = script("calibrate.py", "DIGITS", NAME, "--save", tmp_path, "--budgetMACs", "20M", "--nGPU", "0")
    assert process.returncode == 0, process.stderr
    assert policies.read(tmp_path / FOLDER / "policy.json").positions == (5, 14)
    assert script("test.py", "DIGITS", NAME, "--save", tmp_path, "--policy", "policy.json").returncode == 0


def test_a_guarantee_and_a_budget_of_time(calibrated, tmp_path):
    save, _, _ = calibrated
    common = ("calibrate.py", "DIGITS", NAME, "--save", save, "--out", tmp_path, "--nGPU", "0")
    assert script(*common, "--maxErrorIncrease", "30", "--confidence", "0.9").returncode == 0
    policy = policies.read(tmp_path / "policy.json")
    assert (policy.criterion, policy.limit, policy.confidence) == ("maxErrorIncrease", 30, 0.9)
    assert script(*common, "--budgetMs", "1000", "--precision", "bf16").returncode == 0
    assert policies.read(tmp_path / "policy.json").histogram == (0, 0, 300)
    assert {path.name for path in tmp_path.iterdir()} == {"policy.json", "adaptive.csv", "adaptive.png"}


def test_a_budget_of_time_is_kept_by_what_the_exits_take(calibrated, tmp_path, monkeypatch):
    save, _, _ = calibrated
    medians = (1.0, 2.5, 4.0)
    measured = [Latency(mean=9.0, median=median, p95=9.0) for median in medians]
    monkeypatch.setattr(latency, "latencies", lambda *_: measured)  # those of this machine are nobody's to say
    calibrate.main(["DIGITS", NAME, "--save", str(save), "--out", str(tmp_path), "--nGPU", "0", "--budgetMs", "2"])
    leaving = policies.read(tmp_path / "policy.json").histogram
    assert 1.8 < sum(count * median for count, median in zip(leaving, medians, strict=True)) / 300 <= 2


def test_the_protocol_of_msdnet(calibrated, tmp_path):
    save = calibrated[0]
    common = ("--save", save, "--nGPU", "0")
    line = ("DIGITS", NAME, *common, "--budgetMACs", "20M", "--protocol", "MSDNet", "--out", tmp_path)
    process = script("calibrate.py", *line)
    assert process.returncode == 0, process.stderr
    policy = policies.read(tmp_path / "policy.json")
    assert policy.protocol == "msdnet"
    assert 19.5e6 < policy.macs <= 20e6
    rows = list(csv.DictReader((tmp_path / "adaptive.csv").open()))
    assert [bool(row["ratio"]) for row in rows].count(True) == 101
    assert script("test.py", "DIGITS", NAME, *common, "--policy", tmp_path / "policy.json").returncode == 0


def test_early_exit_is_drawn_beside_the_exits(calibrated, tmp_path):
    save, folder, _ = calibrated
    plot = tmp_path / "p.png"
    common = ("test.py", "DIGITS", NAME, "--exit", "all", "--plot", plot, "--nGPU", "0", "--save")
    given = ("--policy", folder / "policy.json")
    drawn = []
    for line in ((save, *given), (save,)):
        process = script(*common, *line)
        assert (process.returncode, process.stderr) == (0, "")
        drawn.append(plot.read_bytes())
    assert drawn[0] == drawn[1]
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    (copy / "exit-9.safetensors").unlink()
    process = script("test.py", "DIGITS", copy, "--exit", "all", "--plot", plot, "--nGPU", "0")
    assert process.returncode == 0
    assert process.stderr.startswith("early exit is not drawn: ")
    assert "is a policy for exits 5, 9, 14" in process.stderr
    assert plot.read_bytes() != drawn[0]


@pytest.mark.parametrize(("threshold", "beside"), [(0.0, ["exit 14", "exit 5"]), (early_exit.NEVER, ["exit 14"])])
def test_a_policy_is_compared_with_the_cheapest_exit_that_errs_no_more(threshold, beside, calibrated, tested):
    folder = calibrated[1]
    model, policy = saved.load(exit_file.files_in(folder)), policies.read(folder / "policy.json")
    extreme = replace(policy, thresholds=(threshold, threshold, 0.0))
    (found, *others), histogram = routing.compare(model, extreme, tested, ON_CPU)
    assert [other.name for other in others] == beside
    assert (found.error, found.macs) == (others[-1].error, pytest.approx(others[-1].macs))
    assert max(histogram) == 360
    for contender in others:
        position = int(contender.name.removeprefix("exit "))
        answers = answers_of(folder, tested.images, position)
        assert contender.error == pytest.approx(metrics.top_error(answers, tested.targets))


@pytest.mark.parametrize("protocol", ["threshold", "msdnet"])
def test_early_exit_is_drawn_where_it_is(protocol, calibrated, tested):
    """The policy where its pictures leave; the curve from the first exit to the last."""
    folder = calibrated[1]
    model = saved.load(exit_file.files_in(folder))
    policy = replace(policies.read(folder / "policy.json"), protocol=protocol)
    logits, macs = logits_of(model, tested.images), model.macs_to_exits
    point, curve = program.early_exit_places(model, policy, Answered(logits, tested.targets, "DIGITS"))
    figures = early_exit.simulate(logits, policy).figures(tested.targets, macs)
    assert (point.macs, point.error) == (figures["macs"], figures["error"])
    assert {"threshold": "every threshold", "msdnet": "every ratio"}[protocol] in curve.label
    first, last = (metrics.top_error(logits[exit], tested.targets) for exit in (0, -1))
    costs, errors = zip(*curve.places, strict=True)
    assert list(costs) == sorted(costs)
    assert (costs[0], costs[-1]) == pytest.approx((macs[0], macs[-1]), rel=0.02)
    assert (errors[0], errors[-1]) == pytest.approx((first, last), abs=1)


def test_pictures_of_ones_own(finished, tmp_path):
    save, _, _ = finished
    counts = {str(digit): 6 for digit in range(10)}
    write_pictures(tmp_path / "mine", counts)
    (tmp_path / "other" / "val").mkdir(parents=True)
    shutil.copytree(tmp_path / "mine", tmp_path / "other" / "val", dirs_exist_ok=True)
    written = []
    line = ("DIGITS", NAME, "--save", save, "--budgetMACs", "15M", "--out", tmp_path, "--heldOut")
    for folder in ("mine", "other"):
        assert script("calibrate.py", *line, tmp_path / folder).returncode == 0
        written.append(json.loads((tmp_path / "policy.json").read_text()))
    assert [policy.pop("dataset") for policy in written] == ["mine", "other"]
    assert written[0] == written[1]
    shutil.rmtree(tmp_path / "mine" / "3")
    odd = script("calibrate.py", *line, tmp_path / "mine")
    told = (
        "mine has 9 classes (0, 1, 2 and 6 more), the model was trained on DIGITS with 10 classes (3, 0, 1 and 7 more)"
    )
    assert_one_line_error(odd, 1, told, "give DIGITS, or pictures of the same classes")


def test_the_pictures_of_a_folder_that_stands_in_for_a_data_set_are_no_held_out_ones(calibrated, tmp_path):
    for split in ("train", "val"):
        write_pictures(tmp_path / "digits" / split, {"a": 1, "b": 1})
    common = ("calibrate.py", "DIGITS", calibrated[1], "--budgetMACs", "20M", "--dataDir", tmp_path)
    for folder, seen in (("digits/train", "train"), ("digits", "val"), ("digits/val", "val")):
        process = script(*common, "--heldOut", tmp_path / folder)
        assert_one_line_error(process, 1, f"has the pictures of {tmp_path / 'digits' / seen}, which are for training")


def test_mistakes_of_calibrate_py(calibrated, finished, tmp_path):
    save, folder, _ = calibrated
    budget = ("--budgetMACs", "20M")

    def refused(status, *words, line):
        assert_one_line_error(script("calibrate.py", *line), status, *words)

    refused(2, "one of --budgetMACs", "given: none", line=("DIGITS", NAME))
    refused(2, "--budgetMACs and --budgetMs", line=("DIGITS", NAME, *budget, "--budgetMs", "2"))
    refused(2, "leave it out with --budgetMACs", line=("DIGITS", NAME, *budget, "--confidence", "0.9"))
    refused(
        2,
        "keeps a budget and assures no error",
        line=("DIGITS", NAME, "--maxErrorIncrease", "9", "--protocol", "msdnet"),
    )
    refused(2, "'many' is not a number of multiply-adds", line=("DIGITS", NAME, "--budgetMACs", "many"))
    refused(2, "is not a folder", line=("DIGITS", NAME, *budget, "--heldOut", tmp_path / "no"))
    refused(1, "no exit files of", line=("DIGITS", "AuxResNet-20-2", "--save", tmp_path, *budget))
    refused(1, "--valSize", "--heldOut", line=("DIGITS", NAME, "--save", finished[0], *budget))
    refused(1, "give 9.88M or more", line=("DIGITS", NAME, "--save", save, "--budgetMACs", "1M"))
    refused(
        1, "cannot be assured", "can; or hold out", line=("DIGITS", NAME, "--save", save, "--maxErrorIncrease", "0.1")
    )
    (tmp_path / "taken" / "adaptive.png").mkdir(parents=True)
    refused(
        1, "adaptive.png is no regular", line=("DIGITS", NAME, "--save", save, *budget, "--out", tmp_path / "taken")
    )
    assert not (tmp_path / "taken" / "policy.json").exists()
    refused(1, "is the folder of another run", line=("DIGITS", NAME, "--save", save, *budget, "--out", finished[1]))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "segment-5.onnx").touch()
    refused(1, "or a bundle", line=("DIGITS", NAME, "--save", save, *budget, "--out", tmp_path / "bundle"))
    refused(2, "a.onnx is for predict.py", "give the run", line=("DIGITS", "a.onnx", *budget))
    refused(1, "--out", "is no folder", line=("DIGITS", NAME, "--save", save, *budget, "--out", tmp_path / "no"))
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "exit-9.safetensors", alone)
    refused(1, "exit-9.safetensors is one exit only", line=("DIGITS", alone, *budget))
    refused(1, "exit-9.safetensors is one exit only", line=("DIGITS", folder / "exit-9.safetensors", *budget))
    not_a_number = "60"  # a text counts for nothing
    for size, words in (
        (not_a_number, "without held-out pictures"),
        (5000, "the run held 5,000 out: they are others"),
    ):
        for path in exit_file.files_in(folder).values():
            header = exit_file.read_header(path)
            header["options"]["valSize"] = size
            (tmp_path / path.name).write_bytes(exit_file.content(load_file(path), header))
        refused(1, words, line=("DIGITS", tmp_path, *budget))


def test_mistakes_of_test_py_with_a_policy(calibrated, finished, tmp_path):
    save, folder, _ = calibrated

    def refused(status, *words, line, save=save):
        assert_one_line_error(script("test.py", "DIGITS", NAME, "--save", save, *line), status, *words)

    file = folder / "policy.json"
    refused(2, "--policy excludes --exit", line=("--policy", file, "--exit", "5"))
    refused(2, "--policy excludes --plot", line=("--policy", file, "--plot", tmp_path / "p.png"))
    refused(2, "--compile true is for --policy", line=("--compile", "true"))
    nowhere = ("CIFAR10", "AuxResNet-56-5", "--policy", tmp_path / "no.json", "--dataDir", tmp_path, "--save", tmp_path)
    process = script("test.py", *nowhere)  # where it is told before CIFAR-10 is downloaded
    assert_one_line_error(process, 1, "no.json cannot be read as a policy")
    refused(2, "--policy is for one device", line=("--policy", file, "--nGPU", "2"))
    refused(1, "network of other weights", line=("--policy", file), save=finished[0])
    refused(1, "cannot be read as a policy", line=("--policy", tmp_path / "no.json"))
    (tmp_path / "damaged.json").write_text(file.read_text()[:100])
    refused(1, "damaged.json cannot be read as a policy", line=("--policy", tmp_path / "damaged.json"))
    short = tmp_path / folder.name
    shutil.copytree(folder, short)
    (short / "exit-9.safetensors").unlink()
    refused(1, "policy for exits 5, 9, 14, the network has 5, 14", line=("--policy", file), save=tmp_path)
    (short / "exit-5.safetensors").unlink()
    refused(1, "the network has 14; give a run with all of them", line=("--policy", file), save=tmp_path)


def test_another_data_set_than_that_of_the_run_is_refused_before_it_is_downloaded(validated, tmp_path):
    for more in ((), ("--heldOut", tmp_path)):
        process = script("calibrate.py", "SVHN", validated[1], "--dataDir", tmp_path, "--budgetMACs", "20M", *more)
        assert_one_line_error(process, 1, "was trained on DIGITS, not on SVHN; give DIGITS")
    assert not list(tmp_path.iterdir())


def test_other_pictures_than_those_held_out_are_noticed(validated, tmp_path):
    """A folder that stands in for the data set has other pictures than the run held out."""
    write_pictures(tmp_path / "digits" / "train", {str(digit): 40 for digit in range(10)})
    line = ("DIGITS", validated[1], "--dataDir", tmp_path, "--out", tmp_path, "--budgetMACs", "20M")
    assert_one_line_error(
        script("calibrate.py", *line), 1, "not the pictures that were held out: DIGITS has others now"
    )


def test_exit_files_that_do_not_say_which_pictures_were_held_out_are_known_by_their_error(calibrated, tmp_path):
    """Older versions wrote such."""
    older, other = tmp_path / "older", tmp_path / "other"
    older.mkdir()
    for path in exit_file.files_in(calibrated[1]).values():
        header = exit_file.read_header(path)
        assert len(header.pop("heldOut")) == 64
        (older / path.name).write_bytes(exit_file.content(load_file(path), header))
    line = ("DIGITS", older, "--budgetMACs", "20M")
    assert script("calibrate.py", *line).returncode == 0
    assert (older / "policy.json").read_bytes() == (calibrated[1] / "policy.json").read_bytes()
    write_pictures(other / "digits" / "train", {str(digit): 40 for digit in range(10)})
    refused = script("calibrate.py", *line, "--dataDir", other)
    assert_one_line_error(refused, 1, "these are not the pictures that were held out; check --dataDir")


def test_held_out_pictures_are_scaled_as_in_training(tmp_path):
    """With the margin that random crops go into, though it is cut off: pixels are those of the training, to the bit."""
    data = tmp_path / "data"
    for split, count in (("train", 100), ("test", 10)):
        write_pictures(data / split, {"a": count, "b": count}, size=(38, 50))  # of which the margin changes some pixels
    line = ["--depth", "8", "--nEpochs", "1", "--valSize", "60", "--nGPU", "0", "--nThreads", "0"]
    main.main(["--data", str(data), *line, "--padding", "reflect", "--save", str(tmp_path)])
    calibrate.main([str(data), str(tmp_path / "data-AuxResNet-8-2"), "--budgetMACs", "9M"])
    assert (tmp_path / "data-AuxResNet-8-2" / "policy.json").exists()


def test_a_folder_that_has_changed_is_noticed_and_its_own_pictures_are_refused(tmp_path):
    """One picture more, and other pictures of the order are held out, among them some that were trained on."""
    data, budget = tmp_path / "data", ("--budgetMACs", "9M", "--out", tmp_path)
    for split, count in (("train", 100), ("test", 10)):
        write_pictures(data / split, {"a": count, "b": count}, seed=count)
    line = ["--depth", "8", "--nEpochs", "1", "--batchsize", "32", "--valSize", "60", "--nGPU", "0", "--nThreads", "0"]
    main.main(["--data", str(data), *line, "--save", str(tmp_path)])
    model = tmp_path / "data-AuxResNet-8-2"
    for split in ("train", "test"):
        with pytest.raises(UserError, match=f"--heldOut .* has the pictures of .*data/{split}"):
            calibrate.main([str(data), str(model), *map(str, budget), "--heldOut", str(data / split)])
    calibrate.main([str(data), str(model), *map(str, budget)])
    shutil.copy(data / "test" / "a" / "000.png", data / "train" / "a" / "000a.png")
    with pytest.raises(UserError, match="these are not the pictures that were held out"):
        calibrate.main([str(data), str(model), *map(str, budget)])


def test_speeds_are_measured_on_few_pictures_too(tested):
    pictures = tested.take(list(range(5)))
    found = routing.speeds({"one": lambda images: images.sum((1, 2, 3)), "two": lambda images: images}, pictures)
    assert all(per_second > 0 and 0 < alone.median <= alone.p95 for per_second, alone in found.values())


def test_policies_need_a_compiler_that_lasts_to_be_compiled(calibrated, monkeypatch):
    def fails(*_):
        raise torch._dynamo.exc.TorchDynamoException("no room\nand much more")

    line = ["DIGITS", str(calibrated[1]), "--policy", "policy.json", "--compile", "true", "--nGPU", "0"]
    monkeypatch.setattr(arithmetic, "compiles", lambda _: False)
    with pytest.raises(UserError, match="--compile true: PyTorch finds no compiler"):
        program.main(line)
    monkeypatch.setattr(arithmetic, "compiles", lambda _: True)
    monkeypatch.setattr(routing, "compare", fails)
    with pytest.raises(UserError, match=r"^torch.compile failed \(no room\); --compile false does without it"):
        program.main(line)


def test_names_of_folders_are_understood(calibrated):
    save, _, _ = calibrated
    folder = names.run_folder("DIGITS", names.parse(NAME))
    assert script("calibrate.py", "DIGITS", folder, "--save", save, "--budgetMACs", "20M").returncode == 0
