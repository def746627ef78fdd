#!/usr/bin/env bash
# platipy: correct_volume_overlap takes pixels from all organs, and whole organs from the map.
#
# Versions: platipy 0.7.2, SimpleITK 2.5.7, numpy 2.4.6 (matplotlib 3.11.2, scikit-image 0.26.0).
# Guess: correct_volume_overlap(masks) makes masks that exclude each other: a pixel that is in
#   several goes to the largest of them, all others stay where they are. Together they cover what
#   they covered before, however many there are.
# What happens: each organ is given a prime, the largest one 2, the next 3, and so on; a pixel
#   carries the product of its organs' primes, and organ p takes the pixels that p divides. The
#   product is kept in 64 bits but is cast to 8 each time that another organ is multiplied in
#   (prime_encode_structure_list in label/utils.py), so that it wraps at 256. The 7th and the 8th
#   organ give 17 * 19 = 323, which is 67, and the pixel is background. The 5th and the 10th give
#   11 * 29 = 319, which is 63, and the 2nd organ, wherever it lies, gets the pixel. And from the
#   55th organ on (257, which is 1) the prime alone is lost: such an organ is gone, overlap or not.
#   Only the last organ is multiplied in without a cast. Up to 7 organs all pairs are right.
# Why it matters: it is the step between drawn contours, which overlap, and the label map that a
#   network is trained on (tools that write nnU-Net folders call it). Where two of the smaller
#   organs meet there is then a seam of background in truth and in what is learnt; they are the
#   small ones, as these have the great primes. Of 104 organs, as whole-body sets have, 49 vanish.
# Seen (n organs of different sizes; each pair shares pixels, if n is below 30; of the pixels that
#   two share, how many go to the larger, to nobody, to an organ that had no part in them; and how
#   many organs lose all of their own pixels):
#   organs   shared   to the larger   nobody   a stranger   organs gone
#        7       21              21        0            0             0
#       12       66              51        4           11             0
#       16      120              67       11           42             0
#       24      276              91       42          143             0
#       54        0               0        0            0             0
#      104        0               0        0            0            49
#   two circles: 52 shared pixels, lost alone 0, beside 7 others 52
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile SimpleITK==2.5.7 numpy==2.4.6 \
    matplotlib==3.11.2 scikit-image==0.26.0 scipy==1.17.1
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps platipy==0.7.2 2> "$folder/log" \
    || { cat "$folder/log"; exit 1; }
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version
from itertools import combinations

import numpy as np
import SimpleITK as sitk
from platipy.imaging.label.utils import correct_volume_overlap

OWN = 40  # pixels that the smallest organ has for itself; each one before it has some more


def drawn(organs, pairs):
    """-> one row of pixels for each organ: first those of its own, then one for each pair"""
    sizes = [OWN + 30 * (organs - i) for i in range(organs)]
    masks = np.zeros((organs, sum(sizes) + len(pairs)), np.uint8)
    start = 0
    for i, size in enumerate(sizes):
        masks[i, start:start + size] = 1
        start += size
    for column, pair in enumerate(pairs):
        masks[list(pair), start + column] = 1
    return masks, start


def corrected(masks):
    """-> the masks after platipy's correction, in the order given"""
    named = {}
    for i, mask in enumerate(masks):
        named[f"organ {i}"] = sitk.GetImageFromArray(np.atleast_2d(mask))
    result = correct_volume_overlap(named)
    rows = [sitk.GetArrayFromImage(result[name]).reshape(masks[0].shape) for name in named]
    return np.array(rows)


def tried(organs):
    pairs = []
    if organs < 30:
        pairs = list(combinations(range(organs), 2))
    masks, start = drawn(organs, pairs)
    result = corrected(masks)
    assert result.sum(0).max() == 1
    larger = nobody = stranger = 0
    for column, pair in enumerate(pairs, start):
        owner = np.flatnonzero(result[:, column])
        if len(owner) == 0:
            nobody += 1
        elif owner[0] == pair[0]:
            larger += 1
        elif owner[0] not in pair:
            stranger += 1
    gone = int((result[:, :start].sum(1) == 0).sum())
    print(f"{organs:6} {len(pairs):8} {larger:15} {nobody:8} {stranger:12} {gone:13}")
    return len(pairs), larger, nobody, stranger, gone


def circles():
    """Two circles that overlap, alone and beside ten larger organs and a smaller one
    -> pixels that both had, and how many of them are lost in either case"""
    y, x = np.mgrid[:64, :400]
    two = [(y - 32) ** 2 + (x - 340) ** 2 <= 14 ** 2, (y - 32) ** 2 + (x - 362) ** 2 <= 13 ** 2]
    others = []
    for i in range(6):
        others.append((abs(y - 32) < 30) & (abs(x - 25 - 50 * i) < 24 - i))
    small = (y < 3) & (x > 396)
    shared = two[0] & two[1]
    lost = []
    for masks in (two, others + two + [small]):
        result = corrected(np.array(masks, np.uint8))
        lost.append(int((shared & (result.sum(0) == 0)).sum()))
    return int(shared.sum()), lost[0], lost[1]


for package in ("platipy", "SimpleITK", "numpy"):
    print(package, version(package))
print("organs   shared   to the larger   nobody   a stranger   organs gone")
seen = {organs: tried(organs) for organs in (7, 12, 16, 24, 54, 104)}
shared, alone, beside = circles()
print(f"two circles: {shared} shared pixels, lost alone {alone}, beside 7 others {beside}")
same = seen[7] == (21, 21, 0, 0, 0)
for organs in (12, 16, 24):
    pairs, larger, nobody, stranger, gone = seen[organs]
    same = same and 0 < nobody < pairs and larger < pairs and gone == 0
same = same and seen[24][3] > 0 and seen[54][4] == 0 and seen[104][4] == 49
same = same and alone == 0 and beside == shared > 0
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
