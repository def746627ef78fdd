#!/usr/bin/env bash
# segments-ai: in its polygon export the objects from number 256 on belong to other objects.
#
# Versions: segments-ai 1.33.0, Pillow 12.3.0, OpenCV 5.0.0.93 (headless), scikit-image 0.26.0,
#   pycocotools 2.0.11, numpy 2.4.6.
# Guess: a segmentation bitmap of Segments.ai holds the numbers of its objects in 32 bits ("uint32
#   dtype where each unique value represents an instance id"). export_dataset in the format
#   "polygon" writes the contours of each object under its category, whatever its number is; an
#   object without pixels is skipped with a warning.
# What happens: the bitmap is cast to 8 bits before the objects are looked for. Object 257 has
#   become 1: its contour stands among those of object 1, under that one's category. Object 257
#   itself is written with an empty list of polygons, and so is each one from 256 on; 256 is lost,
#   as it has become the background. There is no warning: whether an object has pixels is asked
#   of the 32 bits. "coco-instance", from the same bitmap, is right, and so is "semantic";
#   "instance-color" casts, too, and paints 256 black.
# Why it matters: pictures of cells, trees or roofs have more than 255 objects, and only those
#   pictures are concerned. The file has as many objects as there are, in the right categories,
#   and drawn over the picture the contours fit (but for number 256). What is trained on it learns
#   wrong classes, and objects made of two that lie far apart.
# Seen (a picture of 324 cells, in three categories by turns):
#                   objects  without pixels  in two pieces  pixels of cells in the right category
#   polygon             324              69             68                                  78.7%
#   coco-instance       324               0              0                                 100.0%
#   instance-color: cells painted black: 1 (number 256)
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile segments-ai==1.33.0 pillow==12.3.0 \
    opencv-python-headless==5.0.0.93 scikit-image==0.26.0 pycocotools==2.0.11 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import contextlib
import http.server
import io
import json
import pathlib
import sys
import threading
from importlib.metadata import version

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle
from segments import SegmentsDataset
from segments.utils import bitmap2file, export_dataset

ROWS, CELL = 18, 20
COUNT = ROWS * ROWS


class Quiet(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
        super().__init__(*args, directory="served")

    def log_message(self, *args):
        pass


def category(number):
    return 1 + number % 3


bitmap = np.zeros((ROWS * CELL, ROWS * CELL), np.uint32)
for i in range(COUNT):
    y, x = i // ROWS * CELL, i % ROWS * CELL
    bitmap[y + 2:y + 18, x + 2:x + 18] = i + 1
truth = np.where(bitmap > 0, category(bitmap), 0)

# What the service would send: the picture, its bitmap, and a release that lists both.
pathlib.Path("served").mkdir()
Image.new("RGB", bitmap.shape).save("served/cells.png")
pathlib.Path("served/bitmap.png").write_bytes(bitmap2file(bitmap).getvalue())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
label = {"label_status": "LABELED", "attributes": {
    "segmentation_bitmap": {"url": f"{address}/bitmap.png"},
    "annotations": [{"id": i, "category_id": category(i)} for i in range(1, COUNT + 1)]}}
sample = {"uuid": "1", "name": "cells.png", "metadata": {}, "labels": {"ground-truth": label},
          "attributes": {"image": {"url": f"{address}/cells.png"}}}
categories = [{"id": k, "name": f"kind {k}", "color": [80 * k, 255 - 80 * k, 0]}
              for k in (1, 2, 3)]
pathlib.Path("release.json").write_text(json.dumps({"name": "v1", "dataset": {
    "owner": "me", "name": "cells", "task_type": "segmentation-bitmap", "samples": [sample],
    "labelsets": [{"name": "ground-truth"}], "task_attributes": {"categories": categories}}}))


def exported(name):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        dataset = SegmentsDataset("release.json", segments_dir="cache")
        return export_dataset(dataset, export_folder="out", export_format=name)


def by_polygon(annotation):
    """-> mask, pieces"""
    mask = np.zeros(bitmap.shape, np.uint8)
    pieces = [np.array(piece) for piece in annotation["polygons"]]
    cv2.fillPoly(mask, pieces, 1)
    return mask > 0, len(pieces)


def by_rle(annotation):
    mask = rle.decode(annotation["segmentation"])
    return mask > 0, cv2.connectedComponents(mask)[0] - 1


def measured(name, decoded):
    """-> objects, those without pixels, those in two pieces, right pixels of cells in per cent"""
    with open(exported(name)[0]) as file:
        annotations = json.load(file)["annotations"]
    painted, pieces = np.zeros(truth.shape, int), []
    for annotation in annotations:
        mask, count = decoded(annotation)
        painted[mask] = annotation["category_id"]
        pieces.append(count)
    right = round(float((painted == truth)[truth > 0].mean() * 100), 1)
    found = len(annotations), pieces.count(0), pieces.count(2), right
    print(f"{name:14} objects {found[0]}, without pixels {found[1]}, in two pieces {found[2]}, "
          f"pixels in the right category {right}%")
    return found


for package in ("segments-ai", "pillow", "opencv-python-headless", "scikit-image", "pycocotools",
                "numpy"):
    print(package, version(package))
polygons = measured("polygon", by_polygon)
instances = measured("coco-instance", by_rle)
exported("instance-color")
[colours] = pathlib.Path("out").glob("*instance_colored.png")
black = np.unique(bitmap[(np.array(Image.open(colours)) == 0).all(2)])
black = [int(number) for number in black if number]
print("instance-color: painted black", black)
same = polygons == (COUNT, COUNT - 255, COUNT - 256, 78.7)
same = same and instances == (COUNT, 0, 0, 100.0) and black == [256]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
