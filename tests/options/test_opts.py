"""The options of every program: their list, resolved defaults, what is saved of them, and how they are shown."""

import json
import re

import pytest

import opts
from datasets import catalog
from datasets.catalog import NAMES
from examples import write_pictures
from models import names
from options import stored
from options.recipes import BY_DATASET, MEANT_FOR, RECIPES
from programs import PROJECT
from system.errors import UsageError, UserError

PARSERS = {
    opts.parse: opts.MAIN,
    opts.TEST.parsed: opts.TEST,
    opts.PLOT.parsed: opts.PLOT,
    opts.PREDICT.parsed: opts.PREDICT,
    opts.EXPORT.parsed: opts.EXPORT,
    opts.CALIBRATE.parsed: opts.CALIBRATE,
}
FROZEN = """
main.py --data: CIFAR10
main.py --dataDir: ./data
main.py --svhnExtra: true
main.py --trainSize: all
main.py --inputSize: 32
main.py --valSize: 0
main.py --save: ./
main.py --saveEvery: 10.0
main.py --resume: start anew
main.py --config: none
main.py --tensorboard: false
main.py --verbose: false
main.py --depth: 26
main.py --nOutputs: number of --exits, else 2
main.py --exits: published, or evenly spread
main.py --widen: 10 at depth 26, else 1; DIGITS: 1
main.py --dropout: 0.0
main.py --shortcutType: A if k is 1, else B
main.py --retrain: fresh weights
main.py --recipe: paper
main.py --nEpochs: 400; fast: 30; long: 60; DIGITS: 8
main.py --testEvery: 1
main.py --batchsize: 128; DIGITS: 64
main.py --schedule: step; fast, long, DIGITS: onecycle
main.py --LR: 0.1; fast, long: 0.2
main.py --scaleLR: false; fast, long: true
main.py --optimizer: sgd; fast, long: muon
main.py --momentum: 0.9
main.py --weightDecay: 0.0001; fast, long: 0.0005
main.py --decayNorms: true; fast, long: false
main.py --syncBN: false
main.py --ema: 0.0
main.py --manualSeed: 0
main.py --exitWeights: sum
main.py --exitSchedule: constant
main.py --labelSmoothing: 0.0; fast, long: 0.1
main.py --distill: 0.0
main.py --teacher: last
main.py --temperature: 1.0
main.py --padding: black; long: reflect
main.py --alternateFlip: false; fast, long: true
main.py --cutout: 0; long: 12
main.py --mixup: 0.0
main.py --startSize: inputSize
main.py --nGPU: 1 if there is one
main.py --cpuThreads: as PyTorch finds best
main.py --nThreads: 2
main.py --shareGradInput: false
main.py --precision: float; fast, long: auto
main.py --compile: false; fast, long: auto
test.py data
test.py model
test.py --exit: the last exit that learnt
test.py --mirror: false
test.py --perClass: false
test.py --policy: none
test.py --compile: false
test.py --json: none
test.py --plot: none
test.py --dataDir: ./data
test.py --save: ./
test.py --nGPU: 1 if there is one
test.py --cpuThreads: as PyTorch finds best
test.py --precision: float
plot.py runs
plot.py --out: runs.png
predict.py model
predict.py pictures
predict.py --exit: the last exit that learnt
predict.py --policy: none
predict.py --top: 1
predict.py --format: by the name of --out, else text
predict.py --out: standard output
predict.py --save: ./
predict.py --nGPU: 1 if there is one
predict.py --cpuThreads: as PyTorch finds best
predict.py --precision: float
export.py data
export.py model
export.py --exit: the last exit that learnt
export.py --policy: none
export.py --to: model.onnx, without --bundle
export.py --bundle: none
export.py --check: all
export.py --half: false
export.py --int8: false
export.py --dataDir: ./data
export.py --save: ./
calibrate.py data
calibrate.py model
calibrate.py --budgetMACs: none
calibrate.py --budgetMs: none
calibrate.py --maxErrorIncrease: none
calibrate.py --confidence: 0.95 with --maxErrorIncrease
calibrate.py --protocol: threshold
calibrate.py --heldOut: the pictures that --valSize held out in training
calibrate.py --out: the run's folder
calibrate.py --dataDir: ./data
calibrate.py --save: ./
calibrate.py --nGPU: 1 if there is one
calibrate.py --cpuThreads: as PyTorch finds best
calibrate.py --precision: float
"""


def test_the_options_of_all_programs_are_these():
    shown = [
        f"{program.name} {option.name}" if option.positional
        else f"{program.name} --{option.name}: {program.shown(option)}"
        for program in PARSERS.values()
        for option in program.options
    ]  # fmt: skip
    assert shown == FROZEN.strip().splitlines()


@pytest.mark.parametrize("parse", PARSERS)
def test_help_shows_every_option_with_its_default(parse, capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    program = PARSERS[parse]
    text = capsys.readouterr().out
    for option in program.options:
        if not option.positional:
            entry = " ".join(text[text.index(f"\n  --{option.name} ") :].split())
            assert entry.partition("(default: ")[2].startswith(f"{program.shown(option)})")


def test_a_folder_with_the_name_of_a_data_set_is_not_taken_for_it(tmp_path):
    assert catalog.label(str(tmp_path / "SVHN")) == "SVHN-folder"
    assert [catalog.label(data) for data in ("SVHN", str(tmp_path / "birds"))] == ["SVHN", "birds"]


def test_names_of_recipes_data_sets_and_options_in_the_tables_exist():
    known = {option.name for option in opts.MAIN.options}
    assert BY_DATASET.keys() <= set(NAMES)
    assert MEANT_FOR.keys() <= RECIPES.keys()
    assert all(defaults.keys() <= known for defaults in [*RECIPES.values(), *BY_DATASET.values()])
    for recipe, defaults in RECIPES.items():
        assert opts.parse(["--recipe", recipe]).__dict__.items() >= defaults.items()


def test_what_may_change_when():
    assert set(opts.FREE_ON_RESUME) == {
        "resume", "config", "tensorboard", "verbose", "save", "saveEvery", "dataDir", "nGPU", "cpuThreads",
        "nThreads"
    }  # fmt: skip
    assert set(opts.FREE_BETWEEN_RUNS) - set(opts.FREE_ON_RESUME) == {
        "manualSeed", "compile", "shareGradInput", "recipe", "testEvery"
    }  # fmt: skip
    assert set(opts.AUTO) == {"precision", "compile"}


def test_defaults_are_the_default_network():
    options = opts.parse([])
    assert (options.data, options.depth, options.nOutputs, options.widen) == ("CIFAR10", 26, 2, 10)
    assert (options.nEpochs, options.batchsize, options.LR, options.schedule) == (400, 128, 0.1, "step")
    assert (options.nGPU, options.nThreads, options.dataDir, options.save) == (None, 2, "./data", "./")


def test_the_documented_command_line():
    line = "--depth 56 --batchsize 256 --nGPU 4 --nThreads 8 --shareGradInput true --data CIFAR100"
    options = opts.parse(line.split())
    assert (options.depth, options.widen, options.nOutputs, options.nGPU) == (56, 1, 2, 4)
    assert (options.batchsize, options.nThreads, options.shareGradInput) == (256, 8, True)
    assert options.data == "CIFAR100"


@pytest.mark.parametrize(
    "line",
    [
        "-depth 56 -batchSize 256 -data cifar100",
        "--DEPTH=56 -batchsize=256 --Data Cifar100",
        "-depth=56 --batchSize 256 -data CIFAR100",
    ],
)
def test_lua_spelling(line):
    assert opts.parse(line.split()) == opts.parse("--depth 56 --batchsize 256 --data CIFAR100".split())


def test_defaults_that_depend_on_other_options():
    digits = opts.parse(["--data", "digits"])
    assert (digits.widen, digits.nEpochs, digits.batchsize, digits.schedule) == (1, 8, 64, "onecycle")
    assert opts.parse(["--data", "digits", "--nEpochs", "3"]).nEpochs == 3
    assert opts.parse(["--depth", "44"]).widen == 1
    assert opts.parse(["--exits", "15,35,56", "--depth", "56"]).nOutputs == 3
    assert opts.parse(["--dropout"]).dropout == 0.3
    assert opts.parse(["--resume"]).resume == ""
    with pytest.raises(UsageError, match="argument --resume: '' is empty"):  # of a variable that is not set
        opts.parse(["--resume", ""])
    assert [opts.parse(line.split()).verbose for line in ("", "--verbose", "--verbose false")] == [False, True, False]


def test_a_home_that_the_shell_leaves_alone_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    options = opts.parse(["--save=~/runs", "--dataDir", "~"])
    assert (options.save, options.dataDir) == ("/home/ann/runs", "/home/ann")
    assert opts.parse(["--save", "./~"]).save == "./~"
    assert opts.parse(["--save=~nobody there"]).save == "~nobody there"
    options = opts.EXPORT.parsed(["digits", "~/a.safetensors", "--to=~/b.onnx"])
    assert (options.model, options.to) == ("/home/ann/a.safetensors", "/home/ann/b.onnx")


def test_a_home_is_found_wherever_a_file_or_a_folder_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pictures(tmp_path / "pets" / "train", {"cat": 1, "dog": 1})
    write_pictures(tmp_path / "pets" / "test", {"cat": 1, "dog": 1})
    (tmp_path / "fast.toml").write_text('data = "~/pets"\nsave = "~/runs"\n')
    options = opts.parse(["--config=~/fast.toml"])
    assert (options.data, options.save) == (str(tmp_path / "pets"), str(tmp_path / "runs"))
    assert opts.CALIBRATE.parsed("--heldOut=~/pets ~/pets a --budgetMACs 1M".split()).heldOut == options.data


def test_an_empty_save_is_refused_and_read_where_an_older_version_allowed_it():
    with pytest.raises(UsageError, match="save: '' is empty; give a name or a path"):
        opts.parse(["--save", ""])
    whole = vars(opts.parse([]))
    assert opts.from_saved({**whole, "save": ""}).save == "./"
    assert opts.from_saved({**whole, "dataDir": ""}).dataDir == "./"
    with pytest.raises(UserError, match="no longer in"):  # no folder of pictures, and not CIFAR10
        opts.from_saved({**whole, "data": ""})


def test_a_run_that_goes_on_may_lack_what_a_new_one_needs():
    line = "--data DIGITS --depth 20 --nOutputs 1 --distill 1"
    with pytest.raises(UsageError, match="--distill needs two exits"):
        opts.parse(line.split())
    for resume in ("--resume", "--resume auto"):
        assert opts.parse(f"{line} {resume}".split()).distill == 1


@pytest.mark.parametrize("line", ["--depth 26", "--depth 44"])
def test_shortcuts_are_by_default_what_the_help_says(line):
    options = opts.parse(line.split())
    configuration = names.configure(options.depth, options.nOutputs, options.exits, options.widen)
    assert configuration.shortcut == ("A" if options.widen == 1 else "B")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--depth x", ["--depth", "'x'", "whole number"]),
        ("--LR nan", ["--LR", "'nan'", "number from"]),
        ("--LR -1", ["--LR", "'-1'"]),
        ("--batchsize 0", ["--batchsize", "'0'", "from 1"]),
        ("--data MNIST", ["--data", "'MNIST'", "CIFAR10, CIFAR100, SVHN, DIGITS"]),
        ("--shareGradInput maybe", ["--shareGradInput", "'maybe'", "true nor false"]),
        ("--exits 15;56", ["--exits", "15,35,56"]),
        ("--exitWeights 1,x", ["--exitWeights", "'1,x'", "sum, depth"]),
        ("--exitWeights 0,0", ["--exitWeights", "above 0"]),
        ("--schedule warm", ["--schedule", "warm", "onecycle"]),
        ("--shortcutType C", ["--shortcutType", "'A', 'B'"]),
        ("--dep 56", ["--dep"]),
        ("--depth", ["--depth", "expected one argument"]),
        ("--compile true --shareGradInput true", ["--compile", "--shareGradInput"]),
        ("--compile true --syncBN true", ["--compile", "--syncBN"]),
        ("--resume=", ["--resume", "is empty"]),
        ("--tensorboard= --depth 26", ["--tensorboard", "is empty"]),
        ("--syncBN true --nGPU 2", ["--syncBN", "torchrun", "--nGPU is 2"]),
        ("--recipe fast --precision half", ["--precision half", "--optimizer muon", "bf16"]),
        ("--depth 26 --nOutputs 1 --distill 1", ["--distill", "--nOutputs", "two exits"]),
        ("--depth 26 --exits 26 --distill 0.5", ["--distill", "--nOutputs", "two exits"]),
        ("--depth 26 --exitWeights 0,1 --distill 0.5", ["--distill", "--exitWeights", "two exits that learn"]),
        ("--teacher ensemble", ["--teacher ensemble is for --distill, which is 0"]),
        ("--temperature 4", ["--temperature 4.0 is for --distill, which is 0"]),
        ("--compile maybe", ["--compile", "'maybe'", "neither true, false nor auto"]),
        ("--precision double", ["--precision", "'double'", "auto", "float", "bf16", "half"]),
        ("--compile true --nGPU 2", ["--compile", "one device", "--nGPU is 2"]),
    ],
)
def test_mistakes_name_the_option_the_value_and_what_is_legal(line, words):
    with pytest.raises(UsageError) as caught:
        opts.parse(line.split())
    for word in words:
        assert word in str(caught.value)


def test_contradictions_of_a_resumed_run_are_all_named():
    saved = opts.parse("--data DIGITS --schedule step --nEpochs 4".split())
    opts.resumed(opts.parse("--data DIGITS --schedule step --nEpochs 9 --nThreads 0 --resume".split()), saved)
    with pytest.raises(ValueError, match=r"depth is 20, was 26; LR is 0\.2, was 0\.1"):
        opts.resumed(opts.parse("--data DIGITS --schedule step --nEpochs 4 --depth 20 --LR 0.2".split()), saved)
    with pytest.raises(ValueError, match="nEpochs is 3, was 4"):
        opts.resumed(opts.parse("--data DIGITS --schedule step --nEpochs 3".split()), saved)


@pytest.mark.parametrize("more", ["--startSize 16", "--exitSchedule deepen"])
def test_a_run_that_changes_with_progress_is_not_made_longer(more):
    saved = opts.parse(f"--nEpochs 4 {more}".split())
    with pytest.raises(ValueError, match="nEpochs is 9, was 4"):
        opts.resumed(opts.parse(f"--nEpochs 9 {more}".split()), saved)


def test_every_option_has_its_word_in_the_documents():
    text = (PROJECT / "docs" / "options.md").read_text()
    assert not [option.name for option in opts.MAIN.options if not re.search(rf"`--{option.name}[` ]", text)]


@pytest.mark.parametrize("program", [opts.TEST, opts.EXPORT, opts.PREDICT, opts.CALIBRATE, opts.PLOT])
def test_every_option_of_the_other_programs_is_on_some_page(program):
    text = "".join(page.read_text() for page in [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")])
    named = [option.name for option in program.options if not option.positional]
    assert not [name for name in named if not re.search(rf"--{name}\b", text)]


def test_a_run_may_be_tested_more_often_from_now_on():
    before = opts.parse("--data DIGITS --testEvery 2".split())
    assert opts.resumed(opts.parse("--data DIGITS --testEvery 3 --resume".split()), before).testEvery == 3


def test_test_options():
    options = opts.TEST.parsed("cifar10 AuxResNet-26-2/10 -exit all --datadir D".split())
    assert (options.data, options.model, options.exit, options.dataDir) == ("CIFAR10", "AuxResNet-26-2/10", "all", "D")
    with pytest.raises(UsageError, match="neither all, ensemble nor a position"):
        opts.TEST.parsed("CIFAR10 ResNet-20 --exit last".split())


@pytest.mark.parametrize(
    "content",
    ["[1]", "3", '{"depth": "x"}', '{"depht": 8}', "{", "[" * 100_000, '{"depth": 8, "depth": 8}', '{"LR": NaN}',
     '{"LR": 1e999}', f'{{"depth": {10**400}}}', '{"depth": [[[8]]]}', '{"data": {}}'],
    ids=range(12),
)  # fmt: skip
def test_saved_options_that_are_none(content, tmp_path):
    (tmp_path / "opt.json").write_text(content)
    with pytest.raises(UserError, match=r"saved options are not|does not hold the options of a run"):
        opts.parse(["--resume", str(tmp_path)])


def test_saved_options_of_older_versions_are_read(tmp_path):
    saved = vars(opts.parse("--depth 44 --verbose".split()))
    older = {name: value for name, value in saved.items() if name not in ("verbose", "testEvery")}
    assert opts.from_saved(older) == opts.parse("--depth 44".split())
    fast = vars(opts.parse("--recipe fast".split()))
    fast = {name: value for name, value in fast.items() if name != "labelSmoothing"}
    assert opts.from_saved(fast).labelSmoothing == 0  # a run of a version that had no such option
    (tmp_path / "opt.json").write_text(json.dumps(older))
    assert stored.recorded(tmp_path, opts.MAIN) == {**saved, "verbose": False}
    assert opts.parse(["--resume", str(tmp_path)]).depth == 44


def test_options_that_shaped_the_result_hold_no_path(tmp_path):
    pictures = tmp_path / "pets"
    for split in ("train", "test"):
        (pictures / split).mkdir(parents=True)
    paths = ["--data", pictures, "--dataDir", tmp_path, "--save", tmp_path]
    options = opts.parse([*map(str, paths), "--depth", "44", "--nThreads", "7", "--verbose"])
    shaping = opts.shaping(options)
    assert shaping["data"] == "pets"
    assert str(tmp_path) not in json.dumps(shaping)
    assert shaping.keys() == vars(options).keys() - set(opts.FREE_ON_RESUME)


def test_table_of_what_differs():
    assert opts.table(opts.parse([])) == "all options are at their defaults; --verbose lists them"
    assert opts.table(opts.parse("--data DIGITS --depth 14 --nOutputs 3 --resume --save /x".split())) == (
        "data      data=DIGITS\n"
        "run       save=/x\n"
        "network   depth=14  nOutputs=3\n"
        "training  nEpochs=8  batchsize=64  schedule=onecycle"
    )


def test_table_of_everything_lists_every_option_once_and_breaks_none():
    options = opts.parse(["--save", "a folder " + "of a long name " * 12, "--exits", "19,26", "--verbose"])
    text = opts.table(options)
    found = re.findall(r"(\w+)=", text)
    assert sorted(found) == sorted(vars(options).keys() - {"resume", "verbose"})
    assert "trainSize=(all)" in text
    assert "exits=19,26" in text
    assert options.save.rstrip() in text
    assert all(len(line) <= 110 for line in text.splitlines() if "save=" not in line)


def test_plot_options():
    assert vars(opts.PLOT.parsed("a b -OUT c.png".split())) == {"runs": ["a", "b"], "out": "c.png"}
    with pytest.raises(UsageError, match="RUN"):
        opts.PLOT.parsed([])
