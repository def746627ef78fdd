#!/usr/bin/env bash
# FiftyOne: a table that says what becomes of class 0, or of black, is not followed there: class 0
# stays 0, and so runs together with whatever else becomes 0.
#
# Versions: fiftyone 1.22.1, voxel51-eta 0.17.0, scikit-image 0.26.0, scipy 1.17.1, numpy 2.4.6.
# Guess: Segmentation.transform_mask(table), and transform_segmentations, which calls it for a whole
#   dataset, give each pixel the number or colour that the table has for it. "Note that any pixel
#   values not in targets_map will be zero", says the text, so values that are in it will not be.
# What happens: so it is for each number but 0, and for each colour but black. The entry for these
#   is passed over, and their pixels become 0, or black. _find_slices (fiftyone/core/labels.py) asks
#   scipy's find_objects where each value lies, for which 0 is the background and no object; it came
#   with 0.23.8 (pull request 4185), to be faster. Up to 0.23.7 there was one comparison for each
#   entry of the table, which is right for 0, too.
# Why it matters: FiftyOne takes 0 for background and leaves it out of precision and recall, so maps
#   that count from 0, such as Cityscapes' train ids (0 is road, 255 void), have to be shifted by
#   one first. Then road and void are both 0. On the way from colours to numbers void, which is
#   black, becomes road. The other classes are right, no warning comes, and with output_dir or
#   update it is stored; the class names, if update_mask_targets is asked for, are shifted in full.
# Seen (a street of 48x64 pixels; pixels of each value):
#   before          0: 1056, 1: 1176, 2: 600, 255: 240
#   shifted by one  0: 1296, 2: 1176, 3: 600           right: 0: 240, 1: 1056, 2: 1176, 3: 600
#   0 and 1 swapped 0: 2232, 2: 600, 255: 240          right: 0: 1176, 1: 1056, 2: 600, 255: 240
#   1 and 2 swapped as it should be
#   to colours      road #000000                       right: road #804080
#   from colours    0: 1296, 1: 1176, 2: 600           right: as before
# (FIFTYONE_DISABLE_SERVICES: without a database, which is not needed for this. The list of packages
#   is FiftyOne's own, without the database, its "brain" and point clouds.)
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps fiftyone==1.22.1 voxel51-eta==0.17.0
"$folder/venv/bin/pip" install --quiet --no-compile numpy==2.4.6 scipy==1.17.1 \
    scikit-image==0.26.0 scikit-learn==1.9.1 opencv-python-headless==4.14.0.94 \
    aiofiles argcomplete async_lru beautifulsoup4 boto3 "cachetools<8" dacite Deprecated dill \
    exceptiongroup ftfy glob2 "graphql-core<3.3" humanize hypercorn Jinja2 jsonlines jsonpatch \
    "matplotlib<4" "mongoengine~=0.29.1" "motor~=3.6.0" packaging pandas Pillow "plotly<7" \
    pprintpp psutil py7zr pydash "pymongo~=4.9.2" pytz PyYAML rarfile regex requests retrying \
    sortedcontainers sseclient-py sse-starlette "starlette<1.4" \
    "strawberry-graphql<0.317,>=0.315.7" tabulate tqdm tzlocal universal-analytics-python3 xmltodict
cd "$folder"
HOME="$folder" FIFTYONE_DISABLE_SERVICES=1 OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import cv2
import fiftyone
import numpy as np

NAMES = {0: "road", 1: "wall", 2: "sky", 255: "void"}
COLOURS = {0: "#804080", 1: "#666699", 2: "#4682b4", 255: "#000000"}  # Cityscapes'

street = np.full((48, 64), 1, np.uint8)
street[:12] = 2        # sky
street[26:] = 0        # road
street[26:34, :14] = 1
street[:12, 50:] = 1   # a tower
street[44:, 4:] = 255  # the bonnet of the car
street = np.ascontiguousarray(street)


def as_colours(numbers):
    picture = np.zeros(numbers.shape + (3,), np.uint8)
    for number, colour in COLOURS.items():
        picture[numbers == number] = list(bytes.fromhex(colour[1:]))
    return picture


def right(numbers, table):
    """The table, pixel by pixel"""
    return np.vectorize(lambda number: table.get(number, 0))(numbers)


def counts(numbers):
    values, pixels = np.unique(numbers, return_counts=True)
    return ", ".join(f"{value}: {count}" for value, count in zip(values, pixels))


def transformed(mask, table):
    return fiftyone.Segmentation(mask=mask.copy()).transform_mask(table)


for package in ("fiftyone", "voxel51-eta", "scikit-image", "scipy", "numpy"):
    print(package, version(package))
print(f"{'before':15} {counts(street)}")
same = True
for title, table in {
    "shifted by one": {0: 1, 1: 2, 2: 3, 255: 0},
    "0 and 1 swapped": {0: 1, 1: 0, 2: 2, 255: 255},
    "1 and 2 swapped": {0: 0, 1: 2, 2: 1, 255: 255},
}.items():
    found = transformed(street, table)
    wanted = right(street, table)
    print(f"{title:15} {counts(found):34} right: {counts(wanted)}")
    wrong = found != wanted
    same = same and np.array_equal(wrong, (street == 0) & (table[0] != 0))
    same = same and not found[wrong].any()

colours = transformed(street, COLOURS)
road = "#" + bytes(colours[street == 0][0]).hex()
print(f"{'to colours':15} road {road:29} right: road {COLOURS[0]}")
wrong = (colours != as_colours(street)).any(-1)
same = same and np.array_equal(wrong, street == 0) and road == "#000000"

numbers = transformed(as_colours(street), {colour: value for value, colour in COLOURS.items()})
print(f"{'from colours':15} {counts(numbers):34} right: {counts(street)}")
void = street == 255
same = same and np.array_equal(numbers != street, void) and not numbers[void].any()

# the same in files, as transform_segmentations(output_dir=...) writes them
cv2.imwrite("street.png", street)
label = fiftyone.Segmentation(mask_path="street.png")
label.transform_mask({0: 1, 1: 2, 2: 3, 255: 0}, outpath="shifted.png", update=True)
stored = cv2.imread(label.mask_path, cv2.IMREAD_UNCHANGED)
lost = ", ".join(NAMES[value] for value in np.unique(street[stored == 0]).tolist())
print(f"{'0 in the file is':15} {lost}")
same = same and lost == "road, void"
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
