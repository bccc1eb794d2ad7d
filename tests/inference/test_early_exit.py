"""Early exit: routing obeys a rule as the stored logits say."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from examples import CPU, network
from formats import exit_file
from inference import asking, early_exit, routing, saved
from inference.calibration import Answered
from inference.early_exit import NEVER, Rule
from models import names, networks
from runs import EXITS
from system import arithmetic
from system.machine import ON_CPU, Machine


@pytest.fixture(scope="module")
def trained(validated, tested):
    """The network of a small trained run, the normalised test pictures of DIGITS, the logits of each exit."""
    normalise, quick = asking.ready(saved.load(exit_file.files_in(validated[1])), CPU)
    with torch.inference_mode():
        images = normalise(tested.images)
        return quick, images, quick(images)


def rules(logits):
    """Rules from fast to safe: all pictures leave at the first exit, parts of those that come to each, none."""
    probabilities = Answered(logits, None, "").probabilities((1.5,) * 3)
    for part in (0.2, 0.35, 0.5, 0.65, 0.8):
        first, second = probabilities[:2].quantile(part, 1).tolist()
        yield Rule(EXITS, (1.5,) * 3, (first, second, 0.0))
    for all_alike in (0.0, NEVER):
        yield Rule(EXITS, (1.5,) * 3, (all_alike, all_alike, 0.0))


@pytest.mark.slow
def test_routing_is_what_the_stored_logits_say(trained):
    quick, images, logits = trained
    histograms = set()
    for rule in rules(logits):
        simulated, routed = early_exit.simulate(logits, rule), early_exit.route(quick, images, rule)
        assert routed.exits.equal(simulated.exits)
        assert routed.classes.equal(simulated.classes)
        histograms.add(tuple(torch.bincount(routed.exits, minlength=3).tolist()))
    assert (len(images), 0, 0) in histograms
    assert (0, 0, len(images)) in histograms
    assert sum(all(histogram) for histogram in histograms) == 5


def assert_routed_as_simulated(route, images, logits, rule, sizes, rounding):
    """Pictures leave, and are told, in batches of these sizes as the stored logits say: nearly all of them, and each
    that lies within rounding of no threshold and not between two classes."""
    tops = [early_exit.probable(z, t).topk(2).values for z, t in zip(logits, rule.temperatures, strict=True)]
    first, second = torch.stack(tops).unbind(2)  # K×N
    margins = (first - torch.tensor(rule.thresholds)[:, None]).abs().minimum(first - second)
    clear = margins.amin(0) > rounding
    simulated = early_exit.simulate(logits, rule)
    for size in sizes:
        found = [route(batch) for batch in images.split(size)]
        for kind in simulated._fields:
            whole = torch.cat([getattr(routed, kind) for routed in found])
            same = whole == getattr(simulated, kind)
            assert same[clear].all(), (size, kind)
            assert same.float().mean() > 0.98, (size, kind)


@pytest.mark.slow
def test_the_size_of_the_batch_decides_nothing_beyond_rounding(trained):
    quick, images, logits = trained
    few, rule = images[:128], list(rules(logits))[2]
    route = partial(early_exit.route, quick, rule=rule)
    assert_routed_as_simulated(route, few, [z[:128] for z in logits], rule, (1, 2, 7, 128), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5, 100, 360])
def test_routing_computes_a_segment_for_those_alone_who_stay(trained, count):
    """On a CPU for no more."""
    quick, images, logits = trained
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


@pytest.mark.slow
def test_the_host_waits_once_in_each_segment_at_most(trained):
    quick, images, logits = trained
    counts = []
    for rule in rules(logits):
        with Waits() as waits:
            early_exit.route(quick, images, rule)
        counts.append(waits.count)
    assert max(counts) == 2  # of three segments


def assert_router_simulates(folder, images, machine, compiled, sizes, rounding):
    """Routing gives what simulation gives on the logits of all pictures, computed in the same precision."""
    model = saved.load(exit_file.files_in(folder))
    with torch.inference_mode(), machine.autocast():
        logits = [z.float() for z in asking.ready(model, machine.devices)(images)]
    rule = list(rules(logits))[2]
    route = routing.router(model, rule, machine, compiled)
    assert_routed_as_simulated(route, images, logits, rule, sizes, rounding)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "rounding"), [("float", 0.0), ("bf16", 0.01)])
def test_routing_is_simulation_in_the_same_precision(validated, tested, precision, rounding):
    assert_router_simulates(validated[1], tested.images, Machine(CPU, precision), False, (360, 128, 7), rounding)


@pytest.mark.slow
def test_compiled_code_routes_alike_and_is_not_made_anew_for_each_size(validated, tested):
    if not arithmetic.compiles(CPU[0]):
        pytest.skip("no compiler works here")
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=8):  # routing raises it; pytest's own patch would leave it hidden
        assert_router_simulates(validated[1], tested.images, ON_CPU, True, (360, 128, 7, 5, 2, 1), 1e-5)
    assert counters["stats"]["unique_graphs"] <= 3 * len(EXITS)  # two of a segment, one of a head


def test_pictures_without_a_number_leave_at_the_first_exit():
    rule = Rule(EXITS, (1.0,) * 3, (0.5, 0.5, 0.0))
    nothing = [torch.full((4, 10), torch.nan)] * 3
    assert early_exit.simulate(nothing, rule).exits.tolist() == [0] * 4
    broken = network().eval()
    images = torch.full((4, 3, 32, 32), torch.nan)
    assert early_exit.route(broken, images, rule).exits.tolist() == [0] * 4


def test_multiply_adds_count_the_heads_on_the_way():
    configuration = names.parse("AuxResNet-14-3")
    found = networks.macs_to_exits(configuration, networks.build(configuration, 10), 32)
    alone = [networks.cost(configuration, 10, position, 32).macs for position in EXITS]
    assert found == [alone[0], alone[1] + 160, alone[2] + 160 + 320]
