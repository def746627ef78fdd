#!/usr/bin/env bash
# MONAI, Ignite: the IoU's ignore_index leaves out a class, and not its pixels.
#
# Versions: monai 1.6.1, pytorch-ignite 0.5.5, torch 2.13.0, numpy 2.4.6, CPU.
# Guess: with void as a class of its own (here 3, after the classes 0-2), ignore_index=3 leaves the
#   pixels whose truth is void out of the score, so that it does not matter what a network says
#   there. MONAI's text of MeanIoU and of ConfusionMatrixMetric: "Voxels with this label are
#   excluded from the score". Its DiceMetric has the same sentence, and IoU is D / (2 - D).
# What happens: DiceMetric does what the text says. MeanIoU and ConfusionMatrixMetric set the plane
#   of class 3 to 0, and no more: whatever a network says at void counts as a false pixel of that
#   class. Ignite's IoU (so also mIoU; by its text "index to ignore, e.g. background index") takes
#   the class out of the list after counting, which comes to the same. Where void is no plane but
#   zeros in all of them, and ignore_index a number above the planes', MONAI is right, and so is
#   Ignite where void is 255 in the truth and ignore_index is not used. (torchmetrics had this:
#   its issue 312, mended in 2021.)
# Why it matters: void is the car's bonnet, the frame of a scan, what nobody labelled, and a network
#   has to say something there. Its IoU falls by what void covers, to a half here, and by another
#   amount for each network; a network that was taught to say void there is far ahead. The Dice
#   beside it is right, and IoUs made by other code cannot be compared.
# Seen (IoU of classes 0-2; the predictions differ at void alone, a third of the picture):
#                            random there    class 0 there   void there
#   by_hand                  0.9  0.74 0.79  0.9  0.74 0.79  0.9 0.74 0.79
#   monai_dice               0.9  0.74 0.79  0.9  0.74 0.79  0.9 0.74 0.79
#   monai_iou                0.71 0.37 0.41  0.49 0.74 0.79  0.9 0.74 0.79
#   monai_confusion          0.71 0.37 0.41  0.49 0.74 0.79  0.9 0.74 0.79
#   monai_iou_without_plane  0.9  0.74 0.79  0.9  0.74 0.79  0.9 0.74 0.79
#   ignite_iou               0.71 0.37 0.41  0.49 0.74 0.79  0.9 0.74 0.79
#   ignite_iou_255           0.9  0.74 0.79  0.9  0.74 0.79  0.9 0.74 0.79
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet monai==1.6.1 pytorch-ignite==0.5.5 torch==2.13.0 \
    numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import torch
from ignite.metrics import ConfusionMatrix, IoU
from monai.metrics import ConfusionMatrixMetric, DiceMetric, MeanIoU
from torch.nn import functional as F

CLASSES, VOID, SIDE, COUNT = 3, 3, 48, 4  # classes 0, 1, 2; 3 is void


def label_map(seed):
    rng = np.random.default_rng(seed)
    result = np.zeros((SIDE, SIDE), np.int64)
    for _ in range(20):
        y, x = rng.integers(0, SIDE - 8, 2)
        height, width = rng.integers(4, 16, 2)
        result[y:y + height, x:x + width] = rng.integers(0, CLASSES)
    return torch.from_numpy(result)


def one_hot(maps):
    return F.one_hot(maps, CLASSES + 1).permute(0, 3, 1, 2).float()  # (N, 4, 48, 48)


clean = torch.stack([label_map(seed) for seed in range(COUNT)])
void = torch.zeros_like(clean, dtype=torch.bool)
void[:, 34:] = True  # the bonnet
void[:, :, :4] = True
truth = clean.masked_fill(void, VOID)
guess = clean.roll(1, dims=2)  # each border is off by one pixel
rng = torch.Generator().manual_seed(0)
noise = torch.randint(0, CLASSES, truth.shape, generator=rng)
predictions = {
    "random": torch.where(void, noise, guess),
    "class 0": guess.masked_fill(void, 0),
    "void": guess.masked_fill(void, VOID),
}


def by_hand(prediction):
    scores = np.zeros((COUNT, CLASSES))
    for n in range(COUNT):
        for k in range(CLASSES):
            is_true = (truth[n] == k) & ~void[n]
            is_found = (prediction[n] == k) & ~void[n]
            scores[n, k] = (is_true & is_found).sum() / (is_true | is_found).sum()
    return scores.mean(0)


def monai_iou(prediction):
    metric = MeanIoU(ignore_index=VOID, reduction="mean_batch")
    metric(one_hot(prediction), one_hot(truth))
    return metric.aggregate().numpy()[:CLASSES]


def monai_confusion(prediction):
    metric = ConfusionMatrixMetric(metric_name="threat score", ignore_index=VOID,
                                   compute_sample=True, reduction="mean_batch")
    metric(one_hot(prediction), one_hot(truth))
    return metric.aggregate()[0].numpy()[:CLASSES]


def monai_iou_without_plane(prediction):
    """Void is no plane but all zeros, and ignore_index is a number above the planes'."""
    metric = MeanIoU(ignore_index=255, reduction="mean_batch")
    metric(one_hot(prediction)[:, :CLASSES], one_hot(truth)[:, :CLASSES])
    return metric.aggregate().numpy()


def monai_dice(prediction):
    """MONAI's Dice of each picture and class, as an IoU."""
    metric = DiceMetric(ignore_index=VOID, reduction="none")
    metric(one_hot(prediction), one_hot(truth))
    dice = metric.aggregate()[:, :CLASSES]
    return (dice / (2 - dice)).mean(0).numpy()


def ignite_iou(prediction):
    scores = []
    for n in range(COUNT):
        matrix = ConfusionMatrix(num_classes=CLASSES + 1)
        metric = IoU(matrix, ignore_index=VOID)
        matrix.reset()
        matrix.update((one_hot(prediction[n:n + 1]), truth[n:n + 1]))
        scores.append(metric.compute().numpy())
    return np.mean(scores, 0)


def ignite_iou_255(prediction):
    """Void is 255 in the truth, beyond the matrix."""
    scores = []
    for n in range(COUNT):
        matrix = ConfusionMatrix(num_classes=CLASSES)
        metric = IoU(matrix)
        matrix.reset()
        planes = one_hot(prediction[n:n + 1])[:, :CLASSES]
        matrix.update((planes, truth[n:n + 1].masked_fill(void[n:n + 1], 255)))
        scores.append(metric.compute().numpy())
    return np.mean(scores, 0)


for package in ("monai", "pytorch-ignite", "torch", "numpy"):
    print(package, version(package))
seen = {}
for way in (by_hand, monai_dice, monai_iou, monai_confusion, monai_iou_without_plane,
            ignite_iou, ignite_iou_255):
    line = f"{way.__name__:24}"
    for name, prediction in predictions.items():
        found = [round(float(score), 2) for score in way(prediction)]
        seen[way.__name__, name] = found
        line += f" {name} {found}"
    print(line)
same = True
for name in predictions:
    right = seen["by_hand", name]
    for way in ("monai_dice", "monai_iou_without_plane", "ignite_iou_255"):
        same = same and seen[way, name] == right
    for way in ("monai_iou", "monai_confusion", "ignite_iou"):
        same = same and (seen[way, name] == right) == (name == "void")
        if name == "random":
            same = same and seen[way, name][1] < 0.6 * right[1]
print("share of void:", round(float(void.float().mean()), 2))
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
