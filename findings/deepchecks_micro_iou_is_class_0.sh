#!/usr/bin/env bash
# deepchecks: the micro average of the IoU is the IoU of class 0, whatever the others are.
#
# Versions: deepchecks 0.19.1, torch 2.13.0, pytorch-ignite 0.5.5, numpy 2.3.5, CPU.
# Guess: "iou_micro", MeanIoU(average="micro"), counts the pixels of all classes together before it
#   divides, and takes the mean over the pictures, as "dice_micro" does beside it: with Dice D of a
#   picture, IoU is D / (2 - D). The text says of average: "The method for averaging over the
#   classes".
# What happens: MeanDice has a branch for micro that adds the classes up. MeanIoU has none. It
#   computes the IoU of each class, then takes number 0 of them for the only one, and number 0 is
#   class 0. Where that class is neither in a picture nor in what was predicted, it counts as 1.
#   The other averages, macro and none, and all three of Dice are what they say.
# Why it matters: class 0 is background, sky or road more often than not: large, easy, and of no
#   interest. A network that finds nothing but background scores nearly 1, and stays there whatever
#   it learns afterwards; of two networks the worse can be chosen.
# Seen (8 label maps of 4 classes, class 0 is 64% of them; pooled: as guessed, by numpy):
#   the network                    iou_micro  pooled   dice_micro  pooled  IoU of class 0
#   finds class 0, mixes the rest      1.000   0.471        0.640   0.640           1.000
#   finds all but class 0              0.000   0.220        0.360   0.360           0.000
#   finds all                          1.000   1.000        1.000   1.000           1.000
#   ten pictures of class 1 to 3, none right: iou_micro 1.000, dice_micro 0.000
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 pytorch-ignite==0.5.5 \
    numpy==2.3.5
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps deepchecks==0.19.1
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
import types
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np

# The metrics need numpy and Ignite. What the package loads before them, for tables, plots and
# notebooks, is some hundred megabytes; so its __init__ files are left out.
for name in ("deepchecks", "deepchecks.core", "deepchecks.vision",
             "deepchecks.vision.metrics_utils"):
    places = find_spec(name).submodule_search_locations
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = places
from deepchecks.vision.metrics_utils.semantic_segmentation_metrics import MeanDice, MeanIoU

CLASSES, COUNT, SIDE = 4, 8, 40


def scored(metric, truth, predicted):
    """-> what the metric says of label maps, the predicted ones given as probabilities"""
    probabilities = [np.stack([p == k for k in range(CLASSES)]).astype(float) for p in predicted]
    metric.reset()
    metric.update((probabilities, truth))
    return np.round(metric.compute(), 3)


def pooled(truth, predicted):
    """-> IoU and Dice over all classes together, the mean over the pictures"""
    shares = [float((t == p).mean()) for t, p in zip(truth, predicted)]
    return np.mean([s / (2 - s) for s in shares]), np.mean(shares)


def shown(title, truth, predicted):
    iou = scored(MeanIoU(average="micro"), truth, predicted)
    dice = scored(MeanDice(average="micro"), truth, predicted)
    every = scored(MeanIoU(), truth, predicted)
    should = np.round(pooled(truth, predicted), 3)
    print(f"{title:31} iou_micro {iou[0]:.3f}, pooled {should[0]:.3f}; dice_micro {dice[0]:.3f},",
          f"pooled {should[1]:.3f}; IoU of each class {every.tolist()},",
          f"macro {scored(MeanIoU(average='macro'), truth, predicted)}")
    return iou, dice, should, every


rng = np.random.default_rng(0)
truth, mixed, without = [], [], []
for _ in range(COUNT):
    label_map = np.zeros((SIDE, SIDE), int)
    top, left = rng.integers(0, SIDE - 24, 2)
    label_map[top:top + 24, left:left + 24] = rng.integers(1, CLASSES, (3, 3)).repeat(8, 0).repeat(
        8, 1)
    truth.append(label_map)
    mixed.append(np.where(label_map > 0, label_map % 3 + 1, 0))
    without.append(np.where(label_map > 0, label_map, 1))
no_background = [np.full((SIDE, SIDE), k % 3 + 1) for k in range(10)]
all_wrong = [picture % 3 + 1 for picture in no_background]

for package in ("deepchecks", "torch", "pytorch-ignite", "numpy"):
    print(package, version(package))
with open(find_spec("deepchecks.vision.metrics_utils.scorers").origin) as file:
    offered = "'iou_micro': lambda: MeanIoU(average='micro')" in file.read()
print("iou_micro is among the names that checks take:", offered)
rows = [shown("finds class 0, mixes the rest", truth, mixed),
        shown("finds all but class 0", truth, without),
        shown("finds all", truth, truth)]
nothing = shown("no class 0, none right", no_background, all_wrong)

same = offered and all(iou[0] == every[0] for iou, _, _, every in rows)
same = same and all(abs(dice[0] - should[1]) < 1e-3 for _, dice, should, _ in rows)
same = same and rows[0][0][0] == 1 and rows[0][2][0] < 0.5
same = same and rows[1][0][0] == 0 and rows[1][2][0] > 0.2
same = same and nothing[0][0] == 1 and nothing[1][0] == 0
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
