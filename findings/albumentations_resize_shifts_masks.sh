#!/usr/bin/env bash
# albumentations: Resize moves the mask against its picture, Affine by the same factor does not.
#
# Versions: albumentations 2.0.8, OpenCV 5.0.0.93 (headless), numpy 2.4.6.
# Guess: one call that gets a picture and its mask keeps each mask pixel over its own spot, up to
#   the rounding that nearest neighbour needs (zero on average).
# What happens: Resize, LongestMaxSize and RandomScale take the picture at the centre of each new
#   pixel and the mask at its upper left corner: by a factor f the mask's content lies
#   (f - 1) / 2 source pixels from the picture's, always to the same side: 1.5 at a quarter, 3.5 at
#   an eighth. Affine(scale=0.25) and Resize with mask_interpolation=cv2.INTER_NEAREST_EXACT stay
#   within half a source pixel.
# Why it matters: it is half a pixel of what the network sees, in the same direction in each
#   picture. It learns borders that are off, and an IoU measured on maps shrunk in the same way
#   does not show it; poles and kerbs one pixel wide lie beside themselves.
# Seen (mask minus picture, mean, in source pixels):
#   Resize 1/2 -0.50, 1/4 -1.50, 1/8 -3.50; LongestMaxSize 1/4 -1.50; RandomScale 1/4 -1.50
#   Affine 1/4 +0.50; Resize 1/4 with INTER_NEAREST_EXACT +0.50
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet albumentations==2.0.8 \
    opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
NO_ALBUMENTATIONS_UPDATE=1 venv/bin/python -W ignore - <<'PYTHON'
import sys

import albumentations as A
import cv2
import numpy as np

# Each pixel says in which column it was: in the picture as float, in the mask as a class.
columns = np.tile(np.arange(240, dtype=np.uint8), (240, 1))
picture = np.dstack([columns.astype(np.float32) / 255] * 3)


def offset(transform):
    """Mean of (column in the mask) - (column in the picture), away from the borders."""
    out = transform(image=picture, mask=columns)
    apart = out["mask"].astype(float) - out["image"][..., 0] * 255
    h, w = apart.shape
    middle = apart[h // 2 - 8:h // 2 + 8, w // 2 - 8:w // 2 + 8]
    return float(middle.mean())


rows = {
    "Resize 1/2": (A.Resize(120, 120), -0.5),
    "Resize 1/4": (A.Resize(60, 60), -1.5),
    "Resize 1/8": (A.Resize(30, 30), -3.5),
    "LongestMaxSize 1/4": (A.LongestMaxSize(60), -1.5),
    "RandomScale 1/4": (A.RandomScale((-0.75, -0.75), p=1), -1.5),
    "Affine 1/4": (A.Affine(scale=0.25, p=1), None),
    "Resize 1/4 exact": (A.Resize(60, 60, mask_interpolation=cv2.INTER_NEAREST_EXACT), None),
}
same = True
for title, (transform, expected) in rows.items():
    found = offset(transform)
    print(f"{title}: {found:+.2f}")
    if expected is None:
        same = same and abs(found) < 0.6
    else:
        same = same and abs(found - expected) < 0.05
sys.exit(0 if same else "the behaviour has changed")
PYTHON
