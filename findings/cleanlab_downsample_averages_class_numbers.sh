#!/usr/bin/env bash
# cleanlab: find_label_issues with downsample averages class numbers, and then flags sound labels.
#
# Versions: cleanlab 2.9.0, numpy 2.4.6.
# Guess: downsample=4 of cleanlab.segmentation.filter.find_label_issues, which looks for wrong
#   pixels in label maps, takes one label of each block of 4x4 pixels, or the most frequent one:
#   coarser, but with the right classes. Which number a class has cannot matter.
# What happens: the labels of a block are averaged as numbers, and rounded: half class 0 and half
#   class 10 become class 5. So the blocks along borders get a label that the model rightly calls
#   impossible; they are the worst of all, and take the places of the real errors in the list. The
#   probabilities of such a block count for its invented class, too. Numbering the classes anew
#   changes what is found. One label of each block, picked by hand, with the same mean
#   probabilities and downsample=1, does not do that.
# Why it matters: probabilities of a whole set fit in no memory, so that downsample is used; its
#   text says "potentially less accurate results due to over-compression". Whoever drops or redraws
#   what is flagged redraws sound borders, and keeps most of the wrong labels.
# Seen (12 maps of 96x96, 12 classes, in each a square of a wrong class; recall and precision of the
#   flagged pixels; the same with the classes renumbered, and how many pixels differ then):
#                        as numbered  renumbered  differ
#   downsample=1          0.80 1.00   0.80 1.00       0
#   downsample=2          0.37 0.72   0.39 0.73    1341
#   one label of 2x2      0.73 1.00   0.73 1.00       0
#   downsample=4          0.33 0.57   0.29 0.59    2693
#   one label of 4x4      0.67 1.00   0.67 1.00       0
#   downsample=8          0.41 0.59   0.44 0.59    4064
#   one label of 8x8      0.48 0.98   0.48 0.98       0
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet cleanlab==2.9.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from cleanlab.segmentation.filter import find_label_issues

CLASSES, SIDE, COUNT = 12, 96, 12
rng = np.random.default_rng(0)


def drawn():
    label_map = np.zeros((SIDE, SIDE), int)
    for _ in range(14):
        y, x = rng.integers(0, SIDE - 12, 2)
        height, width = rng.integers(10, 40, 2)
        label_map[y:y + height, x:x + width] = rng.integers(0, CLASSES)
    return label_map


def softened(maps):
    """Mean of five pixels along both sides: a model is unsure at borders."""
    for axis in (2, 3):
        edge = [(0, 0)] * 4
        edge[axis] = (2, 2)
        padded = np.pad(maps, edge, mode="edge")
        maps = sum(np.take(padded, range(i, i + SIDE), axis) for i in range(5)) / 5
    return maps


truth = np.stack([drawn() for _ in range(COUNT)])
probabilities = softened(np.eye(CLASSES)[truth].transpose(0, 3, 1, 2))
logits = np.log(0.97 * probabilities + 0.03 / CLASSES)
logits = logits + rng.normal(0, 0.5, logits.shape)
probabilities = np.exp(logits)
probabilities /= probabilities.sum(1, keepdims=True)

labels = truth.copy()
wrong = np.zeros(truth.shape, bool)
for i in range(COUNT):
    y, x = rng.integers(0, SIDE - 32, 2)
    square = (i, slice(y, y + 24), slice(x, x + 24))
    labels[square] = (truth[square] + 1 + rng.integers(0, CLASSES - 1)) % CLASSES
    wrong[square] = True

number = np.random.default_rng(1).permutation(CLASSES)  # class k gets the number number[k]
renumbered = np.empty_like(probabilities)
renumbered[:, number] = probabilities


def flagged(labels, probabilities, downsample):
    return find_label_issues(labels, probabilities, downsample=downsample, n_jobs=1, verbose=False)


def flagged_by_hand(labels, probabilities, factor):
    """One label of each block, mean probabilities; then only pixels where label and model differ,
    as cleanlab itself does."""
    small = labels[:, factor // 2::factor, factor // 2::factor]
    side = SIDE // factor
    blocks = probabilities.reshape(COUNT, CLASSES, side, factor, side, factor).mean((5, 3))
    found = flagged(small, blocks, 1).repeat(factor, 1).repeat(factor, 2)
    return found & (probabilities.argmax(1) != labels)


def measured(title, search, factor):
    """-> recall, precision, and the pixels that differ when the classes are renumbered"""
    found = search(labels, probabilities, factor)
    again = search(number[labels], renumbered, factor)
    scores = [float((some & wrong).sum() / base.sum())
              for some in (found, again) for base in (wrong, some)]
    differ = int((found != again).sum())
    print(f"{title:21}", *[f"{score:.2f}" for score in scores], f"{differ:5}", flush=True)
    return scores, differ


for package in ("cleanlab", "numpy"):
    print(package, version(package))
whole, differ = measured("downsample=1", flagged, 1)
same = differ == 0 and min(whole[1], whole[3]) > 0.95
for factor in (2, 4, 8):
    by_cleanlab, differ = measured(f"downsample={factor}", flagged, factor)
    by_hand, differ_by_hand = measured(f"one label of {factor}x{factor}", flagged_by_hand, factor)
    same = same and differ > 500 and differ_by_hand == 0
    same = same and max(by_cleanlab[1], by_cleanlab[3]) < 0.8 < 0.95 < by_hand[1]
    same = same and by_cleanlab[0] < by_hand[0]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
