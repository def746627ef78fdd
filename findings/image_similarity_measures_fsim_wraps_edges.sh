#!/usr/bin/env bash
# image-similarity-measures: its FSIM prefers a blurred picture to one with faint noise.
#
# Versions: image-similarity-measures 0.3.6, OpenCV 4.11.0.86 (headless), scikit-image 0.20.0,
#   numpy 1.26.4 (the newest that the package admits).
# Guess: quality_metrics.fsim is the feature similarity of Zhang et al. (2011), for bytes or floats
#   of 0 to 255: 1 for a copy, less the more edges are lost. A strong edge has a strong gradient,
#   and whether it goes from dark to bright or from bright to dark does not matter.
# What happens: cv2.Scharr is asked for 16 bits without a sign (CV_16U, where CV_16S or CV_64F
#   belongs). Whatever falls becomes 0. What rises is 16 times the step, and is then squared in 16
#   bits, where 65536 is 0 again: a step of 16, 32, 48 or 64 levels has no gradient, one of 17 less
#   than one of 8. Floats of 0 to 255 go the same way. With gradients in floats the same function
#   gives another order, and so does pyiqa's FSIM (0.1.16, tried once, not below). Two more things
#   make its numbers low: the gradients are not divided by 16, as the paper's are; and there are 6
#   orientations instead of 4, which is known (issue 72).
# Why it matters: FSIM stands in tables of translated and enhanced pictures because it judges edges.
#   Here it is noise about them: the score hangs on whether windows are 64 or 65 levels darker than
#   their wall, and the smoother of two pictures may win. A copy has 1, and other pictures less, so
#   that nothing looks odd.
# Seen (by the package; with gradients in floats; with those divided by 16, as in the paper):
#   step of an edge   8: 8.0   16: 0.0   17: 5.7   32: 0.0   64: 0.0   -8: 0.0 (its gradient / 16)
#   drawn facade, windows 64 darker   faint noise .43 .50 .95   blurred .50 .43 .68
#   drawn facade, windows 65 darker   faint noise .59 .50 .95   blurred .63 .42 .68
#   a photo   JPEG of quality 75 .77 .86 .94   faint noise .75 .85 .94   blurred .80 .83 .91
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile image-similarity-measures==0.3.6 \
    opencv-python-headless==4.11.0.86 scikit-image==0.20.0 numpy==1.26.4
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import cv2
import numpy as np
from image_similarity_measures import quality_metrics
from skimage.data import coffee

package_gradient = quality_metrics._gradient_magnitude


def float_gradient(picture, depth):
    across = cv2.Scharr(picture.astype(np.float64), cv2.CV_64F, 1, 0)
    down = cv2.Scharr(picture.astype(np.float64), cv2.CV_64F, 0, 1)
    return np.sqrt(across ** 2 + down ** 2)


def paper_gradient(picture, depth):
    return float_gradient(picture, depth) / 16


def fsim(real, fake):
    """-> FSIM by the package, and with each of the two gradients above in its place"""
    values = []
    for gradient in (package_gradient, float_gradient, paper_gradient):
        quality_metrics._gradient_magnitude = gradient
        values.append(float(quality_metrics.fsim(real, fake)))
    return np.array(values)


def edge(step):
    """-> the strength of an edge by the package's gradient, divided by 16, and by the paper's"""
    picture = np.full((9, 9), 100, np.uint8)
    picture[:, 5:] = 100 + step
    by_package = float(package_gradient(picture, cv2.CV_16U)[4, 4]) / 16
    return by_package, float(paper_gradient(picture, None)[4, 4])


def facade(darker):
    """A wall of 160 with 16 windows, (128, 128, 3)."""
    picture = np.full((128, 128, 3), 160, np.uint8)
    for top in range(12, 110, 28):
        for left in range(10, 110, 26):
            picture[top:top + 16, left:left + 14] = 160 - darker
    return picture


def noisy(picture, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def blurred(picture, deviation):
    return cv2.GaussianBlur(picture, (0, 0), deviation)


def jpeg(picture, quality):
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


for name in ("image-similarity-measures", "opencv-python-headless", "scikit-image", "numpy"):
    print(name, version(name))
as_described = True
for step, wanted in ((8, 8), (16, 0), (17, 5.7), (32, 0), (64, 0), (-8, 0)):
    by_package, by_paper = edge(step)
    print(f"an edge of {step:3}: {by_package:4.1f} by the package, {by_paper:4.1f} by the paper")
    as_described &= abs(by_package - wanted) < 0.1
    as_described &= by_paper == abs(step)
for darker in (64, 65):
    real = facade(darker)
    noise = fsim(real, noisy(real, 3))
    blur = fsim(real, blurred(real, 1.5))
    print(f"windows {darker} darker: noise {noise.round(2)}  blurred {blur.round(2)}")
    as_described &= noise[0] < blur[0] - 0.02
    as_described &= noise[1] > blur[1] + 0.05
    as_described &= noise[2] > blur[2] + 0.2
photo = coffee()[50:306, 100:356]
compressed = fsim(photo, jpeg(photo, 75))
noise = fsim(photo, noisy(photo, 5))
blur = fsim(photo, blurred(photo, 1))
print(f"a photo: JPEG {compressed.round(2)}  noise {noise.round(2)}  blurred {blur.round(2)}")
as_described &= blur[0] > max(compressed[0], noise[0]) + 0.02
as_described &= blur[1] < min(compressed[1], noise[1]) - 0.01
as_described &= blur[2] < min(compressed[2], noise[2]) - 0.02
as_described &= bool((fsim(photo, photo) == 1).all())
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
