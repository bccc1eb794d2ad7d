"""Wrong options and names: one error that says what is legal, before PyTorch is imported; never a traceback."""

import argparse
import json
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import main
import opts
from models import exits, names
from options.values import number
from programs import PROJECT
from system.errors import UsageError, UserError

BAD = {
    "data": ["MNIST", "", "/etc", "cifar10/", "CIFAR 10", "\u0660", "x" * 5000, "/" * 5000 + "x"],
    "config": ["", "missing.toml", "/etc", "x" * 5000],
    "tensorboard": ["maybe", "", "2"],
    "verbose": ["maybe", "", "2"],
    "svhnExtra": ["maybe", "", "2"],
    "trainSize": ["0", "-1", "1.5", "x", "", "nan", "1e3", "9" * 30, "9" * 5000],
    "valSize": ["-1", "0.5", "x", "", "nan", "9" * 30],
    "saveEvery": ["-1", "nan", "inf", "x", "", "1e99"],
    "depth": ["0", "-56", "1", "7", "57", "56.0", "x", "", "nan", "99999", "9" * 30],
    "nOutputs": ["0", "-1", "2.0", "x", "", "13", "99999"],
    "exits": ["", ",", "x", "15;26", "-1,26", "0,26", "18,26", "19,19,26", "19", "19,26,", "1.5,26", "9" * 30],
    "widen": ["0", "-1", "101", "x", "", "nan", "1.5"],
    "dropout": ["-0.1", "1", "nan", "inf", "x", ""],
    "shortcutType": ["C", "", "AB"],
    "exitWeights": ["", "x", "1", "1,1,1", "0,0", "-1,1", "nan,1", "1,inf", "1,,1", "max"],
    "nEpochs": ["0", "-1", "1.5", "x", "", "nan", "9" * 30],
    "testEvery": ["0", "-1", "1.5", "x", "", "nan", "9" * 30],
    "batchsize": ["0", "-1", "1.5", "x", "", "nan", "9" * 30],
    "schedule": ["warm", "", "STEP!"],
    "retrain": ["", "nothing", "AuxResNet-57-2", "ResNet", "model.onnx", "x" * 5000],
    "recipe": ["slow", "", "fast!"],
    "scaleLR": ["maybe", "", "2"],
    "optimizer": ["adam", "", "muon2"],
    "decayNorms": ["maybe", "", "2"],
    "ema": ["-0.1", "1", "nan", "inf", "x", ""],
    "exitSchedule": ["shallow", "", "deep er"],
    "labelSmoothing": ["-0.1", "1", "nan", "inf", "x", ""],
    "distill": ["-1", "1e9", "nan", "inf", "x", ""],
    "teacher": ["first", "", "26"],
    "temperature": ["0", "-1", "nan", "inf", "x", ""],
    "alternateFlip": ["maybe", "", "2"],
    "padding": ["white", "", "4"],
    "cutout": ["-1", "32", "1.5", "x", "", "nan"],
    "mixup": ["-0.1", "101", "nan", "inf", "x", ""],
    "inputSize": ["0", "12", "30", "33", "64", "228", "1.5", "x", "", "nan"],
    "startSize": ["0", "7", "33", "225", "1.5", "x", "", "nan"],
    "LR": ["0", "-0.1", "nan", "inf", "x", "", "1e9"],
    "momentum": ["-0.1", "1", "nan", "inf", "x", ""],
    "weightDecay": ["-1", "2", "nan", "inf", "x", ""],
    "manualSeed": ["-1", "1.5", "x", "", "nan", str(2**32)],
    "nGPU": ["-1", "1.5", "x", "", "nan", "9" * 30],
    "cpuThreads": ["0", "-1", "1025", "1.5", "x", "", "nan", "9" * 30],
    "nThreads": ["-1", "1.5", "x", "", "nan", "9" * 30],
    "shareGradInput": ["maybe", "", "2"],
    "syncBN": ["maybe", "", "2"],
    "precision": ["double", "", "16"],
    "compile": ["maybe", "", "2"],
}
FREE = {"dataDir", "save", "resume"}  # any text may be the name of a folder


def test_every_bad_value_is_one_line_that_names_option_and_value():
    assert BAD.keys() == {option.name for option in opts.MAIN.options} - FREE
    code = """
import json, sys, main
from system.errors import one_line_errors
for option, values in json.loads(sys.argv[1]).items():
    for value in values:
        try:
            with one_line_errors("main.py"):
                main.main([f"--{option}={value}"])
        except SystemExit as stop:
            print(json.dumps([option, value, stop.code, "torch" in sys.modules]))
"""
    process = subprocess.run(
        [sys.executable, "-c", code, json.dumps(BAD)], cwd=PROJECT, capture_output=True, text=True, timeout=120
    )
    results = [json.loads(line) for line in process.stdout.splitlines()]
    lines = process.stderr.splitlines()
    assert len(results) == len(lines) == sum(map(len, BAD.values())), process.stderr[-2000:]
    for (option, value, status, torch), line in zip(results, lines, strict=True):
        assert (status, torch) == (2, False), line
        assert option.lower() in line.lower(), line
        told = [repr(value[:20])[: -1 if len(value) > 20 else None], f"{option} {value[:20]}"] if value else ["''"]
        assert any(word.lower() in line.lower() for word in told), line
        assert len(line) < 400


def test_unsorted_exits_are_sorted_without_complaint():
    options = opts.parse(["--depth", "56", "--exits", "56,15,35"])
    configuration = names.configure(options.depth, options.nOutputs, options.exits)
    assert configuration.exits == (15, 35, 56)


WORDS = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.integers(0, 70), max_size=6).map(lambda numbers: ",".join(map(str, numbers))),
    st.sampled_from(["true", "false", "sum", "depth", "A", "B", "step", "cosine", "onecycle", "DIGITS", "cifar10"]),
    st.sampled_from(["all", "60M", "p.json", "a.png", "a.onnx", "a.pt2"]),
)
DASHES = st.sampled_from(["-", "--"])
PLACES = {"data": "DIGITS", "model": "ResNet-8", "pictures": "a.png", "runs": "a"}  # what has no dashes
PROGRAMS = (opts.MAIN, opts.TEST, opts.PLOT, opts.CALIBRATE, opts.PREDICT, opts.EXPORT)


def lines(program):
    """Command lines of a program, most of them with what it cannot do without."""
    named = [option.name for option in program.options if not option.positional]
    option = st.sampled_from([*named, "help", "unknown"])
    argument = st.one_of(
        st.builds("{}{}={}".format, DASHES, option, WORDS), st.builds("{}{}".format, DASHES, option), WORDS
    )
    needed = [PLACES[option.name] for option in program.options if option.positional]
    begun = st.sampled_from([needed, needed, []])
    return st.tuples(st.just(program), st.builds(list.__add__, begun, st.lists(argument, max_size=6)))


@given(st.sampled_from(PROGRAMS).flatmap(lines))
def test_any_command_line_is_parsed_or_refused(line):
    program, argv = line
    try:
        options = opts.parse(argv) if program is opts.MAIN else program.parsed(argv)
    except (UserError, SystemExit) as stop:
        assert isinstance(stop, UserError) or stop.code == 0  # --help
    else:
        if program is opts.MAIN:
            assert opts.from_saved(json.loads(json.dumps({**vars(options), "resume": None}))) is not None


@given(
    depth=st.integers(1, 2100),
    outputs=st.integers(1, 30),
    widen=st.integers(0, 110),
    dropout=st.sampled_from([0.0, 0.3]),
)
def test_configuration_to_name_to_configuration(depth, outputs, widen, dropout):
    legal = [d for d in range(8, exits.MAX_DEPTH + 1) if d % 6 == 2 or d % 9 == 2]
    depth = min(legal, key=lambda d: abs(d - depth)) if depth % 10 else depth  # most of them legal
    try:
        configuration = names.configure(depth, outputs, widen=widen, dropout=dropout)
    except UsageError:
        assume(False)
    assert names.parse(configuration.name) == configuration
    assert configuration.exits == tuple(sorted(set(configuration.exits)))


@given(
    st.one_of(
        st.text(max_size=30),
        st.from_regex(r"(Aux)?ResNet-[0-9]{1,3}(-[0-9]{1,2})?(/[0-9]{1,3})?(-dropout)?"),
        st.builds("AuxResNet-{}-{}".format, st.sampled_from([8, 20, 26, 56, 110]), st.text(max_size=8)),
    )
)
def test_any_name_is_parsed_or_refused_and_parsed_names_are_canonical(name):
    try:
        configuration = names.parse(name)
    except UsageError:
        return
    assert configuration.name == name
    folder = names.run_folder("CIFAR10", configuration)
    assert "/" not in folder
    assert ".." not in folder


@pytest.mark.parametrize(("low", "high", "legal"), [
    (0, 2**32 - 1, "'x' is not a whole number from 0 to 4294967295"),
    (1, 10**7, "'x' is not a whole number from 1 to 10000000"),
])  # fmt: skip
def test_ranges_are_written_without_exponents(low, high, legal):
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{legal}$"):
        number(int, low, high)("x")


@pytest.mark.parametrize(
    ("splits", "line", "words"),
    [
        ("", "--data {}", ["neither one of CIFAR10", "train/<class>/"]),
        ("test", "--data {}", ["neither one of CIFAR10", "train/<class>/"]),
        ("train", "--data {}", ["--data", "neither test/ nor val/", "--valSize N"]),
        ("train", "--data {} --valSize 0", ["--data", "neither test/ nor val/", "--valSize is 0"]),
        ("train", "--data {} --valSize 5", []),
        ("train test", "--data {}", []),
        ("train val", "--data {}", []),
    ],
)
def test_folders_to_train_on_need_pictures_to_judge_by(splits, line, words, tmp_path):
    _check_folder(opts.parse, splits, line, words, tmp_path)


@pytest.mark.parametrize(
    ("splits", "words"),
    [("train", ["data", "test/<class>/ or val/<class>/"]), ("test", []), ("val", []), ("train test val", [])],
)
def test_folders_to_test_on_need_no_training_pictures(splits, words, tmp_path):
    _check_folder(opts.TEST.parsed, splits, "{} ResNet-20", words, tmp_path)


def _check_folder(parse, splits, line, words, folder):
    """Pictures in a folder with these splits are legal, unless there are words for what is missing."""
    for split in splits.split():
        (folder / split).mkdir()
    argv = line.format(folder).split()
    if not words:
        assert parse(argv).data == str(folder)
        return
    with pytest.raises(UsageError) as caught:
        parse(argv)
    for word in [str(folder)[:60], *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--depth 26 --exits 19,26 --nOutputs 3", "nOutputs 3 contradicts the 2 exits 19, 26"),
        ("--exits 15,56", "56 follows no block of a network of depth 26"),
        ("--depth 8 --nOutputs 4", "nOutputs 4 does not fit a network of depth 8, which can have 1 to 3"),
    ],
)
def test_options_that_contradict_one_another(line, text):
    with pytest.raises(UsageError, match=text):
        main.main(line.split())


def test_a_list_of_weights_needs_exits_in_its_order(tmp_path):
    (tmp_path / "o.toml").write_text("exits = [26, 19]\n")
    for line in ("--exits 26,19", f"--config {tmp_path / 'o.toml'}"):
        with pytest.raises(UsageError, match=r"--exits is 26,19; give 19,26, and the weights in that order"):
            opts.parse([*line.split(), "--exitWeights", "0.5,1"])
        assert opts.parse([*line.split(), "--exitWeights", "depth"]).exitWeights == "depth"
