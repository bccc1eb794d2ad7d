"""The time of an epoch, divided among the parts of its work."""

import pytest

from training.clock import Clock


class Now:
    """A clock that goes on when it is told."""

    seconds = 100.0

    def __call__(self):
        return self.seconds


def test_time_is_counted_for_the_innermost_part_and_otherwise_for_the_others():
    now = Now()
    clock = Clock(now)
    now.seconds += 7
    clock.start()
    now.seconds += 1
    with clock.on("training"):
        now.seconds += 2
        with clock.on("other"):
            now.seconds += 4
        now.seconds += 8
        assert clock.seconds() == {"training": 10, "testing": 0, "other": 5}
    with pytest.raises(KeyError), clock.on("testing"):
        now.seconds += 16
        raise KeyError
    now.seconds += 32
    assert clock.seconds() == {"training": 10, "testing": 16, "other": 37}


def test_a_clock_goes_on_from_what_was_saved():
    saved = {"training": 1.5, "testing": 2.0, "other": 0.0}
    assert Clock.restored(saved).seconds() == pytest.approx(saved, abs=0.3)
    assert saved == {"training": 1.5, "testing": 2.0, "other": 0.0}
    assert Clock.restored(3.5).seconds()["training"] == 3.5  # of a version that knew no parts
