"""One exit as the content of a file that runs without this program: a .pt2 of torch.export, or an ONNX file; and what
goes into other such files. `inference/exported.py` says what is in them.
"""

import io
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils import parametrize

from inference.classifier import Classifier, card_of
from inference.exported import CARD, INPUT, OUTPUT, black, quiet
from inference.saved import SavedModel
from models.folding import folded
from system.errors import failures_as, reason


def content(model: SavedModel, suffix: str, half: bool = False) -> bytes:
    """The last exit of a saved model as the content of a `.pt2` or `.onnx` file; with `half` its weights are kept in 16
    bits, which halves the file, and widened to 32 when it runs."""
    classifier = Classifier(folded(model.network), model.normalise, card_of(model.header))
    if half:
        halve(classifier)
    text = json.dumps(classifier.card)
    traced = program(classifier, black(model.sizing, 2), any_number=True)
    return _as_pt2(traced, text) if suffix == ".pt2" else as_onnx(traced, [INPUT], [OUTPUT], text)


class _Widened(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()


def halve(module: nn.Module) -> None:
    """Keep the weights of convolutions and linear layers in 16 bits, in place; nearly all of a network is in them."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight = nn.Parameter(layer.weight.half(), requires_grad=False)
            parametrize.register_parametrization(layer, "weight", _Widened(), unsafe=True)  # unsafe: of another type


def program(module: nn.Module, example: Tensor, any_number: bool) -> ExportedProgram:
    """A module of one input as a graph of operators, without a trace of where it was made. With `any_number` it takes
    batches of any size; the example is then one of two or more, because 1 would be taken for a constant."""
    shapes = ({0: Dim("N", min=1)},) if any_number else None
    with torch.no_grad():
        traced = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
    for node in traced.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):  # paths of the machine, classes
            node.meta.pop(name, None)
    return traced


def _as_pt2(program: ExportedProgram, text: str) -> bytes:
    program.example_inputs = None  # they would be pickled
    content = io.BytesIO()
    with quiet():
        torch.export.save(program, content, extra_files={CARD: text})
    return content.getvalue()


def as_onnx(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], text: str) -> bytes:
    """A program as the content of an ONNX file, with these names for what goes in and comes out, and the text of a card
    in its metadata."""
    with quiet(), packages():
        import onnx_ir

        model = torch.onnx.export(
            program, dynamo=True, input_names=list(inputs), output_names=list(outputs), verbose=False
        ).model
        for value in list(model.graph.initializers.values()):  # weights, all of them in the outermost graph
            graphs = {use.node.graph for use in value.uses()}
            if len(graphs) == 1 and model.graph not in graphs:  # runtimes optimise no branch around foreign weights
                model.graph.initializers.pop(value.name)
                graphs.pop().register_initializer(value)
        for node in model.graph.all_nodes():
            node.metadata_props.clear()  # names of files and classes of the exporter
        model.metadata_props[CARD] = text
        return onnx_ir.to_proto(model).SerializeToString()


def packages() -> AbstractContextManager[None]:
    """While open, what the packages fail at that write ONNX files, whose versions may not fit together, is told in one
    line. Raises UserError."""
    return failures_as(
        lambda error: (
            f"no ONNX file could be made: {type(error).__name__}: {reason(error)}; versions of its packages "
            "that fit together may help: pip install -U -r requirements-export.txt"
        )
    )
