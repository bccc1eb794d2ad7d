"""One exit in every form that it can be shipped in: size, latency of one picture, pictures a second in batches.

python -m benchmarks.exported                                               # exit 45 of the pretrained AuxResNet-56-5
python -m benchmarks.exported path/to/run/exit-19.safetensors

"eager" is the network as its file has it, nothing folded and its weights in NCHW; "folded" is what test.py and
predict.py run. ".onnx" runs in onnxruntime.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import Case, interleaved, machine, timed
from formats import exit_file
from inference import asking, comparison, exported, exporting, quantised, saved
from inference.classifier import Classifier, card_of
from system.devices import CPU

EXIT = Path("pretrained/CIFAR10-AuxResNet-56-5/exit-45.safetensors")
FORMS = ("eager", "folded", ".pt2", ".pt2 --half", ".onnx", ".onnx --half", ".onnx --int8")
PASSES = {1: 40, 128: 2}  # batch size -> passes in a turn


def content(form: str, model: saved.SavedModel) -> bytes:
    """The file of a form that is exported; 8-bit ranges are those of noise, as they do not matter for speed."""
    suffix, _, option = form.partition(" ")
    whole = exporting.content(model, suffix, half=option == "--half")
    return quantised.int8(whole, comparison.noise(model).images) if option == "--int8" else whole


def built(form: str, model: saved.SavedModel) -> Callable[[Tensor], object]:
    """The exit in a form, which answers to N×side×side×3 uint8 in its own way."""
    if form == "eager":
        network = model.network.to(memory_format=torch.contiguous_format)
        return Classifier(network, model.normalise, card_of(model.header)).eval()
    if form == "folded":
        return asking.ready(model, [CPU])
    return exported.runnable(content(form, model), Path(f"model{form.split()[0]}")).answers


def case(form: str, path: Path, count: int) -> Case:
    """A form over `count` pictures, `PASSES` times."""
    model = saved.load({exit_file.position_of(path): path})
    run, side = built(form, model), model.sizing.side
    images = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)

    @torch.inference_mode()
    def work() -> None:
        for _ in range(PASSES[count]):
            run(images)

    return partial(timed, work)


def main() -> None:
    """Measure all forms in turn at both batch sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exit", nargs="?", type=Path, default=EXIT)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    seconds = {}
    for count in PASSES:
        cases = {form: partial(case, form, arguments.exit, count) for form in FORMS}
        seconds[count] = interleaved(cases, arguments.rounds, warm_up=1)
    model = saved.load({exit_file.position_of(arguments.exit): arguments.exit})
    print(f"{model.configuration.name}, {arguments.exit.name}; {machine()}; median of {arguments.rounds}\n")
    print(f"{'form':14}  {'MB':>5}  {'ms, batch 1':>11}  {'images/s, batch 128':>19}")
    for form in FORMS:
        size = len(content(form, model)) if form.startswith(".") else arguments.exit.stat().st_size
        latency, rate = (1000 * seconds[1][form] / PASSES[1], 128 * PASSES[128] / seconds[128][form])
        print(f"{form:14}  {size / 1e6:5.2f}  {latency:11.2f}  {rate:19,.0f}")


if __name__ == "__main__":
    main()
