"""How long pictures take."""

import time

import pytest
import torch

from inference.latency import latencies, throughputs, timed_batch_size
from system.machine import ON_CPU


def test_times_are_measured(monkeypatch):
    now, sizes = [0.0], set()
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(torch.nn.Module):
        """Takes some milliseconds for each picture."""

        def __init__(self, milliseconds):
            super().__init__()
            self.milliseconds = milliseconds

        def forward(self, images):
            now[0] += self.milliseconds / 1000 * len(images)
            sizes.add(len(images))
            return [torch.zeros(len(images), 10)]

    models = [Slow(4), Slow(5)]
    assert latencies(models, 32, ON_CPU) == [pytest.approx((time,) * 3) for time in (4, 5)]
    assert throughputs(models, 32, ON_CPU) == pytest.approx([250, 200])
    assert sizes == {1, 128}
    assert [timed_batch_size(side) for side in (32, 64, 224)] == [128, 32, 16]
