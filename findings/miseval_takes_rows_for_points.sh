#!/usr/bin/env bash
# miseval: the Hausdorff distance of a label map and the same map upside down is 0.
#
# Versions: miseval 1.3.0, hausdorff 0.2.6, scipy 1.17.1, numpy 2.4.6.
# Guess: evaluate(truth, pred, metric="HD", multi_class=True, n_classes=3) gives, for each class,
#   the Hausdorff distance in pixels: how far the worst pixel of either is from the other. "AHD" is
#   the average one, so it is smaller, and a stray pixel hardly moves it. "BD", the mean distance of
#   the two boundaries, is 0 for a copy.
# What happens: the first two are something else, and so is the third. HD gives the map itself to a
#   function that wants one point a row: each row of pixels is a point, whose coordinates are class
#   numbers. The class that is asked for is not used, so that each class has the same number; where
#   the rows lie does not matter, so that a map upside down, or with its rows shuffled, has 0. AHD,
#   which should be the mean, takes the maximum, and is what HD should be, to the digit. BD averages
#   over all pairs of boundary points, near or far: a copy has 12, and a disc of half the size less.
# Why it matters: HD of 1 to 5 "pixels" looks excellent. It stays so for predictions in the wrong
#   place, and the usual check, that a copy has 0, passes. All three go into tables of medical and
#   other segmentations under the names of measures that they are not.
# Seen (64x64, discs of classes 1 and 2; of class 1: miseval's HD, AHD and BD, then the Hausdorff
#   distance and the average one by distance transforms; of class 2: miseval's HD, where 0, 25, 35,
#   0, 0 and 0 would be right):
#                  HD   AHD    BD  right: HD  average  class 2
#   copy          0.0   0.0  12.8        0.0      0.0      0.0
#   upside down   0.0  23.0  25.3       23.0     14.2      0.0
#   rows shuffled 0.0  33.0  20.3       33.0      5.2      0.0
#   moved by 3    2.4   3.0  13.2        3.0      1.8      2.4
#   stray pixel   1.0  46.7  15.3       46.7      0.4      1.0
#   smaller disc  3.5   6.4  10.5        6.4      5.8      3.5
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet miseval==1.3.0 hausdorff==0.2.6 scipy==1.17.1 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from miseval import evaluate
from scipy.ndimage import binary_erosion, distance_transform_edt

SIDE = 64
rows, columns = np.mgrid[:SIDE, :SIDE]


def two_discs(radius):
    label_map = np.zeros((SIDE, SIDE), np.uint8)
    label_map[(rows - 20) ** 2 + (columns - 20) ** 2 <= radius ** 2] = 1
    label_map[(rows - 44) ** 2 + (columns - 40) ** 2 <= 8 ** 2] = 2
    return label_map


def by_miseval(metric, pred):
    """A number for each of the three classes"""
    return evaluate(truth, pred, metric=metric, multi_class=True, n_classes=3)


def distances(from_these, to_these):
    return distance_transform_edt(~to_these)[from_these]


def hausdorff(pred):
    """Of class 1"""
    one, other = truth == 1, pred == 1
    return max(distances(one, other).max(), distances(other, one).max())


def average(pred):
    """Mean distance of the boundaries of class 1, in both directions"""
    one, other = truth == 1, pred == 1
    one = one & ~binary_erosion(one)
    other = other & ~binary_erosion(other)
    return (distances(one, other).mean() + distances(other, one).mean()) / 2


truth = two_discs(10)
moved = np.where(truth == 2, 2, np.roll(truth == 1, 3, axis=1)).astype(np.uint8)
stray = truth.copy()
stray[60, 60] = 1
predictions = {
    "copy": truth.copy(),
    "upside down": truth[::-1].copy(),
    "rows shuffled": truth[np.random.default_rng(0).permutation(SIDE)],
    "moved by 3": moved,
    "stray pixel": stray,
    "smaller disc": two_discs(4),
}
for package in ("miseval", "hausdorff", "scipy", "numpy"):
    print(package, version(package))
print(f"{'':14} HD   AHD    BD  right: HD  average  class 2")
found = {}
for name, pred in predictions.items():
    hd = by_miseval("HD", pred)
    ahd = by_miseval("AHD", pred)[1]
    bd = by_miseval("BD", pred)[1]
    found[name] = hd[1], ahd, bd
    right = hausdorff(pred), average(pred)
    print(f"{name:13} {hd[1]:3.1f}  {ahd:4.1f}  {bd:4.1f}       {right[0]:4.1f}     {right[1]:4.1f}"
          f"      {hd[2]:3.1f}")
    found[name] += (abs(ahd - right[0]) < 0.01 and hd.min() == hd.max(),)
same = all(values[3] for values in found.values())
same = same and found["upside down"][0] == found["rows shuffled"][0] == 0
same = same and found["stray pixel"][0] < 2 and found["stray pixel"][1] > 40
same = same and 5 < found["smaller disc"][2] < found["copy"][2]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
