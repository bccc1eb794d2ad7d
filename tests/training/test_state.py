"""States that lie, with the right checksum: nothing of them is obeyed, and no native code is reached."""

import hashlib
import io
import json
import shutil
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch

import checkpoints
import main
from examples import write_pictures
from formats import exit_file, log_file, state_file
from programs import PROJECT, assert_one_line_error, script
from runs import exit_files, last_state
from system.errors import UserError

pytestmark = pytest.mark.slow

FIXTURE = PROJECT / "tests" / "fixtures" / "interrupted" / "DIGITS-AuxResNet-8-2"


@pytest.fixture
def run(tmp_path):
    """A copy of a run that was interrupted in its second epoch, and its state."""
    folder = tmp_path / FIXTURE.name
    shutil.copytree(FIXTURE, folder)
    return folder, last_state(folder)


def resume(folder, state):
    for _ in range(2):  # the state before it, too
        checkpoints.RunFiles(folder, ()).write_state(state)
    main.main(["--resume", str(folder)])


def test_a_packed_state_is_not_unpacked(run, monkeypatch):
    """It may be a thousand times as large as its file."""
    folder, _ = run
    packed = io.BytesIO()
    with ZipFile(io.BytesIO(state_file.content({"x": torch.zeros(10**5)}))) as plain, ZipFile(packed, "w") as archive:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name), ZIP_DEFLATED)
    content = packed.getvalue()
    for name in ("latest.pt", "previous.pt"):
        (folder / name).write_bytes(content + state_file.SEAL + hashlib.sha256(content).hexdigest().encode())
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(UserError, match="it is packed; this program packs none"):
        state_file.read(folder)


def momentum(state):
    return state["training"]["optimizers"][0]["state"][0], "momentum_buffer"


def put(path, value):
    """What puts a value, or what a function makes of the one that is there, at a place of a state."""

    def change(state):
        *way, last = path
        for key in way:
            state = state[key]
        state[last] = value(state[last]) if callable(value) else value

    return change


COURSE = dict.fromkeys(log_file.COURSE, 1.0)  # columns that the version which wrote this state did not know


def course(**values):
    """What gives the first row of a log these columns, with other values in some."""
    return put(("log", 0), lambda row: {**row, **COURSE, **values})


BUFFER = ("training", "optimizers", 0, "state", 0, "momentum_buffer")
MUON = ("training", "optimizers", 1, "state", 0, "momentum")
AVERAGE = ("training", "average", "weights", "stem.weight")
STEM, VARIANCE = ("network", "stem.weight"), ("network", "segments.0.0.norms.0.running_var")
TENSORS = {
    "another shape": lambda t: torch.zeros(1),
    "no shape": lambda t: torch.zeros(()),
    "expanded": lambda t: torch.zeros(1).expand(t.shape),
    "with gaps": lambda t: torch.zeros(*t.shape[:-1], 2 * t.shape[-1])[..., ::2],
    "of another type": lambda t: t.double(),
    "of whole numbers": lambda t: t.long(),
    "sparse": lambda t: t.to_sparse(),
    "without memory": lambda t: t.to("meta"),
    "no tensor": lambda t: t.flatten().tolist(),
    "nothing": None,
    "NaN": lambda t: t * float("nan"),
    "infinite": lambda t: t + float("inf"),
}
SAID = {
    "another shape": r"is torch\.float32 \(1,\), not",
    "no shape": r"is torch\.float32 \(\), not",
    "expanded": "is a view of other numbers",
    "with gaps": "is a view of other numbers",
    "of another type": r"is torch\.float64",
    "of whole numbers": r"is torch\.int64",
    "sparse": "is no plain tensor",
    "without memory": "is no plain tensor",
    "no tensor": "is no tensor",
    "nothing": "is no tensor",
    "NaN": "has numbers that are not finite",
    "infinite": "has numbers that are not finite",
}
TRAINING = {"run": "DIGITS-ResNet-8", "dataset": "DIGITS", "epochs": 3, "heldOut": None}
OTHERS = {
    "fewer momenta": (lambda s: s["training"]["optimizers"][0]["state"].pop(0), "optimizers.0 lacks"),
    "no momenta": (put(("training", "optimizers", 0, "state"), {}), "optimizers.0 lacks"),
    "momenta of more": (put(("training", "optimizers", 0, "state", 99), {}), "optimizers.0 has '99'"),
    "more than a momentum": (lambda s: momentum(s)[0].update(step=torch.zeros(1)), "has 'step'"),
    "an optimizer less": (lambda s: s["training"]["optimizers"].pop(), "argument 2 is shorter"),
    "other parameters": (put(("training", "optimizers", 0, "param_groups", 0, "params"), [0, 0]), "other parameters"),
    "groups of no kind": (put(("training", "optimizers", 0, "param_groups"), [3]), "not subscriptable"),
    "a scaler": (put(("training", "scaler"), {"scale": 1.0}), "scaler has 'scale'"),
    "no average": (put(("training", "average"), None), "average is no dict"),
    "an average of more steps": (put(("training", "average", "steps"), 10**9), "average is that of 1000000000 steps"),
    "an average of half steps": (put(("training", "average", "steps"), 8.0), "average.steps is of type float"),
    "no network": (put(("network",), None), "network is no dict"),
    "a weight less": (lambda s: s["network"].pop("stem.weight"), "network lacks 'stem.weight'"),
    "a weight more": (put(("network", "more"), torch.zeros(1)), "network has 'more'"),
    "a negative variance": (put(VARIANCE, lambda t: -t - 1), "running_var is below 0"),
    "a negative count": (put(("network", "segments.0.0.norms.0.num_batches_tracked"), torch.tensor(-1)), "below 0"),
    "a log of no rows": (put(("log",), 3), "the log is not one of rows"),
    "a log that is a tensor": (put(("log",), torch.zeros(3)), "the log is not one of rows"),
    "a log of other rows": (put(("log",), [3]), "columns of this run"),
    "a log with gaps": (put(("log", 0, "epoch"), 2), "row 1 of the log cannot have such a value of epoch"),
    "an epoch of text": (put(("log", 0, "epoch"), "1"), "value of epoch"),
    "a row without its loss": (lambda s: s["log"][0].pop("train_loss"), "columns of this run"),
    "a row with more": (put(("log", 0, "more"), 1), "columns of this run"),
    "an error of 400 digits": (put(("log", 0, "test_error_8"), 10**400), "value of test_error_8"),
    "a training error of none": (put(("log", 0, "train_error_8"), None), "value of train_error_8"),
    "a test error of none": (put(("log", 0, "test_error_5"), None), "value of test_error_5"),
    "a loss of text": (put(("log", 0, "train_loss"), "low"), "value of train_loss"),
    "a loss that is not finite": (put(("log", 0, "train_loss"), float("nan")), "value of train_loss"),
    "a learning rate alone": (put(("log", 0, "learning_rate"), 0.1), "columns of this run"),
    "a learning rate of text": (course(learning_rate="low"), "value of learning_rate"),
    "a learning rate below 0": (course(learning_rate=-0.1), "value of learning_rate"),
    "a pace without end": (course(images_per_second=float("inf")), "value of images_per_second"),
    "a pace of none": (course(images_per_second=None), "value of images_per_second"),
    "a part of an age": (course(seconds_testing=1e300), "value of seconds_testing"),
    "more epochs than there are": (lambda s: s["log"].extend({**s["log"][0], "epoch": e} for e in (2, 3, 4)), "of 3"),
    "a negative step": (put(("step",), -1), "1 epochs and -1 steps"),
    "a step too many": (put(("step",), 6), "1 epochs and 6 steps"),
    "half a step": (put(("step",), 2.5), "and 2.5 steps"),
    "a step that is true": (put(("step",), True), "and True steps"),
    "a step of 400 digits": (put(("step",), 10**400), "steps into a run"),
    "former epochs of none": (put(("extended",), [0]), "was to have .0. epochs"),
    "fewer epochs than before": (put(("extended",), [77, 5]), "was to have .77, 5. epochs before it had 3"),
    "trainings of none": (put(("origin",), [0]), "has the origin .0., which is no list"),
    "trainings of another kind": (put(("origin",), [{**TRAINING, "epochs": -1}]), "has the origin .*no list"),
    "trainings without end": (put(("origin",), [TRAINING] * 101), "has the origin .*no list"),
    "seconds of text": (put(("seconds",), "1"), "seconds are not those of the parts"),
    "seconds that are not finite": (put(("seconds",), float("inf")), "seconds is no time"),
    "seconds of 400 digits": (put(("seconds",), 10**400), "seconds is no time"),
    "seconds of an age": (put(("seconds",), 1e300), "seconds is no time"),
    "an epoch of seconds of 400 digits": (put(("log", 0, "seconds"), 10**400), "value of seconds"),
    "a loss of 400 digits": (put(("log", 0, "train_loss"), 10**400), "value of train_loss"),
    "a format that is a tensor": (put(("format",), torch.zeros(3)), "training state of format"),
    "seconds of other parts": (put(("seconds",), {"training": 1.0}), "seconds are not those of the parts"),
    "seconds of no part": (put(("seconds",), dict.fromkeys(log_file.PARTS)), "seconds is no time"),
    "no seconds": (put(("seconds",), None), "seconds are not those of the parts"),
    "negative seconds": (put(("seconds",), -1.0), "seconds is no time"),
    "sums of fewer pictures": (put(("sums", "pictures"), 0), "sums are not those of 3 steps"),
    "sums of text": (put(("sums", "pictures"), "192"), "sums.pictures is of type str"),
    "more wrong than there are": (put(("sums", "wrong"), torch.tensor([193, 0])), "sums are not those"),
    "wrong below 0": (put(("sums", "wrong"), torch.tensor([-1, 0])), "sums are not those"),
    "wrong of other exits": (put(("sums", "wrong"), torch.tensor([0])), "sums.wrong is"),
    "no sums": (put(("sums",), None), "sums is no dict"),
    "random numbers of another kind": (put(("random",), torch.zeros(10, dtype=torch.uint8)), "random is"),
    "random numbers that are none": (put(("random",), lambda t: torch.full_like(t, 255)), "mt19937 state"),
    "GPUs without end": (put(("random_cuda",), 3), "has no len"),
    "something more": (put(("more",), 1), "it has more"),
    "something less": (lambda s: s.pop("seconds"), "run: 'seconds'"),
    "data of another kind": (put(("data",), {"classes": ["cat"]}), "the data are not those"),
    "options of no kind": (put(("options",), [[[]]]), "saved options are not"),
    "options without end": (put(("options", "depth"), 10**5000), "cannot be read as a training state"),
    "an option of 400 digits": (put(("options", "depth"), 10**400), "saved options are not"),
    "an option of another name": (put(("options", "depth=8 --x"), 1), "saved options are not"),
    "an option that is a tensor": (put(("options", "depth"), torch.zeros(3)), "saved options are not"),
    "an option of another kind": (lambda s: s["options"].update(exits=True, nOutputs=None), "saved options are not"),
    "no options": (lambda s: s.pop("options"), "saved options are not"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "kind"),
    [*((BUFFER, kind) for kind in TENSORS), *((place, "expanded") for place in (MUON, AVERAGE, STEM, VARIANCE))],
)
def test_a_tensor_of_another_kind_is_refused_by_name(kind, place, run):
    folder, state = run
    put(place, TENSORS[kind])(state)
    unreadable = "|cannot be read as a training state" if kind in ("sparse", "without memory") else ""
    with pytest.raises(UserError, match=f"does not fit the options of its run: .*{place[-1]} {SAID[kind]}{unreadable}"):
        resume(folder, state)


@pytest.mark.parametrize("lie", OTHERS)
def test_a_state_that_lies_is_refused_by_name(lie, run):
    folder, state = run
    change, words = OTHERS[lie]
    change(state)
    with pytest.raises(UserError, match=words):
        resume(folder, state)


def test_settings_of_optimizers_come_from_the_options(run, tmp_path):
    folder, state = run
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    main.main(["--resume", str(folder)])
    for optimizer in state["training"]["optimizers"]:
        for group in optimizer["param_groups"]:
            group |= {"maximize": True, "weight_decay": 0.5, "momentum": 0.1, "lr": 9.0, "nesterov": False, "more": 1}
    resume(other, state)
    assert exit_files(folder) == exit_files(other)


def test_tensors_that_share_memory_part(run):
    """Momenta of one place would be moved twice in a step."""
    folder, state = run
    momenta = state["training"]["optimizers"][1]["state"]
    momenta[1]["momentum"] = momenta[0]["momentum"]
    resume(folder, state)
    after = last_state(folder)["training"]["optimizers"][1]["state"]
    assert not after[0]["momentum"].equal(after[1]["momentum"])


@pytest.mark.parametrize("content", [None, "", '{"depth": 8', "[1]", '{"depth": 8, "depth": 8}', '{"LR": 1e999}'])
def test_without_options_a_run_goes_on_with_those_in_its_state(content, run, capsys):
    folder, _ = run
    if content is None:
        (folder / "opt.json").unlink()
    else:
        (folder / "opt.json").write_text(content)
    main.main(["--resume", str(folder)])
    assert "going on with the options in the training state" in capsys.readouterr().err
    assert json.loads((folder / "opt.json").read_text())["depth"] == 8
    assert exit_file.read_header(folder / "exit-8.safetensors")["epochs"] == 3


def test_a_momentum_that_lies_in_memory_in_another_order_moves_the_same_weights(run, tmp_path):
    folder, state = run
    other = shutil.copytree(folder, tmp_path / "other" / folder.name)
    resume(folder, state)
    put(BUFFER, lambda momentum: momentum.mT.contiguous().mT)(state)
    resume(other, state)
    assert exit_files(folder) == exit_files(other)


def test_data_that_changed_are_noticed_and_data_that_moved_are_not(tmp_path):
    pictures = tmp_path / "pets"
    for split in ("train", "test"):
        write_pictures(pictures / split, {"cat": 8, "dog": 8}, seed=len(split))
    line = ["--depth", "8", "--nGPU", "0", "--nThreads", "0", "--schedule", "cosine", "--save", tmp_path]
    assert script("main.py", *line, "--data", "./pets", "--nEpochs", "1").returncode == 0
    folder = tmp_path / "pets-AuxResNet-8-2"
    again = ("main.py", "--resume", folder, "--nEpochs", "2")
    elsewhere = script(*again, cwd=tmp_path.parent)
    assert_one_line_error(elsewhere, 1, "the run's pictures are no longer in ./pets", "--data")
    pictures = pictures.rename(tmp_path / "moved")
    (pictures / "train" / "dog").rename(pictures / "train" / "wolf")
    (pictures / "test" / "dog").rename(pictures / "test" / "wolf")
    assert_one_line_error(script(*again, "--data", pictures), 1, "classes wolf in place of dog")
    (pictures / "train" / "wolf").rename(pictures / "train" / "dog")
    (pictures / "test" / "wolf").rename(pictures / "test" / "dog")
    process = script(*again, "--data", pictures)
    assert process.returncode == 0, process.stderr
    assert "resumed after epoch 1" in process.stdout
