"""Early exit: routing obeys a rule as the stored logits say, fits keep what they promise, files are checked."""

import json
import os
import time

import numpy as np
import pytest
import torch
from conftest import CPU, network
from torch.utils._python_dispatch import TorchDispatchMode

from datasets import digits
from inference import calibration, early_exit, latency, routing, saved
from inference.calibration import Family, Goal, HeldOut
from inference.early_exit import NEVER, Rule
from models import names, networks
from models.folding import folded
from reports import adaptive
from reports.adaptive import Contender
from system import arithmetic
from system.errors import UserError
from system.machine import Machine

pytestmark = pytest.mark.slow

EXITS = (5, 9, 14)
MACS = [10, 25, 40]


def synthetic(count, seed=0, exits=3, classes=10):
    """Held-out pictures of known structure: some are easy, deeper exits see more, and all exits are too sure."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (count,), generator=draw)
    signal = 8 * torch.rand(count, 1, generator=draw) * torch.nn.functional.one_hot(targets, classes)
    noise = torch.randn(count, classes, generator=draw)  # what all exits get wrong alike
    own = torch.randn(exits, count, classes, generator=draw)
    logits = [2 * (signal * (0.5 + 0.25 * k) + noise + own[k] / (k + 1)) for k in range(exits)]
    return HeldOut(logits, targets, "synthetic")


@pytest.fixture(scope="module")
def trained(validated):
    """The network of a small trained run, the normalised test pictures of DIGITS, the logits of each exit, targets."""
    model = saved.load({p: validated[1] / f"exit-{p}.safetensors" for p in EXITS})
    normalise, quick = saved.ready(model, CPU)
    pictures = digits.load(None, "test")
    with torch.inference_mode():
        images = normalise(pictures.images)
        return quick, images, quick(images), pictures.targets


def rules(logits):
    """Rules from fast to safe: all pictures leave at the first exit, parts of those that come to each, none."""
    probabilities = HeldOut(logits, None, "").probabilities((1.5,) * 3)
    for part in (0.2, 0.35, 0.5, 0.65, 0.8):
        first, second = probabilities[:2].quantile(part, 1).tolist()
        yield Rule(EXITS, (1.5,) * 3, (first, second, 0.0))
    for all_alike in (0.0, NEVER):
        yield Rule(EXITS, (1.5,) * 3, (all_alike, all_alike, 0.0))


def test_routing_is_what_the_stored_logits_say(trained):
    quick, images, logits, _ = trained
    histograms = set()
    for rule in rules(logits):
        simulated, routed = early_exit.simulate(logits, rule), early_exit.route(quick, images, rule)
        assert routed.exits.equal(simulated.exits)
        assert routed.classes.equal(simulated.classes)
        histograms.add(tuple(torch.bincount(routed.exits, minlength=3).tolist()))
    assert (len(images), 0, 0) in histograms
    assert (0, 0, len(images)) in histograms
    assert sum(all(histogram) for histogram in histograms) == 5


@pytest.mark.parametrize("size", [1, 2, 7, 128])
def test_the_size_of_the_batch_decides_nothing_beyond_rounding(trained, size):
    quick, images, logits, _ = trained
    rule = list(rules(logits))[2]
    simulated = early_exit.simulate(logits, rule)
    routed = [early_exit.route(quick, batch, rule) for batch in images[:128].split(size)]
    tops = [(z[:128] / 1.5).softmax(1).topk(2).values for z in logits]
    margins = [
        (t[:, 0] - bound).abs().minimum(t[:, 0] - t[:, 1]) for t, bound in zip(tops, rule.thresholds, strict=True)
    ]
    clear = torch.stack(margins).min(0).values > 1e-6
    assert clear.sum() > 100
    for kind in ("exits", "classes"):
        found = torch.cat([getattr(r, kind) for r in routed])
        assert found[clear].equal(getattr(simulated, kind)[:128][clear])


@pytest.mark.parametrize("count", [1, 5, 100, 360])
def test_routing_computes_a_segment_for_those_alone_who_stay(trained, count):
    """On a CPU for no more."""
    quick, images, logits, _ = trained
    sizes = []
    hooks = [s.register_forward_hook(lambda m, inputs, out: sizes.append(len(inputs[0]))) for s in quick.segments]
    for rule in rules(logits):
        sizes.clear()
        exits = early_exit.route(quick, images[:count], rule).exits
        there = [(exits >= index).sum().item() for index in range(3)]
        wanted = [pictures for pictures in there if pictures]
        assert sizes == wanted
    for hook in hooks:
        hook.remove()


def test_on_a_gpu_a_batch_has_one_of_16_sizes():
    cuda = torch.device("cuda")
    assert {early_exit._room(staying, 128, cuda) for staying in range(1, 129)} == set(range(8, 129, 8))
    assert [early_exit._room(staying, 5, cuda) for staying in range(1, 6)] == [1, 2, 3, 4, 5]


class Waits(TorchDispatchMode):
    """Counts the operations for which the host waits for the device."""

    count = 0

    def __torch_dispatch__(self, operation, types, arguments=(), more=None):
        self.count += any(name in str(operation) for name in ("nonzero", "_local_scalar_dense", "is_nonzero"))
        return operation(*arguments, **(more or {}))


def test_the_host_waits_once_in_each_segment_at_most(trained):
    quick, images, logits, _ = trained
    for rule in rules(logits):
        with Waits() as waits:
            early_exit.route(quick, images, rule)
        assert waits.count <= 2


def exact(model, machine, compiled, sizes):
    """Whether routing in batches of these sizes gives what simulation gives on the logits of all pictures, computed in
    the same precision."""
    pictures = digits.load(None, "test")
    with torch.inference_mode(), arithmetic.autocast(machine.device, machine.dtype):
        logits = saved.ready(model, machine.devices)(pictures.images)
    policy = list(rules(logits))[2]
    route = routing.router(model, policy, machine, compiled)
    simulated = early_exit.simulate(logits, policy)
    for size in sizes:
        found = [route(images) for images in pictures.images.split(size)]
        yield all(torch.cat([getattr(r, k) for r in found]).equal(getattr(simulated, k)) for k in simulated._fields)


@pytest.mark.parametrize("precision", ["float", "bf16"])
def test_routing_is_simulation_in_the_same_precision(validated, precision):
    model = saved.load({p: validated[1] / f"exit-{p}.safetensors" for p in EXITS})
    assert all(exact(model, Machine(CPU, precision), False, (360, 128, 7)))


def test_compiled_code_routes_alike_and_is_not_made_anew_for_each_size(validated):
    if not arithmetic.compiles(CPU[0]):
        pytest.skip("no compiler works here")
    model = saved.load({p: validated[1] / f"exit-{p}.safetensors" for p in EXITS})
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=8):  # routing raises it; pytest's own patch would leave it hidden
        assert all(exact(model, Machine(CPU, "float"), True, (360, 128, 7, 5, 2, 1)))
    assert counters["stats"]["unique_graphs"] <= 3 * len(EXITS)  # two of a segment, one of a head


def test_pictures_without_a_number_leave_at_the_first_exit():
    rule = Rule(EXITS, (1.0,) * 3, (0.5, 0.5, 0.0))
    nothing = [torch.full((4, 10), torch.nan)] * 3
    assert early_exit.simulate(nothing, rule).exits.tolist() == [0] * 4
    broken = network().eval()
    images = torch.full((4, 3, 32, 32), torch.nan)
    assert early_exit.route(broken, images, rule).exits.tolist() == [0] * 4


def test_times_one_by_one_are_compared_by_their_means():
    """Where most pictures leave at the first exit, the median is the time of that, whatever the others take."""
    policy, last = latency.of([0.001] * 51 + [0.005] * 49), latency.of([0.006] * 100)
    rows = [Contender("policy", 5.0, 1e6, 100.0, *policy), Contender("exit 14", 5.0, 2e6, 50.0, *last)]
    told = adaptive.routed(rows, (5, 14), (51, 49)).splitlines()[-1]
    assert "2.00 times as fast in batches, 2.03 times one by one" in told


def test_multiply_adds_count_the_heads_on_the_way():
    configuration = names.parse("AuxResNet-14-3")
    found = early_exit.macs_to_exits(configuration, networks.build(configuration, 10), 32)
    alone = [networks.cost(configuration, 10, position, 32).macs for position in EXITS]
    assert found == [alone[0], alone[1] + 160, alone[2] + 160 + 320]


def test_temperatures_are_those_of_the_least_loss():
    held = synthetic(2000)
    for temperature, logits in zip(calibration.fit_temperatures(held), held.logits, strict=True):
        losses = [torch.nn.functional.cross_entropy(logits / (temperature * f), held.targets) for f in (0.98, 1, 1.02)]
        assert losses[1] == min(losses)


def test_an_exit_that_is_right_of_all_of_few_pictures_is_not_taken_for_infallible():
    targets = torch.arange(60) % 10
    logits = 4 * torch.nn.functional.one_hot(targets, 10).float() + torch.linspace(0, 1, 600).view(60, 10)
    (temperature,) = calibration.fit_temperatures(HeldOut([logits], targets, "right"))
    top = early_exit.probable(logits, temperature).amax(1)
    assert 0.9 < top.min() < top.max() < 0.9999


def test_a_family_is_what_simulation_says_of_each_threshold():
    held = synthetic(300)
    held.logits[0][:50] = held.logits[0][0]  # ties
    family = Family(held.probabilities((1.0,) * 3))
    macs, wrong = family.totals(torch.tensor(MACS)[:, None].expand(-1, 300)), family.totals(held.wrong)
    assert family.thresholds[0] == 0
    assert family.thresholds[-1] == NEVER
    for index in range(0, len(family.thresholds), 7):
        threshold = family.thresholds[index].item()
        figures = early_exit.simulate(held.logits, Rule(EXITS, (1.0,) * 3, (threshold, threshold, 0.0))).figures(
            held.targets, MACS
        )
        assert figures["macs"] * 300 == pytest.approx(macs[index].item())
        assert figures["error"] * 3 == pytest.approx(wrong[index].item())
        assert index == 0 or family.index(family.thresholds[index : index + 1]) == index
    assert (macs.diff() >= 0).all()


def test_budgets_are_kept_and_used():
    held = synthetic(1000)
    for budget in (10, 11, 20, 33.3, 40, 100):
        policy = calibration.make_policy(Goal("budgetMACs", budget), held, network(), MACS, MACS)
        assert policy.macs <= budget
        assert policy.macs > min(budget, 40) - 0.1
    assert policy.histogram == (0, 0, 1000)


def test_a_budget_of_time_counts_measured_milliseconds_even_where_a_deeper_exit_seemed_faster():
    held = synthetic(1000)
    policy = calibration.make_policy(Goal("budgetMs", 2.0), held, network(), MACS, [1.0, 2.5, 2.4])
    first, *rest = policy.histogram
    assert 1.99 < (first + 2.5 * sum(rest)) / 1000 <= 2


def test_impossible_budgets_name_the_nearest():
    held = synthetic(1000)
    with pytest.raises(UserError, match=r"--budgetMACs 20M is less than .* give 33\.48M or more"):
        calibration.fit(Goal("budgetMACs", 20e6), held, [33_472_672, 50_000_000, 60_000_000])
    assert calibration.fit(Goal("budgetMACs", 33.48e6), held, [33_472_672, 50_000_000, 60_000_000])
    with pytest.raises(UserError, match=r"give 16012\.35M or more"):
        calibration.fit(Goal("budgetMACs", 20e6), held, [16_012_340_001, 17_000_000_000, 18_000_000_000])
    with pytest.raises(UserError, match=r"give 1\.03 or more"):
        calibration.fit(Goal("budgetMs", 1), held, [1.021, 2, 3])
    with pytest.raises(UserError) as refused:
        calibration.fit(Goal("maxErrorIncrease", 0.01, 0.95), held, MACS)
    nearest = float(str(refused.value).split(" pictures; ")[1].split()[0])
    assert calibration.fit(Goal("maxErrorIncrease", nearest, 0.95), held, MACS)


def test_a_guarantee_for_a_single_class_lets_every_picture_go():
    held = HeldOut([torch.zeros(1000, 1)] * len(EXITS), torch.zeros(1000, dtype=torch.int64), "one class")
    _, thresholds = calibration.fit(Goal("maxErrorIncrease", 1.0, 0.95), held, MACS)
    assert early_exit.simulate(held.logits, Rule(EXITS, (1.0,) * len(EXITS), thresholds)).exits.eq(0).all()


def test_the_guarantee_fails_no_more_often_than_stated():
    """Over 200 draws of held-out pictures; the true increase is that over many more pictures of the same kind."""
    truth = synthetic(200_000, seed=1)
    last_wrong = truth.wrong[-1].double().mean()
    failures, increases = 0, []
    for draw in range(200):
        held = synthetic(1000, seed=2 + draw)
        temperatures, threshold = calibration.fit_guarantee(0.02, 0.8, held)
        rule = Rule(EXITS, temperatures, (threshold, threshold, 0.0))
        part = truth.take(torch.arange(draw * 1000, draw * 1000 + 50_000) % 200_000)
        classes = early_exit.simulate(part.logits, rule).classes
        increases.append(((classes != part.targets).double().mean() - part.wrong[-1].double().mean()).item())
        failures += increases[-1] > 0.02
    assert failures <= 0.2 * 200
    assert np.mean(increases) > 0.002  # it does let pictures go
    assert 0.02 < last_wrong < 0.5


def test_the_bound_of_an_increase_is_exact_for_single_counts_and_holds_for_differences():
    none = calibration.increase_bound(np.array([0]), np.array([0]), 100, 0.05)
    assert none[0] == pytest.approx(1 - (0.8 * 0.05) ** (1 / 100))
    assert calibration.increase_bound(np.array([100]), np.array([0]), 100, 0.05)[0] == 1
    rng = np.random.default_rng(0)
    for harm, help in ((0.01, 0.0), (0.03, 0.02), (0.3, 0.25)):
        harmed, _, helped = rng.multinomial(500, [harm, 1 - harm - help, help], 20_000).T
        missed = calibration.increase_bound(harmed, helped, 500, 0.1) < harm - help
        assert missed.mean() <= 0.1


def test_a_sweep_is_monotone_where_it_must_be():
    held = synthetic(1000)
    policy = calibration.make_policy(Goal("budgetMACs", 20), held, network(), MACS, MACS)
    rows = calibration.sweep(held, policy, MACS)
    assert [row["exit"] for row in rows[:4]] == [*EXITS, None]
    points = rows[3:]
    assert len(points) > 50
    columns = {
        name: np.array([row[name] for row in points]) for name in ("threshold", "macs", "error", "mixture", "oracle")
    }
    assert all((np.diff(columns[name]) > 0).all() for name in ("threshold", "macs"))
    assert (np.diff(columns["oracle"]) <= 1e-9).all()
    assert (columns["oracle"] <= columns["error"] + 1e-9).all()
    assert points[0]["error"] == pytest.approx(rows[0]["error"])
    assert points[-1]["error"] == pytest.approx(rows[2]["error"])
    assert points[-1]["mixture"] == pytest.approx(rows[2]["error"])


def test_a_sweep_of_shares_stands_beside_that_of_thresholds():
    held = synthetic(1000)
    policy = calibration.make_policy(Goal("budgetMACs", 20, protocol="msdnet"), held, network(), MACS, MACS)
    assert policy.protocol == "msdnet"
    assert 19.9 < policy.macs <= 20
    rows = calibration.sweep(held, policy, MACS)
    shares = [row for row in rows if row["ratio"] is not None]
    assert len(shares) == calibration.POINTS
    assert shares[0]["macs"] < 11
    assert shares[-1]["macs"] > 39
    assert all((np.diff([row[name] for row in shares]) >= 0).all() for name in ("ratio", "macs"))
    assert all(row["oracle"] <= row["error"] + 1e-9 for row in shares)
    others = calibration.sweep(held, calibration.make_policy(Goal("budgetMACs", 20), held, network(), MACS, MACS), MACS)
    assert [row for row in rows if row["ratio"] is None] == others


def test_fitting_ten_thousand_pictures_takes_a_moment():
    held = synthetic(10_000, exits=5)
    start = time.process_time()
    calibration.fit(Goal("budgetMACs", 30), held, [10, 20, 30, 40, 50])
    calibration.fit(Goal("budgetMACs", 30, protocol="msdnet"), held, [10, 20, 30, 40, 50])
    calibration.fit(Goal("maxErrorIncrease", 1, 0.95), held, [])
    assert time.process_time() - start < 4  # under a second on an idle core


@pytest.fixture
def written(tmp_path):
    """A policy for `conftest.network()`, and the file that it is written in."""
    held, path = synthetic(500), tmp_path / "policy.json"
    policy = calibration.make_policy(Goal("maxErrorIncrease", 2, 0.9), held, network(), MACS, MACS)
    early_exit.write_policy(path, policy)
    return policy, path


def test_a_policy_is_read_as_it_was_written(written):
    policy, path = written
    assert early_exit.read_policy(path) == policy
    early_exit.check_fits(path, policy, network())
    content = json.loads(path.read_text())
    del content["protocol"]  # as version 1 wrote it
    path.write_text(json.dumps({**content, "formatVersion": 1}))
    assert early_exit.read_policy(path) == policy
    assert [entry.name for entry in path.parent.iterdir()] == ["policy.json"]


def test_a_policy_fits_one_network(written):
    policy, path = written
    other = network()
    with torch.no_grad():
        other.stem.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(UserError, match=r"policy\.json is a policy for a network of other weights"):
        early_exit.check_fits(path, policy, other)
    with pytest.raises(UserError, match="for exits 5, 9, 14, the network has 7, 14"):
        early_exit.check_fits(path, policy, network("AuxResNet-14-2"))
    assert early_exit.fingerprint(network()) != early_exit.fingerprint(folded(network()))


ODD = {
    "positions": [[5], [9, 5, 14], [5, 9, "14"], 5, None, [True, 9, 14], [0, 9, 14], [5, 5, 14]],
    "temperatures": [[1, 1], [1, 1, 0], [1, 1, float("nan")], [1, 1, float("inf")], ["1", 1, 1], {}, [1, 1, 10**400]],
    "thresholds": [[0.5, 0.5], [0.5, 0.5, 0.5], [0.5, -1, 0], [3, 0.5, 0], [0.5, None, 0]],
    "model": [None, 3],
    "dataset": [["DIGITS"]],
    "pictures": [0, 499, 500.0, True, "500"],
    "error": [-1, 101, None, float("nan")],
    "macs": [0, "many", 1e400],
    "histogram": [[500], [1, 1, 1], [-1, 1, 500], [250.0, 250.0, 0.0]],
    "criterion": ["speed", None, ["budgetMs"], {}],
    "limit": [-1, None, float("inf")],
    "confidence": [None, 2, "0.9", False],
    "protocol": ["none", None, ["msdnet"]],
    "formatVersion": [0, 3, True, None, [1]],
    "format": ["auxresnet-exit", None],
    "more": [1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in ODD.items() for value in values])
def test_an_odd_policy_is_refused_in_one_line(written, field, value):
    _, path = written
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(UserError, match=r"policy\.json") as refused:
        early_exit.read_policy(path)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"{}"])
def test_what_is_no_policy_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "policy.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"policy\.json"):
        early_exit.read_policy(path)
    with pytest.raises(UserError, match=r"no\.json cannot be read as a policy: No such file"):
        early_exit.read_policy(tmp_path / "no.json")


def test_a_policy_lacks_nothing(written):
    _, path = written
    content = json.loads(path.read_text())
    for field in content:
        path.write_text(json.dumps({name: value for name, value in content.items() if name != field}))
        with pytest.raises(UserError, match=r"policy\.json"):
            early_exit.read_policy(path)


def test_a_pipe_in_place_of_a_policy_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "policy.json")
    with pytest.raises(UserError, match=r"policy\.json is no regular file"):
        early_exit.read_policy(tmp_path / "policy.json")
