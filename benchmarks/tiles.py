"""A folder of real pictures larger than 32×32, to try --inputSize on without a download.

python -m benchmarks.tiles pictures
python main.py --data pictures --inputSize 64 --depth 20

The pictures are tiles of photographs that scikit-learn and matplotlib ship, and their class is the photograph that they
are cut from: 240 to train on and 80 to test on of each. Half of them are upright, half of them lie. They overlap, but
those to test on are cut from the right quarter of a photograph, the others from what is left of that.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib import cbook
from PIL import Image
from sklearn.datasets import load_sample_images

LONG, SHORT = 120, 80  # pixels
COUNTS = {"train": 240, "test": 80}
PART = 0.75  # of a photograph's width, which training pictures are cut from


def photographs() -> dict[str, Image.Image]:
    """The photographs by name, each about 600 pixels wide."""
    temple, flower = map(Image.fromarray, load_sample_images().images)
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return {"temple": temple, "flower": flower, "admiral": Image.open(file).convert("RGB")}


def write(folder: Path) -> None:
    """Write `folder/<split>/<class>/<number>.png`, always the same."""
    rng = np.random.default_rng(0)
    for name, photograph in photographs().items():
        border = int(PART * photograph.width)
        for split, (first, last) in {"train": (0, border), "test": (border, photograph.width)}.items():
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(COUNTS[split]):
                width, height = (LONG, SHORT) if number % 2 else (SHORT, LONG)
                left = int(rng.integers(first, last - width, endpoint=True))
                top = int(rng.integers(0, photograph.height - height, endpoint=True))
                photograph.crop((left, top, left + width, top + height)).save(place / f"{number:03}.png")


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
