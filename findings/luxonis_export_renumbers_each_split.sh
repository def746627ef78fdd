#!/usr/bin/env bash
# luxonis-ml: exported label maps number their classes anew in train, valid and test.
#
# Versions: luxonis-ml 0.10.2, polars 1.44.2, Pillow 13.0.0, numpy 2.4.6.
# Guess: a dataset has a number for each class, which set_classes can choose. dataset.export(folder,
#   DatasetType.SEGMASK) writes PNG files whose pixels are class numbers, with background as 0, and
#   _classes.csv beside them. A class has the same number in train, valid and test, as in Roboflow's
#   export, whose format it is; so whoever has read one _classes.csv knows all.
# What happens: each split counts its classes from 1 in the order in which they are met there, first
#   picture by picture and then by the order in which a picture's masks were added. What set_classes
#   has chosen is not looked at, and a class that a split has not is not counted. Each _classes.csv
#   is right for its own folder, and luxonis-ml reads its own export rightly. (The exporter's class
#   calls an attribute "per-split class-to-ID maps"; the texts of export and of the format do not.)
# Why it matters: pixel values are what trainers read. A network that has learnt train perfectly is
#   wrong in every class on valid, which looks like a network that has learnt nothing. Where masks
#   of all folders are put together to train on, labels contradict each other, and all that is seen
#   is a bad loss. Where the order happens to agree, or one picture comes first everywhere, nothing
#   is wrong, until the data are split once more.
# Seen (6 drawn facades, 2 in each split; classes set to wall 0, window 1, door 2):
#   train  wall 1, window 2, door 3
#   valid  door 1, wall 2, window 3
#   test   window 1, door 2
#   IoU of perfect label maps in train's numbers with valid's files: 0 0 0, with test's files: 0 0
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile "luxonis-ml[data]==0.10.2" polars==1.44.2 \
    pillow==13.0.0 numpy==2.4.6
cd "$folder"
export LUXONISML_BASE_PATH="$folder/luxonis" LOG_LEVEL=ERROR
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import contextlib
import csv
import os
import sys
from importlib.metadata import version

import numpy as np
from luxonis_ml.data import LuxonisDataset
from luxonis_ml.enums import DatasetType
from PIL import Image

CLASSES, SIDE = ["wall", "window", "door"], 32
# The classes of each picture, in the order in which its masks are added
ORDERS = {"train": [[0, 1, 2], [0, 1, 2]], "valid": [[2, 0, 1], [2, 0]], "test": [[1, 2], [1]]}


def draw(order):
    """-> a stripe for each class, its index + 1, on background 0"""
    label_map = np.zeros((SIDE, SIDE), np.uint8)
    for stripe, k in enumerate(order):
        label_map[4 + 8 * stripe:10 + 8 * stripe, 4:28] = k + 1
    return label_map


def records():
    for path, (label_map, order) in drawn.items():
        for k in order:
            mask = (label_map == k + 1).astype(np.uint8)
            yield {"file": path, "annotation": {"class": CLASSES[k],
                                                "segmentation": {"mask": mask}}}


drawn, splits = {}, {}
rng = np.random.default_rng(0)
for split, orders in ORDERS.items():
    splits[split] = []
    for index, order in enumerate(orders):
        path = os.path.abspath(f"{split}{index}.png")
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
        drawn[path] = draw(order), order
        splits[split].append(path)

with contextlib.redirect_stdout(sys.stderr):
    dataset = LuxonisDataset("facades", delete_local=True)
    dataset.add(records())
    dataset.set_classes({name: k for k, name in enumerate(CLASSES)})
    dataset.make_splits({"train": splits["train"], "val": splits["valid"],
                         "test": splits["test"]})
    dataset.export("exported", DatasetType.SEGMASK)

for package in ("luxonis-ml", "polars", "pillow", "numpy"):
    print(package, version(package))
chosen = list(dataset.get_classes().values())[0]
print("chosen by set_classes", dict(chosen))
numbers, exported = {}, {}
for split in ORDERS:
    place = f"exported/facades/{split}"
    with open(f"{place}/_classes.csv") as file:
        rows = list(csv.reader(file))[1:]
    numbers[split] = {name.strip(): int(number) for number, name in rows}
    exported[split] = []
    for name in sorted(name for name in os.listdir(place) if name.endswith("_mask.png")):
        exported[split].append(np.array(Image.open(f"{place}/{name}")))
    print(f"{split:5} {numbers[split]}")


def in_numbers_of(split, path):
    """The drawn label map in the numbers of a split"""
    label_map, result = drawn[path][0], np.zeros((SIDE, SIDE), np.uint8)
    for k, name in enumerate(CLASSES):
        result[label_map == k + 1] = numbers[split].get(name, 0)
    return result


def overlaps(split):
    """IoU of each class of the split: perfect label maps in train's numbers with its files"""
    perfect = np.stack([in_numbers_of("train", path) for path in splits[split]])
    stored, values = np.stack(exported[split]), []
    for name in numbers[split]:
        if name != "background":
            k = numbers["train"][name]
            both, either = (perfect == k) & (stored == k), (perfect == k) | (stored == k)
            values.append(round(float(both.sum() / either.sum()), 2))
    return values


agree = all(np.array_equal(in_numbers_of(split, path), stored)
            for split in ORDERS for path, stored in zip(splits[split], exported[split]))
print("each file agrees with the _classes.csv beside it:", agree)
for split in ORDERS:
    print(f"IoU of perfect label maps in train's numbers with {split}'s files: {overlaps(split)}")
same = agree and dict(chosen) == {"wall": 0, "window": 1, "door": 2}
same = same and numbers["train"] == {"background": 0, "wall": 1, "window": 2, "door": 3}
same = same and numbers["valid"] == {"background": 0, "door": 1, "wall": 2, "window": 3}
same = same and numbers["test"] == {"background": 0, "window": 1, "door": 2}
same = same and overlaps("train") == [1, 1, 1]
same = same and overlaps("valid") == [0, 0, 0] and overlaps("test") == [0, 0]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
