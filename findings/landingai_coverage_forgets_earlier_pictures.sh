#!/usr/bin/env bash
# landingai: the mean coverage of classes over many pictures is that of the last picture alone.
#
# Versions: landingai 0.3.49, pydantic 2.14.4, numpy 1.26.4 (landingai wants one below 2).
# Guess: postprocess.class_pixel_coverage gets the masks that a segmentation model found in one or
#   several pictures, and returns for each class its share of the pixels: "If the predictions are
#   from multiple images, the coverage is the average coverage across all images". In what order
#   the masks stand in the list does not matter.
# What happens: it holds the masks of one class together with itertools.groupby, which looks at
#   neighbours only, and the sorting beforehand goes nowhere: sorted(...) is called, and its result
#   is dropped. A list made picture by picture has the classes in turn, 1 2 3 1 2 3, so that each
#   mask is a group of its own, and the last one of its class is what is returned. The absolute
#   coverage goes the same way. Where a picture's last class is the next one's first, those two
#   are averaged. Sorted by class beforehand, the list gives the mean.
# Why it matters: it is the number that such a model is run for: how much of a field is weed, of a
#   plate rust, of a city roofs. It is in the right range, and right for a single picture and for a
#   single class, which is what one tries first.
# Seen (twelve pictures of 40x40 with the classes 1, 2 and 3, whose shares change from picture to
#   picture; relative coverage of each class):
#   picture by picture                  0.050 0.575 0.200 (the last picture: 0.050 0.575 0.200)
#   the same, in the other direction    0.600 0.025 0.200 (the first:        0.600 0.025 0.200)
#   sorted by class                     0.325 0.300 0.200
#   mean over the pictures, by hand     0.325 0.300 0.200
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile numpy==1.26.4 pydantic==2.14.4 \
    pydantic-settings==2.16.3 requests==2.34.2 pillow==10.4.0 \
    opencv-python-headless==4.11.0.86
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps landingai==0.3.49
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version
from itertools import groupby

import numpy as np
from landingai.common import SegmentationPrediction
from landingai.postprocess import class_pixel_coverage

SIDE, COUNT = 40, 12
CLASSES = {1: "wall", 2: "window", 3: "sky"}


def drawn(i):
    """Label map i: the wall shrinks from picture to picture, the windows grow, the sky stays"""
    label_map = np.zeros((SIDE, SIDE), int)
    label_map[:8] = 3
    label_map[8:32 - 2 * i] = 1
    label_map[38 - 2 * i:39] = 2
    return label_map


def encoded(mask):
    """Runs of zeros (Z) and ones (N), as LandingLens sends them"""
    runs = [(int(value), len(list(run))) for value, run in groupby(mask.ravel())]
    return "".join(f"{length}{'ZN'[value]}" for value, length in runs)


def found(label_map):
    """A mask for each class"""
    return [SegmentationPrediction(
        id=name, score=0.9, label_index=k, label_name=name, encoded_mask=encoded(label_map == k),
        encoding_map={"Z": 0, "N": 1}, mask_shape=label_map.shape) for k, name in CLASSES.items()]


def coverage(title, predictions):
    shares = class_pixel_coverage(predictions, "relative")
    return shown(title, [shares[k][0] for k in CLASSES])


def shown(title, shares):
    print(f"{title:33}", *[f"{share:.3f}" for share in shares])
    return np.array(shares)


maps = [drawn(i) for i in range(COUNT)]
pictures = [found(label_map) for label_map in maps]
predictions = [mask for masks in pictures for mask in masks]
by_hand = np.array([[(label_map == k).mean() for k in CLASSES] for label_map in maps])
for mask, label_map in zip(predictions[::3], maps):
    assert np.array_equal(mask.decoded_boolean_mask, label_map == 1)

for package in ("landingai", "pydantic", "numpy"):
    print(package, version(package))
in_turn = coverage("picture by picture", predictions)
backwards = [mask for masks in pictures[::-1] for mask in masks]
other_way = coverage("the same, in the other direction", backwards)
by_class = coverage("sorted by class", sorted(predictions, key=lambda mask: mask.label_index))
mean = shown("mean over the pictures, by hand", by_hand.mean(0))
shown("(the first picture, by hand)", by_hand[0])
shown("(the last picture, by hand)", by_hand[-1])
absolute = class_pixel_coverage(predictions, "absolute")
same = np.allclose(in_turn, by_hand[-1]) and np.allclose(other_way, by_hand[0])
same = same and np.allclose(by_class, mean) and abs(in_turn - mean).max() > 0.2
same = same and all(absolute[k][0] == (maps[-1] == k).sum() for k in CLASSES)
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
