#!/usr/bin/env bash
# Pillow: saving a palette label map as PNG makes void (255) a real class, if it has 2, 4 or 16.
#
# Versions: Pillow 13.0.0 and 11.3.0, numpy 2.4.6.
# Guess: a map in mode P, of classes 0 to N - 1 and 255 for void, whose palette has been given the
#   N colours of its classes, is stored as it is in memory, and 255 comes back as 255; or save()
#   refuses it. With bits=8, which sets how many bits a palette pixel has, it surely does.
# What happens: no error. The bits of a pixel follow from the length of the palette: 1, 2 or 4 for
#   up to 2, 4 or 16 colours, and what does not fit is cut off. 255 comes back as 1, 3 or 15. With
#   2, 4 or 16 classes that is the last class; with 12 it is 15, which nobody has defined. From 17
#   colours on nothing is lost, and so in TIFF, or with a palette filled up to 256 colours. bits=8
#   saves it in Pillow 11.3.0 and changes nothing in 13.0.0.
# Why it matters: a void border drawn in label maps to keep it out of the loss is taught as a
#   class, and scored as one. In memory all is right, maps of Cityscapes (19) or VOC (21) pass, and
#   a set with fewer classes written by the same lines does not.
# Seen (what 255 is when the file is read again):
#   classes          2    4   12   16   19   21
#   13.0.0 PNG       1    3   15   15  255  255
#   13.0.0 bits=8    1    3   15   15  255  255
#   13.0.0 256 col 255  255  255  255  255  255
#   13.0.0 TIFF    255  255  255  255  255  255
#   11.3.0 PNG       1    3   15   15  255  255
#   11.3.0 bits=8  255  255  255  255  255  255
#   (256 colours and TIFF as in 13.0.0)
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6
for version in 13.0.0 11.3.0; do
    "$folder/venv/bin/pip" install --quiet --target "$folder/$version" pillow==$version
done
cd "$folder"
cat > void.py <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image

CLASSES = (2, 4, 12, 16, 19, 21)
CUT = [1, 3, 15, 15, 255, 255]
KEPT = [255] * 6


def void_read(classes, name, colours=None, **options):
    """What the void pixels are in the file; -1 if another pixel has changed."""
    rng = np.random.default_rng(classes)
    label_map = rng.integers(0, classes, (64, 64), np.uint8)
    label_map[20:30] = 255
    image = Image.fromarray(label_map)
    image.putpalette(rng.integers(0, 256, 3 * (colours or classes), np.uint8).tolist())
    assert image.mode == "P" and np.array_equal(np.array(image), label_map)
    image.save(name, **options)
    read = np.array(Image.open(name))
    void = label_map == 255
    [value] = np.unique(read[void]).tolist()
    return value if np.array_equal(read[~void], label_map[~void]) else -1


version = PIL.__version__
assert version == sys.argv[1]
rows = {
    "PNG": ([void_read(n, "map.png") for n in CLASSES], CUT),
    "bits=8": ([void_read(n, "map.png", bits=8) for n in CLASSES],
               CUT if version == "13.0.0" else KEPT),
    "256 col": ([void_read(n, "map.png", colours=256) for n in CLASSES], KEPT),
    "TIFF": ([void_read(n, "map.tif") for n in CLASSES], KEPT),
}
print(f"{'classes':14}", *[f"{n:4}" for n in CLASSES])
for title, (found, _) in rows.items():
    print(f"{version} {title:7}", *[f"{value:4}" for value in found])
same = all(found == expected for found, expected in rows.values())
sys.exit(0 if same else "the behaviour has changed")
PYTHON
PYTHONPATH=$folder/13.0.0 venv/bin/python void.py 13.0.0
PYTHONPATH=$folder/11.3.0 venv/bin/python void.py 11.3.0
