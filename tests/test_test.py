"""What `test.py` tells: the exit card, ensembles, classes; which exit it takes; and its mistakes."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

import opts
import test as program
from examples import CPU, write_pictures
from formats import exit_file
from inference import asking, saved
from models import metrics
from programs import PROJECT, assert_one_line_error, rows_of, script
from reports import card_plots, cards
from runs import EXITS, NAME
from system.errors import UsageError, UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told(finished, tmp_path_factory):
    """What `--exit all` prints, its JSON, and the path of its plot."""
    out = tmp_path_factory.mktemp("card")
    files = ["--json", out / "card.json", "--plot", out / "tradeoff.png"]
    process = script("test.py", "DIGITS", NAME, "--save", finished[0], "--exit", "all", *files)
    assert process.returncode == 0, process.stderr
    return process.stdout, json.loads((out / "card.json").read_text()), out / "tradeoff.png"


@pytest.fixture(scope="module")
def answers(finished, tested):
    """The logits of every exit on the test pictures, by a pass of their own, and the targets."""
    model = saved.load(exit_file.files_in(finished[1]))
    with torch.inference_mode():
        return asking.ready(model, CPU)(tested.images), tested.targets


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("--exit all --json c.json --plot c.png", ["c.json", "c.png"]),
        ("--perClass --plot classes.png", ["classes.png"]),
    ],
)
def test_files_are_written_where_nobody_reads_what_is_printed(finished, tmp_path, words, left):
    line = f'"{sys.executable}" "{PROJECT}/test.py" DIGITS "{finished[1]}" {words} --nGPU 0 >&-'
    process = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert_one_line_error(process, 1, "standard output: it is closed")
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize(("words", "drawing"), [("--exit all", "draw_tradeoff"), ("--perClass", "draw_confusion")])
def test_what_was_found_is_printed_where_no_plot_can_be_drawn(finished, tmp_path, words, drawing, monkeypatch, capsys):
    def no_plot(*_):
        raise UserError("no plot could be drawn")

    monkeypatch.setattr(card_plots, drawing, no_plot)
    with pytest.raises(UserError, match="no plot could be drawn"):
        program.main(["DIGITS", str(finished[1]), *words.split(), "--plot", str(tmp_path / "a.png"), "--nGPU", "0"])
    assert "error" in capsys.readouterr().out


def test_the_card_says_what_the_files_and_other_ways_to_count_say(told, answers, finished):
    _, found, _ = told
    assert tuple(e["position"] for e in found["exits"]) == EXITS
    assert (found["network"], found["data"], found["pictures"], found["classes"]) == (NAME, "DIGITS", 360, 10)
    for told_of, logits in zip(found["exits"], answers[0], strict=True):
        path = finished[1] / told_of["file"]
        header = exit_file.read_header(path)
        assert told_of["position"] == header["position"]
        assert told_of["file_bytes"] == path.stat().st_size
        assert told_of["error_percent"] == pytest.approx(header["error"])
        confidence, classes = logits.double().softmax(1).max(1)
        expected = roc_auc_score(classes == answers[1], confidence)
        assert told_of["failure_auroc"] == pytest.approx(expected, abs=1e-3)
        assert told_of["top5_error_percent"] == pytest.approx(metrics.top_error(logits, answers[1], 5))
        assert told_of["calibration_error_percent"] == pytest.approx(
            metrics.calibration_error(logits, answers[1]), abs=1e-3
        )
        assert 0 < told_of["latency_median_ms"] <= told_of["latency_p95_ms"]
        assert told_of["pictures_per_second"] > 0
    assert [e["parameters"] for e in found["exits"]] == sorted(e["parameters"] for e in found["exits"])
    costs = [(e["macs"], e["error_percent"]) for e in found["exits"]]
    assert [e["pareto_optimal"] for e in found["exits"]] == cards.pareto(costs)


def test_the_card_on_the_terminal_is_the_card_in_the_file(told, finished):
    text, found, _ = told
    exits = tuple(cards.ExitCard(**fields) for fields in found["exits"])
    assert text == cards.as_text(cards.Card(**{**found, "exits": exits}), finished[1]) + "\n"
    for row, e in zip(rows_of(text), found["exits"], strict=True):
        assert row["error"] == f"{e['error_percent']:.2f} %"
        assert row["AUROC"] == f"{e['failure_auroc']:.3f}"
        assert row["file"] == e["file"]
        assert row["Pareto"] == ("yes" if e["pareto_optimal"] else "no")
    assert max(map(len, text.splitlines()[3:])) <= 120


def test_the_plot_of_the_card_is_a_picture(told):
    assert Image.open(told[2]).size == (960, 600)


def test_an_ensemble_has_the_mean_probabilities(answers, finished, tested):
    model = saved.load(exit_file.files_in(finished[1]))
    with torch.inference_mode():
        (logits,) = asking.ready(model, CPU, ensemble=True)(tested.images)
    mean = torch.stack([z.softmax(1) for z in answers[0]]).mean(0)
    torch.testing.assert_close(logits.softmax(1), mean)
    error = 100 * (mean.argmax(1) != answers[1]).double().mean()
    printed = script("test.py", "DIGITS", NAME, "--save", finished[0], "--exit", "ensemble", "--perClass")
    assert printed.stdout.startswith(f"error {error:.2f}\n")
    for row in rows_of(printed.stdout):
        of_class = answers[1] == int(row["class"])
        wrong = (mean.argmax(1) != answers[1])[of_class].double().mean()
        assert row["error"] == f"{100 * wrong:.2f} %"


def test_classes_are_told_worst_first_under_the_error(finished, tmp_path):
    plot = tmp_path / "confusion.png"
    process = script("test.py", "DIGITS", NAME, "--save", finished[0], "--exit", "9", "--perClass", "--plot", plot)
    first, empty, *_ = process.stdout.splitlines()
    plain = script("test.py", "DIGITS", NAME, "--save", finished[0], "--exit", "9")
    assert (f"{first}\n", empty) == (plain.stdout, "")
    rows = rows_of(process.stdout)
    errors = [float(row["error"].removesuffix(" %")) for row in rows]
    assert errors == sorted(errors, reverse=True)
    assert sorted(row["class"] for row in rows) == list("0123456789")
    wrong = sum(error / 100 * int(row["pictures"]) for error, row in zip(errors, rows, strict=True))
    assert wrong == pytest.approx(float(first.split()[1]) / 100 * 360, abs=0.1)
    assert Image.open(plot).width > 600


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--mirror", ["--mirror", "CIFAR10, CIFAR100 and folders", "DIGITS"]),
        ("--exit all --perClass", ["--perClass", "--exit is all"]),
        ("--json card.json", ["--json card.json", "add --exit all"]),
        ("--exit ensemble --json card.json", ["--json card.json", "add --exit all"]),
        ("--plot p.png", ["--plot p.png", "--exit all, or --perClass"]),
        ("--exit all --json card.txt", ["--json", "'card.txt'", "JSON file", "result.json"]),
        ("--exit all --plot card.jpg", ["--plot", "'card.jpg'", "PNG file", "result.png"]),
        ("--exit both", ["--exit", "'both'", "all, ensemble nor a position"]),
        ("--policy p.json --mirror", ["--policy excludes --mirror"]),
        ("--policy p.json --perClass", ["--policy excludes --perClass"]),
        ("--policy p.json --json c.json", ["--policy excludes --json"]),
        ("--policy p.json --exit all", ["--policy excludes --exit", "with --plot to draw it"]),
        ("--policy p.json --exit all --plot p.png --perClass", ["--policy excludes --perClass"]),
        ("--policy p.json --exit all --plot p.png --compile", ["--compile true is for --policy"]),
    ],
)
def test_mistakes_name_what_is_legal(line, words):
    with pytest.raises(UsageError) as caught:
        opts.TEST.parsed(["DIGITS", NAME, *line.split()])
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_model_that_never_saw_mirror_images_is_not_given_them(finished, tmp_path):
    for name in "0123456789":
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "test" / name / "1.png")
    process = script("test.py", tmp_path, finished[1] / "exit-5.safetensors", "--mirror")
    assert_one_line_error(process, 2, "--mirror", "DIGITS is trained without mirror images")


def test_the_card_names_the_pictures_that_it_was_measured_on(finished, tmp_path):
    write_pictures(tmp_path / "mine" / "test", {str(digit): 2 for digit in range(10)})
    process = script("test.py", tmp_path / "mine", finished[1], "--exit", "all", "--json", tmp_path / "card.json")
    assert f"{NAME} on mine: 20 test pictures" in process.stdout
    assert json.loads((tmp_path / "card.json").read_text())["data"] == "mine"


def test_without_a_position_it_is_the_deepest_exit_that_learnt(finished, tmp_path):
    """Exit 14 had a weight of 0, as in a training of exit 9 alone."""
    (tmp_path / "run").mkdir()
    for path in exit_file.files_in(finished[1]).values():
        header = exit_file.read_header(path)
        options = {**header["options"], "exitWeights": [1.0, 1.0, 0.0]}
        (tmp_path / "run" / path.name).write_bytes(exit_file.content(load_file(path), {**header, "options": options}))
    files = exit_file.files_in(tmp_path / "run")
    assert list(saved.choose(files, None)) == [9]
    assert list(saved.choose(files, 14)) == list(saved.choose({14: files[14]}, None)) == [14]
    assert tuple(saved.choose(files, "all")) == EXITS
    assert list(saved.choose(files, saved.LEARNT)) == [5, 9]
    files[14].write_bytes(
        exit_file.content(load_file(files[14]), {**header, "options": {**options, "exitWeights": "0.5,1,0"}})
    )
    assert list(saved.choose(files, None)) == [9]
    plain, ninth = (script("test.py", "DIGITS", tmp_path / "run", *more) for more in ((), ("--exit", 9)))
    assert plain.stdout == ninth.stdout
    together = script("test.py", "DIGITS", tmp_path / "run", "--exit", "ensemble").stdout
    files[14].unlink()
    assert together == script("test.py", "DIGITS", tmp_path / "run", "--exit", "ensemble").stdout
    alone = script("test.py", "DIGITS", files[5], "--exit", "ensemble")
    assert_one_line_error(alone, 1, "--exit ensemble is for two exits or more", "here it is 5 alone; give --exit 5")


def test_a_card_that_cannot_be_written_is_one_line(finished, tmp_path):
    (tmp_path / "card.json").mkdir()
    process = script("test.py", "DIGITS", finished[1], "--exit", "all", "--json", tmp_path / "card.json")
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith(f"test.py: error: {tmp_path / 'card.json'} is no regular file")
