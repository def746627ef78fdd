#!/usr/bin/env bash
# pytorch-toolbelt: its reduced focal loss for classes takes nothing off the easy pixels, and puts
# more on the hard ones.
#
# Versions: pytorch-toolbelt 0.8.0, torch 2.13.0, OpenCV 5.0.0.93 (headless), numpy 2.4.6, CPU.
# Guess: CrossEntropyFocalLoss(gamma=2, reduced_threshold=0.5) is the reduced focal loss of
#   Sergievskiy and Ponamarev (arXiv 1903.01347) for label maps: a pixel whose right class has the
#   probability p weighs 1 where p is below 0.5, so that the hardest ones, often noise, don't rule,
#   and ((1 - p) / 0.5) ** gamma above, which falls to 0 for what the network knows by now. It is a
#   focal loss with a flat beginning; BinaryFocalLoss of the same package has that.
# What happens: it is the other way round. A pixel weighs 1 where p is above 0.5, however sure the
#   network is, and ((1 - p) / 0.5) ** gamma below, which is 4 at p = 0. The function works on the
#   probability of an error, 1 - p, and still sets to 1 what is below the threshold, as the binary
#   one does with p. (That one was mended in pull request 102; it says there that the one for
#   classes works as the paper has it.) Without reduced_threshold the weights are right.
# Why it matters: one chooses a focal loss for label maps in which most pixels are easy: sky, wall,
#   background. With the threshold they are most of the loss again, as without any focal loss; and
#   mistakes in the labels, which the threshold is there for, weigh most. Training runs and falls.
# Seen (weight of a pixel, with two classes: the loss by that with gamma=0; then a map of five
#   classes of which 98% are easy, p = 0.99, and 2% hard, p = 0.3: what the easy have of the loss):
#   p of the right class  0.10 0.30 0.49 0.51 0.70 0.90 0.99  share of the easy
#   gamma=0               1    1    1    1    1    1    1     94.3%
#   focal                 0.81 0.49 0.26 0.24 0.09 0.01 0.00   0.5%
#   reduced, for classes  3.24 1.96 1.04 1.00 1.00 1.00 1.00  90.8%
#   reduced, binary       1.00 1.00 1.00 0.96 0.36 0.04 0.00
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6 \
    opencv-python-headless==5.0.0.93
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps pytorch-toolbelt==0.8.0
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
import types
from importlib.metadata import version

import torch

# The package imports torchvision's box_iou for its boxes; no loss uses it.
boxes = types.ModuleType("torchvision.ops")
boxes.box_iou = None
sys.modules["torchvision"] = types.ModuleType("torchvision")
sys.modules["torchvision.ops"] = boxes

from pytorch_toolbelt.losses import BinaryFocalLoss, CrossEntropyFocalLoss

SIDE = 100
CHANCES = torch.tensor([0.10, 0.30, 0.49, 0.51, 0.70, 0.90, 0.99])


def pixels(chances, classes):
    """Logits whose softmax gives the right class the wanted chance, the others the same each"""
    labels = torch.arange(chances.numel()).reshape(chances.shape) % classes
    right = torch.nn.functional.one_hot(labels, classes).movedim(-1, 0) > 0
    others = (1 - chances) / (classes - 1)
    return torch.where(right, chances, others).log()[None], labels[None]


def by_classes(chances, classes=2, **settings):
    """Loss of each pixel"""
    return CrossEntropyFocalLoss(reduction="none", **settings)(*pixels(chances, classes))[0]


def binary(chances, **settings):
    """Loss of each pixel, all of which are 1"""
    loss = BinaryFocalLoss(reduction="none", alpha=None, **settings)
    return loss(torch.logit(chances)[None, None], torch.ones(1, 1, *chances.shape))[0, 0]


def weights(title, loss, **settings):
    row = loss(CHANCES[None], **settings)[0] / loss(CHANCES[None], gamma=0.0)[0]
    print(f"{title:21}", *[f"{float(weight):.2f}" for weight in row])
    return row


def share(**settings):
    """What easy pixels have of the loss"""
    loss = by_classes(chances, classes=5, **settings)
    return float(loss[chances > 0.5].sum() / loss.sum())


chances = torch.full((SIDE, SIDE), 0.99)
chances[:2] = 0.3
reduced = {"gamma": 2.0, "reduced_threshold": 0.5}
wanted = torch.where(CHANCES < 0.5, torch.ones(()), ((1 - CHANCES) / 0.5) ** 2)  # the paper's

for package in ("pytorch-toolbelt", "torch", "opencv-python-headless", "numpy"):
    print(package, version(package))
print("p of the right class ", *[f"{float(chance):.2f}" for chance in CHANCES])
focal = weights("focal", by_classes, gamma=2.0)
for_classes = weights("reduced, for classes", by_classes, **reduced)
for_two = weights("reduced, binary", binary, **reduced)
shares = [share(gamma=0.0), share(gamma=2.0), share(**reduced)]
print("share of the easy: gamma=0, focal, reduced", *[f"{value:.1%}" for value in shares])
same = torch.allclose(for_two, wanted, atol=0.01) and float(focal[-1]) < 0.01
same = same and bool((for_classes[CHANCES > 0.5] - 1).abs().max() < 0.01)
same = same and float(for_classes[0]) > 3 and shares[1] < 0.02 and min(shares[0], shares[2]) > 0.9
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
