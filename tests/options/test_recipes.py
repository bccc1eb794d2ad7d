"""Recipes and data sets as sets of defaults, and how many epochs a recipe is meant for."""

import opts
from options.recipes import outside_recipe


def test_a_recipe_is_a_set_of_defaults():
    plain, fast, long = (opts.parse(line.split()) for line in ("", "--recipe fast", "--recipe long"))
    assert plain == opts.parse(["--recipe", "Paper"])
    assert (plain.schedule, plain.optimizer, plain.nEpochs) == ("step", "sgd", 400)
    assert (plain.precision, plain.compile) == ("float", False)
    assert (fast.schedule, fast.optimizer, fast.nEpochs) == ("onecycle", "muon", 30)
    assert (fast.precision, fast.compile) == ("auto", "auto")
    assert vars(long).items() - vars(fast).items() == {
        ("recipe", "long"), ("nEpochs", 60), ("padding", "reflect"), ("cutout", 12)
    }  # fmt: skip
    assert opts.parse(["--recipe", "fast", "--LR", "0.03", "--schedule", "cosine"]).LR == 0.03


def test_a_data_set_wins_over_a_recipe_and_what_is_given_over_both():
    fast = opts.parse("--recipe fast --data DIGITS --LR 0.3".split())
    assert (fast.nEpochs, fast.LR, fast.optimizer, fast.widen) == (8, 0.3, "muon", 1)


def test_a_recipe_is_meant_for_a_range_of_epochs():
    for line in ("", "--recipe fast", "--recipe long"):
        assert outside_recipe(opts.parse(line.split())) is None
    for recipe, meant, epochs, advice in (
        ("fast", "5 to 40", 2, "TRAINING.md says what was tried"),
        ("fast", "5 to 40", 60, "--recipe long is meant for that"),
        ("fast", "5 to 40", 400, "TRAINING.md says what was tried"),
        ("long", "40 to 120", 30, "--recipe fast is meant for that"),
    ):
        note = outside_recipe(opts.parse(["--recipe", recipe, "--nEpochs", str(epochs)]))
        assert note.startswith(f"--recipe {recipe} is meant for {meant} epochs, this run has {epochs}; {advice}")
