#!/usr/bin/env bash
# Scale Nucleus: in SegmentationMAP("coco") the loosest threshold alone weighs as much as the rest.
#
# Versions: scale-nucleus 0.22.3 (with its extra "metrics"), scipy 1.17.1, numpy 2.4.6.
# Guess: "coco", the default, is the mean of the precisions at the ten thresholds from 0.50 to
#   0.95 that COCO made the custom, a tenth each.
# What happens: the thresholds are those, but they are taken for steps on the way from 0 to 1. The
#   value at 0.50 stands for all of 0 to 0.50 and weighs 0.5; that at 0.95 weighs 0.10, the other
#   eight 0.05 each. A list of one's own is weighed in the same way. Its text says only that it
#   takes "a list of threshold to compute over or literal "coco"".
# Why it matters: blurred borders, the usual fault of generated pictures, are what the thresholds
#   above 0.5 are for; these weigh 0.5 together in place of 0.9. A network that misses every border
#   may come before one that has half of the classes without a fault (rows 3 and 4), and no number
#   can be set beside one of another tool.
# Seen (four classes in stripes of 16 columns, painted some columns too far to the right; or two of
#   the classes exchanged; the mean of Nucleus's own precisions at the ten thresholds; its MAP):
#   painted                   mean of ten    MAP
#   without a fault                 1.000  1.000
#   1 column to the right           0.750  0.797
#   3 columns to the right          0.325  0.528
#   two classes exchanged           0.500  0.500
#   5 columns to the right          0.069  0.344
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
from nucleus.metrics import SegmentationMAP, SegmentationPrecision
from nucleus.metrics.segmentation_loader import InMemoryLoader
from nucleus.prediction import PredictionList, SegmentationPrediction

NAMES = ["sky", "wall", "window", "door"]
THRESHOLDS = np.arange(0.5, 1, 0.05)  # as Nucleus makes them of "coco"
target = np.arange(64, dtype=np.uint8)[None].repeat(64, axis=0) // 16


def nucleus(metric, painted):
    metric.loader = InMemoryLoader({"target": target, "painted": painted})  # by their "URLs"
    listed = [Segment(name, index=index) for index, name in enumerate(NAMES)]
    annotation = SegmentationAnnotation("target", list(listed), reference_id="facade")
    prediction = SegmentationPrediction("painted", list(listed), reference_id="facade")
    annotations = AnnotationList(segmentation_annotations=[annotation])
    predictions = PredictionList(segmentation_predictions=[prediction])
    return float(metric(annotations, predictions).value)


for package in ("scale-nucleus", "scipy", "numpy"):
    print(package, version(package))
paintings = {
    "without a fault": target,
    "1 column to the right": np.roll(target, 1, axis=1),
    "3 columns to the right": np.roll(target, 3, axis=1),
    "two classes exchanged": np.array([0, 1, 3, 2], np.uint8)[target],
    "5 columns to the right": np.roll(target, 5, axis=1),
}
weights = np.full(10, 0.05)
weights[0] = 0.5
weights[-1] = 0.1
means, scores, same = {}, {}, True
print("painted                   mean of ten    MAP")
for title, painted in paintings.items():
    precisions = [
        nucleus(SegmentationPrecision(iou_threshold=threshold), painted)
        for threshold in THRESHOLDS]
    means[title] = np.mean(precisions)
    scores[title] = nucleus(SegmentationMAP(iou_thresholds="coco"), painted)
    print(f"{title:25}  {means[title]:10.3f}  {scores[title]:5.3f}")
    same = same and abs(scores[title] - np.dot(weights, precisions)) < 1e-6
blurred, exchanged = "3 columns to the right", "two classes exchanged"
same = same and means[blurred] < means[exchanged] - 0.1
same = same and scores[blurred] > scores[exchanged] + 0.01
same = same and scores["5 columns to the right"] > 4 * means["5 columns to the right"]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
