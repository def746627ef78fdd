#!/usr/bin/env bash
# sewar: its UQI is hardly more than a comparison of brightness; a plain grey card scores 0.93.
#
# Versions: sewar 0.4.10, numpy 2.4.6, scipy 1.17.1, Pillow 13.0.0.
# Guess: sewar.full_ref.uqi is the index of Wang and Bovik (2002), with their windows of 8x8: 1 for
#   a copy, 0 for a picture without the target's structure.
# What happens: the published code adds up the 64 pixels of each window, and multiplies the sum of
#   products by 64. sewar takes means, by uniform_filter, and still multiplies by 64. So where 64
#   times the covariance belongs, 64 E[xy] - E[x] E[y] stands, which is 64 times the covariance and
#   63 times the product of the means. A copy has 1 either way, and worse pictures have less, so
#   that nothing looks odd. The published formula, fed with means, gives sewar's numbers.
# Why it matters: tables of translated and enhanced pictures quote UQI from this package. A picture
#   with no texture at all has 0.93 there, and one whose every detail is reversed more than a noisy
#   copy. Such numbers cannot stand beside those of other code, and lost texture goes unpunished.
# Seen (by the paper's definition; by sewar; by the definition with means in place of sums):
#   exact copy          published  1.000  sewar 1.000  means for sums 1.000
#   noisy               published  0.356  sewar 0.974  means for sums 0.974
#   details reversed    published  0.268  sewar 0.988  means for sums 0.988
#   upside down, moved  published  0.330  sewar 0.886  means for sums 0.886
#   grey card, all 120  published  0.000  sewar 0.933  means for sums 0.933
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet sewar==0.4.10 numpy==2.4.6 scipy==1.17.1 pillow==13.0.0
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter
from sewar.full_ref import uqi

SIDE = 128


def windows(picture):
    return sliding_window_view(picture.astype(np.float64), (8, 8)).reshape(-1, 64)


def published(x, y):
    """Wang and Bovik's Q, equation 2, averaged over all windows of 8x8; none of x is flat."""
    a, b = windows(x), windows(y)
    mean_a, mean_b = a.mean(1), b.mean(1)
    covariance = ((a - mean_a[:, None]) * (b - mean_b[:, None])).mean(1)
    variances = a.var(1) + b.var(1)
    q = 4 * covariance * mean_a * mean_b / (variances * (mean_a**2 + mean_b**2))
    return float(q.mean())


def with_means_for_sums(x, y):
    """The published code's formula, fed with a window's means where it has sums."""
    a, b = windows(x), windows(y)
    product, squares = (a * b).mean(1), (a**2 + b**2).mean(1)
    means, means_squared = a.mean(1) * b.mean(1), a.mean(1)**2 + b.mean(1)**2
    q = 4 * (64 * product - means) * means / ((64 * squares - means_squared) * means_squared)
    return float(q.mean())


def as_bytes(picture):
    return np.clip(picture, 0, 255).round().astype(np.uint8)


rng = np.random.default_rng(0)
y, x = np.mgrid[:SIDE, :SIDE]
waves = 120 + 40 * np.sin(x / 9 + y / 17) + 30 * np.sin(y / 5) * np.cos(x / 4)
target = as_bytes(waves + rng.normal(0, 6, (SIDE, SIDE)))
means = uniform_filter(target.astype(np.float64), 8, mode="reflect")
rows = {
    "exact copy": target,
    "noisy": as_bytes(target + rng.normal(0, 25, target.shape)),
    "details reversed": as_bytes(2 * means - target),
    "upside down, moved": np.roll(target[::-1], 37, 1),
    "grey card, all 120": np.full_like(target, 120),
}
print("sewar", version("sewar"), "numpy", np.__version__)
found = {}
for title, picture in rows.items():
    right, by_sewar = published(target, picture), float(uqi(target, picture))
    mistaken = with_means_for_sums(target, picture)
    print(f"{title:19} published {right:6.3f}  sewar {by_sewar:.3f}  means for sums {mistaken:.3f}")
    found[title] = right, by_sewar, mistaken
same = all(abs(score - 1) < 1e-6 for score in found["exact copy"])
for title in list(rows)[1:]:
    right, by_sewar, mistaken = found[title]
    same = same and right < 0.4 and by_sewar > 0.85 and abs(by_sewar - mistaken) < 0.01
same = same and abs(found["grey card, all 120"][0]) < 1e-6
same = same and found["details reversed"][1] > found["noisy"][1]
same = same and found["details reversed"][0] < found["noisy"][0]
sys.exit(0 if same else "the behaviour has changed")
PYTHON
