#!/usr/bin/env bash
# litdata stores a palette label map without its palette: its colours come back black.
#
# Versions: litdata 0.2.76, Pillow 13.0.0, torch 2.13.0, numpy 2.4.6.
# Guess: a sample's PIL picture comes back from litdata's StreamingDataset as it went in, whatever
#   its mode; pixels are stored raw, so that nothing is lost.
# What happens: the pixels and the mode are stored, and the palette is not. A map in mode P comes
#   back in mode P, without a warning, with the same numbers, and with no colours: convert("RGB")
#   gives a picture that is black all over. When the map is saved again, Pillow counts no colours,
#   and writes a PNG of one bit: each class but 0 has become class 1. RGB and L maps are kept, and
#   so is a palette map that is stored as the bytes of its file.
# Why it matters: label maps are kept with palettes (CMP facades, VOC, DAVIS). A network that takes
#   their colours as its input trains on black pictures, and nothing says so; a set that is
#   streamed and written out again has two classes. The numbers in memory are right, so that a
#   check which compares arrays passes.
# Seen (mode; share of pixels right; colours by convert("RGB"); kinds of pixels once saved again):
#   the file itself  P    1.00  12         12
#   palette          P    1.00   1, black   2
#   palette, bytes   P    1.00  12         12
#   RGB              RGB  1.00  12         12
#   L                L    1.00  12         12
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet litdata==0.2.76 torch==2.13.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
cat > stream.py <<'PYTHON'
import io
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from litdata import StreamingDataset, optimize
from PIL import Image

CLASSES = 12
colours = np.random.default_rng(1).integers(40, 256, (CLASSES, 3), np.uint8)


def label_map():
    rng = np.random.default_rng(0)
    numbers = np.zeros((64, 64), np.uint8)
    for k in range(CLASSES):
        y, x = rng.integers(0, 52, 2)
        numbers[y:y + 12, x:x + 12] = k
    numbers[0, :CLASSES] = np.arange(CLASSES)
    return numbers


def sample(_):
    """What a user's function gives to optimize(): the files' pictures, opened by Pillow."""
    names = ("palette.png", "rgb.png", "grey.png")
    pictures = {name.split(".")[0]: Image.open(name) for name in names}
    return {**pictures, "bytes": Path("palette.png").read_bytes()}


def seen(title, picture):
    """Prints; -> share of numbers right, colours, numbers when saved and read again"""
    numbers = label_map()
    rows = np.array(picture)
    expected = numbers if rows.ndim == 2 else colours[numbers]
    right = float((rows == expected).mean())
    rgb = np.array(picture.convert("RGB")).reshape(-1, 3)
    count = len(np.unique(rgb, axis=0))
    black = bool((rgb == 0).all())
    picture.save("again.png")
    again = np.array(Image.open("again.png")).reshape(numbers.size, -1)
    kinds = len(np.unique(again, axis=0))
    print(f"{title:15} {picture.mode:3} {right:.2f}, colours {count}{', black' if black else ''}, "
          f"saved again {kinds}")
    return picture.mode, right, count, black, kinds


if __name__ == "__main__":
    numbers = label_map()
    picture = Image.fromarray(numbers)
    picture.putpalette(colours.ravel().tolist())
    picture.save("palette.png")
    Image.fromarray(colours[numbers]).save("rgb.png")
    Image.fromarray(numbers).save("grey.png")
    optimize(fn=sample, inputs=[0], output_dir="stored", chunk_bytes="64MB", num_workers=1)
    stored = StreamingDataset("stored")[0]
    for package in ("litdata", "pillow", "torch", "numpy"):
        print(package, version(package))
    found = {
        "file": seen("the file itself", Image.open("palette.png")),
        "palette": seen("palette", stored["palette"]),
        "bytes": seen("palette, bytes", Image.open(io.BytesIO(stored["bytes"]))),
        "rgb": seen("RGB", stored["rgb"]),
        "grey": seen("L", stored["grey"]),
    }
    same = found == {
        "file": ("P", 1, CLASSES, False, CLASSES),
        "palette": ("P", 1, 1, True, 2),
        "bytes": ("P", 1, CLASSES, False, CLASSES),
        "rgb": ("RGB", 1, CLASSES, False, CLASSES),
        "grey": ("L", 1, CLASSES, False, CLASSES),
    }
    print("as described" if same else "the behaviour has changed")
    sys.exit(0 if same else 1)
PYTHON
OMP_NUM_THREADS=1 venv/bin/python -W ignore stream.py
