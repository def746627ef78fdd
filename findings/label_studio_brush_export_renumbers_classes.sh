#!/usr/bin/env bash
# Label Studio: two brush exports of one project, train and val, give the classes other numbers.
#
# Versions: label-studio-sdk 2.1.2 (its converter is Label Studio's export), numpy 2.2.6.
# Guess: a class's number in an exported COCO file follows from the labelling configuration alone:
#   sorted by name, or as asked for by category="7" in the <Label>. All exports of a project agree,
#   whichever pictures are in them, and each lists all classes.
# What happens: so it is with polygons (format COCO). With brush masks (format BRUSH_TO_COCO, "Brush
#   labels to COCO") a class is numbered when it first turns up: by the order of the pictures, and
#   in a picture by the order in which it was painted. What was not painted is not in the file;
#   category is ignored; and numbers begin with 1, not 0. (Polygons were numbered so, too, until
#   2021: label-studio-converter's pull request 29. The brush exporter was added in 2025.)
# Why it matters: train and val are exported by filters, or in batches, as work goes on. What is
#   wall in one file is window in the other; a network that reads category_id and not the names is
#   scored on permuted classes, or taught them, and each picture of masks looks right.
# Seen (class numbers in the file; asked: with category="7", "8" and "9" in the configuration):
#   polygons        train  {'door': 0, 'wall': 1, 'window': 2}
#   polygons        val    {'door': 0, 'wall': 1, 'window': 2}
#   polygons        a part {'door': 0, 'wall': 1, 'window': 2}
#   polygons, asked train  {'door': 9, 'wall': 7, 'window': 8} (val and a part the same)
#   brush           train  {'door': 3, 'wall': 1, 'window': 2}
#   brush           val    {'door': 1, 'wall': 2, 'window': 3}
#   brush           a part {'window': 1}
#   brush, asked    as without asking
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet label-studio-sdk==2.1.2 numpy==2.2.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from label_studio_sdk.converter import Converter, brush

SIDE = 60
CONFIG = """<View>
  <Image name="image" value="$image"/>
  <{0}Labels name="tag" toName="image">
    <Label value="wall"{1}/><Label value="window"{2}/><Label value="door"{3}/>
  </{0}Labels>
</View>"""
PROJECT = {  # what was drawn in each picture, in this order
    "train": [["wall", "window"], ["wall", "door"]],
    "val": [["door", "wall"], ["window", "wall"]],
    "a part": [["window"]],
}
BOXES = {"wall": (5, 55, 5, 55), "window": (15, 25, 15, 25), "door": (40, 55, 40, 50)}


def drawn(kind, name):
    top, bottom, left, right = BOXES[name]
    if kind == "Brush":
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[top:bottom, left:right] = 255
        return {"format": "rle", "rle": brush.mask2rle(mask), "brushlabels": [name]}
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    points = [[100 * x / SIDE, 100 * y / SIDE] for x, y in corners]
    return {"points": points, "polygonlabels": [name]}


def tasks(kind, pictures):
    """-> the project's JSON, as Label Studio stores it"""
    result = []
    for number, names in enumerate(pictures):
        regions = []
        for name in names:
            regions.append({
                "id": f"{number}{name}", "from_name": "tag", "to_name": "image",
                "type": f"{kind.lower()}labels", "original_width": SIDE,
                "original_height": SIDE, "image_rotation": 0, "value": drawn(kind, name)})
        result.append({
            "id": number, "data": {"image": f"/data/{number}.png"},
            "annotations": [{"id": number, "completed_by": 1, "was_cancelled": False,
                             "result": regions}]})
    return result


def numbers(kind, form, part, categories=("", "", "")):
    """-> the class numbers of the exported COCO file, by name"""
    folder = Path(f"{kind} {part} {''.join(categories)}")
    folder.mkdir()
    Path("tasks.json").write_text(json.dumps(tasks(kind, PROJECT[part])))
    config = CONFIG.format(kind, *categories)
    converter = Converter(config, project_dir=".", download_resources=False)
    converter.convert("tasks.json", str(folder), form, is_dir=False)
    [file] = folder.glob("*.json")
    found = {row["name"]: row["id"] for row in json.loads(file.read_text())["categories"]}
    return dict(sorted(found.items()))


for package in ("label-studio-sdk", "numpy"):
    print(package, version(package))
asked = tuple(f' category="{n}"' for n in (7, 8, 9))
seen = {}
for part in PROJECT:
    seen["polygons", part] = numbers("Polygon", "COCO", part)
    seen["brush", part] = numbers("Brush", "BRUSH_TO_COCO", part)
    seen["brush, asked", part] = numbers("Brush", "BRUSH_TO_COCO", part, asked)
    seen["polygons, asked", part] = numbers("Polygon", "COCO", part, asked)
for way in ("polygons", "polygons, asked", "brush", "brush, asked"):
    for part in PROJECT:
        print(f"{way:15} {part:6} {seen[way, part]}")
by_name, by_wish = {"door": 0, "wall": 1, "window": 2}, {"door": 9, "wall": 7, "window": 8}
by_turn = {"train": {"door": 3, "wall": 1, "window": 2}, "a part": {"window": 1},
           "val": {"door": 1, "wall": 2, "window": 3}}
same = True
for part in PROJECT:
    same = same and seen["polygons", part] == by_name and seen["polygons, asked", part] == by_wish
    same = same and seen["brush", part] == seen["brush, asked", part] == by_turn[part]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
