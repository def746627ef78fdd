#!/usr/bin/env bash
# POT: the sliced Wasserstein distance of any two sets of colours is 0 where they are whole numbers.
#
# Versions: POT 0.9.7.post1, scipy 1.17.1, numpy 2.4.6, CPU.
# Guess: how far the colours of generated photos are from those of real ones does not depend on
#   the type that holds them: pixels as Pillow gives them (uint8), as int64 and as float64 have
#   the same distance; at most, bytes overflow, or are refused.
# What happens: with whole numbers of any type ot.sliced_wasserstein_distance,
#   ot.max_sliced_wasserstein_distance and ot.wasserstein_1d answer 0.0: black and white pictures
#   are as alike as can be. Each sample's weight, 1/n, is made in the type of the samples, where
#   it is 0 (nx.full(..., type_as=X_s)); no mass is moved. With weights given as floats the sliced
#   distance is right; wasserstein_1d is, too, for int64, and is wrong another way for uint8, whose
#   differences wrap at 256. ot.emd2_1d and ot.gaussian.empirical_bures_wasserstein_distance make
#   floats, and are right. Nothing is said: the warning of ot.emd2 about whole numbers is in none
#   of them.
# Why it matters: 0 is the best score there is. As a check of colours, as a loss to choose a
#   checkpoint by, or to find a picture in a training set, it says that all is alike; and the usual
#   check, a set against itself, gives 0.0 rightly, and so finds nothing.
# Seen (colours of 0 to 255; A: drawn facades, B: the same brighter by 60, C: black, D: white):
#                                      float64   float32     int64     uint8
#   sliced, A to B                      63.053    63.054     0.000     0.000
#   sliced, A to A                       0.000     0.000     0.000     0.000
#   sliced, C to D                     267.976   267.979     0.000     0.000
#   max sliced, A to B                 103.739   103.740     0.000     0.000
#   one channel, A to B                 60.000    60.001     0.000     0.000
#   one channel, A to B, float weights  60.000    60.000    60.000   196.000
#   one channel, B to A, float weights  60.000    60.000    60.000    60.000
#   sliced, A to B, float weights       63.053    63.054    63.053    63.053
#   one channel, emd2_1d                60.000    60.000    60.000    60.000
#   one channel, scipy                  60.000    60.000    60.000    60.000
#   Bures                              103.923   103.923   103.923   103.923
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet POT==0.9.7.post1 scipy==1.17.1 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import ot
from scipy.stats import wasserstein_distance

COUNT = 2000
TYPES = ("float64", "float32", "int64", "uint8")
rng = np.random.default_rng(0)
wall, window, sky = (180, 120, 90), (60, 70, 90), (130, 170, 190)
drawn = np.array([wall, window, sky])[rng.choice(3, COUNT, p=(0.6, 0.25, 0.15))]
A = np.clip(np.round(drawn + rng.normal(0, 8, (COUNT, 3))), 0, 195)
B = A + 60
C = np.zeros((COUNT, 3))
D = np.full((COUNT, 3), 255)
weights = np.full(COUNT, 1 / COUNT)


def sliced(x, y):
    return ot.sliced_wasserstein_distance(x, y, n_projections=200, seed=0)


def sliced_weighted(x, y):
    return ot.sliced_wasserstein_distance(x, y, weights, weights, n_projections=200, seed=0)


def max_sliced(x, y):
    return ot.max_sliced_wasserstein_distance(x, y, n_projections=200, seed=0)


def channel(x, y):
    return ot.wasserstein_1d(x[:, 0], y[:, 0], p=1)


def channel_weighted(x, y):
    return ot.wasserstein_1d(x[:, 0], y[:, 0], weights, weights, p=1)


def channel_emd(x, y):
    return ot.emd2_1d(x[:, 0], y[:, 0], metric="cityblock")


def channel_scipy(x, y):
    return wasserstein_distance(x[:, 0], y[:, 0])


def bures(x, y):
    return ot.gaussian.empirical_bures_wasserstein_distance(x, y)


def measured(title, distance, x, y):
    """Prints; -> the distance for each of the types"""
    values = [float(distance(x.astype(kind), y.astype(kind))) for kind in TYPES]
    print(f"{title:34}", *[f"{value:9.3f}" for value in values], flush=True)
    return np.array(values)


def all_right(values):
    return np.allclose(values, values[0], rtol=0.01)


for package in ("POT", "scipy", "numpy"):
    print(package, version(package))
print(" " * 34, *[f"{kind:>9}" for kind in TYPES])
blind = [
    measured("sliced, A to B", sliced, A, B),
    measured("sliced, A to A", sliced, A, A),
    measured("sliced, C to D", sliced, C, D),
    measured("max sliced, A to B", max_sliced, A, B),
    measured("one channel, A to B", channel, A, B),
]
forward = measured("one channel, A to B, float weights", channel_weighted, A, B)
backward = measured("one channel, B to A, float weights", channel_weighted, B, A)
right = [
    measured("sliced, A to B, float weights", sliced_weighted, A, B),
    measured("one channel, emd2_1d", channel_emd, A, B),
    measured("one channel, scipy", channel_scipy, A, B),
    measured("Bures", bures, A, B),
]
same = all(np.all(values[2:] == 0) for values in blind)
same = same and all(min(values[:2]) > 30 for values in blind if values is not blind[1])
same = same and all(map(all_right, right))
same = same and all_right(forward[:3]) and all_right(backward[:3])
same = same and max(forward[3], backward[3]) > 150
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
