#!/usr/bin/env bash
# nipype: Overlap weighs classes by 1 / volume where it says volume, and takes class 1034 for 10.
#
# Versions: nipype 1.11.0, nibabel 5.4.2, scipy 1.17.1, numpy 2.4.6.
# Guess: Overlap compares two label maps; by the text of its inputs, weighting="volume" means that
#   "computed class-overlaps are weighted by class volume", and "squared_vol" by its square: a class
#   of a million voxels counts a thousand times as much as one of a thousand. Class numbers are
#   compared as they are.
# What happens: the weights are 1 / volume and 1 / volume**2 (Overlap._run_interface in
#   algorithms/metrics.py). The smallest class has nearly all the weight. Averaged Dice, Jaccard and
#   difference of volumes all have it.
#   And before the maps are compared, both are cast to the smallest type that holds the greatest
#   number of the first one. If that is 255 or less, numbers in the second one wrap: 1034 is 10.
#   A prediction with the wrong class in half of the voxels gets a Dice of 1, though not if the two
#   maps are swapped.
# Why it matters: whoever asks for weights by volume wants to know how much of the brain, or of the
#   picture, is right, and gets the score of a speck, on the same scale; of two models the worse one
#   wins. And FreeSurfer's numbers are among those that meet: 10 is the left thalamus and 1034 a
#   strip of temporal cortex, 2 is white matter and 1026 a part of the cingulate. If one map has the
#   cortex in parts and the other does not, voxels of these parts count as thalamus.
# Seen (a large class of 96% and a small one of 4%; two predictions, each of which has half of one
#   class; then a truth of 10 and 2, and a prediction that has 1034 and 1026 in half of it):
#   weighting    prediction                nipype  by volume  by 1 / volume
#   none         half of the large class    0.833      0.833          0.833
#   none         half of the small class    0.833      0.833          0.833
#   volume       half of the large class    0.987      0.680          0.987
#   volume       half of the small class    0.680      0.987          0.680
#   squared_vol  half of the large class    0.999      0.667          0.999
#   squared_vol  half of the small class    0.667      0.999          0.667
#   half renumbered: numpy  (0.666, [0.684, 0.649])
#   half renumbered: nipype (1.0, [1.0, 1.0])
#   the maps swapped: nipype (0.333, [0.684, 0.649, 0.0, 0.0])
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile nipype==1.11.0 nibabel==5.4.2 scipy==1.17.1 \
    numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 NO_ET=1 venv/bin/python -W ignore - <<'PYTHON'
import os
import sys
from importlib.metadata import version

import nibabel
import numpy as np
from nipype.algorithms.metrics import Overlap

SHAPE = (50, 40, 10)


def saved(name, label_map):
    nibabel.save(nibabel.Nifti1Image(label_map.astype(np.int16), np.eye(4)), name)
    return os.path.abspath(name)


def by_nipype(truth, prediction, weighting="none"):
    """-> averaged Dice, and the Dice of each class of the first map"""
    overlap = Overlap(weighting=weighting)
    overlap.inputs.volume1 = saved("truth.nii", truth)
    overlap.inputs.volume2 = saved("prediction.nii", prediction)
    outputs = overlap.run().outputs
    return round(outputs.dice, 3), [round(dice, 3) for dice in outputs.roi_di]


def by_numpy(truth, prediction, power=0):
    """-> the same; each class weighs as much as its volume to that power"""
    dices = []
    weights = []
    for k in np.unique(truth[truth > 0]):
        ours, theirs = truth == k, prediction == k
        dices.append(2 * float((ours & theirs).sum()) / float(ours.sum() + theirs.sum()))
        weights.append(float(ours.sum()) ** power)
    average = float(np.average(dices, weights=weights))
    return round(average, 3), [round(dice, 3) for dice in dices]


for package in ("nipype", "nibabel", "scipy", "numpy"):
    print(package, version(package))
truth = np.ones(SHAPE, int)
truth[48:] = 2
half_large = truth.copy()
half_large[:24] = 0
half_small = truth.copy()
half_small[49:] = 0
same = True
print("weighting    prediction                nipype  by volume  by 1 / volume")
for weighting, power in (("none", 0), ("volume", 1), ("squared_vol", 2)):
    for title, prediction in (("half of the large class", half_large),
                              ("half of the small class", half_small)):
        found, _ = by_nipype(truth, prediction, weighting)
        right, _ = by_numpy(truth, prediction, power)
        inverse, _ = by_numpy(truth, prediction, -power)
        print(f"{weighting:12} {title:24} {found:7.3f} {right:10.3f} {inverse:14.3f}")
        same = same and found == inverse and (power == 0 or abs(found - right) > 0.2)
truth = np.full(SHAPE, 10)
truth[25:] = 2
prediction = truth.copy()
prediction[::2] += 1024
print("half renumbered: numpy ", by_numpy(truth, prediction))
print("half renumbered: nipype", by_nipype(truth, prediction))
print("the maps swapped: nipype", by_nipype(prediction, truth))
same = same and by_numpy(truth, prediction)[0] < 0.7
same = same and by_nipype(truth, prediction) == (1, [1, 1])
same = same and by_nipype(prediction, truth)[0] < 0.7
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
