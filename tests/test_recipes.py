"""The ingredients of a recipe: each does what it says, and all of them together are reproducible and resumable."""

import os
import signal

import pytest
import torch
from conftest import SMALL, script
from safetensors.torch import load_file
from torch.nn import functional as F

import checkpoints
import main
import opts
from datasets import digits
from datasets.transforms import Normalise
from inference.evaluation import measure_statistics
from models import names
from models.auxresnet import AuxResNet
from models.losses import Objective, distillation, multiway_loss
from training import schedules
from training.averaging import Average
from training.optimizers import RATE, Muon, optimizers, orthogonalised
from training.trainer import Trainer

EVERYTHING = [
    *SMALL, "--nEpochs", "4", "--dropout", "0.1", "--optimizer", "muon", "--ema", "0.9", "--labelSmoothing", "0.1",
    "--decayNorms", "false", "--cutout", "8", "--alternateFlip", "true", "--distill", "1", "--teacher", "ensemble",
    "--temperature", "2", "--exitSchedule", "deepen", "--startSize", "16", "--scaleLR", "true",
]  # fmt: skip
FOLDER = "DIGITS-AuxResNet-14-3-dropout"
CPU = [torch.device("cpu")]


def network(name="AuxResNet-14-3"):
    torch.manual_seed(0)
    return AuxResNet(names.parse(name), 10)


def exits(save):
    return {path.name: load_file(path) for path in sorted((save / FOLDER).glob("*.safetensors"))}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    save = tmp_path_factory.mktemp("everything")
    main.main([*EVERYTHING, "--save", str(save), "--nThreads", "0"])
    return save


@pytest.mark.parametrize(("method", "call"), [("_step", 2), ("_step", 7), ("evaluate", 1), ("_step", 11)])
def test_all_ingredients_resume_to_the_same_bits(method, call, uninterrupted, tmp_path, monkeypatch):
    real, calls = getattr(Trainer, method), []

    def signalled(self, *arguments, **options):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *arguments, **options)

    monkeypatch.setattr(Trainer, method, signalled)
    with pytest.raises(SystemExit):
        main.main([*EVERYTHING, "--save", str(tmp_path), "--nThreads", "2"])
    monkeypatch.undo()
    torch.manual_seed(99)  # nothing may depend on what the process did before
    main.main(["--resume", str(tmp_path / FOLDER)])
    expected, found = exits(uninterrupted), exits(tmp_path)
    assert len(found) == 3
    for file, weights in expected.items():
        for name, tensor in weights.items():
            assert tensor.equal(found[file][name]), (file, name)


def test_the_exit_files_hold_what_was_judged(uninterrupted):
    """The averaged weights, with statistics of their own."""
    result = script("test.py", "DIGITS", FOLDER.removeprefix("DIGITS-"), "--exit", "all", "--save", uninterrupted)
    for position in (5, 9, 14):
        header = checkpoints.read_header(uninterrupted / FOLDER / f"exit-{position}.safetensors")
        assert f"{header['error']:.2f} %" in result.stdout
    state = checkpoints.read_state(uninterrupted / FOLDER, pytest.fail)
    kept = load_file(uninterrupted / FOLDER / "exit-14.safetensors")
    average = state["training"]["average"]["weights"]
    assert kept["stem.weight"].equal(average["stem.weight"])
    assert not kept["stem.weight"].equal(state["network"]["stem.weight"])
    norm = "segments.1.0.norms.0.running_mean"
    assert not kept[norm].equal(state["network"][norm])


def test_smaller_pictures_leave_statistics_for_full_size_ones(tmp_path, monkeypatch):
    """At the end of an epoch on small pictures, the judged network has the statistics of full-size ones."""
    asked, real = [], Trainer.judged

    def judged(self, sample, full_size, show):
        asked.append(full_size)
        return real(self, sample, full_size, show)

    monkeypatch.setattr(Trainer, "judged", judged)
    line = [*SMALL, "--nEpochs", "4", "--startSize", "16", "--save", str(tmp_path)]
    main.main(line)
    assert asked == [False, False, True, True]
    monkeypatch.undo()
    settings = opts.parse(line)
    trainer = Trainer(network(), Normalise((128.0,) * 3, (64.0,) * 3), (1.0,) * 3, CPU, settings)
    sample = digits.load(None, "train").take(range(500)).images
    judged = trainer.judged(sample, full_size=False)
    assert trainer.judged(sample, full_size=True) is trainer.network
    norm = next(module for module in judged.modules() if isinstance(module, torch.nn.BatchNorm2d))
    with torch.no_grad():
        seen = judged.stem(trainer.normalise(sample))
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert norm.momentum == 0.1


def test_measured_statistics_are_those_of_all_pictures_alike_and_draw_no_random_number():
    trained = network("AuxResNet-8-2-dropout")
    sample = digits.load(None, "train").take(range(251)).images  # not a multiple of a batch
    before = torch.get_rng_state()
    normalise = Normalise((128.0,) * 3, (64.0,) * 3)
    weights = {name: p.clone() for name, p in trained.named_parameters()}
    measured = measure_statistics(trained, normalise, sample, CPU[0])
    assert torch.get_rng_state().equal(before)
    assert all(p.equal(weights[name]) for name, p in measured.named_parameters())
    norm = measured.segments[0][0].norms[0]
    with torch.no_grad():
        seen = measured.stem(normalise(sample))
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), rtol=0.01, atol=0.01)
    torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3)), rtol=0.05, atol=0.01)


def test_the_average_follows_the_weights():
    model = network("ResNet-8")
    average = Average(model, 0.9)
    expected = model.stem.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            model.stem.weight.normal_()
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.stem.weight.detach()
    torch.testing.assert_close(average.network.stem.weight, expected)
    fresh = Average(network("ResNet-8"), 0.9)
    fresh.restore(average.state())
    assert (fresh.steps, fresh.network.stem.weight.equal(average.network.stem.weight)) == (30, True)
    with pytest.raises(KeyError):
        fresh.restore({"weights": {}, "steps": 0})


def test_label_smoothing_is_a_mixture_of_targets():
    logits, targets = torch.randn(6, 10), torch.arange(6)
    loss, losses = multiway_loss([logits], targets, (2.0,), smoothing=0.2)
    soft = 0.8 * F.one_hot(targets, 10) + 0.02
    torch.testing.assert_close(loss, 2 * -(soft * logits.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(losses[0] * 2, loss)


@pytest.mark.parametrize(("teacher", "taught"), [("last", [True, True, False]), ("ensemble", [True, True, True])])
def test_distillation_teaches_the_right_exits(teacher, taught):
    logits = [torch.randn(5, 10, requires_grad=True) for _ in range(3)]
    loss = distillation(logits, (1.0, 0.5, 2.0), 3.0, teacher)
    loss.backward()
    assert [z.grad is not None and z.grad.abs().sum().item() > 0 for z in logits] == taught
    wise = logits[-1] if teacher == "last" else sum(logits) / 3
    p = (wise / 3).softmax(1)
    expected = sum(
        9 * w * (p * (p.log() - (z / 3).log_softmax(1))).sum(1).mean()
        for w, z in zip((1.0, 0.5, 2.0), logits, strict=True)
    )  # the teacher's own term is 0 when it is the last exit
    torch.testing.assert_close(loss, expected)


def test_an_exit_of_weight_0_neither_learns_nor_teaches_and_a_plain_network_teaches_nobody():
    logits = [torch.randn(5, 10, requires_grad=True) for _ in range(2)]
    assert distillation(logits, (1.0, 0.0), 1.0, "last") == 0
    assert distillation(logits, (1.0, 0.0), 1.0, "ensemble").item() == pytest.approx(0, abs=1e-6)
    assert distillation(logits, (0.0, 1.0), 1.0, "last") == 0
    assert distillation(logits[:1], (1.0,), 1.0, "last") == 0
    objective = Objective(distill=1.0)
    targets = torch.arange(5)
    assert objective(logits[:1], targets, (1.0,))[0].equal(multiway_loss(logits[:1], targets, (1.0,))[0])


def test_exit_weights_deepen():
    assert schedules.exit_weights(0.3, "constant", (1.0, 2.0)) == (1.0, 2.0)
    assert schedules.exit_weights(0.0, "deepen", (1.0, 1.0, 2.0)) == pytest.approx((1.5, 1.0, 1.0))
    assert schedules.exit_weights(0.5, "deepen", (1.0, 1.0, 2.0)) == pytest.approx((1.0, 1.0, 2.0))
    assert schedules.exit_weights(1.0, "deepen", (1.0, 1.0, 2.0)) == pytest.approx((0.5, 1.0, 3.0))
    assert schedules.exit_weights(0.0, "deepen", (1.0,)) == (1.0,)


def test_sides_grow_by_steps_to_the_full_one():
    assert [schedules.side(p, 16, 32) for p in (0.0, 0.24, 0.26, 0.49, 0.5, 1.0)] == [16, 16, 24, 24, 32, 32]
    assert [schedules.side(p, 32, 32) for p in (0.0, 1.0)] == [32, 32]
    assert [schedules.side(p, 20, 32) for p in (0.0, 0.3, 0.6)] == [20, 28, 32]


def test_orthogonalised_matrices_have_singular_values_near_1():
    matrices = torch.randn(3, 16, 144, generator=torch.Generator().manual_seed(0))
    result = orthogonalised(matrices)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    cosine = F.cosine_similarity(result.flatten(), (left @ right).flatten(), dim=0)
    assert cosine > 0.98


@pytest.mark.parametrize("decades", [1, 4])
def test_in_bfloat16_rounding_leaves_no_singular_value_too_large(decades):
    """Momentum has singular values of all sizes; those below the rounding of XXᵀ must not grow without bound."""
    random = torch.randn(2, 64, 576, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(random, full_matrices=False)
    matrices = (left * torch.logspace(0, -decades, 64)) @ right
    exact, rounded = orthogonalised(matrices), orthogonalised(matrices.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert torch.linalg.svdvals(rounded.float()).max() < 1.3
    aims = [F.cosine_similarity(found.float().flatten(), (left @ right).flatten(), dim=0) for found in (exact, rounded)]
    assert aims[1] > aims[0] - 0.01


def test_in_float32_the_iteration_is_what_it_always_was():
    a, b, c = 3.4445, -4.7750, 2.0315
    matrices = torch.randn(2, 16, 144, generator=torch.Generator().manual_seed(0))
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True)
    gram, identity = x @ x.mT, torch.eye(16).expand(2, 16, 16)
    product = identity
    for _ in range(5):
        factor = torch.baddbmm(a * identity + b * gram, gram, gram, alpha=c)
        product, gram = factor @ product, factor @ gram @ factor
    assert orthogonalised(matrices).equal(product @ x)


def test_muon_follows_the_precision_of_the_network_and_keeps_weights_in_float32():
    trainers = [
        Trainer(network("ResNet-8"), Normalise((0.0,) * 3, (1.0,) * 3), (1.0,), CPU, opts.parse(line))
        for line in (["--optimizer", "muon", "--precision", precision] for precision in ("float", "bf16"))
    ]
    assert [trainer.optimizers[1].dtype for trainer in trainers] == [torch.float32, torch.bfloat16]
    muon = trainers[1].optimizers[1]
    (group,) = muon.param_groups
    for kernel in group["params"]:
        kernel.grad = torch.randn_like(kernel)
    muon.step()
    assert {kernel.dtype for kernel in group["params"]} == {torch.float32}
    assert {state["momentum"].dtype for state in muon.state.values()} == {torch.float32}


def test_muon_moves_kernels_by_orthogonal_steps_and_resumes():
    generator = torch.Generator().manual_seed(0)
    gradients = [[torch.randn(shape, generator=generator) for shape in ((8, 4, 3, 3), (32, 4, 1, 1))] for _ in range(4)]

    def moved(start, state, some):
        kernels = [torch.nn.Parameter(tensor.clone()) for tensor in start]
        muon = Muon(kernels, lr=0.1, momentum=0.9, weight_decay=0.0)
        if state:
            muon.load_state_dict(state)
        for step in some:
            for kernel, gradient in zip(kernels, step, strict=True):
                kernel.grad = gradient
            muon.step()
        return [kernel.detach() for kernel in kernels], muon.state_dict()

    zeros = [torch.zeros_like(gradient) for gradient in gradients[0]]
    first, _ = moved(zeros, None, gradients[:1])
    for kernel in first:
        values = torch.linalg.svdvals(kernel.movedim(1, -1).flatten(1)) / (0.1 * RATE)
        assert values.min() > 0.6
        assert values.max() < 1.3
    whole, _ = moved(zeros, None, gradients)
    again, _ = moved(*moved(zeros, None, gradients[:2]), gradients[2:])
    forgetful, _ = moved(moved(zeros, None, gradients[:2])[0], None, gradients[2:])
    assert all(a.equal(b) for a, b in zip(whole, again, strict=True))
    assert not any(a.equal(b) for a, b in zip(whole, forgetful, strict=True))


def test_what_decays_and_who_moves_it():
    model = network()
    line = ["--data", "DIGITS", "--decayNorms", "false", "--optimizer", "muon", "--weightDecay", "0.01"]
    sgd, muon = optimizers(model, opts.parse(line))
    kernels = {id(p) for p in muon.param_groups[0]["params"]}
    assert kernels == {id(p) for name, p in model.named_parameters() if "convolutions" in name}
    decaying, spared = (group["params"] for group in sgd.param_groups)
    assert {id(p) for p in decaying} == {
        id(model.stem.weight),
        *(id(head.linear.weight) for head in model.heads.values()),
    }
    assert all(p.ndim == 1 for p in spared)
    assert [group["weight_decay"] for group in sgd.param_groups] == [0.01, 0.0]
    assert len(kernels) + len(decaying) + len(spared) == len(list(model.parameters()))
    (alone,) = optimizers(model, opts.parse(["--data", "DIGITS"]))
    assert [len(group["params"]) for group in alone.param_groups] == [len(list(model.parameters()))]


def test_a_scaled_learning_rate_is_that_of_128_pictures():
    rates = []
    for line in (["--batchsize", "32"], ["--batchsize", "32", "--scaleLR", "true"]):
        settings = opts.parse(["--schedule", "cosine", *line])
        rates.append(
            Trainer(network(), Normalise((0.0,) * 3, (1.0,) * 3), (1.0,) * 3, CPU, settings).learning_rate(0.0)
        )
    assert rates == pytest.approx([0.1, 0.025])


def test_a_recipe_is_a_set_of_defaults():
    plain, fast = opts.parse([]), opts.parse(["--recipe", "fast"])
    assert plain == opts.parse(["--recipe", "Paper"])
    assert (plain.schedule, plain.optimizer, plain.nEpochs) == ("step", "sgd", 400)
    assert (fast.schedule, fast.optimizer) == ("onecycle", "muon")
    assert opts.parse(["--recipe", "fast", "--LR", "0.03", "--schedule", "cosine"]).LR == 0.03
    assert opts.parse(["--recipe", "fast", "--data", "DIGITS"]).widen == 1


def test_the_parts_of_a_recipe_are_printed_and_kept(tmp_path):
    main_line = [*SMALL, "--nEpochs", "1", "--recipe", "fast", "--batchsize", "32"]
    process = script("main.py", *main_line, "--save", tmp_path)
    assert process.returncode == 0, process.stderr
    (line,) = [line for line in process.stdout.splitlines() if line.startswith("recipe: fast")]
    assert "optimizer=muon" in line
    assert "schedule=onecycle" in line
    header = checkpoints.read_header(tmp_path / "DIGITS-AuxResNet-14-3" / "exit-14.safetensors")
    assert (header["options"]["recipe"], header["options"]["optimizer"]) == ("fast", "muon")
