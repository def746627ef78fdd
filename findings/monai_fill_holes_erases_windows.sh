#!/usr/bin/env bash
# MONAI: FillHoles paints over each object that lies inside of another one.
#
# Versions: monai 1.6.1, torch 2.13.0, scipy 1.17.1, numpy 2.4.6, CPU.
# Guess: FillHoles()(label_map) gives pixels of class 0 that one class encloses the number of that
#   class, and touches nothing else: by its text "an enclosed hole is defined as a background
#   pixel/voxel which is only enclosed by a single class", and "the label 0 will be treated as
#   background". A window in a wall is no background.
# What happens: for each class, all that it encloses becomes that class, whatever it was:
#   monai.transforms.utils.fill_holes takes `img != label` for the background. A facade loses its
#   windows, a liver its tumour, and void (255) inside of an object becomes the object. An object
#   that reaches the edge of what encloses it, as a door at the foot of its wall does, is kept. In
#   one-hot form the window stays in its own plane, and the wall's plane has it, too: argmax then
#   gives it to the lower number. Filling only pixels that were 0 before keeps the windows.
#   And the array that was given is changed itself, so that a comparison of before and after finds
#   no difference.
# Why it matters: it is a step after the network or over the training maps, meant to take specks
#   out. A nested class, often the rare one that matters most, is then gone from prediction or
#   truth, or from both, where no score shows it; its recall is 0, and the network is blamed.
# Seen (share of each class's pixels that still has its number; enclosed pixels of 0 that are left):
#   facade: wall window door void
#     by_monai   [1.0, 0.0, 1.0, 0.0], specks left 0
#     the array given is changed
#     one_hot    [1.0, 0.0, 1.0, 0.0], specks left 3
#     only_holes [1.0, 1.0, 1.0, 1.0], specks left 0
#   liver: liver tumour
#     by_monai   [1.0, 0.0], specks left 0
#     the array given is changed
#     one_hot    [1.0, 0.0], specks left 1
#     only_holes [1.0, 1.0], specks left 0
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet monai==1.6.1 torch==2.13.0 scipy==1.17.1 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from monai.transforms import FillHoles
from scipy import ndimage

SIDE = 96
VOID = 255


def facade():
    """-> sky 0, wall 1, window 2, door 3, void 255; and three specks of 0 in the wall"""
    label_map = np.zeros((SIDE, SIDE), np.uint8)
    label_map[20:, 10:86] = 1
    for y in (28, 48):
        for x in (16, 36, 56, 72):
            label_map[y:y + 12, x:x + 8] = 2
    label_map[72:, 40:54] = 3
    label_map[64:68, 20:24] = VOID
    for y, x in ((24, 50), (44, 30), (66, 70)):
        label_map[y, x] = 0
    return label_map


def liver():
    """-> outside 0, liver 1, tumour 2, and a speck of 0 in the liver"""
    y, x = np.mgrid[:SIDE, :SIDE]
    label_map = ((y - 48) ** 2 + (x - 48) ** 2 < 40 ** 2).astype(np.uint8)
    label_map[(y - 40) ** 2 + (x - 56) ** 2 < 9 ** 2] = 2
    label_map[60, 30] = 0
    return label_map


def only_holes(label_map):
    """What the text says: of each class, only pixels of class 0 are filled."""
    filled = label_map.copy()
    for k in np.unique(label_map):
        if k not in (0, VOID):
            inside = ndimage.binary_fill_holes(label_map == k)
            filled[inside & (label_map == 0)] = k
    return filled


def by_monai(label_map):
    return np.asarray(FillHoles()(label_map[None]))[0]


def one_hot(label_map):
    classes = [k for k in np.unique(label_map) if k != VOID]
    planes = np.array([label_map == k for k in classes], np.uint8)
    return np.asarray(FillHoles()(planes)).argmax(0)


def kept(label_map, result):
    """-> for each class but 0, the share of its pixels that still has its number; and how many
    enclosed pixels of class 0 are left"""
    shares = []
    for k in np.unique(label_map):
        if k != 0:
            shares.append(round(float((result[label_map == k] == k).mean()), 2))
    return shares, int((only_holes(label_map)[result == 0] != 0).sum())


for package in ("monai", "torch", "scipy", "numpy"):
    print(package, version(package))
seen = {}
for name, label_map, classes in (("facade", facade(), "wall window door void"),
                                 ("liver", liver(), "liver tumour")):
    print(f"{name}: {classes}")
    for way in (by_monai, one_hot, only_holes):
        given = label_map.copy()
        shares, specks = kept(label_map, way(given))
        seen[name, way.__name__] = shares, specks
        print(f"  {way.__name__:10} {shares}, specks left {specks}")
        if way is by_monai:
            untouched = np.array_equal(given, label_map)
            seen[name, "untouched"] = untouched
            print("  the array given is", "as it was" if untouched else "changed")
same = seen["facade", "by_monai"] == ([1, 0, 1, 0], 0) and seen["liver", "by_monai"] == ([1, 0], 0)
same = same and seen["facade", "one_hot"][0] == [1, 0, 1, 0]
same = same and seen["liver", "one_hot"][0] == [1, 0]
same = same and seen["facade", "only_holes"] == ([1, 1, 1, 1], 0)
same = same and seen["liver", "only_holes"] == ([1, 1], 0)
same = same and not (seen["facade", "untouched"] or seen["liver", "untouched"])
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
