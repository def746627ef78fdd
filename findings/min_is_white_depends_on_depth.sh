#!/usr/bin/env bash
# A TIFF whose zero means white: whether it comes out as a negative depends on the library, and in
# Pillow and OpenCV on the number of bits.
#
# Versions: tifffile 2026.3.3 (it writes the files), Pillow 13.0.0, OpenCV 5.0.0.93 (headless),
#   imageio 2.38.1, rasterio 1.4.4 (GDAL 3.10.3), numpy 2.4.6.
# Guess: each library either always or never turns MinIsWhite (PhotometricInterpretation 0) round,
#   whatever the depth of the picture.
# What happens: tifffile and rasterio never do. Pillow, and imageio with Pillow, do at 8 bits and
#   do not at 16. So does OpenCV with IMREAD_UNCHANGED; with IMREAD_GRAYSCALE it turns both round.
#   So an 8-bit and a 16-bit copy of one scan are each other's negatives in Pillow, and OpenCV's
#   two flags give negatives of one 16-bit file.
# Why it matters: scans, X-rays and thermal pictures are often MinIsWhite. A folder that holds both
#   depths, or is read by one library in training and by another in use, trains on negatives of
#   what it sees later; a U-Net learns both without complaint.
# Seen (r: turned round, so that the stored 0 is the brightest; s: as stored):
#               8 bits  16 bits
#   Pillow         r       s
#   imageio/Pillow r       s
#   OpenCV UNCHANGED r     s
#   OpenCV GRAYSCALE r     r
#   tifffile       s       s
#   rasterio       s       s
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tifffile==2026.3.3 pillow==13.0.0 imageio==2.38.1 \
    opencv-python-headless==5.0.0.93 rasterio==1.4.4 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import sys

import cv2
import imageio.v3 as imageio
import numpy as np
import rasterio
import tifffile
from PIL import Image

ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
tifffile.imwrite("8.tif", ramp, photometric="miniswhite")
tifffile.imwrite("16.tif", ramp.astype(np.uint16) * 257, photometric="miniswhite")


def by_rasterio(name):
    with rasterio.open(name) as file:
        return file.read(1)


READERS = {
    "Pillow": lambda name: np.array(Image.open(name)),
    "imageio/Pillow": lambda name: imageio.imread(name, plugin="pillow"),
    "OpenCV UNCHANGED": lambda name: cv2.imread(name, cv2.IMREAD_UNCHANGED),
    "OpenCV GRAYSCALE": lambda name: cv2.imread(name, cv2.IMREAD_GRAYSCALE),
    "tifffile": tifffile.imread,
    "rasterio": by_rasterio,
}
EXPECTED = {"Pillow": "rs", "imageio/Pillow": "rs", "OpenCV UNCHANGED": "rs",
            "OpenCV GRAYSCALE": "rr", "tifffile": "ss", "rasterio": "ss"}
found = {}
for title, read in READERS.items():
    letters = ""
    for bits in (8, 16):
        pixels = read(f"{bits}.tif").astype(int)
        letters += "r" if pixels[0, 0] > pixels[-1, -1] else "s"
    found[title] = letters
    print(f"{title:18} {letters[0]:7} {letters[1]}")
sys.exit(0 if found == EXPECTED else "the behaviour has changed")
PYTHON
