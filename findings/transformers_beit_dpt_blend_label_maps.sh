#!/usr/bin/env bash
# transformers: the image processors of BEiT and DPT resize label maps by bicubic interpolation.
#
# Versions: transformers 5.24.0, Pillow 13.0.0, numpy 2.4.6. No torch: the processors that work
#   by Pillow. Those that work by torchvision have the same lines and gave the same;
#   Sapiens2, which has only that one, blends bilinearly.
# Guess: processor(images, segmentation_maps=...) resizes the picture by its `resample` and the map
#   by nearest neighbour, since the second argument is there for nothing but class maps. Each class
#   in the labels is one of the map.
# What happens: so it is in SegFormer, MobileNetV2 and MobileViT. BEiT and DPT put the map through
#   the same call as the picture, with only do_normalize and do_rescale switched off: it is resized
#   by bicubic, and whole numbers come out. A map of classes 0, 1, 4 and 11 returns all from 0 to
#   11, and 12 and 13 where the curve overshoots. With do_reduce_labels, meant for ADE20K, class 0
#   has become 255 before that, so that borders of the void run through all numbers below it: what
#   the loss should ignore becomes classes. resample=0 in the call helps the map, and makes the
#   picture jagged.
# Why it matters: the five are exchanged for each other in one training script. With 150 classes
#   each invented number is a real class, so that nothing fails: each border is taught as a stripe
#   of classes that are not there, and the mIoU on such labels is low for no visible reason.
# Seen (640x640 in; the share of pixels whose class is not in the map; the classes of the labels):
#   SegFormer                   512x512 invented 0.0000  0 1 4 11
#   MobileNetV2                 224x224 invented 0.0000  0 1 4 11
#   MobileViT                   256x256 invented 0.0000  0 1 4 11
#   SegFormer, do_reduce_labels 512x512 invented 0.0000  0 3 10 255
#   BEiT                        224x224 invented 0.0515  0 1 2 3 4 5 6 7 8 9 10 11
#   DPT                         384x384 invented 0.0306  0 1 2 3 4 5 6 7 8 9 10 11 12 13
#   BEiT, do_reduce_labels      224x224 invented 0.1122  231 numbers
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
TRANSFORMERS_VERBOSITY=error venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from PIL import Image
from transformers import (BeitImageProcessorPil, DPTImageProcessorPil, MobileNetV2ImageProcessorPil,
                          MobileViTImageProcessorPil, SegformerImageProcessorPil)

rng = np.random.default_rng(0)
label_map = np.zeros((640, 640), np.uint8)
for _ in range(90):
    y, x = rng.integers(0, 620, 2)
    height, width = rng.integers(10, 120, 2)
    label_map[y:y + height, x:x + width] = rng.choice([1, 4, 11])
picture = np.stack([label_map * 20] * 3, axis=-1)


def invented(title, processor, legal):
    """The share of label pixels whose class is not one of the map."""
    out = processor(images=Image.fromarray(picture), return_tensors="np",
                    segmentation_maps=Image.fromarray(label_map))
    labels = np.asarray(out["labels"])[0]
    found = np.unique(labels)
    share = float((~np.isin(labels, legal)).mean())
    words = " ".join(map(str, found)) if len(found) < 20 else f"{len(found)} numbers"
    print(f"{title:27} {labels.shape[0]}x{labels.shape[1]} invented {share:.4f}  {words}")
    return share


for package in ("transformers", "pillow", "numpy"):
    print(package, version(package))
classes = [0, 1, 4, 11]
reduced = [255, 0, 3, 10]  # class 0 becomes the void, the others move down by one
right = [
    invented("SegFormer", SegformerImageProcessorPil(), classes),
    invented("MobileNetV2", MobileNetV2ImageProcessorPil(), classes),
    invented("MobileViT", MobileViTImageProcessorPil(), classes),
    invented("SegFormer, do_reduce_labels", SegformerImageProcessorPil(do_reduce_labels=True),
             reduced),
]
blended = [
    invented("BEiT", BeitImageProcessorPil(), classes),
    invented("DPT", DPTImageProcessorPil(), classes),
    invented("BEiT, do_reduce_labels", BeitImageProcessorPil(do_reduce_labels=True), reduced),
]
same = max(right) == 0 and min(blended) > 0.01
sys.exit(0 if same else "the behaviour has changed")
PYTHON
