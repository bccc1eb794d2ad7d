"""The trained networks of `pretrained/` are what their tables say."""

import csv
import json
import os
from pathlib import Path

import pytest

from benchmarks import published
from formats import exit_file, log_file
from inference import policies, saved
from models import names
from models.networks import cost
from programs import PROJECT, script
from reports import destination, page
from reports.tables import amount, exit_errors

FOLDERS = published.runs()
POLICIES = [folder for folder in FOLDERS if (folder / destination.POLICY).exists()]
DATA = Path(os.environ.get("AUXRESNET_DATA", PROJECT / "data"))


def test_there_are_some():
    assert FOLDERS
    assert POLICIES


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PROJECT)))
def test_files_logs_and_tables_agree(folder):
    files = exit_file.files_in(folder)
    headers = {position: exit_file.read_header(path) for position, path in files.items()}
    last = list(csv.DictReader((folder / "log.csv").open()))[-1]
    for position, header in headers.items():
        assert header["error"] == pytest.approx(float(last[f"{header['errorOn']}_error_{position}"]), abs=0.005)
    assert saved.load(files).network.exits == tuple(files)
    errors = exit_errors(list(files), list(published.test_errors(folder).values()))
    assert errors.replace(" ", ", ").replace(":,", ":") in (PROJECT / "pretrained" / "README.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PROJECT)))
def test_errors_on_test_pictures_are_there(folder):
    validates = {exit_file.read_header(path)["errorOn"] == "validation" for path in exit_file.files_in(folder).values()}
    assert validates == {(folder / "test.json").exists()}
    assert list(published.test_errors(folder)) == list(exit_file.files_in(folder))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PROJECT)))
def test_the_page_is_what_the_exit_files_say(folder):
    assert (folder / "README.md").read_text() == page.of_run(exit_file.files_in(folder))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PROJECT)))
def test_no_path_of_a_machine_is_in_them(folder):
    told = [exit_file.read_header(path)["options"] for path in exit_file.files_in(folder).values()]
    for options in [*told, json.loads((folder / "opt.json").read_text())]:
        assert not [value for value in options.values() if isinstance(value, str) and value.startswith(("/", "~"))]


@pytest.mark.slow
@pytest.mark.parametrize("folder", POLICIES, ids=lambda folder: str(folder.relative_to(PROJECT)))
def test_a_policy_is_at_hand_for_pictures_to_leave_early(folder):
    assert "/" not in policies.read(folder / destination.POLICY).dataset
    given = ("--policy", destination.POLICY, "--format", "csv", "--nGPU", "0")
    process = script("predict.py", folder, PROJECT / "docs" / "results.png", *given)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout.rpartition(",")[2]) in exit_file.files_in(folder)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(PROJECT)))
def test_its_exits_have_their_errors(folder, tmp_path):
    data = folder.name.split("-")[0]
    if not ((DATA / data.lower()).is_dir() or any(DATA.glob(f"cifar-{data.removeprefix('CIFAR')}-*"))):
        pytest.skip(f"{data} is not in {DATA}; AUXRESNET_DATA may name another folder")
    process = script("test.py", data, folder, "--exit", "all", "--json", tmp_path / "card.json", "--dataDir", DATA)
    assert process.returncode == 0, process.stderr
    found = {row["position"]: row["error_percent"] for row in json.loads((tmp_path / "card.json").read_text())["exits"]}
    assert found == pytest.approx(published.test_errors(folder), abs=0.03)


def rows(page):
    """The cells of each row of the tables of a page."""
    lines = (PROJECT / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_rows_that_name_a_network_and_its_epochs_have_its_errors():
    """That of its last exit, and one row those of all exits and the training error."""
    told = [*rows("README.md"), *rows("TRAINING.md")]
    for folder in FOLDERS:
        header = exit_file.read_header(next(iter(exit_file.files_in(folder).values())))
        network = [header["dataset"].replace("CIFAR", "CIFAR-"), header["name"]]
        of_it = [row for row in told if row[:2] == network and published.epochs(header) in row]
        assert of_it or header["name"] in ("AuxResNet-26-2", "ResNet-26"), folder  # which have tables of their own
        errors = {position: f"{error:.2f}" for position, error in published.test_errors(folder).items()}
        assert all(errors[max(errors)] in row for row in of_it), of_it
        trained = log_file.read(folder)[-1][log_file.error_column("train", max(errors))]
        whole = {*errors.values(), f"{trained:.2f}"}
        assert not of_it or any(whole <= set(row) for row in of_it), folder


def test_the_first_table_is_that_of_its_networks():
    network = names.parse("AuxResNet-56-5")
    costs = {position: cost(network, 10, position, 32) for position in network.exits}
    folders = [PROJECT / "pretrained" / place / "CIFAR10-AuxResNet-56-5" for place in ("", "depth")]
    alike, by_depth = map(published.test_errors, folders)
    expected = [
        [str(position), amount(price.parameters), amount(price.macs)]
        + [f"{errors[position]:.2f} %" for errors in (alike, by_depth)]
        for position, price in costs.items()
    ]
    assert rows("README.md")[2 : 2 + len(expected)] == expected
