"""What is said of options that may be given together, and change nothing."""

import pytest

import main
import opts
from options import rules
from programs import together
from runs import SMALL


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--data CIFAR10 --padding reflect --alternateFlip true", None),
        ("--data CIFAR10 --svhnExtra false", "--svhnExtra false changes nothing: it is for SVHN"),
        ("--data SVHN --svhnExtra false", None),
        ("--data SVHN --recipe long", None),
        ("--data SVHN --padding mean", "--padding mean changes nothing: pictures of SVHN are not cropped at random"),
        ("--data DIGITS --padding mean --recipe fast", None),
        (
            "--data DIGITS --alternateFlip true",
            "--alternateFlip true changes nothing: pictures of DIGITS are not mirrored",
        ),
        ("--nOutputs 1 --exitSchedule deepen", "--exitSchedule deepen changes nothing: there is a single exit"),
        ("--syncBN true", "--syncBN true changes nothing: there is a single process; torchrun starts several"),
        ("--nOutputs 2 --exitSchedule deepen", None),
    ],
)
def test_options_that_change_nothing_are_named(line, told):
    """But not those that a recipe sets."""
    options = opts.parse(line.split())
    assert rules.idle(opts.stated(vars(options)), options) == told


@pytest.mark.slow
def test_a_run_says_so_when_it_begins(tmp_path, capsys):
    line = [*SMALL, "--nEpochs", "1", "--svhnExtra", "false", "--alternateFlip", "true", "--save", str(tmp_path)]
    told = "--svhnExtra false changes nothing: it is for SVHN; --alternateFlip true changes nothing: pictures of DIGITS"
    for more, times in (([], 1), (["--resume"], 0)):
        main.main([*line, *more])
        assert capsys.readouterr().err.count(told) == times


def told_of_sync_norms():
    options = opts.parse(["--syncBN", "true"])
    return rules.idle(opts.stated(vars(options)), options)


def test_whole_batches_change_something_for_several_processes():
    assert together(2, told_of_sync_norms) == [None, None]
