"""Names <-> configurations, positions of exits, exit weights."""

import pytest

from models import exits, names
from system.errors import UsageError

PUBLISHED = {
    "AuxResNet-26-2/10": (26, (19, 26), 10, 0.0, "B"),
    "AuxResNet-44-2": (44, (39, 44), 1, 0.0, "A"),
    "AuxResNet-56-2": (56, (45, 56), 1, 0.0, "A"),
    "AuxResNet-56-3": (56, (35, 45, 56), 1, 0.0, "A"),
    "AuxResNet-56-5": (56, (15, 25, 35, 45, 56), 1, 0.0, "A"),
    "AuxResNet-44-2-dropout": (44, (39, 44), 1, 0.3, "A"),
    "AuxResNet-56-2-dropout": (56, (45, 56), 1, 0.3, "A"),
    "AuxResNet-56-3-dropout": (56, (35, 45, 56), 1, 0.3, "A"),
    "ResNet-110": (110, (110,), 1, 0.0, "A"),
    "ResNet-1001": (1001, (1001,), 1, 0.0, "A"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names(name):
    configuration = names.parse(name)
    assert configuration == names.Configuration(*PUBLISHED[name])
    assert configuration.name == name


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("AuxResNet", "AuxResNet-<depth>"),
        ("ResNet-57", "nearest: 50, 56, 62"),
        ("AuxResNet-56-1", "written ResNet-56"),
        ("AuxResNet-56-2/1", "written AuxResNet-56-2"),
        ("AuxResNet-56-99", "1 to 27"),
        ("AuxResNet-056-2", "written AuxResNet-56-2"),
        ("AuxResNet-56-2/999", "between 1 and 100"),
        ("../AuxResNet-56-2", "no network name"),
        ("AuxResNet-56-2\0", "no network name"),
        ("AuxResNet-٥٦-2", "no network name"),
        ("", "no network name"),
    ],
)
def test_bad_names_are_refused_with_what_is_legal(name, word):
    with pytest.raises(UsageError, match=word):
        names.parse(name)


def test_positions_are_one_per_block_and_end_at_the_depth():
    assert exits.positions(8) == (3, 5, 8)  # one basic block a stage
    assert exits.positions(29) == (4, 7, 10, 13, 16, 19, 22, 25, 29)  # three bottleneck blocks a stage
    for depth in (20, 56, 110, 164, 1001):
        layers = exits.layers_per_block(depth)
        assert len(exits.positions(depth)) == (depth - 2) // layers
        assert exits.positions(depth)[-1] == depth


def test_depths_of_both_forms_are_as_published():
    assert [exits.layers_per_block(depth) for depth in (20, 56, 110)] == [2, 2, 2]
    assert [exits.layers_per_block(depth) for depth in (164, 1001)] == [3, 3]
    assert exits.layers_per_block(1202) == 2  # 6n + 2 alone


def test_other_exits_are_spread_evenly():
    assert exits.spread(20, 3) == (7, 13, 20)
    assert exits.spread(20, 9) == exits.positions(20)
    assert exits.spread(110, 2) == (55, 110)


def test_given_exits_are_sorted_and_checked():
    assert names.configure(56, 3, (56, 15, 35)).exits == (15, 35, 56)
    for given, word in [((16, 56), "15, 17"), ((15, 15, 56), "twice"), ((15, 35), "add 56"), ((55, 56), "nearest")]:
        with pytest.raises(UsageError, match=word):
            names.configure(56, len(given), given)
    with pytest.raises(UsageError, match="contradicts"):
        names.configure(56, 2, (15, 35, 56))


def test_run_folder():
    assert names.run_folder("CIFAR10", names.parse("AuxResNet-26-2/10")) == "CIFAR10-AuxResNet-26-2-w10"
    assert names.run_folder("SVHN", names.parse("AuxResNet-44-2-dropout")) == "SVHN-AuxResNet-44-2-dropout"


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ({"exits": (15, 56)}, "D-AuxResNet-56-2-exits-15-56"),
        ({"dropout": 0.1}, "D-AuxResNet-56-2-dropout-0.1"),
        ({"dropout": 1e-05}, "D-AuxResNet-56-2-dropout-1e-05"),
        ({"dropout": 0.12345671}, "D-AuxResNet-56-2-dropout-0.12345671"),
        ({"shortcut": "B"}, "D-AuxResNet-56-2-shortcut-B"),
        (
            {"exits": (15, 56), "dropout": 0.25, "widen": 4, "shortcut": "A"},
            "D-AuxResNet-56-2-w4-dropout-0.25-exits-15-56-shortcut-A",
        ),
        ({"exits": (45, 56), "dropout": 0.3, "shortcut": "A"}, "D-AuxResNet-56-2-dropout"),
    ],
)
def test_folders_tell_networks_of_one_name_apart_and_are_found_by_their_own_spelling(options, folder):
    assert names.run_folder("D", names.configure(56, 2, **options)) == folder
    assert names.folder_called("D", folder) == folder
    assert names.folder_called("D", folder.removeprefix("D-")) == folder
    assert names.folder_called("D", f"d-{folder.removeprefix('D-')}") == folder  # as the data set may be written


def test_a_run_is_found_by_the_name_of_its_network():
    for model in ("AuxResNet-26-2/10", "AuxResNet-26-2-w10", "CIFAR10-AuxResNet-26-2-w10"):
        assert names.folder_called("CIFAR10", model) == "CIFAR10-AuxResNet-26-2-w10"
    for data in ("ResNet", "AuxResNet"):  # folders of pictures may be called so
        for model in ("ResNet-44", f"{data}-ResNet-44"):
            assert names.folder_called(data, model) == f"{data}-ResNet-44"
    for model in ("AuxResNet-26-2-w1", "AuxResNet-26-2-exits", "AuxResNet-26-2/../..", "SVHN-ResNet-20", "-", ""):
        with pytest.raises(UsageError):
            names.folder_called("CIFAR10", model)


def test_loss_weights():
    assert exits.loss_weights("sum", (45, 56)) == (1.0, 1.0)
    assert exits.loss_weights("depth", (45, 56)) == ((45 / 56) ** 2, 1.0)
    assert exits.loss_weights((0.5, 1), (45, 56)) == (0.5, 1)
    with pytest.raises(UsageError, match="3 numbers"):
        exits.loss_weights((1, 1, 1), (45, 56))


@pytest.mark.parametrize(("field", "value"), [("dropout", 1.5), ("dropout", -0.1), ("shortcut", "C")])
def test_fields_that_no_network_has_are_refused(field, value):
    fields = {"depth": 8, "exits": [5, 8], "widen": 1, "dropout": 0.0, "shortcut": "A"}
    assert names.from_fields(fields).name == "AuxResNet-8-2"
    with pytest.raises(UsageError, match="is not one of a network"):
        names.from_fields({**fields, field: value})


def test_a_network_of_another_data_set_is_told():
    with pytest.raises(UsageError, match=r"^CIFAR100-AuxResNet-56-2 is a network of CIFAR100, not of CIFAR10; .*path"):
        names.folder_called("CIFAR10", "CIFAR100-AuxResNet-56-2")
    with pytest.raises(UsageError, match="depth 57"):
        names.folder_called("CIFAR10", "CIFAR100-AuxResNet-57-2")


@pytest.mark.parametrize(
    "model", ["runs/s/CIFAR10-AuxResNet-26-2-w10", "runs/my-exits-5-8", "nothing", "CIFAR10-AuxResNet-26-2-w10/"]
)
def test_a_path_that_is_none_is_told_as_it_was_given(model):
    with pytest.raises(UsageError, match=f"^'{model}' is neither a network's name nor the path"):
        names.folder_called("CIFAR10", model)
