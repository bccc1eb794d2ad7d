"""The log in TensorBoard's files, read back with TensorBoard's own reader."""

import importlib.abc
import resource
import subprocess
import sys

import pytest

import main
from formats import log_file
from programs import PROJECT, assert_one_line_error
from reports import scalars
from reports.scalars import Scalars, tag
from runs import FOLDER, SMALL, exit_files, logged, points, stopped
from system.errors import UserError
from training.run import Run


def rows(count, loss=1.0):
    return [{"epoch": epoch, "train_loss": loss + epoch, "test_error_9": None} for epoch in range(1, count + 1)]


def write(folder, log):
    scalars = Scalars(folder)
    scalars.write(log)
    scalars.close()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("train_loss", "loss/train"),
        ("validation_loss", "loss/validation"),
        ("test_error_19", "error/test_19"),
        ("learning_rate", "learning_rate"),
        ("images_per_second", "images_per_second"),
        ("seconds", "seconds/all"),
        ("seconds_training", "seconds/training"),
    ],
)
def test_tags_are_in_groups(column, expected):
    assert tag(column) == expected


def test_each_epoch_is_there_once_whatever_was_interrupted(tmp_path):
    folder = tmp_path / "tensorboard"
    write(folder, rows(3))
    assert points(folder) == {"loss/train": [(1, 2.0), (2, 3.0), (3, 4.0)]}
    (events,) = folder.iterdir()
    events.write_bytes(events.read_bytes()[:-7])  # killed in the third epoch's write, before its state was saved
    again = [*rows(2), *rows(4, loss=5.0)[2:]]
    write(folder, again)
    assert points(folder) == {"loss/train": [(1, 2.0), (2, 3.0), (3, 8.0), (4, 9.0)]}
    write(folder, again)
    write(folder, [*again, *rows(7)[4:]])  # without a word of epochs 5 and 6 when they were trained
    assert points(folder) == {"loss/train": [(1, 2.0), (2, 3.0), (3, 8.0), (4, 9.0), (5, 6.0), (6, 7.0), (7, 8.0)]}


def test_what_could_not_be_written_is_written_when_there_is_room(tmp_path, capfd):
    """No file may grow beyond some bytes, as on a full disk."""
    scalars = Scalars(tmp_path)
    scalars.write(rows(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        for count in (20, 40):
            with pytest.raises(UserError, match=r"could not be written: File too large"):
                scalars.write(rows(count))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    scalars.write(rows(41))
    scalars.close()
    assert points(tmp_path) == {"loss/train": [(epoch, 1.0 + epoch) for epoch in range(1, 42)]}
    assert capfd.readouterr() == ("", "")


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="link could not be written: it is a link"):
        Scalars(tmp_path / "link").write(rows(1))


@pytest.mark.slow
def test_a_run_that_was_stopped_has_each_epoch_once(finished, tmp_path):
    options = [*SMALL, "--nEpochs", "2", "--nThreads", "0", "--save", str(tmp_path)]
    stopped([*options, "--tensorboard"], Run, "evaluate", 2)
    main.main(["--resume", str(tmp_path / FOLDER)])
    expected = {
        tag(column): [(row["epoch"], pytest.approx(row[column])) for row in log_file.read(tmp_path / FOLDER)]
        for column in log_file.columns((5, 9, 14), "test")
        if column != "epoch"
    }
    assert points(tmp_path / FOLDER / "tensorboard") == expected
    assert exit_files(tmp_path / FOLDER) == exit_files(finished[1])
    assert logged(tmp_path / FOLDER) == logged(finished[1])


@pytest.mark.slow
def test_scalars_that_cannot_be_written_do_not_stop_a_run(tmp_path, capsys):
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "tensorboard").write_text("a file")
    main.main([*SMALL, "--nEpochs", "2", "--trainSize", "64", "--save", str(tmp_path), "--tensorboard", "true"])
    assert capsys.readouterr().err == f"{folder / 'tensorboard'} could not be written: File exists; the run goes on\n"
    (folder / "tensorboard").unlink()
    main.main(["--resume", str(folder)])
    assert [epoch for epoch, _ in points(folder / "tensorboard")["error/test_14"]] == [1, 2]


def test_packages_that_do_not_fit_together_are_named(monkeypatch):
    class Unfit(importlib.abc.MetaPathFinder):
        def find_spec(self, name, *_):
            if name == "torch.utils.tensorboard":
                raise TypeError("Descriptors cannot be created directly.\nIf this call came from a _pb2.py file, …")

    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Unfit(), *sys.meta_path])
    with pytest.raises(UserError, match=r"pip install -U tensorboard \(Descriptors cannot be created directly\.\)$"):
        scalars.require_package()


@pytest.mark.slow
def test_a_missing_package_is_named_before_the_run_begins(tmp_path):
    code = "import sys; sys.modules['tensorboard'] = None; import runpy; runpy.run_path('main.py', run_name='__main__')"
    command = [sys.executable, "-c", code, *SMALL, "--save", str(tmp_path), "--tensorboard"]
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert_one_line_error(process, 1, "--tensorboard needs a package: pip install -U tensorboard")
    assert not list(tmp_path.iterdir())
