#!/usr/bin/env bash
# Datumaro: a Cityscapes folder is loaded without its cars and people, or without its road.
#
# Versions: datumaro 1.13.12, pillow 12.3.0, opencv-python-headless 4.14.0.94, numpy 2.4.6.
# Guess: Dataset.import_from(folder, "cityscapes") gives masks that cover each class as the files of
#   the data set do; by its page in the documentation, those of classes that "can distinguish
#   between different instances" come one by one, with the instance in `id`.
# What happens: the reader looks into *_instanceIds.png and takes for class k the pixels that equal
#   k (CityscapesBase._load_items in cityscapes.py). There, the third car is 26003: 1000 times the
#   class and the instance. Only what was drawn as a group, a "car group", is plainly 26. Each car,
#   person and bicycle that stands alone, thus almost all of them, belongs to nothing afterwards.
#   (The writer stores class numbers in that file, so that a test that writes and reads passes.)
#   If there is a *_labelTrainIds.png, it is read instead, and nothing in it is above 255. But of
#   the list of classes the reader leaves out number 0 as background, which here is the road; and
#   what no mask covers is written as class 0. Exported to VOC, the road is back, and with it is all
#   of void (255), as road.
# Why it matters: it is the converter that brings Cityscapes to COCO, VOC or CamVid. Sky, houses and
#   road are right, and so are names, colours and the number of pictures. A network that learns from
#   the result learns that cars are nothing, or that the bonnet and the picture's frame are road;
#   and what is evaluated with it is evaluated with the same gaps. No warning is given.
# Seen (one street of 128x64; pixels of each class by the numbers of the file, as Cityscapes defines
#   them, in datumaro's masks, and in the VOC export; void is 255 or what has no class):
#   the files                road 2996  building 1200  sky 2352  person  160  car  972  void  512
#   instanceIds, masks       road 2996  building 1200  sky 2352  person    0  car  180  void 1464
#   instanceIds, VOC         road 2996  building 1200  sky 2352  person    0  car  180  void 1464
#   labelTrainIds, masks     road    0  building 1200  sky 2352  person  160  car  972  void 3508
#   labelTrainIds, VOC       road 3508  building 1200  sky 2352  person  160  car  972  void    0
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile datumaro==1.13.12 pillow==12.3.0 \
    opencv-python-headless==4.14.0.94 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import os
import sys
from importlib.metadata import version

import numpy as np
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
from PIL import Image

ROAD, BUILDING, SKY, PERSON, CAR, BORDER = 7, 11, 23, 24, 26, 2  # Cityscapes' label ids
TRAIN_IDS = {ROAD: 0, BUILDING: 2, SKY: 10, PERSON: 11, CAR: 13, BORDER: 255}
NAMES = {ROAD: "road", BUILDING: "building", SKY: "sky", PERSON: "person", CAR: "car"}
COLOURS = {"road": (128, 64, 128), "building": (70, 70, 70), "sky": (70, 130, 180),
           "person": (220, 20, 60), "car": (0, 0, 142)}  # as Cityscapes paints them
STEM = "street_000000_000019"


def drawn():
    """-> a map of 1000 * class + instance for things, and of the class alone for all else"""
    instance_ids = np.full((64, 128), ROAD, np.int32)
    instance_ids[:24] = SKY
    instance_ids[12:32, :60] = BUILDING
    for k, left in enumerate((10, 40, 70)):
        instance_ids[36:48, left:left + 22] = 1000 * CAR + k
    instance_ids[30:36, 90:120] = CAR  # a group of cars, too far away to tell them apart
    for k, left in enumerate((100, 108)):
        instance_ids[38:54, left:left + 5] = 1000 * PERSON + k
    instance_ids[60:] = BORDER
    return instance_ids


def classes_of(instance_ids):
    return np.where(instance_ids >= 1000, instance_ids // 1000, instance_ids)


def saved(name, suffix, label_map):
    """One picture and its annotation, in the folders that Cityscapes has"""
    for kind in ("leftImg8bit", "gtFine"):
        os.makedirs(os.path.join(name, kind, "train", "street"))
    photo = Image.new("RGB", label_map.shape[::-1])
    photo.save(f"{name}/leftImg8bit/train/street/{STEM}_leftImg8bit.png")
    label_map = Image.fromarray(label_map)
    label_map.save(f"{name}/gtFine/train/street/{STEM}_gtFine_{suffix}.png")


def in_masks(dataset):
    labels = dataset.categories()[AnnotationType.label]
    counts = dict.fromkeys(COLOURS, 0)
    for item in dataset:
        for mask in item.annotations:
            label = labels[mask.label].name
            if label in counts:
                counts[label] += int(np.count_nonzero(mask.image))
    return counts


def in_voc(dataset, name):
    dataset.export(name, "voc", save_media=True)
    with Image.open(f"{name}/SegmentationClass/street/{STEM}.png") as file:
        painted = np.asarray(file.convert("RGB"))
    counts = {}
    for label, colour in COLOURS.items():
        counts[label] = int((painted == colour).all(-1).sum())
    return counts


def shown(title, counts, size):
    void = size - sum(counts.values())
    print(f"{title:24} " + "  ".join(f"{k} {v:4}" for k, v in (counts | {"void": void}).items()))
    return list(counts.values()) + [void]


for package in ("datumaro", "pillow", "opencv-python-headless", "numpy"):
    print(package, version(package))
instance_ids = drawn()
classes = classes_of(instance_ids)
train_ids = np.zeros(classes.shape, np.uint8)
for k, train_id in TRAIN_IDS.items():
    train_ids[classes == k] = train_id
right = {name: int((classes == k).sum()) for k, name in NAMES.items()}
size = classes.size
right = shown("the files", right, size)
seen = {}
for suffix, label_map in (("instanceIds", instance_ids), ("labelTrainIds", train_ids)):
    saved(suffix, suffix, label_map)
    dataset = Dataset.import_from(suffix, "cityscapes")
    masks = shown(f"{suffix}, masks", in_masks(dataset), size)
    voc = shown(f"{suffix}, VOC", in_voc(dataset, f"voc-{suffix}"), size)
    seen[suffix] = masks, voc
group = int((instance_ids == CAR).sum())
road, building, sky, person, car, void = right
same = seen["instanceIds"][0] == [road, building, sky, 0, group, void + person + car - group]
same = same and seen["instanceIds"][1] == seen["instanceIds"][0]
same = same and seen["labelTrainIds"][0] == [0, building, sky, person, car, void + road]
same = same and seen["labelTrainIds"][1] == [road + void, building, sky, person, car, 0]
same = same and group < car and min(right) > 0
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
