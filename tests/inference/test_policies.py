"""The files of policies: written, read, checked."""

import json
import os

import pytest
import torch

from examples import MACS, network, synthetic
from inference import calibration, policies
from inference.calibration import Goal
from models.folding import folded
from system.errors import UserError


@pytest.fixture
def written(tmp_path):
    """A policy for `examples.network()`, and the file that it is written in."""
    held, path = synthetic(500), tmp_path / "policy.json"
    policy = calibration.make_policy(Goal("maxErrorIncrease", 2, 0.9), held, network(), MACS, MACS)
    path.write_bytes(policies.as_json(policy))
    return policy, path


def test_a_policy_is_read_as_it_was_written(written):
    policy, path = written
    assert policies.read(path) == policy
    policies.check_fits(path, policy, network())
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "formatVersion": 2, "protocol": "confidence"}))  # as version 2 wrote it
    assert policies.read(path) == policy
    del content["protocol"]
    path.write_text(json.dumps({**content, "formatVersion": 1}))
    assert policies.read(path) == policy
    assert [entry.name for entry in path.parent.iterdir()] == ["policy.json"]


def test_a_policy_fits_one_network(written):
    policy, path = written
    other = network()
    with torch.no_grad():
        other.stem.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(UserError, match=r"policy\.json is a policy for a network of other weights"):
        policies.check_fits(path, policy, other)
    with pytest.raises(UserError, match="for exits 5, 9, 14, the network has 7, 14"):
        policies.check_fits(path, policy, network("AuxResNet-14-2"))
    assert policies.fingerprint(network()) != policies.fingerprint(folded(network()))


ODD = {
    "positions": [[5], [9, 5, 14], [5, 9, "14"], 5, None, [True, 9, 14], [0, 9, 14], [5, 5, 14]],
    "temperatures": [[1, 1], [1, 1, 0], [1, 1, float("nan")], [1, 1, float("inf")], ["1", 1, 1], {}, [1, 1, 10**400]],
    "thresholds": [[0.5, 0.5], [0.5, 0.5, 0.5], [0.5, -1, 0], [3, 0.5, 0], [0.5, None, 0]],
    "model": [None, 3],
    "dataset": [["DIGITS"]],
    "pictures": [0, 499, 500.0, True, "500"],
    "error": [-1, 101, None, float("nan")],
    "macs": [0, "many", 1e400],
    "histogram": [[500], [1, 1, 1], [-1, 1, 500], [250.0, 250.0, 0.0]],
    "criterion": ["speed", None, ["budgetMs"], {}],
    "limit": [-1, None, float("inf")],
    "confidence": [None, 2, "0.9", False],
    "protocol": ["none", None, ["msdnet"], "confidence"],
    "formatVersion": [0, 4, True, None, [1]],
    "format": ["auxresnet-exit", None],
    "more": [1],
}


TOLD = {  # where it is not that the field cannot be so
    "formatVersion": "has format version",
    "format": "is not a policy",
    "more": "is damaged: it has more",
    "positions": "is damaged: its (positions|temperatures) cannot be",
    "pictures": "is damaged: its (pictures|histogram) cannot be",
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in ODD.items() for value in values])
def test_an_odd_policy_is_refused_in_one_line(written, field, value):
    _, path = written
    text = json.dumps(value)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    words = TOLD.get(field, f"is damaged: its {field} cannot be")
    if len(text) > 100 or "NaN" in text or "Infinity" in text:  # not taken for numbers at all
        words = "cannot be read as a policy: "
    with pytest.raises(UserError, match=rf"policy\.json {words}") as refused:
        policies.read(path)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"{}"])
def test_what_is_no_policy_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "policy.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"policy\.json"):
        policies.read(path)
    with pytest.raises(UserError, match=r"no\.json cannot be read as a policy: No such file"):
        policies.read(tmp_path / "no.json")


def test_what_is_larger_than_any_policy_is_told_so(written):
    _, path = written
    path.write_text(path.read_text() + " " * policies.MAX_BYTES)
    with pytest.raises(UserError, match=r"policy\.json has more than 1,048,576 bytes, and no policy has as many"):
        policies.read(path)


def test_a_policy_lacks_nothing(written):
    _, path = written
    content = json.loads(path.read_text())
    for field in content:
        path.write_text(json.dumps({name: value for name, value in content.items() if name != field}))
        with pytest.raises(UserError, match=r"policy\.json"):
            policies.read(path)


def test_a_pipe_in_place_of_a_policy_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "policy.json")
    with pytest.raises(UserError, match=r"policy\.json is no regular file"):
        policies.read(tmp_path / "policy.json")
