"""A whole network as a folder that runs without this program: an ONNX file for each segment with its head, the policy,
a card, and `run.py`, which sends batches of pictures through them and is `inference/bundle_run.py` as it stands."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from inference import exported, exporting, policies
from inference.classifier import Answers, card_of
from inference.exported import INPUT
from inference.policies import Policy
from inference.saved import SavedModel
from models.folding import folded
from reports import destination
from system import files, strict

LOGITS = "logits"
ROUTER = Path(__file__).with_name("bundle_run.py")


class ToNextExit(nn.Module):
    """From one exit, or from the picture, to the next exit: gives the logits there and, unless it is the last exit, the
    features that the next file takes."""

    def __init__(self, segment: nn.Module, head: nn.Module, last: bool) -> None:
        super().__init__()
        self.segment, self.head, self.last = segment, head, last

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """N pictures or features -> N×classes logits, and N features for the next segment, if there is one."""
        x = self.segment(x)
        return (self.head(x),) if self.last else (self.head(x), x)


def contents(model: SavedModel, policy: Policy, half: bool) -> dict[str, bytes]:
    """The files of a bundle by name; `half` as for `exporting.content`."""
    made, x, taken = {}, exported.black(model.sizing, 2), INPUT
    for position, (segment, head) in zip(policy.positions, folded(model.network).by_exit(), strict=True):
        last, left = position == policy.positions[-1], f"after_{position}"
        first = [] if made else [model.normalise]
        part = ToNextExit(nn.Sequential(*first, segment), head, last)
        if half:
            exporting.halve(part)
        program, outputs = exporting.program(part, x, any_number=True), [LOGITS] if last else [LOGITS, left]
        text = json.dumps({"model": policy.model, "position": position})
        made[f"segment-{position}.onnx"] = exporting.as_onnx(program, [taken], outputs, text)
        with torch.no_grad():
            x, taken = part(x)[-1], left
    about = {**card_of(model.header), "model": policy.model, "files": list(made)}
    made["card.json"] = strict.dumps(about)
    return {**made, destination.POLICY: policies.as_json(policy), "run.py": ROUTER.read_bytes()}


def answers(contents: Mapping[str, bytes]) -> Answers:
    """What the router of a bundle says about N pictures, from the contents of its files."""
    with exporting.packages(), files.temporary_folder() as folder:
        from inference.bundle_run import Router  # imports onnxruntime

        for name, content in contents.items():
            (folder / name).write_bytes(content)
        router = Router(folder, exported.session_options())

    def ask(images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities, positions = router.route(images.numpy())
        return torch.from_numpy(probabilities).float(), torch.from_numpy(positions)

    return ask
