#!/usr/bin/env bash
# supervisely: the total recall of label maps is 1.0, however many of their pixels are wrong.
#
# Versions: supervisely 6.74.51, OpenCV 4.14.0.94, numpy 2.4.6.
# Guess: PixelAccuracyMetric.get_total_metrics() sums up over the classes: precision is the share of
#   the predicted pixels that are right, recall the share of the true pixels that were found. Where
#   each pixel has a class in both maps, both are the pixel accuracy. A window painted as wall is a
#   false wall, and a window that was missed.
# What happens: a pixel of the wrong class counts as false positive alone. As false negative counts
#   only what has a true class and no predicted one at all. A network that gives each pixel a class,
#   as an argmax does, leaves none, so that its recall is 1.0 (0 where no pixel at all is right).
#   get_metrics(), class by class, counts both, and is right. Where a predicted map has gaps, recall
#   goes down by the gaps alone: a network that leaves pixels out is worse for it than one that gets
#   them wrong.
# Why it matters: recall is read as "what did it miss". A map of a single class, which finds none of
#   the others, has 1.0, and an F1 from it is far too high. Precision and accuracy beside it are
#   right, which makes it look like a network that finds everything and paints too much.
# Seen (maps of 160x160 and four classes; total precision, recall and accuracy, recall of the
#   classes, and the share of true pixels that were found):
#   copy                 1.00 1.00 1.00   1.00 1.00 1.00 1.00   1.00
#   a third is wrong     0.70 1.00 0.70   0.67 0.73 0.70 0.70   0.70
#   all of one class     0.23 1.00 0.23   1.00 0.00 0.00 0.00   0.23
#   a third left empty   1.00 0.70 0.70   0.67 0.73 0.70 0.70   0.70
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile supervisely==6.74.51 \
    opencv-python==4.14.0.94 numpy==2.4.6
cd "$folder"
HOME="$folder" OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import supervisely as sly
from supervisely.metric.pixel_accuracy import PixelAccuracyMetric

NAMES = ["wall", "window", "door", "sky"]
BLOCKS, BLOCK = 16, 10
classes = [sly.ObjClass(name, sly.Bitmap) for name in NAMES]


def enlarged(blocks):
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)


def annotation(label_map):
    """A bitmap for each class; 255 has none"""
    labels = [sly.Label(sly.Bitmap(label_map == k), classes[k])
              for k in range(len(NAMES)) if (label_map == k).any()]
    return sly.Annotation(label_map.shape, labels)


def scored(pred):
    """-> total precision, recall and accuracy; recall of each class"""
    metric = PixelAccuracyMetric({name: name for name in NAMES})
    metric.add_pair(annotation(truth), annotation(pred))
    total = metric.get_total_metrics()
    each = metric.get_metrics()
    totals = [float(total[name]) for name in ("precision", "recall", "accuracy")]
    return totals, [float(each[name]["recall"]) for name in NAMES]


rng = np.random.default_rng(0)
truth = enlarged(rng.integers(0, len(NAMES), (BLOCKS, BLOCKS)))
third = enlarged(rng.random((BLOCKS, BLOCKS)) < 1 / 3)
predictions = {
    "copy": truth.copy(),
    "a third is wrong": np.where(third, (truth + 1) % len(NAMES), truth),
    "all of one class": np.zeros_like(truth),
    "a third left empty": np.where(third, 255, truth),
}
for package in ("supervisely", "opencv-python", "numpy"):
    print(package, version(package))
print("                    precision, recall, accuracy   recall of the classes   found")
same = True
for name, pred in predictions.items():
    found = float((pred == truth).mean())
    (precision, recall, accuracy), each = scored(pred)
    print(f"{name:18}   {precision:.2f} {recall:.2f} {accuracy:.2f}  ",
          *[f"{value:.2f}" for value in each], f"  {found:.2f}")
    by_hand = [float((pred == k)[truth == k].mean()) for k in range(len(NAMES))]
    same = same and np.allclose(each, by_hand) and abs(accuracy - found) < 0.001
    same = same and abs(recall - (found if (pred == 255).any() else 1.0)) < 0.001
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
