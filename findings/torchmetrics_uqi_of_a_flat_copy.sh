#!/usr/bin/env bash
# torchmetrics: the UQI of a picture and its exact copy is not 1 if the picture has flat areas; it
# can be minus a billion, and a noisy copy scores better.
#
# Versions: torchmetrics 1.9.0, torch 2.13.0, CPU.
# Guess: universal_image_quality_index(x, x) is 1, the top of its range of -1 to 1, for any x; where
#   a window is of one colour, 0 / 0 is kept away by a small constant, as in SSIM.
# What happens: in a flat window the variances are E[x^2] - E[x]^2, so rounding noise. Where that is
#   negative it is clamped to 0, but the covariance, which has the same noise, is not, and what is
#   added below the line is 2^-23 (float32), far less than the noise. The copy of a label map has
#   -1.5 to -0.1 in the range 0-1, and minus a billion in 0-255. The code of the index's authors
#   (Wang and Bovik 2002) compares the means alone in flat windows, which gives 1. A photo with some
#   texture in every window is right; one with a burnt-out fifth is not. Nothing is warned of.
# Why it matters: label maps, drawn pictures and skies are flat. A generator that copies its target
#   without a fault scores below one that adds noise, and one such picture outweighs a test set.
# Seen (an exact copy; a copy with noise of 2% of the range; the exact copy's SSIM is 1.000):
#   textured, 0-1                         1.000           0.871
#   textured, 0-255                       1.000           0.871
#   a fifth burnt out, 0-1                0.411           0.765
#   label map 0, 0-1                     -0.808           0.339
#   label map 1, 0-1                     -0.093           0.369
#   label map 2, 0-1                     -1.467           0.379
#   label map 3, 0-1                     -0.140           0.402
#   a fifth burnt out, 0-255    -11,806,283,776           0.765
#   label map 0, 0-255             -745,595,392           0.339
#   label map 1, 0-255           -2,199,534,592           0.370
#   label map 2, 0-255           -1,146,023,552           0.379
#   label map 3, 0-255           -1,197,363,584           0.403
# The exact numbers are rounding noise, and may differ on another CPU; their sizes do not.
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys

import numpy as np
import torch
import torchmetrics
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from torchmetrics.functional.image import universal_image_quality_index as uqi

SIDE = 128


def textured():
    """A picture in 0-255, (1, SIDE, SIDE), without a flat window."""
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = 120 + 40 * np.sin(x / 9 + y / 17) + 30 * np.sin(y / 5) * np.cos(x / 4)
    grain = np.random.default_rng(0).normal(0, 6, (SIDE, SIDE))
    return np.clip(waves + grain, 0, 255).round()[None]


def burnt_out():
    """The same, with a flat bright fifth at the top, as a sky."""
    picture = textured()
    picture[:, :SIDE // 5] = 243
    return picture


def label_map(seed):
    """Rectangles of one colour each."""
    rng = np.random.default_rng(seed)
    picture = np.full((3, SIDE, SIDE), 77.0)
    for _ in range(12):
        y, x = rng.integers(0, SIDE - 8, 2)
        height, width = rng.integers(10, SIDE // 2, 2)
        picture[:, y:y + height, x:x + width] = rng.integers(0, 256, 3)[:, None, None]
    return picture


def scores(title, picture, top):
    """UQI of an exact and of a noisy copy, the picture being scaled from 0 to top."""
    real = torch.tensor(picture * (top / 255), dtype=torch.float32)[None]
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(1))
    exact = uqi(real.clone(), real).item()
    noisy = uqi(real + 0.02 * top * noise, real).item()
    of_ssim = ssim(real.clone(), real, data_range=float(top)).item()
    name = f"{title}, 0-{top}"
    print(f"{name:26} {exact:16,.3f} {noisy:15.3f}   SSIM of the copy {of_ssim:.3f}")
    return exact, noisy, of_ssim


print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
same = True
for top in (1, 255):
    exact, noisy, of_ssim = scores("textured", textured(), top)
    same = same and abs(exact - 1) < 0.001 and 0.5 < noisy < 0.95 and of_ssim > 0.999
for top in (1, 255):
    flat = [scores("a fifth burnt out", burnt_out(), top)]
    flat += [scores(f"label map {seed}", label_map(seed), top) for seed in range(4)]
    for exact, noisy, of_ssim in flat:
        same = same and exact < 0.9 and 0 < noisy < 0.9 and of_ssim > 0.999
    if top == 255:
        same = same and all(exact < -1000 for exact, _, _ in flat)
    else:
        same = same and sum(exact < noisy for exact, noisy, _ in flat) >= 3
sys.exit(0 if same else "the behaviour has changed")
PYTHON
