"""When a run is tested, in which precision, what its files say about it; logits in order."""

import pytest
import torch

import main
from datasets import digits
from datasets.pictures import balanced_order
from examples import CPU, NORMALISE, network
from formats import exit_file, log_file
from inference import evaluation, saved
from inference.evaluation import evaluate, measure_statistics
from models import metrics
from models.metrics import Result
from programs import error_line, rows_of, script
from reports import tables
from runs import FOLDER, SMALL, exit_files, last_state, logged, stopped, with_errors
from training.run import Run
from training.trainer import Trainer

pytestmark = pytest.mark.slow

LINE = [*SMALL, "--nEpochs", "5", "--testEvery", "2"]


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    save = tmp_path_factory.mktemp("sparse")
    main.main([*LINE, "--save", str(save)])
    return save


def test_every_second_epoch_and_the_last_are_tested(sparse):
    rows = logged(sparse / FOLDER)
    assert [bool(row["test_error_14"]) for row in rows] == [False, True, False, True, True]
    assert [bool(row["test_loss"]) for row in rows] == [False, True, False, True, True]
    assert all(row["train_error_14"] for row in rows)
    assert log_file.read(sparse / FOLDER)[0]["test_error_5"] is None
    header = exit_file.read_header(sparse / FOLDER / "exit-14.safetensors")
    assert (header["epochs"], header["error"]) == (5, float(rows[-1]["test_error_14"]))


@pytest.mark.parametrize(
    ("owner", "method", "call"), [(Trainer, "step", 3), (Trainer, "step", 9), (Run, "evaluate", 2)]
)
def test_a_run_that_is_tested_now_and_then_resumes_to_the_same(owner, method, call, sparse, tmp_path):
    stopped([*LINE, "--save", str(tmp_path)], owner, method, call)
    main.main(["--resume", str(tmp_path / FOLDER)])
    assert logged(tmp_path / FOLDER) == logged(sparse / FOLDER)
    assert exit_files(tmp_path / FOLDER) == exit_files(sparse / FOLDER)


def test_with_a_split_the_best_of_the_tested_epochs_is_kept(tmp_path):
    main.main([*LINE, "--valSize", "200", "--save", str(tmp_path)])
    found = {int(row["epoch"]): row["validation_error_14"] for row in logged(tmp_path / FOLDER)}
    tested = {epoch: float(error) for epoch, error in found.items() if error}
    assert tested.keys() == {2, 4, 5}
    kept = exit_file.read_header(tmp_path / FOLDER / "exit-14.safetensors")
    assert (kept["epochs"], kept["error"]) == (min(tested, key=tested.get), min(tested.values()))


def test_plot_takes_runs_with_gaps_and_runs_without_a_test(sparse, tmp_path):
    rows = log_file.read(sparse / FOLDER)
    young = tmp_path / FOLDER
    young.mkdir()
    (young / "opt.json").write_bytes((sparse / FOLDER / "opt.json").read_bytes())
    (young / log_file.FILE).write_bytes(tables.as_csv(rows[:3]))
    both = script("plot.py", sparse / FOLDER, young, "--out", tmp_path / "p.png")
    assert both.returncode == 0, both.stderr
    (last,) = [row for row in rows_of(both.stdout) if row["exit"] == "14"]
    assert (last["runs"], last["epochs"]) == ("2", "2")  # both tested after the second epoch
    (young / log_file.FILE).write_bytes(tables.as_csv(rows[:1]))
    alone = script("plot.py", young, "--out", tmp_path / "p.png")
    assert alone.returncode == 0, alone.stderr
    assert "none yet" in alone.stdout


@pytest.mark.parametrize("split", [[], ["--valSize", "300"]])
def test_what_is_reported_at_the_end_is_measured_in_float32(split, tmp_path, capsys, monkeypatch):
    """In between, in the precision of training; whatever that gives stays out of headers and of the table."""
    real, precisions = evaluation.evaluate, []

    def biased(model, batches, weights, device, dtype=None):
        precisions.append(dtype)
        result = real(model, batches, weights, device, dtype)
        errors = tuple(error / 2 for error in result.errors)
        return Result(result.loss, errors) if dtype else result  # so that a split keeps an epoch before the last

    monkeypatch.setattr(evaluation, "evaluate", biased)
    line = [*SMALL, *split, "--nEpochs", "3", "--precision", "bf16", "--batchsize", "32", "--save", str(tmp_path)]
    main.main(line)
    monkeypatch.undo()
    folder = tmp_path / FOLDER
    assert precisions == [torch.bfloat16, torch.bfloat16, None, *([None, None] if split else [])]
    printed = {row["exit"]: row for row in rows_of(capsys.readouterr().out)}
    for position, path in exit_file.files_in(folder).items():
        result = script("test.py", "DIGITS", path)
        assert result.stdout == error_line(printed[str(position)]["test error"])
        header = exit_file.read_header(path)
        if split:
            assert header["epochs"] < 3
            assert header["error"] == pytest.approx(validation_error(path, 300))
        else:
            assert f"{header['error']:.2f}" == result.stdout.split()[1]
            assert header["error"] == float(logged(tmp_path / FOLDER)[-1][f"test_error_{position}"])


def validation_error(path, size):
    """An independent forward pass over the split."""
    model = saved.load({exit_file.position_of(path): path})
    pictures = digits.load(None, "train")
    pictures = pictures.take(balanced_order(pictures.targets)[len(pictures) - size :])
    with torch.inference_mode():
        logits = model.network(model.normalise(pictures.images))[-1]
    return 100 * (logits.argmax(1) != pictures.targets).double().mean().item()


def test_a_run_stopped_in_its_last_test_keeps_the_state_of_its_last_epoch(tmp_path, monkeypatch):
    with_errors(monkeypatch, [(50.0,) * 3, (51.0,) * 3])  # so that the first epoch is kept
    line = [*SMALL, "--valSize", "300", "--nEpochs", "2", "--save"]
    main.main([*line, str(tmp_path / "whole")])
    stopped([*line, str(tmp_path / "stopped")], Run, "finish", 1)
    assert exit_file.read_header(tmp_path / "stopped" / FOLDER / "exit-14.safetensors")["epochs"] == 1
    states = [last_state(tmp_path / name / FOLDER) for name in ("whole", "stopped")]
    for name, tensor in states[0]["network"].items():
        assert tensor.equal(states[1]["network"][name]), name
    main.main(["--resume", str(tmp_path / "stopped" / FOLDER)])
    assert exit_files(tmp_path / "whole" / FOLDER) == exit_files(tmp_path / "stopped" / FOLDER)


def test_a_run_stopped_in_the_test_after_an_epoch_goes_on_to_the_same_bits(tmp_path, finished):
    stopped([*SMALL, "--nEpochs", "2", "--save", str(tmp_path)], Run, "evaluate", 1)
    state = last_state(tmp_path / FOLDER)
    assert (state["log"], state["sums"]["pictures"]) == ([], 256)  # trained, and not tested
    main.main(["--resume", str(tmp_path / FOLDER)])
    assert exit_files(tmp_path / FOLDER) == exit_files(finished[1])
    assert logged(tmp_path / FOLDER) == logged(finished[1])


def test_a_finished_run_with_a_split_resumed_says_the_same(tmp_path, capsys):
    line = [*SMALL, "--valSize", "300", "--nEpochs", "2", "--precision", "bf16", "--save", str(tmp_path)]
    main.main(line)
    first = capsys.readouterr().out.split("exit  parameters")[1]
    files = {path.name: path.read_bytes() for path in (tmp_path / FOLDER).glob("exit-*")}
    main.main(["--resume", str(tmp_path / FOLDER)])
    assert capsys.readouterr().out.split("exit  parameters")[1] == first
    assert files == {path.name: path.read_bytes() for path in (tmp_path / FOLDER).glob("exit-*")}


def test_epochs_on_small_pictures_are_tested_with_the_statistics_of_full_size_ones(tmp_path, monkeypatch):
    measured = []

    def spied(network, normalise, batches, device):
        batches = list(batches)
        measured.append([images.shape[1] for images in batches])
        return measure_statistics(network, normalise, batches, device)

    monkeypatch.setattr(evaluation, "measure_statistics", spied)
    main.main([*SMALL, "--nEpochs", "4", "--startSize", "16", "--save", str(tmp_path)])
    assert len(measured) == 2  # the first two epochs begin with sides of 16 and 24
    assert {side for sides in measured for side in sides} == {32}


def test_measured_statistics_are_those_of_all_pictures_alike_and_draw_no_random_number():
    trained = network("AuxResNet-8-2-dropout")
    sample = digits.load(None, "train").take(range(251)).images  # not a multiple of a batch
    before = torch.get_rng_state()
    weights = {name: p.clone() for name, p in trained.named_parameters()}
    measured = measure_statistics(trained, NORMALISE, sample.chunk(2), CPU[0])
    assert torch.get_rng_state().equal(before)
    assert all(p.equal(weights[name]) for name, p in measured.named_parameters())
    norm = measured.segments[0][0].norms[0]
    with torch.no_grad():
        seen = measured.stem(NORMALISE(sample))
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), rtol=0.01, atol=0.01)
    torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3)), rtol=0.05, atol=0.01)


def test_evaluation_counts_every_picture_once():
    pictures = digits.load(None, "train")

    class Oracle(torch.nn.Module):
        """Right at its second exit; at its first, right for the digit 0 alone."""

        def forward(self, images):
            start = Oracle.seen
            Oracle.seen += len(images)
            targets = pictures.targets[start : Oracle.seen]
            return [torch.eye(10)[torch.zeros_like(targets)], torch.eye(10)[targets]]

    Oracle.seen = 0
    result = evaluate(Oracle(), pictures.batches(250), (1.0, 1.0), CPU[0])
    wrong = (pictures.targets != 0).sum().item()
    assert result.errors == (100 * wrong / len(pictures), 0.0)


def test_logits_come_in_the_order_of_the_pictures():
    model = evaluation.ready(network(), torch.nn.Identity(), CPU)
    batches = [(torch.randn(n, 3, 32, 32), torch.arange(n)) for n in (4, 4, 3)]
    by_batch, targets = zip(*evaluation.logits_of(model, batches, CPU[0]), strict=True)
    assert [count.tolist() for count in targets] == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2]]
    with torch.inference_mode():
        assert all(found[1].equal(model(images)[1]) for found, (images, _) in zip(by_batch, batches, strict=True))
    logits, targets = map(torch.cat, zip(*by_batch, strict=True)), torch.cat(targets)
    errors = evaluation.evaluate(model, batches, (1.0,) * 3, CPU[0]).errors
    assert errors == tuple(metrics.top_error(z, targets) for z in logits)
