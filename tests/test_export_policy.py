"""export.py --policy as a user runs it, and predict.py with what it wrote: what they tell, and what is said to
mistakes."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import export
import predict
from datasets.decoding import decode_one
from examples import early_answers
from inference import asking, conditional, policies
from inference.policies import Policy
from programs import PROJECT, assert_one_line_error, script
from runs import EXITS, NAME
from system.errors import UsageError, UserError

pytestmark = pytest.mark.slow


def test_it_says_what_it_made(early_files, early_policy, finished):
    *paths, printed = early_files
    for path, text in zip(paths, printed, strict=True):
        title, _, before, after, _, told, left = text.splitlines()
        assert title.split() == ["file", "MB", "ms", "a", "picture", "error"]
        assert before.split()[0] == str(finished[1])
        assert after.split()[0] == str(path)
        assert before.split()[3] == after.split()[3]
        assert told.startswith("360 test pictures: probabilities differ by at most ")
        shares = [
            f"{position}: {count / 3.6:.1f} %" for position, count in zip(EXITS, early_policy[0].histogram, strict=True)
        ]
        assert left == "leave at " + ", ".join(shares)


def test_predict_takes_one_file(early_files, early_model, early_policy, capsys):
    plots = sorted(map(str, (PROJECT / "docs").glob("*.png")))
    predict.main([str(early_files[0]), *plots])
    images = torch.from_numpy(np.stack([decode_one(plot, early_model.sizing) for plot in plots]))
    answers = zip(*early_answers(early_model, early_policy[0], images), strict=True)
    told = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [path for path, *_ in told] == plots
    for (_, found, left), (probabilities, position) in zip(told, answers, strict=True):
        name, probability = found.split()
        assert (name, left) == (str(int(probabilities.argmax())), f"exit {position}")
        assert float(probability) == pytest.approx(float(probabilities.max()), abs=1e-4)
    with pytest.raises(UserError, match=r"--exit 14: .*model\.onnx has a policy, which chooses the exit; leave it out"):
        predict.main([str(early_files[0]), plots[0], "--exit", "14"])


def test_predict_py_tells_at_which_exit_each_picture_left(
    early_files, early_model, early_policy, tested, finished, tmp_path, capsys
):
    """Whether the policy is given beside the run or is in the exported file."""
    paths = [str(tmp_path / f"{index:02}.png") for index in range(20)]
    for path, image in zip(paths, tested.images.numpy(), strict=False):
        Image.fromarray(image).save(path)
    probabilities, positions = early_answers(early_model, early_policy[0], tested.images[:20])
    by_run = [NAME, "--save", str(finished[0]), "--policy", str(early_policy[1]), "--nGPU", "0"]
    for words in (by_run, [str(early_files[0])]):
        predict.main([*words, *paths, "--format", "json", "--top", "10"])
        told = json.loads(capsys.readouterr().out)
        assert [row["exit"] for row in told] == positions.tolist()
        for row, right in zip(told, probabilities, strict=True):
            found = {each["class"]: each["probability"] for each in row["classes"]}
            assert [found[str(digit)] for digit in range(10)] == pytest.approx(right.tolist(), abs=1e-4)
    assert len(set(positions.tolist())) > 1
    predict.main([*by_run, paths[0]])
    assert re.fullmatch(rf"{paths[0]}  \d \d\.\d{{4}}  exit {positions[0]}\n", capsys.readouterr().out)
    predict.main([*by_run, paths[0], "--format", "csv"])
    assert re.fullmatch(rf"path,rank,class,probability,exit\n.*,1,\d,.*,{positions[0]}\n", capsys.readouterr().out)


def run(finished, early_policy, *words):
    export.main(["DIGITS", NAME, "--save", str(finished[0]), "--policy", str(early_policy[1]), *map(str, words)])


def test_half_keeps_the_weights_in_16_bits_in_both(finished, early_policy, early_files, tmp_path, capsys):
    run(finished, early_policy, "--to", tmp_path / "half.onnx", "--half", "--check", 100)
    run(finished, early_policy, "--bundle", tmp_path / "half", "--half", "--check", 0)
    assert "100 test pictures: " in (out := capsys.readouterr().out)
    assert "256 pictures of noise: " in out
    whole, half = early_files[0].stat().st_size, (tmp_path / "half.onnx").stat().st_size
    assert 0.4 < half / whole < 0.8
    wholes, halves = (
        sum(p.stat().st_size for p in folder.glob("*.onnx")) for folder in (early_files[1], tmp_path / "half")
    )
    assert 0.4 < halves / wholes < 0.8


def test_what_answers_otherwise_is_not_written(finished, early_policy, tmp_path, monkeypatch):
    real = conditional.content

    def another_threshold(model, policy, half):
        changed = {**vars(policy), "thresholds": (policy.thresholds[0] - 0.01, *policy.thresholds[1:])}
        return real(model, Policy(**changed), half)

    pytest.importorskip("onnxscript")
    monkeypatch.setattr(conditional, "content", another_threshold)
    with pytest.raises(UserError, match=r"onnx is not written: on 360 pictures its probabilities are up to 0\.0"):
        run(finished, early_policy, "--to", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_more_exits_than_one_file_can_have_are_refused_before_any_work(finished, early_policy, tmp_path, monkeypatch):
    monkeypatch.setattr(conditional, "MOST_EXITS", len(EXITS) - 1)
    monkeypatch.setattr(asking, "test_pictures", None)  # they are not asked for
    with pytest.raises(UserError, match=f"may have {len(EXITS) - 1} exits, .* is for {len(EXITS)}; give --bundle DIR"):
        run(finished, early_policy, "--to", tmp_path / "model.onnx")


MISTAKES = [
    (["--to", "a.pt2"], UsageError, "--policy is for .onnx files and for --bundle, --to is a.pt2; give another file"),
    (["--exit", "5"], UsageError, "--policy excludes --exit 5"),
    (["--int8"], UsageError, "--policy excludes --int8"),
    (["--bundle", "a", "--to", "b.onnx"], UsageError, "--bundle a excludes --to b.onnx; give one"),
    (["--bundle", ""], UsageError, "'' is not the name of a folder"),
    (["--bundle", "no/where"], UserError, "there is no folder .*no; make it"),
    (["--bundle", "there"], UserError, "there is there already; give a folder that is not there yet"),
    (["--bundle", "there/file"], UserError, "file is there already"),
    (["--bundle", "."], UserError, "is there already"),
    (["--bundle", "loop"], UserError, "loop is there already"),
    (["--policy", "none.json"], UserError, "none.json cannot be read as a policy: No such file"),
]


@pytest.mark.parametrize(("words", "kind", "text"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_of_policies_are_told(finished, early_policy, words, kind, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(kind, match=text) as raised:
        run(finished, early_policy, *words)
    assert type(raised.value) is kind
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "loop", "there"]


def test_a_bundle_needs_a_policy_and_one_of_this_network(finished, early_policy, tmp_path):
    process = script("export.py", "DIGITS", NAME, "--bundle", tmp_path / "new", "--save", finished[0])
    assert_one_line_error(process, 2, "--bundle", "needs --policy FILE", "calibrate.py")
    other = tmp_path / "other.json"
    other.write_bytes(policies.as_json(Policy(**{**vars(early_policy[0]), "model": "another"})))
    words = ("--policy", other, "--bundle", tmp_path / "new", "--save", finished[0])
    process = script("export.py", "DIGITS", NAME, *words)
    assert_one_line_error(process, 1, "other.json is a policy for a network of other weights")
    assert not (tmp_path / "new").exists()
