#!/usr/bin/env bash
# augmax: Rotate with a probability below 1 turns pictures and their maps one way only.
#
# Versions: augmax 0.4.1, jax 0.10.2, numpy 2.4.6, CPU.
# Guess: augmax.Rotate((-30, 30), p=0.5) leaves half of the pairs of picture and label map as they
#   are, and turns the others by angles from all of the range, as many to the left as to the right.
# What happens: no pair is turned to the other side. Whether to turn and how far are drawn from the
#   same key of jax, and so are the same number u: the pair is turned if u is below p, and the angle
#   is -30 + 60 u. So only the lowest p-th part of the range occurs: with p=0.5 what lies below 0,
#   with p=0.25 what lies below -15, which leaves out small angles, too. With p=1 all angles occur.
#   RandomBrightness, RandomGamma and other transforms of colours split the key, and are as guessed.
# Why it matters: the network never sees half of the turns that it was to be trained on, or three
#   quarters of them, and the mean angle is not 0: what it sees leans to one side. Picture and map
#   turn together, the share of turned pairs is p, and each turned picture looks right by itself; it
#   shows only to those who compare the signs of many.
# Seen (2,000 pairs, angle of a dot in the map; pairs turned by more than half a degree, then of
#   these the ones to either side, the range and the mean of the angles):
#   p=1     turned 98%  upwards 48%  downwards  52%  from -29.9 to  29.9  mean   0.2
#   p=0.5   turned 50%  upwards  0%  downwards 100%  from -29.9 to  -0.0  mean -14.6
#   p=0.25  turned 24%  upwards  0%  downwards 100%  from -29.9 to -15.2  mean -22.0
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile augmax==0.4.1 jax==0.10.2 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import augmax
import jax
import jax.numpy as jnp
import numpy as np

SIDE, PAIRS, MIDDLE = 65, 2000, 32
rows, columns = np.mgrid[:SIDE, :SIDE]
dot = (rows - MIDDLE) ** 2 + (columns - 56) ** 2 <= 9  # to the right of the middle
label_map = jnp.array(dot, jnp.uint8)
picture = jnp.array(np.stack([dot] * 3, -1), jnp.float32)
keys = jax.random.split(jax.random.PRNGKey(0), PAIRS)


def angle_of(maps):
    """Angle of each dot as seen from the middle, in degrees; upwards is positive"""
    maps = np.asarray(maps, float)
    count = maps.sum((1, 2))
    up = -(maps * (rows - MIDDLE)).sum((1, 2)) / count
    right = (maps * (columns - MIDDLE)).sum((1, 2)) / count
    return np.degrees(np.arctan2(up, right))


def turned(p):
    """-> angle of the map and of the picture of each pair"""
    transform = augmax.Chain(augmax.Rotate((-30, 30), p=p), input_types=["image", "mask"])
    one = jax.jit(lambda key: transform(key, [picture, label_map]))
    pictures, maps = zip(*[one(key) for key in keys])
    return angle_of(np.stack(maps)), angle_of(np.stack(pictures)[..., 0])


for package in ("augmax", "jax", "numpy"):
    print(package, version(package))
same = True
for p in (1.0, 0.5, 0.25):
    angles, of_picture = turned(p)
    moved = angles[np.abs(of_picture) > 0.5]
    share, upwards = len(moved) / PAIRS, float((moved > 0).mean())
    print(f"p={p:4}  turned {share:4.0%}  upwards {upwards:4.0%}  downwards {1 - upwards:4.0%}  "
          f"from {moved.min():5.1f} to {moved.max():5.1f}  mean {moved.mean():5.1f}")
    same = same and abs(share - p) < 0.05 and np.abs(angles - of_picture).max() < 2
    same = same and (abs(upwards - 0.5) < 0.05 if p == 1 else min(upwards, 1 - upwards) == 0)
    if p == 0.25:
        same = same and np.abs(moved).min() > 13
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
