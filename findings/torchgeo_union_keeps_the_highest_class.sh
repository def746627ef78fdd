#!/usr/bin/env bash
# torchgeo: the union of two datasets keeps the highest number: void covers labels, NaN pictures.
#
# Versions: torchgeo 0.8.1, rasterio 1.4.4, geopandas 1.2.0, torch 2.13.0, numpy 2.3.5, CPU.
# Guess: west | east, meant for "disparate geospatial locations (e.g., Chesapeake NY and PA)",
#   behaves like one dataset of both folders: a patch across the border has the labels of either
#   side. The files say by nodata=255 that 255 is no label, and rasterio, which reads them for
#   torchgeo, knows. Where two maps overlap, one of them wins.
# What happens: each dataset is asked for the whole patch, and fills with its nodata what lies
#   outside of it. The two are then merged by torch.maximum. (A comment in the code has zeros in
#   mind; the text says that they are merged.) With nodata=255 each half is covered by the other's
#   filling, so that all of the patch is void, though every pixel of it has a label. With float
#   pictures and nodata=NaN, all is NaN. Where maps overlap, the class with the higher number wins
#   pixel by pixel, and pictures become the brighter of both in each channel. Patches inside one
#   file alone are right, and so is Labels([folder, folder]), one dataset of both.
# Why it matters: 255 is the usual number for void, which losses ignore: nothing is learnt across
#   borders, and no error says so; of a batch of such patches alone, PyTorch's loss is NaN. In an
#   overlap, maps of one place at two times become one that neither is: all change goes one way.
# Seen (two neighbouring maps of 64 x 64 with 6 classes, a patch half in each; share of right pixels
#   in the union, and in one dataset of both folders):
#   labels, no nodata   1.00  1.00        floats, nodata 0     1.00  1.00
#   labels, nodata 0    1.00  1.00        floats, nodata NaN   0.00  1.00, NaN 1.00
#   labels, nodata 255  0.00  1.00, 255 1.00
#   labels, nodata 255, a patch inside the west: 1.00
#   two maps of one place: class 1 is 0.19 of it before and 0.15 after, in the union 0.03; class 6
#   is 0.18, 0.21 and 0.35
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 rasterio==1.4.4 \
    geopandas==1.2.0 numpy==2.3.5
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps torchgeo==0.8.1
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import os
import sys
import types
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import rasterio
from rasterio.transform import from_origin

# torchgeo's datasets for files need neither the models that its __init__ files load nor what they
# import of torchvision.
stubs = {"torchvision": [], "torchvision.datasets": ["ImageFolder"],
         "torchvision.datasets.folder": ["default_loader"],
         "torchvision.datasets.utils": ["check_integrity", "download_and_extract_archive",
                                        "download_url", "extract_archive"],
         "torchvision.utils": ["draw_segmentation_masks"]}
for name, contents in stubs.items():
    sys.modules[name] = types.ModuleType(name)
    for content in contents:
        setattr(sys.modules[name], content, object)
for name in ("torchgeo", "torchgeo.datasets"):
    places = find_spec(name).submodule_search_locations
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = places
from torchgeo.datasets.geo import RasterDataset

SIDE, METRES, EAST, NORTH = 64, 10, 500000, 5000000


class Labels(RasterDataset):
    filename_glob = "*.tif"
    is_image = False


class Pictures(RasterDataset):
    filename_glob = "*.tif"


def write(folder, array, column, nodata):
    os.makedirs(folder)
    place = from_origin(EAST + column * METRES, NORTH, METRES, METRES)
    with rasterio.open(f"{folder}/map.tif", "w", driver="GTiff", height=SIDE, width=SIDE, count=1,
                       dtype=array.dtype, crs="EPSG:32632", transform=place,
                       nodata=nodata) as file:
        file.write(array, 1)


def patch(dataset, column, side=SIDE):
    """-> (side, side) of the dataset, from the top and this column on"""
    left = EAST + column * METRES
    x = slice(left, left + side * METRES, METRES)
    y = slice(NORTH - side * METRES, NORTH, METRES)
    sample = dataset[x, y]
    key = "mask" if "mask" in sample else "image"
    return sample[key].numpy().reshape(side, side)


def neighbours(kind, array, nodata):
    """-> the share of right pixels across the border in the union, in one dataset of both, and
    inside the west in the union; and of pixels across the border that are nodata in the union"""
    name = f"{kind.__name__}-{nodata}"
    write(f"{name}/west", array[:, :SIDE], 0, nodata)
    write(f"{name}/east", array[:, SIDE:], SIDE, nodata)
    union = kind(f"{name}/west") | kind(f"{name}/east")
    one = kind([f"{name}/west", f"{name}/east"])
    want = array[:, SIDE // 2:SIDE // 2 + SIDE]
    across = patch(union, SIDE // 2)
    void = across == nodata if nodata == nodata else np.isnan(across)
    inside = patch(union, 8, SIDE // 2) == array[:SIDE // 2, 8:8 + SIDE // 2]
    shares = [np.mean(across == want), np.mean(patch(one, SIDE // 2) == want), np.mean(inside),
              np.mean(void)]
    print(f"{kind.__name__:8} nodata {nodata}: union {shares[0]:.2f}, one dataset of both "
          f"{shares[1]:.2f}, inside the west {shares[2]:.2f}; nodata in the union {shares[3]:.2f}")
    return [float(share) for share in shares]


for package in ("torchgeo", "rasterio", "geopandas", "torch", "numpy"):
    print(package, version(package))
rng = np.random.default_rng(0)
label_map = rng.integers(1, 7, (16, 32)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
picture = rng.random((SIDE, 2 * SIDE), np.float32) + 0.1
right = [neighbours(Labels, label_map, None), neighbours(Labels, label_map, 0),
         neighbours(Pictures, picture, 0)]
void = neighbours(Labels, label_map, 255)
blank = neighbours(Pictures, picture, float("nan"))

before, after = label_map[:, :SIDE], label_map[:, SIDE:]
write("before", before, 0, 0)
write("after", after, 0, 0)
both = patch(Labels("before") | Labels("after"), 0)
highest = np.array_equal(both, np.maximum(before, after))
print("two maps of one place, the higher number in each pixel:", highest)
write("dull", picture[:, :SIDE], 0, 0)
write("bright", picture[:, SIDE:], 0, 0)
union = patch(Pictures("dull") | Pictures("bright"), 0)
brightest = np.array_equal(union, np.maximum(picture[:, :SIDE], picture[:, SIDE:]))
print("two pictures of one place, the brighter in each pixel:", brightest)
for k in (1, 6):
    print(f"class {k}: before {np.mean(before == k):.2f}, after {np.mean(after == k):.2f}, "
          f"in the union {np.mean(both == k):.2f}")

same = all(row[:3] == [1, 1, 1] for row in right) and highest and brightest
same = same and void == [0, 1, 1, 1] and blank == [0, 1, 1, 1]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
