"""Pictures that a folder should not hold, or not in this form: each is treated as documented or named in one error."""

import io
import os
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from datasets import decoding, folder
from datasets.sizing import Sizing
from examples import bomb, write_pictures
from programs import assert_one_line_error, script
from system.errors import UserError

GREY = np.arange(1024, dtype=np.uint16).reshape(32, 32)


def loaded(root, content, name="x.png"):
    """The pixels of a folder's only picture, which has this content."""
    (root / "train" / "a").mkdir(parents=True, exist_ok=True)
    (root / "train" / "a" / name).write_bytes(content)
    return folder.load(root, "train").whole().images[0]


def encoded(picture, kind="PNG", **options):
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def test_one_bit(tmp_path):
    black_left = Image.fromarray(GREY % 32 >= 16)
    assert black_left.mode == "1"
    pixels = loaded(tmp_path, encoded(black_left))
    assert pixels[:, :16].eq(0).all()
    assert pixels[:, 16:].eq(255).all()


@pytest.mark.parametrize(
    ("kind", "bits"), [("PNG", 8), ("PNG", 16), ("JPEG", 8), ("WEBP", 8), ("TIFF", 8), ("TIFF", 16)]
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_data_turn_pictures_upright(kind, bits, orientation, tmp_path):
    """As Pillow's own function turns them."""
    picture = Image.fromarray((GREY // 32 * 2 + GREY % 32 * 6).astype(np.uint8) if bits == 8 else GREY * 64)
    turned = picture.getexif()
    turned[0x112] = orientation
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(picture, kind, exif=turned))))
    found = loaded(tmp_path, encoded(picture, kind, exif=turned), f"x.{kind}")
    assert found.equal(torch.from_numpy(decoding.as_pixels(expected, Sizing(32))))
    assert found.equal(loaded(tmp_path, encoded(picture, kind), f"x.{kind}")) == (orientation == 1)


def with_exif(picture, data):
    """A PNG file with these Exif data."""
    content, chunk = encoded(picture), b"eXIf" + data
    place = content.index(b"IDAT") - 4
    framed = (len(data)).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return content[:place] + framed + content[place:]


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_uncompressed_tiff_files_are_turned_upright(mode, orientation, turn, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(values[:, :, 0] * np.uint16(257) if mode == "I;16" else values)
    picture = picture.convert(mode)
    found = loaded(tmp_path, encoded(picture, "TIFF", tiffinfo={0x112: orientation}), "x.tif")
    upright = np.rot90(np.asarray(picture if mode == "I;16" else picture.convert("RGB")), turn)
    assert found.equal(torch.from_numpy(decoding.as_pixels(Image.fromarray(np.ascontiguousarray(upright)), Sizing(32))))


@pytest.mark.parametrize("data", [b"II*\0", b"nothing", b"", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff"])
def test_exif_data_that_cannot_be_read_turn_nothing(data, tmp_path):
    picture = Image.fromarray((GREY % 32 * 8).astype(np.uint8))
    assert loaded(tmp_path, with_exif(picture, data)).equal(loaded(tmp_path, encoded(picture)))


def test_exif_data_that_are_odd_elsewhere_turn_pictures(tmp_path):
    """Its orientation is 6, the maker of the camera is given as a number."""
    maker, turned = struct.pack("<HHII", 0x10F, 4, 1, 7), struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
    data = b"II*\0" + struct.pack("<IH", 8, 2) + maker + turned + struct.pack("<I", 0)
    picture = Image.fromarray((GREY % 32 * 8).astype(np.uint8))
    assert loaded(tmp_path, with_exif(picture, data)).equal(loaded(tmp_path, encoded(picture)).rot90(-1))


@pytest.mark.parametrize(("kind", "name"), [("PNG", "x.png"), ("TIFF", "x.tif")])
def test_a_picture_that_is_damaged_in_its_midst_is_refused(kind, name, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    content = bytearray(encoded(noise, kind, **options))
    content[len(content) // 2 : len(content) // 2 + 8] = bytes(8)
    with pytest.raises(UserError, match="is no picture that can be read"):
        loaded(tmp_path, bytes(content), name)


@pytest.mark.parametrize(("kind", "name"), [("PNG", "x.png"), ("TIFF", "x.tif"), ("PPM", "x.pgm")])
def test_sixteen_bits_are_scaled_not_clipped(kind, name, tmp_path):
    pixels = loaded(tmp_path, encoded(Image.fromarray(GREY * 64), kind), name)
    expected = torch.from_numpy((GREY * 64 / 257).round().astype(np.uint8))
    assert pixels.eq(expected[:, :, None]).all()


def test_cmyk(tmp_path):
    pixels = loaded(tmp_path, encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "TIFF"), "x.tif")
    assert pixels.eq(torch.tensor([255, 0, 0])).all()


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime")]
    content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert loaded(tmp_path, content, "x.webp").eq(torch.tensor([255, 0, 0])).all()


def test_transparency_is_left_out(tmp_path):
    assert loaded(tmp_path, encoded(Image.new("RGBA", (32, 32), (9, 8, 7, 0)))).eq(torch.tensor([9, 8, 7])).all()


def test_values_of_no_known_range(tmp_path):
    for values in (np.ones((32, 32), np.float32), *(np.full((32, 32), value, np.int32) for value in (200, 70_000))):
        with pytest.raises(UserError, match=r"x\.tif is no picture that can be read: its values"):
            loaded(tmp_path, encoded(Image.fromarray(values), "TIFF"), "x.tif")


@pytest.mark.parametrize(("kind", "mode"), [("MPO", "RGB"), ("GIF", "L"), ("PPM", "1"), ("PPM", "L"), ("BMP", "P")])
def test_what_a_file_is_does_not_follow_from_its_name(kind, mode, tmp_path):
    black, white = (Image.new(mode, (32, 32), 0), Image.new("RGB", (32, 32), "white").convert(mode))
    several = {"save_all": True, "append_images": [white]} if kind == "MPO" else {}
    pixels = loaded(tmp_path, encoded(black, kind, **several), "x.jpg")
    assert pixels.eq(0).all()


@pytest.mark.parametrize("kind", ["PCX", "TGA", "ICO", "JPEG2000", "SGI"])
def test_other_kinds_of_files_are_refused_by_name(kind, tmp_path):
    content = encoded(Image.new("RGB", (32, 32)), kind)
    assert Image.open(io.BytesIO(content)).format == kind
    with pytest.raises(UserError, match=r"x\.png is no picture .*: it does not begin like JPEG, .*, PPM or GIF"):
        loaded(tmp_path, content)


def test_postscript_is_not_run(tmp_path, monkeypatch):
    """By Ghostscript, for which this stands."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(UserError, match=r"x\.png is no picture that can be read: it does not begin like"):
        loaded(tmp_path, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n{ } loop\n")
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("side", [10_000, 60_000])  # at the first Pillow warns, at the second it refuses
def test_a_decompression_bomb(side, tmp_path):
    with pytest.raises(UserError, match=r"x\.png .*decompression bomb"):
        loaded(tmp_path, bomb(side))


@pytest.mark.slow
def test_a_damaged_test_picture_is_missed_before_a_training_that_holds_out_others(tmp_path):
    for split in ("train", "test"):
        write_pictures(tmp_path / split, {"a": 8, "b": 8})
    (tmp_path / "test" / "b" / "007.png").write_bytes(b"nothing")
    process = script("main.py", "--data", tmp_path, "--depth", "8", "--valSize", "4", "--save", tmp_path, "--nGPU", "0")
    assert_one_line_error(process, 1, "test/b/007.png is no picture that can be read")
    assert not list(tmp_path.glob("*/log.csv"))


def test_hidden_folders_are_passed_over(tmp_path):
    write_pictures(tmp_path / "train", {".ipynb_checkpoints": 1, "a": 2, "b": 1})
    write_pictures(tmp_path / "train" / "a", {".ipynb_checkpoints": 2})
    found = folder.load(tmp_path, "train")
    assert found.classes == ("a", "b")
    assert len(found.paths) == 3


def test_files_that_are_no_pictures_by_name_are_passed_over(tmp_path):
    write_pictures(tmp_path / "train", {"a": 2})
    (tmp_path / "train" / "a" / "notes.txt").write_text("two pictures of a")
    assert len(folder.load(tmp_path, "train").paths) == 2


def test_an_empty_class(tmp_path):
    write_pictures(tmp_path / "train", {"a": 1, "b": 0})
    with pytest.raises(UserError, match=r"train: no pictures in b; .*\.png"):
        folder.load(tmp_path, "train")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM"])
def test_damaged_pictures_are_named(kind, tmp_path):
    """Cut short or with bytes changed, a picture can be read or is named; nothing else happens."""
    rng, refused = random.Random(0), 0
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)), kind)
    name = f"x.{kind.lower()}"
    for turn in range(100):
        content = bytearray(whole[: rng.randrange(len(whole))] if turn % 2 else whole)
        for _ in range(rng.randrange(4)):
            if content:
                content[rng.randrange(min(len(content), 200))] = rng.randrange(256)
        try:
            assert loaded(tmp_path, bytes(content), name).shape == (32, 32, 3)
        except UserError as error:
            refused += 1
            assert str(tmp_path / "train" / "a" / name) in str(error)
    assert refused > 30


@pytest.mark.slow
def test_the_program_names_the_file_in_one_line(tmp_path):
    for split in ("train", "test"):
        write_pictures(tmp_path / split, {"a": 3, "b": 3})
    (tmp_path / "train" / "b" / "001.png").write_bytes(b"\x89PNG\r\n")
    process = script("main.py", "--data", tmp_path, "--depth", "8", "--save", tmp_path, "--nGPU", "0")
    assert_one_line_error(process, 1, str(tmp_path / "train" / "b" / "001.png"))
