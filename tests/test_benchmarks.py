"""The benchmarks still know the parts that they measure."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from benchmarks import clusters, scaling, timing
from programs import FORKS

NEEDS = {"fuzz": "atheris"}  # packages that are not required anywhere
MODULES = sorted(path.stem for path in Path(clusters.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_can_be_imported(module: str):
    if module in NEEDS and not importlib.util.find_spec(NEEDS[module]):
        pytest.skip(f"{NEEDS[module]} is not installed")
    importlib.import_module(f"benchmarks.{module}")


def takes_a_second():
    return lambda: 1.0


def builds_nothing():
    raise SystemExit


def cannot_run():
    return sys.exit


@pytest.mark.parametrize("broken", [builds_nothing, cannot_run])
def test_a_case_that_fails_is_not_waited_for(broken, monkeypatch):
    monkeypatch.setattr(timing.multiprocessing, "get_context", lambda _: FORKS)  # which have imported PyTorch
    with pytest.raises(SystemExit, match="the case second ended before it was measured"):
        timing.interleaved({"first": takes_a_second, "second": broken}, rounds=1)


def takes_longer_now_and_then():
    return iter((50.0, 50.0, 1.0, 2.0, 9.0)).__next__  # the first two are to warm up


def test_cases_are_compared_by_their_medians(monkeypatch):
    monkeypatch.setattr(timing.multiprocessing, "get_context", lambda _: FORKS)
    assert timing.interleaved({"first": takes_longer_now_and_then}, rounds=3) == {"first": 2.0}


def test_what_a_step_is_made_of_and_what_processes_tell_each_other_is_counted():
    step, numbers = clusters.counted("ResNet-8"), scaling.told("ResNet-8")
    statistics = step.statistics / 4  # bytes of float32
    assert numbers == step.gradients / 4 + statistics + 2  # the loss, and the wrong answers of the one exit
    assert step.picture > 0 and step.muon > 0 and statistics > 0
