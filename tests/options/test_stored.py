"""Options from files: TOML, and the opt.json of a run."""

import json
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import opts
from examples import write_pictures
from options import stored
from programs import PROJECT, assert_one_line_error, script
from runs import FOLDER, SMALL, exit_files, logged
from system.errors import UsageError, UserError


@pytest.fixture
def parse(tmp_path):
    """Parses a command line with a file of options, by its content."""

    def parsed(content, line="", name="job.toml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return opts.parse(["--config", str(path), *line.split()])

    return parsed


def same(options, others):
    """Whether two results of `opts.parse` ask for the same run."""
    return all(value == vars(others)[name] for name, value in vars(options).items() if name not in opts.ONCE)


def test_values_of_every_kind_are_those_of_the_command_line(parse):
    content = """
        data = "digits"  # a text, in any case
        Depth = 20
        exits = [9, 20]
        exitWeights = "0.5,1"
        LR = 1
        weightDecay = 5e-4
        shareGradInput = true
        compile = "auto"
        save = "a folder, = --x"
    """
    line = "--data DIGITS --depth 20 --exits 9,20 --exitWeights 0.5,1 --LR 1 --weightDecay 5e-4 --shareGradInput true"
    assert same(parse(content), opts.parse([*line.split(), "--compile", "auto", "--save", "a folder, = --x"]))
    assert type(parse(content).LR) is float


def test_the_command_line_wins_over_the_file_and_the_file_over_recipes_and_data_sets(parse):
    content = 'recipe = "fast"\nLR = 0.3\nnEpochs = 9\ndata = "DIGITS"\n'
    options = parse(content, "--nEpochs 5")
    assert (options.nEpochs, options.LR, options.optimizer, options.batchsize) == (5, 0.3, "muon", 64)
    assert parse(content, "--recipe paper").optimizer == "sgd"
    assert parse(content, "--recipe paper").LR == 0.3
    assert same(parse(""), opts.parse([]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("depht = 20", ["depht is no option of main.py; is depth meant?"]),
        ("data = 'DIGITS'\n[training]\nLR = 1", ["training is no option"]),
        ('depth = "56"', ['depth is "56"; it has to be a whole number: 56']),
        ("save = 5", ['save is 5; it has to be a text: "5"']),
        ("verbose = 1", ["verbose is 1; it has to be true or false: true"]),
        ('compile = "true"', ['compile is "true"', "true or false"]),
        ("exits = 26", ["exits is 26; it has to be a list: [26]"]),
        ("depth = 56.0", ["--depth", "'56.0' is not a whole number from 1"]),
        ("depth = [8]\nwiden = [1, 2]", ["--widen", "'1,2' is not a whole number"]),
        ("LR = -1", ["--LR", "'-1' is not a number from"]),
        ("LR = nan", ["LR is nan; legal are"]),
        ('schedule = "warm"', ["--schedule", "'warm'", "onecycle"]),
        ("depth = {a = 1}", ["depth is {'a': 1}; legal are texts, numbers below 1e15, true, false, lists"]),
        ("save = 2026-01-01", ["save is 2026-01-01; legal are"]),
        (f"depth = 0x{'f' * 9999}", ["depth is", "legal are"]),
        (f"depth = {'9' * 9999}", ["cannot be read as TOML"]),
        ("depth = 8\ndepth = 14", ["cannot be read as TOML", "Cannot overwrite"]),
        ("depth = 8\nDEPTH = 14", ["depth is there twice"]),
        ("depth =", ["cannot be read as TOML"]),
        ("a = " + "[" * 9999, ["cannot be read as TOML"]),
        (b"save = '\xff'", ["cannot be read as TOML", "utf-8"]),
        (b" " * (stored.LARGEST + 1), [f"more than {stored.LARGEST:,} bytes"]),
        ('save = "--"', ["argument --save: '--' is not a value"]),
        ('save = "a\\u0000b"', ["argument --save: 'a\\x00b' is not a value"]),
        ('resume = "auto"', ["resume is for the command line alone; leave it out"]),
        ('config = "other.toml"', ["config is for the command line alone"]),
    ],
)
def test_what_a_file_cannot_say_is_refused_by_name(content, words, parse, tmp_path):
    with pytest.raises(UsageError) as caught:
        parse(content)
    for word in [f"--config {tmp_path / 'job.toml'}: ", *words]:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1]", "holds no options by name"),
        ("3", "holds no options by name"),
        ("{", "cannot be read as JSON"),
        ('{"depth": 8, "depth": 8}', "one name twice"),
        ('{"LR": NaN}', "not finite"),
        ('{"depth": "8"}', 'depth is "8"; it has to be a whole number: 8'),
        ('{"depth": [null]}', "'None' is not a whole number"),
        ('{"newer": 1}', "newer is no option"),
    ],
)
def test_json_is_taken_strictly(content, words, parse):
    with pytest.raises(UsageError, match="opt.json: .*" + words.replace("[", r"\[")):
        parse(content, name="opt.json")


def test_a_mark_at_the_beginning_and_a_name_in_capitals_are_no_obstacle(parse):
    assert parse(b"\xef\xbb\xbfdepth = 8").depth == 8
    assert parse('{"depth": 8, "resume": null}', name="OPT.JSON").depth == 8


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    for path in ("pipe.toml", "", "none.toml"):
        with pytest.raises(UsageError, match=r"argument --config: '.* is not a file"):
            opts.parse(["--config", str(tmp_path / path)])


def test_the_options_of_a_run_begin_another_like_it(parse):
    line = "--data DIGITS --depth 20 --exits 9,20 --exitWeights 0.5,1 --recipe fast --save elsewhere --verbose"
    run = opts.parse(line.split())
    saved = json.dumps({**vars(run), "resume": "", "config": "long gone.toml"})
    assert same(parse(saved, name="opt.json"), run)
    assert parse(saved, name="opt.json").resume is None
    assert parse(saved, "--resume auto", name="opt.json").resume == "auto"
    changed = parse(saved, "--save here --LR 0.5", name="opt.json")
    assert (changed.save, changed.LR, changed.optimizer, changed.exits) == ("here", 0.5, "muon", (9, 20))
    older = json.dumps({"data": "DIGITS", "depth": 20})
    assert same(parse(older, name="opt.json"), opts.parse("--data DIGITS --depth 20".split()))


@pytest.mark.parametrize(
    ("line", "changed", "expected"),
    [
        ("--data DIGITS --depth 26 --widen 10", "", "--data DIGITS --depth 26 --widen 10"),
        ("--recipe fast --LR 0.3", "--recipe paper", "--LR 0.3"),
        ("--data CIFAR10", "--data DIGITS", "--data DIGITS"),
        ("--depth 26", "--depth 56", "--depth 56"),
        ("--depth 26 --widen 4", "--depth 56", "--depth 56 --widen 4"),
        ("--depth 20 --exits 9,20", "--exits 5,9,20", "--depth 20 --exits 5,9,20"),
        ("--data FOLDER --depth 20", "--inputSize 64", "--data FOLDER --depth 20 --inputSize 64"),
        ("--data FOLDER --startSize 16", "--inputSize 64", "--data FOLDER --inputSize 64 --startSize 16"),
    ],
)
def test_what_followed_from_the_options_of_a_run_follows_anew(line, changed, expected, parse, tmp_path):
    write_pictures(tmp_path / "p" / "train", {"a": 1, "b": 1})
    write_pictures(tmp_path / "p" / "test", {"a": 1, "b": 1})
    line, expected = (words.replace("FOLDER", str(tmp_path / "p")).split() for words in (line, expected))
    record = json.dumps(vars(opts.parse(line)))
    assert same(parse(record, changed, name="opt.json"), opts.parse(expected))


def test_what_followed_from_the_options_of_a_run_contradicts_another_that_is_resumed(parse, tmp_path):
    (tmp_path / "opt.json").write_text(json.dumps(vars(opts.parse("--data DIGITS --depth 8 --widen 2".split()))))
    narrow = json.dumps(vars(opts.parse("--data DIGITS --depth 8".split())))
    options = parse(narrow, f"--resume {tmp_path}", name="narrow.json")
    with pytest.raises(UserError, match="widen is 1, was 2"):
        opts.resumed(options, opts.from_saved(stored.load(tmp_path)))


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ("--trainSize 1000", r"trainSize is \(all\), was 1000"),
        ("--exits 5,20", r"exits is \(published, or evenly spread\), was 5,20"),
        ("--shortcutType B", r"shortcutType is \(A if k is 1, else B\), was B"),
    ],
)
def test_what_the_options_of_a_run_left_open_contradicts_another_that_is_resumed(chosen, text, parse, tmp_path):
    before = opts.parse(["--data", "DIGITS", "--depth", "20", *chosen.split()])
    (tmp_path / "opt.json").write_text(json.dumps(vars(before)))
    usual = json.dumps(vars(opts.parse("--data DIGITS --depth 20".split())))
    with pytest.raises(UserError, match=text):
        opts.resumed(parse(usual, f"--resume {tmp_path}", name="usual.json"), before)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("", "--exits 11,20"),
        ("--nOutputs 2", "--exits 20,11"),
        ("--exits 11,20", "--nOutputs 2"),
        ("--exits 11,20 --exitWeights 0.5,1", "--exits 20,11"),
        ("", "--shortcutType A --widen 1"),
        ("--shortcutType A", "--nThreads 0"),
    ],
)
def test_a_run_goes_on_with_its_network_in_other_words_and_keeps_its_own(first, then, tmp_path):
    before = opts.parse(["--data", "DIGITS", "--depth", "20", *first.split()])
    (tmp_path / "opt.json").write_text(json.dumps(vars(before)))
    options = opts.resumed(opts.parse(["--resume", str(tmp_path), *then.split()]), before)
    assert opts.command(opts.shaping(options)) == opts.command(opts.shaping(before))
    assert opts.parse(opts.command(opts.shaping(options)).split()[2:]).exitWeights == before.exitWeights


def test_what_a_run_had_and_had_no_use_for_is_left_out_of_its_command(parse):
    record = vars(opts.parse("--data DIGITS --distill 1 --teacher ensemble --temperature 4".split())) | {"distill": 0.0}
    assert parse(json.dumps(record), name="opt.json").temperature == 1
    assert opts.command(record) == "python main.py --data DIGITS"


def test_of_another_network_only_what_differs_is_named():
    before = opts.parse("--data DIGITS --depth 20".split())
    options = opts.parse("--data DIGITS --depth 20 --exits 5,20 --shortcutType A --resume".split())
    with pytest.raises(UserError, match=r"resumed: exits is 5,20, was \(published, or evenly spread\); leave"):
        opts.resumed(options, before)


def test_pictures_that_moved_are_told_whatever_the_state_is(tmp_path):
    record = {**vars(opts.parse("--data DIGITS --depth 20".split())), "data": str(tmp_path / "moved")}
    (tmp_path / "opt.json").write_text(json.dumps(record))
    (tmp_path / "latest.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"no longer in .*moved, or may not be read; give --data"):
        opts.parse(["--resume", str(tmp_path)])


def test_test_pictures_that_are_gone_are_told(tmp_path):
    write_pictures(tmp_path / "pictures" / "train", {"a": 1, "b": 1})
    record = {**vars(opts.parse("--data DIGITS --depth 20".split())), "data": str(tmp_path / "pictures")}
    (tmp_path / "opt.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"test pictures are no longer in .*pictures; bring them back, or give --data"):
        opts.parse(["--resume", str(tmp_path)])


def test_what_the_command_line_replaces_need_not_be_there_any_more(parse):
    saved = json.dumps(vars(opts.parse([])) | {"data": "pictures/that/moved"})
    assert parse(saved, "--data DIGITS", name="opt.json").data == "DIGITS"
    with pytest.raises(UsageError, match="--data: 'pictures/that/moved' is neither"):
        parse(saved, name="opt.json")


@pytest.mark.parametrize("name", ["dataDir", "save", "data"])
def test_a_name_that_no_file_can_have_is_refused(parse, name):
    with pytest.raises(UsageError, match=f"--{name}: .* is not a value"):
        parse(json.dumps({"depth": 20, name: "\ud800"}), name="opt.json")


def test_a_file_does_not_move_a_run_that_is_resumed(parse, tmp_path):
    (tmp_path / "runs").mkdir()
    shutil.copy(PROJECT / "tests/fixtures/finished/DIGITS-AuxResNet-8-2/opt.json", tmp_path / "runs" / "opt.json")
    goes_on = f"--resume {tmp_path / 'runs'}"
    assert parse(f'save = "{tmp_path}"', goes_on).save == str(tmp_path)
    with pytest.raises(UsageError, match="goes on there, not in --save elsewhere"):
        parse('save = "elsewhere"', goes_on)
    record = (tmp_path / "runs" / "opt.json").read_text()
    assert parse(record, goes_on, name="opt.json").depth == 8


def test_a_file_changes_a_run_that_is_resumed_as_the_command_line_does(parse, tmp_path):
    before = opts.parse("--data DIGITS --depth 20 --LR 0.2".split())
    (tmp_path / "opt.json").write_text(json.dumps(vars(before)))
    options = parse("nThreads = 0\nnEpochs = 9\nLR = 0.3", f"--resume {tmp_path} --nEpochs 10")
    assert (options.depth, options.nThreads, options.nEpochs, options.LR) == (20, 0, 10, 0.3)
    with pytest.raises(UserError, match=r"LR is 0\.3, was 0\.2"):
        opts.resumed(options, before)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from([option.name for option in opts.MAIN.options])


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=60), st.dictionaries(NAMES, VALUES, max_size=4).map(json.dumps).map(str.encode)))
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    for name in ("any.toml", "any.json"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        try:
            opts.parse(["--config", str(path)])
        except UsageError as error:
            assert "\n" not in str(error)


@pytest.mark.slow
def test_the_options_of_a_finished_run_give_the_same_bits(finished, tmp_path):
    """In a file that lies in another folder than the run's."""
    process = script("main.py", "--config", finished[1] / "opt.json", "--save", tmp_path, "--nThreads", "0")
    assert process.returncode == 0, process.stderr
    assert exit_files(tmp_path / FOLDER) == exit_files(finished[1])
    assert logged(tmp_path / FOLDER) == logged(finished[1])
    again = script("main.py", "--config", tmp_path / FOLDER / "opt.json", "--resume")
    assert "resumed after epoch 2" in again.stdout
    assert_one_line_error(script("main.py", *SMALL, "--config", finished[1] / "opt.json"), 1, "holds a run already")
