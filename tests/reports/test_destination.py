"""What reports take the place of, and what they do not."""

import pytest
from PIL import Image

from programs import PROJECT, assert_one_line_error, script
from reports import destination
from system.errors import UserError

RUN = PROJECT / "tests" / "fixtures" / "finished" / "DIGITS-AuxResNet-8-2"


def test_records_of_a_run_are_not_replaced(run_copy):
    folder = run_copy[1]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("opt.json", "log.csv", "README.md", "curves.png", "policy.json"):
        with pytest.raises(UserError, match=f"{name} is a record of the run in .*; give another file"):
            destination.check(folder / name)
    lines = (
        ("test.py", "DIGITS", folder, "--exit", "all", "--json", folder / "opt.json"),
        ("test.py", "DIGITS", folder, "--exit", "all", "--plot", folder / "curves.png"),
        ("predict.py", folder, folder / "curves.png", "--out", folder / "log.csv"),
        ("plot.py", folder, "--out", folder / "curves.png"),
    )
    for line in lines:
        assert_one_line_error(script(*line), 1, "is a record of the run", "give another file")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    destination.check(folder / "card.json")


@pytest.mark.parametrize(
    ("known_by", "file", "what"),
    [
        ("latest.pt", "log.csv", "a record of the run"),
        ("opt.json", "log.csv", "a record of the run"),
        ("segment-9.onnx", "card.json", "a part of the bundle"),
    ],
)
def test_runs_without_exit_files_and_bundles_are_known(tmp_path, known_by, file, what):
    (tmp_path / known_by).touch()
    with pytest.raises(UserError, match=f"{file} is {what} in .*; give another file"):
        destination.check(tmp_path / file)
    destination.check(tmp_path / "other.csv")
    assert destination.is_kept(tmp_path)
    assert not destination.is_kept(tmp_path.parent)


def test_a_plot_replaces_a_plot_and_no_other_picture(tmp_path):
    place = tmp_path / "curves.png"  # where there is no run
    place.write_bytes((PROJECT / "docs" / "tradeoff.png").read_bytes())
    destination.check(place)
    place.write_bytes(b"")  # as mktemp makes it
    destination.check(place)
    Image.new("RGB", (32, 32)).save(place)
    with pytest.raises(UserError, match=r"curves\.png is a picture and no plot of this program; give another file"):
        destination.check(place)
    assert_one_line_error(script("plot.py", RUN, "--out", place), 1, "is a picture and no plot")
