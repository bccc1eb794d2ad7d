"""What a policy gives, told in tables and words."""

from inference import latency
from programs import rows_of
from reports import adaptive
from reports.adaptive import Contender

# Two exits alone, and two points of the sweep.
ROWS = [
    {"exit": 5, "threshold": None, "macs": 10_000_000, "error": 40.0},
    {"exit": 14, "threshold": None, "macs": 30_000_000, "error": 20.0},
    {"exit": None, "threshold": 0.0, "macs": 10_000_000.0, "error": 40.0},
    {"exit": None, "threshold": 2.0, "macs": 30_000_000.0, "error": 20.0},
]


def test_the_rule_of_each_exit_is_told_and_who_leaves_there():
    first, last = rows_of(adaptive.describe(ROWS, (1.5, 0.75), (0.625, 0.0), (30, 90)))
    assert first == {
        "exit": "5",
        "temperature": "1.500",
        "threshold": "0.625000",
        "leave here": "25.0 %",
        "multiply-adds": "10.0 M",
        "error alone": "40.00 %",
    }
    assert (last["exit"], last["threshold"], last["leave here"]) == ("14", "everybody", "75.0 %")
    first, _ = rows_of(adaptive.describe(ROWS, (1.5, 0.75), (2.0, 0.0), (0, 120)))
    assert (first["threshold"], first["leave here"]) == ("nobody", "0.0 %")


def test_a_policy_is_told_beside_the_last_exit_and_chance():
    """Of the neighbouring exits a quarter of the pictures would go to the last one, for as many multiply-adds."""
    policy, others = adaptive.verdict(ROWS, 15e6, 31.0, 120, "DIGITS validation").splitlines()
    assert policy == "policy: error 31.00 % at 15.0 M multiply-adds on average, on 120 pictures (DIGITS validation)"
    assert others == "the last exit: 20.00 % at 30.0 M; neighbouring exits at random: 35.00 % at 15.0 M"


def test_times_one_by_one_are_compared_by_their_means():
    """Where most pictures leave at the first exit, the median is the time of that, whatever the others take."""
    policy, last = latency.of([0.001] * 51 + [0.005] * 49), latency.of([0.006] * 100)
    rows = [Contender("policy", 5.0, 1e6, 100.0, *policy), Contender("exit 14", 5.0, 2e6, 50.0, *last)]
    told = adaptive.routed(rows, (5, 14), (51, 49)).splitlines()[-1]
    assert "2.00 times as fast in batches, 2.03 times one by one" in told
