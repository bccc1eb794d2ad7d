"""A folder of real pictures larger than 32×32, to try --inputSize on without a download.

python -m benchmarks.tiles pictures
python main.py --data pictures --inputSize 64 --depth 20

The pictures are tiles of three photographs that scikit-learn and matplotlib ship, half of them upright, half of them
lying; their class is the photograph that they are cut from. A photograph is cut into five columns: the tiles to train
on, 240 of each, are from the first, third and fifth, and those to test on, 80 of each, from the two between them.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib import cbook
from PIL import Image
from sklearn.datasets import load_sample_images

LONG, SHORT = 96, 64  # pixels
COUNTS = {"train": 240, "test": 80}
COLUMNS = {"train": (0, 2, 4), "test": (1, 3)}  # of five


def photographs() -> dict[str, Image.Image]:
    """The photographs by name, 500 to 640 pixels wide."""
    temple, flower = map(Image.fromarray, load_sample_images().images)
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return {"temple": temple, "flower": flower, "admiral": Image.open(file).convert("RGB")}


def write(folder: Path) -> None:
    """Write `folder/<split>/<class>/<number>.png`, always the same."""
    rng = np.random.default_rng(0)
    for name, photograph in photographs().items():
        column = photograph.width // 5
        for split, count in COUNTS.items():
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                width, height = (LONG, SHORT) if number % 2 else (SHORT, LONG)
                left = int(column * rng.choice(COLUMNS[split]) + rng.integers(0, column - width, endpoint=True))
                top = int(rng.integers(0, photograph.height - height, endpoint=True))
                photograph.crop((left, top, left + width, top + height)).save(place / f"{number:03}.png")


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder.exists():
        parser.error(f"{folder} is there already; give a folder that is not")
    write(folder)


if __name__ == "__main__":
    main()
