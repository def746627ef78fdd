#!/usr/bin/env bash
# darwin-py (V7): the grey label maps that it exports merge classes, from 16 classes on.
#
# Versions: darwin-py 3.6.3, Pillow 12.3.0, numpy 2.4.6.
# Guess: "darwin convert semantic_mask_grey" spreads the classes over the greys 0 to 255, and writes
#   to class_mapping.csv which class has which grey. Each pixel has the grey of its class, as in
#   semantic_mask_index it has its number, and in semantic_mask its colour.
# What happens: the numbers are turned into greys in place, one class after the other. With C
#   classes and the background class 1 gets the grey 255 / C, rounded down. From 16 classes on that
#   is itself the number of a later class, and is turned once more when that one's turn comes. So
#   class 1 (of 128 classes and more, class 2) takes the grey of another class, and with 150 classes
#   more than half of them do. The mapping that lies beside the maps lists greys that occur in no
#   map. Up to 15 classes all is right, and so are the other two formats, with any number.
# Why it matters: every bicycle of a street becomes terrain, pixel by pixel, in all maps alike. Each
#   grey is one of the mapping's, so that no check of the values finds it, and a network learns the
#   merged class well. Of ADE20K's 150 classes 87 are gone. Nothing is said.
# Seen (a strip of each class in one picture; classes whose grey is not theirs by the mapping;
#   classes without a grey of their own; the first that is wrong, and the class that has its grey):
#   semantic_mask_grey   12 classes   0 wrong   0 lost
#   semantic_mask_grey   15 classes   0 wrong   0 lost
#   semantic_mask_grey   19 classes   1 wrong   1 lost   bicycle is terrain (174, not 13)
#   semantic_mask_grey   20 classes   1 wrong   1 lost   aeroplane is dog (153, not 12)
#   semantic_mask_grey   34 classes   4 wrong   4 lost   class 001 is class 007 (52, not 7)
#   semantic_mask_grey  150 classes  87 wrong  87 lost   class 002 is class 105 (178, not 3)
#   semantic_mask_index  19, 20, 34 and 150 classes: 0 wrong, 0 lost
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile darwin-py==3.6.3 pillow==12.3.0 numpy==2.4.6
cd "$folder"
HOME=$folder venv/bin/python -W ignore - <<'PYTHON'
import csv
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

STRIP, HEIGHT = 10, 20  # pixels
streets = ["road", "sidewalk", "building", "wall", "fence", "pole", "traffic light",
           "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus",
           "train", "motorcycle", "bicycle"]
objects = ["aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
           "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
           "train", "tvmonitor"]


def numbered(count):
    return [f"class {number:03}" for number in range(1, count + 1)]


def annotation(place, name):
    """One strip of 9x20 pixels, as V7 exports a polygon."""
    left = place * STRIP
    corners = [(left, 0), (left + STRIP - 1, 0), (left + STRIP - 1, HEIGHT), (left, HEIGHT)]
    return {
        "id": str(place), "name": name, "slot_names": ["0"],
        "bounding_box": {"x": left, "y": 0, "w": STRIP - 1, "h": HEIGHT},
        "polygon": {"paths": [[{"x": float(x), "y": float(y)} for x, y in corners]]}}


def look(kind, names):
    """-> values in the map and values in the mapping, by the class's name"""
    home = Path(f"{kind}_{len(names)}")
    home.mkdir()
    slot = {"type": "image", "slot_name": "0", "width": STRIP * len(names), "height": HEIGHT,
            "source_files": [{"file_name": "a.png", "url": ""}]}
    notes = {"version": "2.0",
             "item": {"name": "a.png", "path": "/", "source_info": {}, "slots": [slot]},
             "annotations": [annotation(place, name) for place, name in enumerate(names)]}
    (home / "a.json").write_text(json.dumps(notes))
    subprocess.run(["venv/bin/darwin", "convert", kind, home / "a.json", home / "out"],
                   check=True, stdout=subprocess.DEVNULL)
    pixels = np.array(Image.open(home / "out/masks/a.png"))
    in_map = {}
    for place, name in enumerate(names):
        in_map[name] = int(pixels[HEIGHT // 2, place * STRIP + STRIP // 2])
    with open(home / "out/class_mapping.csv", newline="") as file:
        mapping = {row["class_name"]: int(row["class_color"]) for row in csv.DictReader(file)}
    return in_map, mapping


for name in ("darwin-py", "pillow", "numpy"):
    print(name, version(name))
sets = [  # classes, how many are wrong in grey
    (numbered(12), 0), (numbered(15), 0), (streets, 1), (objects, 1), (numbered(34), 4),
    (numbered(150), 87)]
as_described = True
for kind in ("semantic_mask_grey", "semantic_mask_index"):
    for names, expected in sets:
        in_map, mapping = look(kind, names)
        wrong = [name for name in sorted(names) if in_map[name] != mapping[name]]
        lost = len(names) - len(set(in_map.values()))
        line = f"{kind:19} {len(names):4} classes {len(wrong):3} wrong {lost:3} lost"
        if wrong:
            first = wrong[0]
            owner = {value: name for name, value in mapping.items()}[in_map[first]]
            line += f"   {first} is {owner} ({in_map[first]}, not {mapping[first]})"
        print(line)
        if kind == "semantic_mask_index":
            expected = 0
        as_described &= len(wrong) == expected
        as_described &= lost == expected
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
