"""The benchmarks still know the parts that they measure."""

import importlib
import importlib.util
from pathlib import Path

import pytest

from benchmarks import clusters, scaling, timing

NEEDS = {"fuzz": "atheris"}  # packages that are not required anywhere
MODULES = sorted(path.stem for path in Path(clusters.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_can_be_imported(module: str):
    if module in NEEDS and not importlib.util.find_spec(NEEDS[module]):
        pytest.skip(f"{NEEDS[module]} is not installed")
    importlib.import_module(f"benchmarks.{module}")


def builds_nothing():
    raise SystemExit


def test_a_case_that_cannot_be_built_is_not_waited_for():
    with pytest.raises(SystemExit, match="the case whole ended before it was measured"):
        timing.interleaved({"whole": builds_nothing}, rounds=1)


def test_what_a_step_is_made_of_and_what_processes_tell_each_other_is_counted():
    step, numbers = clusters.counted("ResNet-8"), scaling.told("ResNet-8")
    statistics = step.statistics / 4  # bytes of float32
    assert numbers == step.gradients / 4 + statistics + 2  # the loss, and the wrong answers of the one exit
    assert step.picture > 0 and step.muon > 0 and statistics > 0
