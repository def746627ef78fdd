#!/usr/bin/env bash
# xarray-multiscale: in a pyramid of label maps, made by windowed_mode, void (255) melts away.
#
# Versions: xarray-multiscale 2.1.0, scipy 1.17.1, xarray 2026.9.0, dask 2026.8.0, numpy 2.4.6.
# Guess: windowed_mode, its reducer for label maps, gives each block of pixels its most frequent
#   number, whatever numbers the classes have: of [255, 255, 255, 7] it is 255. What the classes are
#   called makes no difference, and neither does the size of the block.
# What happens: it is 7. Blocks of up to 16 pixels (2x2, 3x3, 4x4, 2x2x2) go to
#   windowed_mode_countless (reducers.py), which needs 0 for "nothing yet", and so adds 1 to all
#   numbers first. In uint8 255 + 1 is 0, and 255 counts for nothing. So does 65535 in uint16, and
#   -1 in signed numbers, where nothing overflows at all. Any two equal pixels beat the fourteen
#   of void beside them in a block of 4x4, and a single one does so if it is the last. Blocks of
#   5x5 go to scipy, and are right, and so are all numbers below 255. (The author of this way to
#   find the mode wrote that the type has to be widened first. He does so; here it was left out.)
# Why it matters: void in label maps is 255 by custom, and -1 is the other habit. At each level the
#   void around things grows thinner, and pixels that nobody vouched for become classes; thin lines
#   of void are gone at the first level. No number is invented, borders are smooth, and the blocks
#   of the other classes are right, so that only the share of void tells.
# Seen (240x240, five classes in patches, one of which is numbered 254, 255 or -1; of the blocks
#   with one most frequent class, the share that gets another one; the share of the numbered class
#   by counting, and by windowed_mode):
#   the mode of 255, 255, 255, 7 is 7; that of fourteen 255 and two 7 is 7
#      254 in uint8   2x2  wrong   0.0%  void  19.6%  19.6%
#      254 in uint8   4x4  wrong   0.0%  void  19.3%  19.3%
#      255 in uint8   2x2  wrong   3.3%  void  19.6%  16.3%
#      255 in uint8   3x3  wrong  12.8%  void  19.3%   6.4%
#      255 in uint8   4x4  wrong  17.1%  void  19.3%   2.2%
#      255 in uint8   5x5  wrong   0.0%  void  19.4%  19.4%
#      255 in uint16  4x4  wrong   0.0%  void  19.3%  19.3%
#       -1 in int32   4x4  wrong  17.1%  void  19.3%   2.2%
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile xarray-multiscale==2.1.0 scipy==1.17.1 \
    xarray==2026.9.0 dask==2026.8.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from xarray_multiscale import multiscale
from xarray_multiscale.reducers import windowed_mode

SIDE, LAST = 240, 4


def drawn():
    """Patches: at each pixel the class 0 to 4 whose smoothed noise is the greatest"""
    noise = np.random.default_rng(0).random((LAST + 1, SIDE, SIDE))
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-3, 4))
    return noise.argmax(0)


def counted(label_map, factor):
    """-> the most frequent number of each block, and where there is only one such number"""
    side = SIDE // factor
    blocks = label_map.reshape(side, factor, side, factor)
    numbers = np.unique(label_map)
    counts = np.stack([(blocks == k).sum((1, 3)) for k in numbers])
    first, second = np.sort(counts, 0)[:-3:-1]
    return numbers[counts.argmax(0)], first > second


def measured(void, kind, factor):
    classes = drawn()
    label_map = np.where(classes == LAST, void, classes).astype(kind)
    right, clear = counted(label_map, factor)
    level = multiscale(label_map, windowed_mode, (factor, factor))[1].values
    wrong = float((level != right)[clear].mean())
    shares = [float((picked == void)[clear].mean()) for picked in (right, level)]
    print(f"{void:6} in {kind:7} {factor}x{factor}  wrong {wrong:6.1%}  "
          f"void {shares[0]:6.1%} {shares[1]:6.1%}")
    return wrong, shares


for package in ("xarray-multiscale", "scipy", "xarray", "dask", "numpy"):
    print(package, version(package))
block = np.array([[255, 255], [255, 7]], np.uint8)
one = int(windowed_mode(block, (2, 2))[0, 0])
print("the mode of 255, 255, 255, 7 is", one)
block = np.full((4, 4), 255, np.uint8)
block[2, 2:] = 7
two = int(windowed_mode(block, (4, 4))[0, 0])
print("the mode of fourteen 255 and two 7 is", two)
same = one == two == 7
for void, kind in ((254, "uint8"), (255, "uint8"), (255, "uint16"), (-1, "int32")):
    for factor in (2, 3, 4, 5):
        wrong, shares = measured(void, kind, factor)
        if factor < 5 and (void, kind) in ((255, "uint8"), (-1, "int32")):
            same = same and wrong > 0.02 and shares[1] < 0.9 * shares[0]
        else:
            same = same and wrong == 0 and shares[0] == shares[1]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
