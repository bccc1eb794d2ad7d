"""A whole network and its policy as one ONNX file: it answers as the network does, and really skips what lies behind
an exit."""

import json

import numpy as np
import pytest
import torch

from examples import early_answers
from programs import PROJECT
from runs import EXITS, NAME

pytestmark = pytest.mark.slow


def test_one_file_answers_picture_by_picture_as_the_network_does(early_files, early_model, early_policy, tested):
    """Asked as an application asks it, with onnxruntime alone."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(early_files[0])
    images = tested.images[:60]
    answers = [session.run(["probabilities", "position"], {"images": image[None]}) for image in images.numpy()]
    probabilities, positions = (torch.from_numpy(np.concatenate(part)) for part in zip(*answers, strict=True))
    right = early_answers(early_model, early_policy[0], images)
    torch.testing.assert_close(probabilities, right[0], atol=1e-5, rtol=0)
    assert positions.tolist() == right[1].tolist()
    assert set(positions.tolist()) == set(EXITS)


def test_what_lies_behind_an_exit_is_in_a_branch(early_files, early_model):
    """So it is not computed for those that leave: outside are the convolutions up to the first exit, and no others,
    and so on inwards."""
    onnx = pytest.importorskip("onnx")
    graph, depth = onnx.load(early_files[0]).graph, 0
    for segment, _ in early_model.network.by_exit():
        convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in segment.modules())
        assert [node.op_type for node in graph.node].count("Conv") == convolutions
        branches = [attribute.g for node in graph.node if node.op_type == "If" for attribute in node.attribute]
        depth += bool(branches)
        graph = next((branch for branch in branches if len(branch.node) > 2), None)
    assert (graph, depth) == (None, 2)


def test_weights_lie_where_they_are_used(early_files):
    """A runtime optimises the convolutions of a branch only if their weights are in that branch."""
    onnx = pytest.importorskip("onnx")

    def graphs(graph):
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from graphs(attribute.g)

    for graph in graphs(onnx.load(early_files[0]).graph):
        inside = {weight.name for weight in graph.initializer}
        assert all(node.input[1] in inside for node in graph.node if node.op_type == "Conv")


def test_one_file_says_what_it_is(early_files, early_policy):
    onnx = pytest.importorskip("onnx")
    content = early_files[0].read_bytes()
    card = json.loads({entry.key: entry.value for entry in onnx.load(early_files[0]).metadata_props}["AuxResNet"])
    assert (card["name"], card["dataset"], card["position"]) == (NAME, "DIGITS", 14)
    assert card["classes"] == [str(digit) for digit in range(10)]
    assert tuple(card["policy"]["thresholds"]) == early_policy[0].thresholds
    assert card["policy"]["model"] == early_policy[0].model
    for word in (str(PROJECT), "site-packages", "Conditional"):
        assert word.encode() not in content
