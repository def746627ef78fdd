#!/usr/bin/env bash
# MONAI: naming an ignore_index makes the focal loss larger by the number of classes.
#
# Versions: monai 1.6.1, torch 2.13.0, CPU.
# Guess: FocalLoss(..., ignore_index=255) leaves void out of its mean. On a batch without any void
#   it is the same number as without ignore_index, as it is in DiceLoss and TverskyLoss, and in
#   torch's cross entropy.
# What happens: without ignore_index the loss is the mean over pixels and planes. With it, the sum
#   over pixels and planes is divided by the number of pixels alone: the mask has one plane, and
#   mask.sum() counts it once. So with K classes the loss and its gradients are K times larger, by
#   softmax or sigmoid, whether or not there is void in the batch.
# Why it matters: a set gets a void border, ignore_index=255 is added, and with 19 classes the loss
#   is 19 times as strong: beside a Dice or adversarial loss whose weight was tuned before, it now
#   decides alone, and with plain SGD it is a learning rate times 19. Each number looks plausible,
#   and the loss falls as before.
# Seen (each loss without and with ignore_index=255; then a quarter of the pixels void):
#    2 classes, no void: focal 0.243 0.486 focal_sigmoid 0.347 0.694 dice 0.499 0.499
#    2 classes, a quarter is void: focal 0.487, by hand 0.244
#    4 classes, no void: focal 0.308 1.231 focal_sigmoid 0.343 1.370 dice 0.748 0.748
#    4 classes, a quarter is void: focal 1.233, by hand 0.308
#   12 classes, no void: focal 0.216 2.594 focal_sigmoid 0.346 4.157 dice 0.917 0.917
#   12 classes, a quarter is void: focal 2.589, by hand 0.216
#   19 classes, no void: focal 0.166 3.158 focal_sigmoid 0.345 6.548 dice 0.947 0.947
#   19 classes, a quarter is void: focal 3.164, by hand 0.167
#   (tversky as dice)
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet monai==1.6.1 torch==2.13.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from monai.losses import DiceLoss, FocalLoss, TverskyLoss
from torch.nn import functional as F

SIDE, VOID = 64, 255


def by_hand(logits, target):
    """The mean of -(1 - p)^2 log p of the true class over pixels and planes, void left out."""
    valid = target != VOID  # (N, 1, H, W)
    log_p = F.log_softmax(logits, 1).gather(1, target.masked_fill(~valid, 0))
    loss = -(1 - log_p.exp()) ** 2 * log_p
    return (loss[valid].mean() / logits.shape[1]).item()


def focal(logits, target, **options):
    return FocalLoss(to_onehot_y=True, use_softmax=True, **options)(logits, target).item()


def focal_sigmoid(logits, target, **options):
    return FocalLoss(to_onehot_y=True, **options)(logits, target).item()


def dice(logits, target, **options):
    return DiceLoss(to_onehot_y=True, softmax=True, **options)(logits, target).item()


def tversky(logits, target, **options):
    return TverskyLoss(to_onehot_y=True, softmax=True, **options)(logits, target).item()


for package in ("monai", "torch"):
    print(package, version(package))
torch.manual_seed(0)
seen = {}
for classes in (2, 4, 12, 19):
    logits = torch.randn(2, classes, SIDE, SIDE)
    target = torch.randint(0, classes, (2, 1, SIDE, SIDE))  # no pixel of void
    line = f"{classes:2} classes, no void:"
    for loss in (focal, focal_sigmoid, dice, tversky):
        without = loss(logits, target)
        with_it = loss(logits, target, ignore_index=VOID)
        seen[classes, loss.__name__] = round(with_it / without, 3)
        line += f" {loss.__name__} {without:.3f} {with_it:.3f}"
    seen[classes, "by hand"] = round(focal(logits, target) / by_hand(logits, target), 3)
    print(line)
    target[:, :, :SIDE // 4] = VOID
    found, right = focal(logits, target, ignore_index=VOID), by_hand(logits, target)
    seen[classes, "void"] = round(found / right, 3)
    print(f"{classes:2} classes, a quarter is void: focal {found:.3f}, by hand {right:.3f}")
same = True
for classes in (2, 4, 12, 19):
    same = same and seen[classes, "by hand"] == seen[classes, "dice"] == 1
    same = same and seen[classes, "tversky"] == 1
    same = same and seen[classes, "focal"] == seen[classes, "focal_sigmoid"] == classes
    same = same and seen[classes, "void"] == classes
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
