#!/usr/bin/env bash
# mahotas: resize_to moves a picture by up to a pixel and leaves a black row and column, even
# where the size stays the same.
#
# Versions: mahotas 1.4.19, scipy 1.17.1, numpy 2.4.6.
# Guess: mahotas.resize.resize_to(label_map, size, order=0) picks existing pixels at evenly spaced
#   places, from the first to the last, as scipy.ndimage.zoom does, whose code it began as; to the
#   size that a map has already it changes nothing. order=3, the default, is a smooth spline.
# What happens: to its own size each map is moved by one pixel up and left, and its last row and
#   column are 0. At every other size, too, the last row and column are 0, and the rest is moved
#   by half a pixel of the input on average. order=3 interpolates nothing: its pixels are order=0's.
#   zoom_shift in C++ adds 0.5 to each place and then rounds it to a whole number: that is the next
#   pixel, not the nearest, and lies past the end for the last one, where mode="constant" puts 0.
#   mahotas.interpolate.shift by nothing moves a picture as well; resize_rgb_to and imresize call
#   the same code (read, not run here).
# Why it matters: where class 0 is void or background, nobody looks twice at an edge of it, and no
#   check of the class numbers finds a map that was moved. Beside its photo, which another library
#   made smaller, it is wrong along every border. A photo that is made larger has blocks in place
#   of the spline.
# Seen (map of 96x96 with classes 1 to 4; share of class 0, which nobody drew; share of pixels that
#   differ from scipy's; how far mahotas and scipy move a ramp, in pixels of the input; the largest
#   difference between order=3 and order=0 on a photo of 0 to 200, in mahotas and in scipy):
#   to  96: class 0 0.0207, differ 0.137, moved 1.00 0.00, order 3 0.0 0.0
#   to  48: class 0 0.0412, differ 0.107, moved 0.51 -0.00, order 3 0.0 61.8
#   to  64: class 0 0.0310, differ 0.102, moved 0.51 -0.00, order 3 0.0 64.9
#   to 128: class 0 0.0156, differ 0.071, moved 0.50 0.00, order 3 0.0 77.7
#   to 192: class 0 0.0104, differ 0.071, moved 0.50 -0.00, order 3 0.0 84.7
#   to its own size, moved by one pixel: True
#   shifted by (0, 0), moved by one pixel: True
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mahotas==1.4.19 scipy==1.17.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import mahotas
import numpy as np
from scipy import ndimage

SIDE = 96
rng = np.random.default_rng(0)
label_map = np.ones((SIDE, SIDE), np.uint8)
for _ in range(60):
    y, x = rng.integers(0, SIDE - 4, 2)
    height, width = rng.integers(4, 30, 2)
    label_map[y:y + height, x:x + width] = rng.integers(1, 5)
photo = 40.0 * label_map + rng.normal(0, 10, (SIDE, SIDE))
ramp = np.tile(np.arange(SIDE, dtype=float), (SIDE, 1))


def by_mahotas(picture, side, order=0):
    return mahotas.resize.resize_to(picture, (side, side), order=order)


def by_scipy(picture, side, order=0):
    return ndimage.zoom(picture, side / SIDE, order=order)


def moved(resize, side):
    """Mean of what a ramp shows minus what it should; the last column left out"""
    should = np.arange(side) * (SIDE - 1) / (side - 1)
    return float((resize(ramp, side)[0] - should)[:-1].mean())


def spline(resize, side):
    """The largest difference between order 0 and 3, the last row and column left out"""
    difference = np.abs(resize(photo, side, 3) - resize(photo, side, 0))
    return float(difference[:-1, :-1].max())


def measured(side):
    """Prints; -> as described?"""
    ours = by_mahotas(label_map, side)
    theirs = by_scipy(label_map, side)
    invented = float((ours == 0).mean())
    differ = float((ours != theirs).mean())
    moves = [moved(by_mahotas, side), moved(by_scipy, side)]
    splines = [spline(by_mahotas, side), spline(by_scipy, side)]
    print(f"to {side:3}: class 0 {invented:.4f}, differ {differ:.3f}, moved {moves[0]:.2f}",
          f"{moves[1]:.2f}, order 3 {splines[0]:.1f} {splines[1]:.1f}")
    border = not ours[-1].any() and not ours[:, -1].any()
    same = border and ours[:-1, :-1].all() and theirs.all() and differ > 0.05
    same = same and moves[0] > 0.4 and abs(moves[1]) < 0.1 and splines[0] < 1e-6
    return same and (side == SIDE or splines[1] > 10)


for package in ("mahotas", "scipy", "numpy"):
    print(package, version(package))
same = all([measured(side) for side in (96, 48, 64, 128, 192)])
own_size = by_mahotas(label_map, SIDE)
one_off = np.array_equal(own_size[:-1, :-1], label_map[1:, 1:])
print("to its own size, moved by one pixel:", one_off)
shifted = mahotas.interpolate.shift(photo, (0, 0), order=1)
unmoved = np.allclose(shifted[:-1, :-1], photo[1:, 1:])
print("shifted by (0, 0), moved by one pixel:", unmoved)
same = same and one_off and unmoved
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
