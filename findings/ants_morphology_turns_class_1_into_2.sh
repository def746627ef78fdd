#!/usr/bin/env bash
# ANTsPy: multi_label_morphology makes class 2 of class 1 when it dilates or closes a label map.
#
# Versions: antspyx 0.6.3, numpy 2.3.5.
# Guess: multi_label_morphology(labels, "MD", radius) grows each class into the background. Its text
#   promises it: "dilation and closing operations preserve pre-existing labels", and below its
#   example "label N should have mean N and 0 variance". label_list=[3] grows class 3 alone.
# What happens: all pixels of class 1 come back as class 2, and only what grew around them is class
#   1. In closing next to nothing grows, and class 1 is gone. Other classes keep their pixels. The
#   class's region, a mask of ones, is subtracted from the map to get the other classes. In class 1
#   that leaves 0, so that its own pixels count as free, and 1 is added to them once more. With a
#   dilation_mask class 2 is met as well: it becomes 4. Opening and erosion are right.
#   And a list of one class is taken for no list at all: label_list=[3] grows all classes.
# Why it matters: 2 is a valid class, and the outlines are right, so that only the colours tell.
#   A mask of 0 and 1 comes back as 2 with a rim of 1. Trained on such maps, or scored with them,
#   class 1 is a ring as wide as the radius, or nothing.
# Seen (squares of 400, 100 and 200 pixels, 1 beside 3, radius 2; by hand is each class dilated by
#   ANTs itself, one at a time, and written where the map was 0):
#   dilation        1 -> 2: 400, 2 -> 2: 100, 3 -> 3: 200; new 1: 132, 2: 92, 3: 80
#   by hand         1 -> 1: 400, 2 -> 2: 100, 3 -> 3: 200; new 1: 132, 2: 92, 3: 80
#   closing         1 -> 2: 400, 2 -> 2: 100, 3 -> 3: 200
#   with a mask     1 -> 2: 400, 2 -> 4: 100, 3 -> 3: 200; new 1: 132, 2: 92, 3: 80
#   each class + 10 11 -> 11: 400, 12 -> 12: 100, 13 -> 13: 200; new as by hand
#   label_list=[3]  as without; [2, 3]: new 2: 92, 3: 92
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile antspyx==0.6.3 numpy==2.3.5
cd "$folder"
OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import ants
import numpy as np

RADIUS = 2


def to_image(array):
    return ants.from_numpy(array.astype(np.float32))


def morphed(label_map, operation, **options):
    result = ants.multi_label_morphology(to_image(label_map), operation, RADIUS, **options)
    return result.numpy().astype(int)


def by_hand(label_map):
    """Each class grown by itself and written where the map is 0, the lowest class first"""
    result = label_map.copy()
    for k in np.unique(label_map[label_map > 0]):
        grown = to_image(label_map == k).iMath("MD", RADIUS).numpy() > 0
        result[grown & (result == 0)] = k
    return result


def shown(title, before, after):
    """-> how many pixels of each class have which class afterwards, and the classes of new ones"""
    kept, new = {}, {}
    for k in np.unique(before[before > 0]):
        for other in np.unique(after[before == k]):
            kept[int(k), int(other)] = int((after[before == k] == other).sum())
    for k in np.unique(after[(before == 0) & (after > 0)]):
        new[int(k)] = int((after[before == 0] == k).sum())
    moves = ", ".join(f"{k} -> {other}: {count}" for (k, other), count in kept.items())
    print(f"{title:18} {moves}; new {new}")
    return kept, new


label_map = np.zeros((80, 80), int)
label_map[20:40, 20:40] = 1
label_map[60:70, 60:70] = 2
label_map[20:40, 40:50] = 3
above = np.where(label_map > 0, label_map + 10, 0)
everywhere = to_image(np.ones(label_map.shape))

for package in ("antspyx", "numpy"):
    print(package, version(package))
dilated = shown("dilation", label_map, morphed(label_map, "MD"))
hand = shown("by hand", label_map, by_hand(label_map))
closed = shown("closing", label_map, morphed(label_map, "MC"))
opened = shown("opening", label_map, morphed(label_map, "MO"))
masked = shown("with a mask", label_map, morphed(label_map, "MD", dilation_mask=everywhere))
raised = shown("each class + 10", above, morphed(above, "MD"))
one = shown("label_list=[3]", label_map, morphed(label_map, "MD", label_list=[3]))
two = shown("label_list=[2, 3]", label_map, morphed(label_map, "MD", label_list=[2, 3]))
mask = shown("a mask of 0 and 1", label_map // 2, morphed(label_map // 2, "MD"))

same = hand[0] == {(1, 1): 400, (2, 2): 100, (3, 3): 200}
same = same and dilated[0] == closed[0] == {(1, 2): 400, (2, 2): 100, (3, 3): 200}
same = same and dilated[1] == hand[1] and closed[1] == {} and one == dilated
same = same and masked == ({(1, 2): 400, (2, 4): 100, (3, 3): 200}, hand[1])
same = same and all(after in (before, 0) for before, after in opened[0]) and opened[1] == {}
same = same and np.array_equal(morphed(above, "MD"), by_hand(above))
same = same and two[0] == hand[0] and list(two[1]) == [2, 3] and list(mask[0]) == [(1, 2)]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
