"""Files that an older version wrote are read: `fixtures/` was written by version 0.1, format 3, with one CPU thread."""

import json
import shutil

import pytest

import main
import opts
from examples import logits_of, write_pictures
from formats import exit_file, log_file
from inference import saved
from models import names
from programs import PROJECT, script
from runs import logged
from system.errors import UserError
from training import folders

pytestmark = pytest.mark.slow

FIXTURES = PROJECT / "tests" / "fixtures"
FOLDER = "DIGITS-AuxResNet-8-2"
ERRORS = {5: 90.0, 8: 85.8333}  # percent, as that version printed them
LOGITS = {  # of the first test picture; errors near 90 % say little
    5: [-0.218, 0.400, 0.088, 0.059, 0.133, 0.028, 0.022, 0.187, -0.084, -0.084],
    8: [-0.412, 0.144, -0.173, -0.152, -0.323, 0.081, -0.182, 0.078, -0.204, -0.359],
}


@pytest.fixture(params=["finished", "interrupted"])
def old(request, tmp_path):
    """A copy of an old run to work on."""
    shutil.copytree(FIXTURES / request.param, tmp_path / request.param)
    return tmp_path / request.param / FOLDER


@pytest.mark.parametrize("position", ERRORS)
def test_old_exit_files_are_tested(position, tested):
    path = FIXTURES / "finished" / FOLDER / f"exit-{position}.safetensors"
    process = script("test.py", "DIGITS", path)
    assert process.returncode == 0, process.stderr
    # Another processor may round otherwise: that turns one or two of the 360 pictures.
    assert abs(float(process.stdout.split()[1]) - ERRORS[position]) < 1
    assert exit_file.read_header(path)["error"] == pytest.approx(ERRORS[position], abs=0.001)
    (logits,) = logits_of(saved.load({position: path}), tested.images[:1])
    assert logits[0].tolist() == pytest.approx(LOGITS[position], abs=1e-3)


@pytest.mark.parametrize("old", ["interrupted"], indirect=True)
@pytest.mark.parametrize("how", ["folder", "same command"])
def test_an_old_state_within_an_epoch_is_gone_on_with(how, old):
    before = logged(old)
    line = ["--resume", str(old)]
    if how == "same command":
        line = ["--data", "DIGITS", "--depth", "8", "--trainSize", "320", "--batchsize", "64", "--nGPU", "0",
                "--nThreads", "0", "--nEpochs", "3", "--recipe", "fast", "--ema", "0.9", "--precision", "float",
                "--compile", "false", "--save", str(old.parent), "--resume"]  # fmt: skip
    main.main(line)
    after = logged(old)
    assert [row["epoch"] for row in after] == ["1", "2", "3"]
    assert [float(after[0][column]) for column in before[0]] == pytest.approx([float(v) for v in before[0].values()])
    assert float(after[2]["train_loss"]) < float(after[0]["train_loss"])
    rows = log_file.read(old)
    assert [row["learning_rate"] is None for row in rows] == [True, False, False]  # that version did not log it
    assert [row["images_per_second"] is None for row in rows] == [True, False, False]
    script("plot.py", old, "--out", old / "both.png").check_returncode()
    assert json.loads((old / "opt.json").read_text())["testEvery"] == 1


@pytest.mark.parametrize("old", ["interrupted"], indirect=True)
def test_contradictions_with_an_old_state_are_named(old):
    with pytest.raises(UserError, match=r"LR is 0\.05, was 0\.2"):
        main.main(["--resume", str(old), "--LR", "0.05"])


@pytest.mark.parametrize("old", ["finished"], indirect=True)
def test_an_old_finished_run_prints_its_table(old, capsys):
    main.main(["--resume", str(old)])
    assert "85.83 %" in capsys.readouterr().out


def test_old_runs_are_drawn(tmp_path):
    folders = [FIXTURES / name / FOLDER for name in ("finished", "interrupted")]
    process = script("plot.py", *folders, "--out", tmp_path / "old.png")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "old.png").exists()


@pytest.mark.parametrize(("data", "found"), [("path", "SVHN-AuxResNet-8-2"), ("SVHN", "SVHN-folder-AuxResNet-8-2")])
def test_a_folder_with_the_name_of_a_data_set_has_its_run_where_older_versions_wrote_it(data, found, tmp_path):
    """Unless that is the run of the data set."""
    for split in ("train", "test"):
        write_pictures(tmp_path / "SVHN" / split, {"a": 1, "b": 1})
    line = ["--data", str(tmp_path / "SVHN"), "--depth", "8", "--save", str(tmp_path)]
    before = {**vars(opts.parse(line)), **({"data": data} if data == "SVHN" else {})}
    (tmp_path / "SVHN-AuxResNet-8-2").mkdir()
    (tmp_path / "SVHN-AuxResNet-8-2" / "opt.json").write_text(json.dumps(before))
    (tmp_path / "SVHN-AuxResNet-8-2" / "latest.pt").touch()
    options = opts.parse([*line, "--resume", "auto"])
    assert folders.settle(options, names.of_options(vars(options)))[1] == tmp_path / found
