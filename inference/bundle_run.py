"""Tell the classes of pictures: python run.py cat.png dog.jpg ...   Needs numpy, Pillow and onnxruntime only."""

import json
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

try:
    import numpy as np
    from onnxruntime import InferenceSession, SessionOptions
    from PIL import Image, ImageOps
except ImportError as missing:
    sys.exit(f"run.py: {str(missing).strip().splitlines()[0]}; pip install numpy pillow onnxruntime")

KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF")  # of files; for PostScript Pillow would run Ghostscript
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # how Pillow turns upright what a camera has marked as turned


def plain(text: object) -> str:
    """A text from a file as one line that does nothing to a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(text))


class Router:
    """The network in a folder, a file for each segment, and the policy by which pictures leave it."""

    def __init__(self, folder: Path, options: SessionOptions | None = None) -> None:
        self.card, policy = (json.loads((folder / name).read_bytes()) for name in ("card.json", "policy.json"))
        if self.card["model"] != policy["model"]:
            sys.exit("run.py: policy.json is a policy for another network")
        segments = [InferenceSession(str(folder / n), options, ["CPUExecutionProvider"]) for n in self.card["files"]]
        self.steps = list(zip(segments, *map(policy.get, ("positions", "temperatures", "thresholds")), strict=True))
        if self.card["fit"] not in ("crop", "squeeze"):
            raise ValueError(f"card.json has a fit of {self.card['fit']}")
        self.route(np.zeros((1, *self.card["input"][1:], 3), np.uint8), np.inf)  # raises where files do not fit

    def route(self, x: np.ndarray, least: float = 0) -> tuple[np.ndarray, np.ndarray]:
        """N×H×W×3 uint8 -> N×classes probabilities, and N positions of exits; below `least` only the last answers."""
        there, exits, answers = np.arange(len(x)), np.zeros(len(x), int), np.zeros((len(x), len(self.card["classes"])))
        feed = {"images": x}
        for segment, position, temperature, threshold in self.steps:
            logits, *features = segment.run(None, feed)
            powers = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
            found = powers / powers.sum(1, keepdims=True)
            answers[there], exits[there], unsure = found, position, found.max(1) < max(threshold, least)
            if not features or not unsure.any():  # at the last exit there are no features
                break
            there, feed = there[unsure], {segment.get_outputs()[1].name: features[0][unsure]}  # a smaller batch goes on
        return answers, exits

    def pixels(self, path: str) -> np.ndarray:
        """A picture file of any size, upright, as H×W×3 uint8, as in training; 16-bit values are scaled to 8 bits."""
        if not Path(path).is_file():
            raise ValueError("it is a folder; give its pictures" if Path(path).is_dir() else "there is no such file")
        with Path(path).open("rb") as raw, Image.open(raw, formats=KINDS) as picture:  # by path it would scramble TIFFs
            bits, *_ = getattr(picture, "tag_v2", {}).get(258, (16,))  # of a TIFF file's values
            picture.load()
            turn = None
            with suppress(Exception):  # Exif data may be damaged in any way
                turn = TURNS.get(picture.getexif().get(0x112))
            picture = picture if turn is None else picture.transpose(turn)
            if picture.mode[0] in "IF":
                values = np.asarray(picture)
                if picture.mode == "F" or bits != 16 or values.min() < 0 or values.max() > 65535:
                    raise ValueError("its values are neither of 8 nor of 16 bits")
                picture = Image.fromarray((values / 257).round().astype(np.uint8))
            size, fit = self.card["input"][:0:-1], ImageOps.fit if self.card["fit"] == "crop" else Image.Image.resize
            return np.array(fit(picture.convert("RGB"), size, Image.Resampling.BILINEAR))


def main(paths: list[str]) -> str | int:
    """Tell the classes of the pictures; what the program ends with."""
    if not paths or paths[0] in ("-h", "--help"):
        print("usage: python run.py PICTURE ...   tells the class of each, its probability, and its exit", flush=True)
        return 0 if paths else 2
    try:
        router = Router(Path(__file__).parent)
    except Exception as error:  # onnxruntime answers damaged files with errors of its own
        return f"run.py: the files beside it are not those of a bundle: {type(error).__name__}: {plain(error)}"
    warnings.simplefilter("ignore")  # of odd metadata
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # pictures of more than 89 million pixels
    size, lost = max(1, 128 * 32**2 // router.card["input"][1] ** 2), []  # large pictures take much memory
    while paths:
        batch, paths, read = paths[:size], paths[size:], []
        for path in batch:
            try:
                read.append((path, router.pixels(path)))
            except Exception as error:  # of many kinds; where Pillow knows no such files, it names an object
                lost.append(f"run.py: {plain(path)} cannot be read: {plain(error).partition(' <_io')[0]}")
        try:
            answers = router.route(np.stack([image for _, image in read])) if read else ((), ())
        except Exception as error:  # memory is short
            return "\n".join([*lost, f"run.py: no answers from {plain(batch[0])} on: {plain(error)}"])
        for (path, _), row, position in zip(read, *answers, strict=True):
            name = plain(router.card["classes"][row.argmax()])
            print(f"{plain(path)}  {name} {row.max():.4f}  exit {position}", flush=True)
    return "\n".join(lost) or 0


if __name__ == "__main__":
    if sys.stdout is None:
        sys.exit("run.py: standard output: it is closed")
    sys.stdout.reconfigure(errors="backslashreplace")  # paths and classes may have any characters
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # standard output is full, or nobody reads it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"run.py: standard output: {error.strerror}")
