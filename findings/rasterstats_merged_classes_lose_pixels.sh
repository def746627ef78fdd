#!/usr/bin/env bash
# rasterstats: of classes that get the same name only the last one's pixels are counted.
#
# Versions: rasterstats 0.21.0, rasterio 1.4.4, shapely 2.2.0, numpy 2.4.6.
# Guess: zonal_stats(..., categorical=True, category_map={41: "forest", 42: "forest", ...}) counts
#   the pixels of each class of a map in each polygon, under readable names. Classes that have the
#   same name are one class from there on, as by Series.map() and groupby() in pandas: their counts
#   are added up.
# What happens: the counts are put into a dictionary by name, one after the other, and the last one
#   replaces those before it (remap_categories in utils.py). "forest" is then the count of the
#   greatest of its numbers that occurs in the polygon: of 60 pixels of 41, 30 of 42 and 10 of 43
#   there are 10 left. Classes that are alone under their name are right, and so are "count" and
#   classes that category_map leaves out, which keep their numbers.
# Why it matters: bringing a fine legend to a coarse one is what such a map is for (land cover, the
#   34 classes of Cityscapes to their 8 groups), and the numbers that come out are of a plausible
#   size. As the last number that occurs is another one in each polygon, their ratio is wrong by
#   another factor in each. Nothing is said; only the sum, beside "count", shows it.
# Seen (a map of seven classes, 1-3 forest, 4-5 crops, 6 water, 7 unnamed; a polygon over all of it,
#   one over the classes 1 and 2; counted by numpy, and by rasterstats):
#   all           by numpy    {'forest': 5000, 'crops': 3000, 'water': 1500, 7: 500}, all 10000
#   all           rasterstats {'forest': 500, 'crops': 1000, 'water': 1500, 7: 500}, all 10000
#   classes 1, 2  by numpy    {'forest': 4500}, all 4500
#   classes 1, 2  rasterstats {'forest': 1500}, all 4500
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile rasterstats==0.21.0 rasterio==1.4.4 \
    shapely==2.2.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from rasterio.transform import from_origin
from rasterstats import zonal_stats
from shapely.geometry import box

SIDE = 100
HEIGHTS = {1: 30, 2: 15, 3: 5, 4: 20, 5: 10, 6: 15, 7: 5}  # rows of each class, from above
NAMES = {1: "forest", 2: "forest", 3: "forest", 4: "crops", 5: "crops", 6: "water"}


def drawn():
    label_map = np.repeat(list(HEIGHTS), list(HEIGHTS.values()))
    return np.repeat(label_map[:, None], SIDE, 1).astype(np.uint8)


def counted(pixels):
    """-> pixels under each name; a class without one keeps its number"""
    counts = {}
    for k in np.unique(pixels):
        name = NAMES.get(int(k), int(k))
        counts[name] = counts.get(name, 0) + int((pixels == k).sum())
    return counts


def by_rasterstats(label_map, polygon, names):
    stats = zonal_stats(polygon, label_map, affine=from_origin(0, SIDE, 1, 1), nodata=255,
                        stats="count", categorical=True, category_map=names)[0]
    count = stats.pop("count")
    return stats, count


label_map = drawn()
for package in ("rasterstats", "rasterio", "shapely", "numpy"):
    print(package, version(package))
same = True
for title, bottom in (("all", SIDE), ("classes 1, 2", 45)):
    polygon = box(0, SIDE - bottom, SIDE, SIDE)
    pixels = label_map[:bottom]
    right = counted(pixels)
    plain, plain_count = by_rasterstats(label_map, polygon, None)
    named, count = by_rasterstats(label_map, polygon, NAMES)
    print(f"{title:12}  by numpy    {right}, all {pixels.size}")
    print(f"{title:12}  rasterstats {named}, all {count}")
    print(f"{title:12}  no names    {plain}, all {plain_count}")
    last = {}
    for k in np.unique(pixels):
        last[NAMES.get(int(k), int(k))] = int((pixels == k).sum())
    same = same and count == plain_count == pixels.size == sum(plain.values())
    same = same and named == last != right and sum(named.values()) < count
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
