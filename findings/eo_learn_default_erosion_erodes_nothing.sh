#!/usr/bin/env bash
# eo-learn: ErosionTask takes half of what it is asked for off the borders, and nothing by default.
#
# Versions: eo-learn 1.5.7, OpenCV 5.0.0.93 (headless), numpy 2.4.6.
# Guess: ErosionTask wears away the borders of each class of a label map, where labels are least
#   sure. disk_radius, "radius of the erosion disk (in pixels)", is 1 if not given: each region
#   loses one pixel on each side, and with 2 it loses two. What is worn away becomes 0, no data.
# What happens: disk_radius goes to OpenCV as the width of its kernel. 1 is a kernel of one pixel,
#   so that the default gives the map back as it was; 3 takes one pixel off, 5 two. Even numbers
#   have no middle: 2 takes a pixel off on the left and the top, and none on the right and the
#   bottom. MorphologicalStructFactory.get_disk(radius) makes the same kernels.
#   (Up to 1.4.2 the disc was scikit-image's, and r was a radius. The log of changes says for 1.5.0
#   that OpenCV is used instead, to have fewer dependencies, and that interfaces were adjusted.)
# Why it matters: the step stands in land cover workflows between the reference map and the
#   training, so that pixels beside a border, which the map has wrong by a pixel or two, are left
#   out. The same workflow with a newer eo-learn trains on them again. The task runs, and the map
#   looks as before.
# Seen (a square of 40 pixels: what it loses on the left, right, top and bottom; then a map of
#   fields that lies two pixels too far to the right: the share of wrong labels in what is left,
#   which is 5.9% before):
#   radius   eo-learn    a disc     wrong: eo-learn  a disc
#        1   0 0 0 0     1 1 1 1               5.9%    3.1%
#        2   1 0 1 0     2 2 2 2               6.0%    0.0%
#        3   1 1 1 1     3 3 3 3               3.1%    0.0%
#        4   2 1 2 1     4 4 4 4               3.2%    0.0%
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile eo-learn==1.5.7 sentinelhub==3.12.0 \
    geopandas==0.14.4 opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import cv2
import numpy as np
from eolearn.core import EOPatch, FeatureType
from eolearn.geometry import ErosionTask
from sentinelhub import CRS, BBox

FIELDS, FIELD, SIDE = 8, 24, 8 * 24


def by_eo_learn(label_map, **radius):
    patch = EOPatch(bbox=BBox((0, 0, 1, 1), CRS.WGS84))
    patch[FeatureType.MASK_TIMELESS, "labels"] = label_map[..., None]
    task = ErosionTask((FeatureType.MASK_TIMELESS, "labels", "eroded"), **radius)
    return task.execute(patch)[FeatureType.MASK_TIMELESS, "eroded"][..., 0]


def by_disc(label_map, radius):
    """What is left where all pixels within the radius have the same class"""
    rows, columns = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    disc = (rows ** 2 + columns ** 2 <= radius ** 2).astype(np.uint8)
    eroded = np.zeros_like(label_map)
    for k in np.unique(label_map[label_map > 0]):
        eroded[cv2.erode((label_map == k).astype(np.uint8), disc) > 0] = k
    return eroded


def losses(eroded):
    """Pixels that the square has lost on its left, right, top and bottom"""
    rows, columns = np.nonzero(eroded[32])[0], np.nonzero(eroded[:, 32])[0]
    return [int(n) for n in (rows[0] - 12, 51 - rows[-1], columns[0] - 12, 51 - columns[-1])]


def wrong(eroded):
    """Share of the labels that are left and wrong, in per cent"""
    left = eroded > 0
    return round(float((truth[left] != labels[left]).mean() * 100), 1)


square = np.zeros((64, 64), np.uint8)
square[12:52, 12:52] = 1
numbers = np.random.default_rng(0).integers(1, 9, (FIELDS, FIELDS)).astype(np.uint8)
truth = numbers.repeat(FIELD, 0).repeat(FIELD, 1)
labels = np.pad(truth, ((0, 0), (2, 0)), mode="edge")[:, :SIDE]

for package in ("eo-learn", "opencv-python-headless", "numpy"):
    print(package, version(package))
unchanged = np.array_equal(by_eo_learn(labels), labels)
print(f"by default the map is {'as before' if unchanged else 'eroded'}; wrong {wrong(labels)}%")
print("radius  eo-learn      a disc        wrong: eo-learn  a disc")
seen = {}
for radius in (1, 2, 3, 4):
    row = losses(by_eo_learn(square, disk_radius=radius)), losses(by_disc(square, radius))
    shares = wrong(by_eo_learn(labels, disk_radius=radius)), wrong(by_disc(labels, radius))
    print(f"{radius:6}  {row[0]}  {row[1]}  {shares[0]:15.1f}  {shares[1]:6.1f}")
    seen[radius] = row + shares
same = unchanged and all(seen[r][1] == [r] * 4 for r in seen)
same = same and [seen[r][0] for r in seen] == [[0] * 4, [1, 0, 1, 0], [1] * 4, [2, 1, 2, 1]]
same = same and seen[2][2] > 5 and seen[2][3] == 0
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
