"""A picture of any size and kind as the bytes that a network sees."""

import struct
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from datasets.sizing import NO_MARGIN, Margin, Sizing
from datasets.transforms import padded
from system import processors
from system.errors import UserError, is_shortage
from system.files import regular
from system.workers import WorkerDied, crew

# The kinds that are read, as Pillow names them; MPO is JPEG to it, PGM and PBM are PPM. It knows dozens more, which are
# not tried: one of them, PostScript, is a program, which it would have Ghostscript run.
KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF")
PART, FEW, MOST = 16, 4, 32  # pictures of a part; that no process is started for; processes
ORIENTATION, BITS = 0x112, 258  # tags of Exif data and of TIFF files
TURN = Image.Transpose
TURNS = {  # by the orientation that the camera notes
    2: TURN.FLIP_LEFT_RIGHT,
    3: TURN.ROTATE_180,
    4: TURN.FLIP_TOP_BOTTOM,
    5: TURN.TRANSPOSE,
    6: TURN.ROTATE_270,
    7: TURN.TRANSVERSE,
    8: TURN.ROTATE_90,
}


@dataclass(frozen=True)
class _Parts:
    """What `one` makes of the files of a part of the paths."""

    paths: Sequence[str]
    one: Callable[[str], Any]

    def __call__(self, part: slice) -> list[Any]:
        with bounded():
            return [self.one(path) for path in self.paths[part]]


def decoded(paths: Sequence[str], one: Callable[[str], Any], ahead: int = 0) -> Iterator[Any]:
    """What `one`, as `decode_one`, makes of picture files, in their order, by a process for each processor; by this one
    if they are few, and on other systems than Linux, where a process does not begin as a copy of this one. About
    `ahead` are decoded before they are asked for, as far as pipes hold them. Raises what `one` raises, and UserError
    where a process dies.

    Threads would take turns at Python's lock, which small pictures ask for all the time: on two cores, threads read
    3,100 of 32×32 a second, processes 7,900. Photographs, decoded outside of that lock, are read as fast by either.
    """
    count = min(processors.usable(), MOST) if len(paths) > FEW and sys.platform == "linux" else 0
    size = max(1, min(PART, len(paths) // (4 * max(1, count))))
    parts = [slice(start, start + size) for start in range(0, len(paths), size)]
    with closing(crew(_Parts(paths, one), min(count, len(parts)))) as workers:
        made = workers.map(parts, max(1, ahead // (size * max(1, count))))
        for part in parts:
            try:
                found = next(made)
            except WorkerDied as error:
                first, *others = paths[part]
                where = f"{first} or one of the {len(others)} after it" if others else first
                advice = "take out a damaged picture, or end other programs, if the memory is full"
                raise UserError(f"{error}, at {where}; {advice}") from error
            yield from found


@contextmanager
def bounded() -> Iterator[None]:
    """While open, Pillow refuses pictures of unreasonably many pixels, before it decodes any, and does not warn of
    anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata: the pixels are all that is wanted
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_one(path: str, sizing: Sizing, margin: Margin = NO_MARGIN) -> np.ndarray:
    """The first frame of a picture file of `KINDS` as side×side×3 uint8, and its margin, transparency left out. Raises
    UserError naming the file."""
    regular(Path(path))
    # Given a path, Pillow would map the file into memory, and then scramble an uncompressed TIFF that it turns.
    with damage_told(path), Path(path).open("rb") as raw, Image.open(raw, formats=KINDS) as file:
        return as_pixels(file, sizing, margin)


@contextmanager
def damage_told(what: str) -> Iterator[None]:
    """Turn what Pillow answers a broken picture with, many kinds of error, into a UserError that says `what` is none. A
    shortage of memory is raised as it is."""
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # asked first: it names the file, whose name may be of memory
            reason = f"it does not begin like {', '.join(KINDS[:-1])} or {KINDS[-1]}"
        elif is_shortage(error):
            raise
        raise UserError(f"{what} is no picture that can be read: {reason}") from error


def as_pixels(picture: Image.Image, sizing: Sizing, margin: Margin = NO_MARGIN) -> np.ndarray:
    """A picture of any size and mode, upright, as side×side×3 uint8, with the margin around it. Raises ValueError where
    it has no pixels, or values of neither 8 nor 16 bits."""
    if 0 in picture.size:
        raise ValueError("it has no pixels")
    picture = (_eight_bits(picture) if picture.mode[0] in "IF" else _upright(picture)).convert("RGB")
    side = sizing.side
    if sizing.fit == "squeeze":
        return np.array(picture.resize((side, side), Image.Resampling.BILINEAR))
    shorter = min(picture.size)
    (left, right, width), (top, bottom, height) = (_taken(n, shorter, side, margin.width) for n in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom))
    rows, columns = (side + 2 * margin.width - n for n in (height, width))
    return padded(np.array(picture), rows // 2, columns // 2, margin.padding)


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as its Exif data turn it; as it is where they cannot be read. (Pillow's `exif_transpose` also fails
    where the other data are odd, and takes the first half of a picture for the whole where the rest is damaged.)"""
    picture.load()
    turn = None
    with suppress(OSError, SyntaxError, TypeError, ValueError, struct.error):
        turn = TURNS.get(picture.getexif().get(ORIENTATION))
    return picture if turn is None else picture.transpose(turn)


def _taken(length: int, shorter: int, side: int, margin: int) -> tuple[float, float, int]:
    """What is taken of an axis of a picture whose shorter one is scaled to `side` pixels: from where to where, and how
    many pixels it becomes; `side` from the middle, as by Pillow's `ImageOps.fit`, and on both sides of that the margin,
    as far as the picture reaches."""
    first = (length - shorter) / 2
    reach = min(margin, int(first * side / shorter))
    more = reach * shorter / side
    return first - more, first + shorter + more, side + 2 * reach


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16-bit values, which Pillow would clip, upright and scaled to 8. Raises ValueError for another
    range; a TIFF file says how many bits its values have."""
    values = np.asarray(_upright(picture))
    bits, *_ = getattr(picture, "tag_v2", {}).get(BITS, (16,))
    if picture.mode == "F" or bits != 16 or values.min() < 0 or values.max() > 65535:
        raise ValueError("its values are neither of 8 nor of 16 bits; convert it to one of them")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))  # rounded; 65535 becomes 255
