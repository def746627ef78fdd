#!/usr/bin/env bash
# datashader: the most frequent class of a cell is another one where the factor is not whole.
#
# Versions: datashader 0.19.1, numba 0.68.1, xarray 2026.9.0, numpy 2.4.6.
# Guess: Canvas.raster(label_map, agg="mode") gives each cell the class that has most of its area:
#   the "most frequently seen" one, "with frequency given by contribution area", says its source. A
#   pixel that the border of a cell divides counts by its part: the way to make class maps smaller
#   that is better than nearest neighbour.
# What happens: the parts are added up in whole numbers (frequencies = np.zeros(..., np.uint32)),
#   and each sum is cut: 0.5 + 0.5 is 0, and 1 + 0.75 is 1. So divided pixels do not count. From 240
#   to 160 pixels one pixel of each cell is whole, and wins against the halves and quarters. At a
#   factor of 1.25 most cells hold no whole pixel: all classes have 0, and the first pixel wins.
#   Whole factors are right; so is the same map with each pixel repeated until the factor is whole.
# Why it matters: plots by HoloViews, which get class maps by this call, have the factor that window
#   and zoom give, which is hardly ever whole; so have maps of land cover that are brought to a
#   coarser grid. No class is invented, and the shares of the classes are about right. But below 2
#   the result is no better than the pixel in the middle of each cell, or worse, and above 2 still
#   a tenth of the cells is wrong, all of them along borders.
# Seen (a map of 240x240, five classes in patches; wrong cells of all that have a most frequent
#   class: datashader, the middle pixel of each cell, datashader on the map with repeated pixels;
#   cells in which datashader picks what sums cut to whole numbers pick):
#   factor 1.25  17.9%   7.0%   0.0%   100%
#   factor 1.5    7.1%   7.1%   0.0%   100%
#   factor 2      0.0%  16.3%   0.0%   100%
#   factor 2.5    9.6%  17.7%   0.0%   100%
#   factor 3.75   9.5%  24.8%   0.0%   100%
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile datashader==0.19.1 numba==0.68.1 \
    xarray==2026.9.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import datashader
import numpy as np
import xarray

SIDE, CLASSES = 240, 5


def drawn():
    """Patches: at each pixel the class whose smoothed noise is the greatest"""
    noise = np.random.default_rng(0).random((CLASSES, SIDE, SIDE))
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-3, 4))
    return noise.argmax(0).astype(np.uint8)


def by_datashader(label_map, side):
    pixels = np.arange(len(label_map)) + 0.5
    source = xarray.DataArray(label_map, dims=("y", "x"), coords={"y": pixels, "x": pixels})
    full = (0, len(label_map))
    canvas = datashader.Canvas(side, side, x_range=full, y_range=full)
    return canvas.raster(source, agg="mode", interpolate="nearest").values


def parts(side):
    """-> (side, SIDE): how much of each pixel lies in each cell, along one axis"""
    factor = SIDE / side
    start = np.arange(side)[:, None] * factor
    pixel = np.arange(SIDE)
    return np.clip(np.minimum(start + factor, pixel + 1) - np.maximum(start, pixel), 0, 1)


def by_area(label_map, side):
    """-> the class with most of the area of each cell; where there is one such class"""
    part = parts(side)
    areas = np.stack([part @ (label_map == k) @ part.T for k in range(CLASSES)])
    first, second = np.sort(areas, 0)[:-3:-1]
    return areas.argmax(0), first - second > 1e-6


def by_cut_sums(label_map, side):
    """The same, but each sum is cut to a whole number; of equal ones the first found wins"""
    part = parts(side)
    picked = np.zeros((side, side), np.uint8)
    for i, j in np.ndindex(side, side):
        sums = {}
        for y in np.flatnonzero(part[i] > 1e-6):
            for x in np.flatnonzero(part[j] > 1e-6):
                k = label_map[y, x]
                sums[k] = int(sums.get(k, 0) + part[i, y] * part[j, x] + 1e-9)
        picked[i, j] = max(sums, key=sums.get)
    return picked


label_map = drawn()
for package in ("datashader", "numba", "xarray", "numpy"):
    print(package, version(package))
print("wrong cells: datashader, middle pixel, datashader with repeated pixels; as by cut sums")
same = True
for side in (192, 160, 120, 96, 64):
    factor = SIDE / side
    right, clear = by_area(label_map, side)
    middle = ((np.arange(side) + 0.5) * factor).astype(int)
    found = by_datashader(label_map, side)
    repeated = by_datashader(label_map.repeat(4, 0).repeat(4, 1), side)
    wrong = [float((picked != right)[clear].mean())
             for picked in (found, label_map[np.ix_(middle, middle)], repeated)]
    as_cut = float((found == by_cut_sums(label_map, side)).mean())
    print(f"factor {factor:4}", *[f"{share:6.1%}" for share in wrong], f"  {as_cut:.1%}")
    whole = factor == round(factor)
    same = same and wrong[2] == 0 and as_cut > 0.999
    same = same and (wrong[0] == 0 if whole else wrong[0] > 0.05)
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
