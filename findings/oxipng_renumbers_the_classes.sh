#!/usr/bin/env bash
# oxipng, a lossless optimiser, renumbers the classes of grey label maps, each file in its own way.
#
# Versions: pyoxipng 9.1.1 (it holds oxipng), Pillow 13.0.0, OpenCV 5.0.0.93 (headless), numpy
#   2.4.6.
# Guess: lossless means that np.array(Image.open(file)) is the same before and after; surely of a
#   grey PNG of 8 bits that holds class numbers, which has no palette that could be sorted.
# What happens: for the viewer nothing changes. But where it is shorter, the grey map becomes a
#   palette map, and its palette is sorted anew: what numpy gets from Pillow is 0, 11, 10, ... 1
#   for the classes 0, 1, 2, ... 11. The numbering depends on the classes that a file holds; small
#   files stay grey, and so stay right. OpenCV's IMREAD_GRAYSCALE (and Pillow's convert("L")) still
#   gives the classes, IMREAD_UNCHANGED three channels. Maps of two classes, 0 and 1, come through,
#   and color_type_reduction=False keeps the rest.
# Why it matters: sets of label maps are passed through optimisers before they are published, as
#   that is lossless. Number 1 is then whichever class is the highest of its file, all
#   numbers are valid ones, and a loader that had no need to look at image.mode sees nothing.
# Seen (the numbers that Pillow gives for the classes 0 to 11; - is not in the file):
#   all classes, 256x256  P, 0 11 10 9 8 7 6 5 4 3 2 1; right: Pillow 0.37, OpenCV grey 1.00
#   five, 256x256         P, 0 - - 4 3 - - 2 - - 1 -; right: Pillow 0.38, OpenCV grey 1.00
#   all classes, 48x48    L, 0 1 2 3 4 5 6 7 8 9 10 11; right: Pillow 1.00, OpenCV grey 1.00
#   classes 0 and 1       P, 0 1 - - - - - - - - - -; right: Pillow 1.00, OpenCV grey 1.00
#   all, no colour types  L, 0 1 2 3 4 5 6 7 8 9 10 11; right: Pillow 1.00, OpenCV grey 1.00
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyoxipng==9.1.1 pillow==13.0.0 \
    opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys

import cv2
import numpy as np
import oxipng
from PIL import Image


def drawn(classes, side):
    """Rectangles of the classes; a few pixels of each make sure that it is there."""
    rng = np.random.default_rng(0)
    label_map = np.zeros((side, side), np.uint8)
    for _ in range(60):
        y, x = rng.integers(0, side - 8, 2)
        height, width = rng.integers(4, side // 3, 2)
        label_map[y:y + height, x:x + width] = rng.choice(classes)
    label_map[0, :len(classes)] = classes
    return label_map


def optimised(title, label_map, **options):
    """-> the mode afterwards, the numbers by Pillow of the classes, and shares that are right."""
    Image.fromarray(label_map).save("map.png")
    oxipng.optimize("map.png", "small.png", **options)
    image = Image.open("small.png")
    rows = np.array(image)
    grey = cv2.imread("small.png", cv2.IMREAD_GRAYSCALE)
    numbers = []
    for k in range(12):
        found = np.unique(rows[label_map == k]).tolist()
        assert len(found) < 2
        numbers.append(str(found[0]) if found else "-")
    right, right_grey = float((rows == label_map).mean()), float((grey == label_map).mean())
    channels = cv2.imread("small.png", cv2.IMREAD_UNCHANGED).ndim
    print(f"{title:21} {image.mode}, {' '.join(numbers)}; right: Pillow {right:.2f}, OpenCV grey "
          f"{right_grey:.2f}, IMREAD_UNCHANGED has {channels} dimensions")
    return image.mode, " ".join(numbers), right < 0.9, right_grey == 1


every = list(range(12))
plain = " ".join(map(str, every))
found = [
    optimised("all classes, 256x256", drawn(every, 256)),
    optimised("five, 256x256", drawn([0, 3, 4, 7, 10], 256)),
    optimised("all classes, 48x48", drawn(every, 48)),
    optimised("classes 0 and 1", drawn([0, 1], 256)),
    optimised("all, no colour types", drawn(every, 256), color_type_reduction=False),
]
expected = [
    ("P", "0 11 10 9 8 7 6 5 4 3 2 1", True, True),
    ("P", "0 - - 4 3 - - 2 - - 1 -", True, True),
    ("L", plain, False, True),
    ("P", "0 1" + " -" * 10, False, True),
    ("L", plain, False, True),
]
sys.exit(0 if found == expected else "the behaviour has changed")
PYTHON
