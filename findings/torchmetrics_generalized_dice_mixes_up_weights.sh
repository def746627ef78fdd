#!/usr/bin/env bash
# torchmetrics: the generalized Dice of one picture changes with the order of its batch.
#
# Versions: torchmetrics 1.9.0, torch 2.13.0, numpy 2.4.6, CPU.
# Guess: generalized_dice_score returns a number for each picture, made from that picture alone; the
#   class is their mean, the same for each batch size and order, as mean_iou and dice_score are.
# What happens: a class that a picture's truth does not have would weigh 1 / 0. It is given the
#   largest weight that "it" has in the batch, but the maxima are laid out class by class and the
#   weights picture by picture: it gets the maximum of another class, and which one depends on the
#   picture's place and on the batch size (with four pictures and four classes, picture n gets that
#   of class n). At batch 1 the weight is 0, so that false pixels of an absent class cost nothing.
#   weight_type="linear", which has no weights, and pictures that show all classes are not affected.
#   The known complaint about per_class=True (absent classes score 0) is another matter; this is
#   the total, as called by default.
# Why it matters: few pictures show all classes, so that nearly each is affected. The validation
#   score of one and the same network moves by a tenth with the batch size or the shuffling, more
#   than what methods differ by.
# Seen (four pictures, the second of which has all classes):
#   square, each alone      0.765 0.604 0.570 0.404
#   square, in one batch    0.765 0.604 0.267 0.338
#   square, batch reversed  0.338 0.604 0.529 0.404
#   the class, batch 1, 2 and 4: 0.586 0.531 0.494
#   linear, dice_score, mean_iou: the same numbers in all three ways
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from torchmetrics.functional.segmentation import (dice_score, generalized_dice_score, mean_iou)
from torchmetrics.segmentation import GeneralizedDiceScore

CLASSES = 4
SIDE = 64


def label_map(present, seed):
    """A rectangle of each class present on class 0."""
    rng = torch.Generator().manual_seed(seed)
    classes = torch.zeros(SIDE, SIDE, dtype=torch.long)
    for number in present:
        y, x = torch.randint(0, 40, (2,), generator=rng).tolist()
        height, width = torch.randint(6, 22, (2,), generator=rng).tolist()
        classes[y:y + height, x:x + width] = number
    return classes


def with_errors(truth, seed):
    """A tenth of the pixels gets a class drawn from all four."""
    rng = torch.Generator().manual_seed(seed)
    wrong = torch.rand(truth.shape, generator=rng) < 0.1
    drawn = torch.randint(0, CLASSES, truth.shape, generator=rng)
    return torch.where(wrong, drawn, truth)


def rounded(scores):
    return [round(float(score), 3) for score in scores]


def three_ways(title, score, **options):
    """Each picture's score: alone, in the batch, in the batch turned round."""
    options = {"num_classes": CLASSES, "input_format": "index", **options}
    alone = rounded([score(predicted[i:i + 1], truth[i:i + 1], **options) for i in range(4)])
    batch = rounded(score(predicted, truth, **options))
    turned = rounded(score(predicted.flip(0), truth.flip(0), **options).flip(0))
    print(f"{title}: alone {alone}, batch {batch}, reversed {turned}")
    return alone, batch, turned


def by_the_class(size):
    metric = GeneralizedDiceScore(num_classes=CLASSES, input_format="index")
    for start in range(0, 4, size):
        metric.update(predicted[start:start + size], truth[start:start + size])
    return round(float(metric.compute()), 3)


for package in ("torch", "torchmetrics", "numpy"):
    print(package, version(package))
truth = torch.stack([
    label_map([1, 2], 1),
    label_map([1, 2, 3], 2),  # the only one that has all classes
    label_map([1, 3], 3),
    label_map([2, 3], 4),
])
predicted = with_errors(truth, 5)
square = three_ways("square", generalized_dice_score)
simple = three_ways("simple", generalized_dice_score, weight_type="simple")
linear = three_ways("linear", generalized_dice_score, weight_type="linear")
dice = three_ways("dice_score", dice_score, average="micro")
iou = three_ways("mean_iou", mean_iou)
means = [by_the_class(size) for size in (1, 2, 4)]
print("the class at batch 1, 2, 4:", *means)

same = all(ways[0] == ways[1] == ways[2] for ways in (linear, dice, iou))
for alone, batch, turned in (square, simple):
    same = same and abs(alone[1] - batch[1]) < 0.002 and abs(batch[1] - turned[1]) < 0.002
    same = same and max(abs(a - b) for a, b in zip(alone, batch)) > 0.1
    same = same and max(abs(a - b) for a, b in zip(batch, turned)) > 0.1
same = same and max(means) - min(means) > 0.02
sys.exit(0 if same else "the behaviour has changed")
PYTHON
