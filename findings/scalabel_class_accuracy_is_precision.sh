#!/usr/bin/env bash
# scalabel: its accuracy of a class is the class's precision, and rewards a network that finds less.
#
# Versions: scalabel 0.3.1, pydantic 1.10.26 (version 2 makes scalabel's optional fields
#   obligatory), numpy 2.4.6.
# Guess: evaluate_sem_seg, which scores label maps of BDD100K, reports IoU, Acc, fIoU and pAcc, as
#   others do since FCN: Acc of a class is the share of its pixels that were found (its recall), the
#   AVERAGE of the classes is the mean accuracy, and pAcc is the share of all pixels that are right.
#   So Acc of the classes, weighted by how many pixels they have, is pAcc.
# What happens: per_class_acc divides by hist.sum(axis=0), and the rows of hist are the truth: it is
#   the share of what was called a car that is one. A map in which half of the cars are missing has
#   100 for cars; one with all cars, each painted too large, has 36. IoU is the same either way
#   round, and fIoU and pAcc sum along the right axis: the table's other numbers are right.
# Why it matters: mean accuracies stand beside those of Cityscapes or ADE20K from other code, and
#   Acc is what one looks at to see which class is missed. A network that paints only the surest
#   pixels is praised, and one whose cars are too large seems to miss them.
# Seen (of the cars in a street of road, sky and cars; last, Acc weighted by pixels, and pAcc):
#   as in truth    IoU 100.0  Acc 100.0  recall 100.0  precision 100.0   100.0 100.0
#   half missing   IoU  50.0  Acc 100.0  recall  50.0  precision 100.0    97.0  96.9
#   too large      IoU  36.2  Acc  36.2  recall 100.0  precision  36.2    96.0  89.0
#   never a car    IoU   0.0  Acc   0.0  recall   0.0  precision   0.0    88.1  93.8
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile scalabel==0.3.1 pydantic==1.10.26 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import logging
import os
import sys
from importlib.metadata import version

os.environ["TQDM_DISABLE"] = "1"
import numpy as np
from scalabel.eval.sem_seg import evaluate_sem_seg
from scalabel.label.transforms import mask_to_rle
from scalabel.label.typing import Category, Config, Frame, ImageSize, Label

logging.disable(logging.INFO)
NAMES = ["road", "car", "sky"]
ROAD, CAR, SKY = range(3)
HEIGHT, WIDTH = 80, 120


def street(grow=0, missing=0):
    """A label map with four cars of 10x15; the first ones can be left out."""
    label_map = np.full((HEIGHT, WIDTH), ROAD)
    label_map[:30] = SKY
    for place in range(missing, 4):
        left = 8 + 28 * place
        label_map[50 - grow:60 + grow, left - grow:left + 15 + grow] = CAR
    return label_map


def as_frame(label_map):
    labels = []
    for number, name in enumerate(NAMES):
        rle = mask_to_rle((label_map == number).astype(np.uint8))
        labels.append(Label(id=name, category=name, rle=rle))
    return Frame(name="street", labels=labels)


def score(truth, predicted):
    """-> IoU and Acc by class, the mean Acc and pAcc by scalabel; all in per cent"""
    config = Config(imageSize=ImageSize(height=HEIGHT, width=WIDTH),
                    categories=[Category(name=name) for name in NAMES])
    result = evaluate_sem_seg([as_frame(truth)], [as_frame(predicted)], config, nproc=1)
    iou = [result.IoU[0][name] for name in NAMES]
    acc = [result.Acc[0][name] for name in NAMES]
    return np.array(iou), np.array(acc), result.Acc[1]["AVERAGE"], result.pAcc


for name in ("scalabel", "pydantic", "numpy"):
    print(name, version(name))
truth = street()
rows = [("as in truth", street()), ("half missing", street(missing=2)),
        ("too large", street(grow=4)), ("never a car", street(missing=4))]
as_described = True
for title, predicted in rows:
    iou, acc, mean, all_pixels = score(truth, predicted)
    recall, precision, share = [], [], []
    for number in range(3):
        found = ((truth == number) & (predicted == number)).sum()
        recall.append(100 * found / (truth == number).sum())
        precision.append(100 * found / max((predicted == number).sum(), 1))
        share.append((truth == number).mean())
    weighted = (acc * share).sum()
    print(f"{title:12} IoU {iou[CAR]:5.1f}  Acc {acc[CAR]:5.1f}  recall {recall[CAR]:5.1f}  "
          f"precision {precision[CAR]:5.1f}  mean {mean:5.1f}  weighted {weighted:5.1f}  "
          f"pAcc {all_pixels:5.1f}")
    as_described &= np.allclose(acc, precision)
    as_described &= np.allclose(all_pixels, (np.array(recall) * share).sum())
    if title in ("half missing", "too large"):
        as_described &= abs(acc[CAR] - recall[CAR]) > 40
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
