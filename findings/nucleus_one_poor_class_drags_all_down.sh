#!/usr/bin/env bash
# Scale Nucleus: in SegmentationIOU, one class below an IoU of 0.5 takes all the others down.
#
# Versions: scale-nucleus 0.22.3 (with its extra "metrics"), scipy 1.17.1, numpy 2.4.6.
# Guess: SegmentationIOU() of two label maps is the mean over the classes of intersection over
#   union. Its iou_threshold=0.5 is for instances, which have to be matched first; its text does
#   not mention it. A class that is painted badly lowers its own share, a quarter of four classes.
# What happens: each class is taken for one object. Below the threshold its IoU is 0, and the
#   pixels where it was right are moved into a column of false positives, the sum of which is then
#   added to the union of every class. A door without a wrong pixel gets 0.71, as windows, at
#   another place, have an IoU of 0.44. The more of them is right, up to the threshold, the
#   lower is the score: none at all is better than a half. iou_threshold=0 is the plain mean.
#   (A class that stands in the prediction's list of segments gets 0 if it is never painted; if it
#   does not stand there it is left out of the mean, which is then the best of all.)
# Why it matters: generated photos of facades are judged by how well a network reads their labels
#   back, and rare classes, doors or balconies, are often below 0.5. One step over the threshold
#   moves the score by a quarter, and a generator that never makes a window wins.
# Seen (a wall with a window of 16 columns, a door and a balcony; only the window is painted too
#   narrow; the IoU of the window, the mean over four classes, Nucleus with a threshold of 0,
#   Nucleus by default, and what that leaves for the door, which is right):
#   columns painted   window   mean  at 0  default  door
#   14                0.875  0.966  0.966    0.966  1.00
#    8                0.500  0.865  0.865    0.865  1.00
#    7                0.438  0.849  0.849    0.603  0.71
#    4                0.250  0.798  0.798    0.649  0.81
#    0                0.000  0.731  0.731    0.731  1.00
#    0, not listed    0.000  0.731  0.975    0.975  1.00
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "scale-nucleus[metrics]==0.22.3" scipy==1.17.1 \
    numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from nucleus.annotation import AnnotationList, Segment, SegmentationAnnotation
from nucleus.metrics import SegmentationIOU
from nucleus.metrics.segmentation_loader import InMemoryLoader
from nucleus.prediction import PredictionList, SegmentationPrediction

WALL, WINDOW, DOOR, BALCONY = range(4)
NAMES = ["wall", "window", "door", "balcony"]


def facade(columns):
    """A label map (64, 64) whose window has so many of its 16 columns"""
    label_map = np.full((64, 64), WALL, np.uint8)
    label_map[8:24, 8:8 + columns] = WINDOW
    label_map[40:60, 30:44] = DOOR
    label_map[8:24, 36:60] = BALCONY
    return label_map


def segments(classes):
    return [Segment(NAMES[index], index=index) for index in classes]


def nucleus(target, painted, listed, **options):
    metric = SegmentationIOU(**options)
    metric.loader = InMemoryLoader({"target": target, "painted": painted})  # by their "URLs"
    annotation = SegmentationAnnotation("target", segments(range(4)), reference_id="facade")
    prediction = SegmentationPrediction("painted", segments(listed), reference_id="facade")
    annotations = AnnotationList(segmentation_annotations=[annotation])
    predictions = PredictionList(segmentation_predictions=[prediction])
    return float(metric(annotations, predictions).value)


def ious(target, painted, threshold=0.0):
    """Each class's IoU; those below the threshold as Nucleus treats them"""
    right = np.array([np.sum((target == k) & (painted == k)) for k in range(4)])
    union = np.array([np.sum((target == k) | (painted == k)) for k in range(4)])
    poor = right / union < threshold
    return np.where(poor, 0, right) / (union + right[poor].sum())


for package in ("scale-nucleus", "scipy", "numpy"):
    print(package, version(package))
print("columns painted   window   mean  at 0  default  door")
target = facade(16)
same = True
for columns, listed in [
    (14, range(4)), (8, range(4)), (7, range(4)), (4, range(4)), (0, range(4)),
    (0, [WALL, DOOR, BALCONY]),
]:
    painted = facade(columns)
    plain = ious(target, painted)
    explained = ious(target, painted, threshold=0.5)
    at_0 = nucleus(target, painted, listed, iou_threshold=0.0)
    default = nucleus(target, painted, listed)
    title = f"{columns:2}" + ("" if len(listed) == 4 else ", not listed")
    print(f"{title:16}  {plain[WINDOW]:.3f}  {plain.mean():.3f}  {at_0:.3f}"
          f"    {default:.3f}  {explained[DOOR]:.2f}")
    if len(listed) < 4:
        same = same and at_0 > 0.9 and default > 0.9
        continue
    same = same and abs(at_0 - plain.mean()) < 1e-6
    same = same and abs(default - explained.mean()) < 1e-6
    if columns in (4, 7):
        same = same and default < plain.mean() - 0.1
        same = same and default < ious(target, facade(0)).mean()
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
