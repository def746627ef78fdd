#!/usr/bin/env bash
# cc3d: with binary_image=True objects of two classes are cut into bands at the upper edge of a map.
#
# Versions: connected-components-3d 4.1.1 (and 4.1.0, the same), scipy 1.17.1, numpy 2.4.6.
# Guess: cc3d joins pixels of the same class; binary_image=True says that any class is foreground:
#   "regardless of the input type, treat as a binary image (foreground > 0)". The components of a
#   label map are then those of label_map > 0, at each connectivity, and a cell that is made of
#   cytoplasm and nucleus is one.
# What happens: in a map of two dimensions at connectivity=4 they are not, where an object touches
#   the upper edge (the left one, if the array is in Fortran's order). In the first line the loop of
#   connected_components2d_4_binary (cc3d_binary.hpp) still compares the classes; the loop over the
#   others takes any class for foreground, and a pixel's neighbours above for joined already. So a
#   cell whose nucleus touches the edge is cut into three bands, from the edge down to its far
#   side, straight through the nucleus. The other three edges, connectivity=8, volumes at 6, 18 and
#   26, and label_map > 0 are right. dust() and largest_k() pass the option on.
# Why it matters: maps are cut into tiles, and in each of them something touches the upper edge.
#   Objects are counted that do not exist, a quarter more below, and in a score by instances a whole
#   object becomes a miss and three false positives. dust() takes bits out of large cells, and
#   largest_k() returns a band of the largest one. Upside down the same map has other counts. The
#   package's own test of this case gives it zeros and ones, with which all is well.
# Seen (a cell and its labels; 200 maps of 64x64 with cells, class 1, and their nuclei, class 2:
#   components by scipy and by cc3d, pixels wrong after dust(threshold=12) and largest_k(k=1), and
#   maps that have another number of components when they are upside down):
#      1 1 2 2 2 1    1 1 2 2 2 3
#      1 1 2 2 1 1    1 1 2 2 2 3
#      1 1 1 1 1 1    1 1 2 2 2 3
#   classes, connectivity 4    scipy 1299  cc3d 1638  dust 679  largest 2879  upside down unlike 142
#   classes, connectivity 8    scipy 1287  cc3d 1287  dust 0  largest 0  upside down unlike 0
#   label_map > 0              scipy 1299  cc3d 1299  dust 0  largest 0  upside down unlike 0
#   a frame of background      scipy 1299  cc3d 1299  dust 0  largest 0  upside down unlike 0
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile connected-components-3d==4.1.1 scipy==1.17.1 \
    numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import cc3d
import numpy as np
from scipy import ndimage

SIDE, MAPS, SMALL = 64, 200, 12
NEIGHBOURS = {4: ndimage.generate_binary_structure(2, 1), 8: np.ones((3, 3))}


def drawn(random):
    """-> a tile that cuts through cells: 0 outside, cytoplasm 1, nucleus 2"""
    label_map = np.zeros((SIDE, SIDE), np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    for _ in range(12):
        centre = random.uniform(-4, SIDE + 4, 2)
        distance = np.hypot(y - centre[0], x - centre[1])
        radius = random.uniform(5, 12)
        if not label_map[distance < radius + 1].any():
            label_map[distance < radius] = 1
            label_map[distance < 0.6 * radius] = 2
    return label_map


def counted(label_map, connectivity):
    return cc3d.connected_components(label_map, connectivity=connectivity, binary_image=True,
                                     return_N=True)[1]


def kept_by_scipy(label_map, connectivity):
    """-> number of components; where the small ones are not; where the largest one is"""
    parts, number = ndimage.label(label_map > 0, NEIGHBOURS[connectivity])
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return number, sizes[parts] >= SMALL, parts == sizes.argmax(), np.sort(sizes)[-2:]


def measured(title, maps, connectivity):
    by_scipy = by_cc3d = dusted = largest = unlike = 0
    for label_map in maps:
        number, not_small, of_largest, sizes = kept_by_scipy(label_map, connectivity)
        by_scipy += number
        by_cc3d += counted(label_map, connectivity)
        unlike += counted(label_map, connectivity) != counted(label_map[::-1], connectivity)
        options = {"connectivity": connectivity, "binary_image": True}
        clean = cc3d.dust(label_map.copy(), threshold=SMALL, **options)
        dusted += int((clean != label_map * not_small).sum())
        if sizes[0] < sizes[1]:  # else there are two largest ones
            found = cc3d.largest_k(label_map, k=1, **options) > 0
            largest += int((found != of_largest).sum())
    print(f"{title:26} scipy {by_scipy}  cc3d {by_cc3d}  dust {dusted}  largest {largest}  "
          f"upside down unlike {unlike}")
    return by_scipy, by_cc3d, dusted, largest, unlike


for package in ("connected-components-3d", "scipy", "numpy"):
    print(package, version(package))
cell = np.array([[1, 1, 2, 2, 2, 1], [1, 1, 2, 2, 1, 1], [1, 1, 1, 1, 1, 1]], np.uint8)
labels = cc3d.connected_components(np.pad(cell, ((0, 1), (1, 1))), connectivity=4,
                                   binary_image=True)[:-1, 1:-1]
for line, parts in zip(cell, labels):
    print("  ", *line, "  ", *parts)
random = np.random.default_rng(0)
maps = [drawn(random) for _ in range(MAPS)]
classes = measured("classes, connectivity 4", maps, 4)
eight = measured("classes, connectivity 8", maps, 8)
masks = measured("label_map > 0", [(label_map > 0).astype(np.uint8) for label_map in maps], 4)
framed = measured("a frame of background", [np.pad(label_map, 1) for label_map in maps], 4)
same = labels.tolist() == [[1, 1, 2, 2, 2, 3]] * 3
same = same and classes[1] > 1.2 * classes[0] and classes[2] > 200 and classes[3] > 50
same = same and classes[4] > MAPS / 4
for right in (eight, masks, framed):
    same = same and right[0] == right[1] and right[2:] == (0, 0, 0)
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
