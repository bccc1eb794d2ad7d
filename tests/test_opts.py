"""Options: spellings, resolved defaults, and mistakes refused with what is legal."""

import pytest

import opts
from system.errors import UsageError, UserError


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
        ("--recipe fast --precision half", ["--precision half", "--optimizer muon", "bf16"]),
        ("--depth 26 --nOutputs 1 --distill 1", ["--distill", "--nOutputs", "two exits"]),
        ("--depth 26 --exits 26 --distill 0.5", ["--distill", "--nOutputs", "two exits"]),
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
    opts.check_resumable(opts.parse("--data DIGITS --schedule step --nEpochs 9 --nThreads 0 --resume".split()), saved)
    with pytest.raises(ValueError, match=r"depth is 20, was 26; LR is 0\.2, was 0\.1"):
        opts.check_resumable(opts.parse("--data DIGITS --schedule step --nEpochs 4 --depth 20 --LR 0.2".split()), saved)
    with pytest.raises(ValueError, match="nEpochs is 3, was 4"):
        opts.check_resumable(opts.parse("--data DIGITS --schedule step --nEpochs 3".split()), saved)


@pytest.mark.parametrize("more", ["--startSize 16", "--exitSchedule deepen"])
def test_a_run_that_changes_with_progress_is_not_made_longer(more):
    saved = opts.parse(f"--nEpochs 4 {more}".split())
    with pytest.raises(ValueError, match="nEpochs is 9, was 4"):
        opts.check_resumable(opts.parse(f"--nEpochs 9 {more}".split()), saved)


def test_test_options():
    options = opts.parse_test("cifar10 AuxResNet-26-2/10 -exit all --datadir D".split())
    assert (options.data, options.model, options.exit, options.dataDir) == ("CIFAR10", "AuxResNet-26-2/10", "all", "D")
    with pytest.raises(UsageError, match="neither all nor a position"):
        opts.parse_test("CIFAR10 ResNet-20 --exit last".split())


@pytest.mark.parametrize("content", ["[1]", "3", '{"depth": "x"}', '{"depht": 8}', "{", "[" * 100_000])
def test_saved_options_that_are_none(content, tmp_path):
    (tmp_path / "opt.json").write_text(content)
    with pytest.raises(UserError, match=r"saved options are not|does not hold a run"):
        opts.parse(["--resume", str(tmp_path)])
