#!/usr/bin/env bash
# Hugging Face datasets: a label map that map() changed in place is stored as it was before.
#
# Versions: datasets 5.2.0, Pillow 13.0.0, numpy 2.4.6.
# Guess: a picture that the function of Dataset.map returns is stored as it is in memory, whether
#   the function made a new one or changed the one that it was given (thumbnail, paste, putpalette
#   and ImageDraw change a Pillow picture in place).
# What happens: a picture that Pillow opened from a file still has its filename after that. The
#   Image feature takes the filename for the picture: it stores the path and no pixels, and the next
#   access opens the old file. Nothing is said, and map() has run. resize() and copy() return a
#   picture without a filename, and are stored. So are all changes where the set holds the bytes of
#   the files, as sets from the hub do: their pictures have no filename. Dataset.from_dict does as
#   map() does.
# Why it matters: borders painted as void, classes merged by a new palette, maps made smaller: in
#   the function all is right, and in the set it is gone. The same lines work on a set from the hub,
#   and not on one's own folder. Where the photo goes through resize() and its map through
#   thumbnail(), the two have different sizes; where both are painted on, no size tells.
# Seen (is the change in the set afterwards?):
#                    folder  files' bytes  from_dict
#   drawn            no      yes           no
#   pasted           no      yes           no
#   thumbnail        no      yes           no
#   recoloured       no      yes           no
#   drawn_on_a_copy  yes     yes           yes
#   resized          yes     yes           yes
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 \
    venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from datasets import Dataset, Image as ImageFeature, load_dataset
from PIL import Image, ImageDraw

SIDE, CLASSES = 64, 12
rng = np.random.default_rng(0)
colours = rng.integers(40, 256, (CLASSES, 3), np.uint8)
merged = colours.copy()
merged[5] = merged[4]
Path("maps").mkdir()
for i in range(3):
    label_map = Image.fromarray(rng.integers(0, CLASSES, (SIDE, SIDE), np.uint8))
    label_map.putpalette(colours.tobytes())
    label_map.save(f"maps/{i}.png")


def drawn(picture):
    ImageDraw.Draw(picture).rectangle((0, 0, SIDE // 2, SIDE // 2), fill=3)
    return picture


def pasted(picture):
    picture.paste(3, (0, 0, SIDE // 2, SIDE // 2))
    return picture


def thumbnail(picture):
    picture.thumbnail((SIDE // 2, SIDE // 2))
    return picture


def recoloured(picture):
    picture.putpalette(merged.tobytes())
    return picture


def drawn_on_a_copy(picture):
    return drawn(picture.copy())


def resized(picture):
    return picture.resize((SIDE // 2, SIDE // 2))


def pixels(picture):
    return np.array(picture.convert("RGB"))


def kept(change, stored):
    """Are the stored pictures the changed ones (True), the old ones (False), or neither (None)?"""
    old = [pixels(Image.open(f"maps/{i}.png")) for i in range(3)]
    new = [pixels(change(Image.open(f"maps/{i}.png"))) for i in range(3)]
    found = [pixels(picture) for picture in stored["image"]]
    if all(map(np.array_equal, found, new)):
        return True
    if all(map(np.array_equal, found, old)):
        return False
    return None


from_folder = load_dataset("imagefolder", data_dir="maps", split="train")
files = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(Path("maps").iterdir())]
from_bytes = Dataset.from_dict({"image": files}).cast_column("image", ImageFeature())


def mapped(change, data):
    return data.map(lambda row: {"image": change(row["image"])})


for package in ("datasets", "pillow", "numpy"):
    print(package, version(package))
print(f"{'':16} folder; files' bytes; from_dict")
same = True
for change, in_place in ((drawn, True), (pasted, True), (thumbnail, True), (recoloured, True),
                         (drawn_on_a_copy, False), (resized, False)):
    pictures = [change(Image.open(f"maps/{i}.png")) for i in range(3)]
    answers = [
        kept(change, mapped(change, from_folder)),
        kept(change, mapped(change, from_bytes)),
        kept(change, Dataset.from_dict({"image": pictures})),
    ]
    words = ["yes" if answer else "no" for answer in answers]
    print(f"{change.__name__:16}", *words)
    same = same and answers == [not in_place, True, not in_place]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
