"""An ONNX file in 8-bit integers: ranges of activations are measured on training pictures, then weights and activations
are rounded to 256 levels (onnxruntime's static quantisation)."""

from collections.abc import Iterable
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from datasets import catalog, splits
from inference import asking, evaluation
from inference.exported import INPUT, quiet
from inference.exporting import packages
from inference.saved import SavedModel
from system import files

PICTURES, BATCH = 512, 64


def training_pictures(model: SavedModel, data: str, root: Path) -> Tensor:
    """Training pictures of all classes to measure ranges on, `PICTURES` or as many as there are, N×side×side×3."""
    found = splits.some_for_training(catalog.find(data, root, extra=False, sizing=model.sizing), PICTURES)
    asking.check_same_classes(model, found, data)
    return found.images


class _Batches(CalibrationDataReader):
    def __init__(self, batches: Iterable[Tensor]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, object] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch.numpy()}


def int8(content: bytes, images: Tensor) -> bytes:
    """The content of an ONNX file with convolutions and linear layers in 8 bits, ranges measured on these pictures."""
    with packages(), files.temporary_folder() as place, quiet():
        whole, prepared, small = (place / f"{name}.onnx" for name in ("whole", "prepared", "small"))
        whole.write_bytes(content)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            small,
            _Batches(images.split(evaluation.batch_size(images.shape[1], BATCH))),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "Add"],
        )
        result = onnx.load(small)
        for key in onnx.load(whole).metadata_props:
            if key.key not in {prop.key for prop in result.metadata_props}:
                result.metadata_props.append(key)
        return result.SerializeToString()
