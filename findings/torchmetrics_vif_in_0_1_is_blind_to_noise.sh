#!/usr/bin/env bash
# torchmetrics: VIF of pictures in [0, 1] hardly sees noise, and turns the order of methods round.
#
# Versions: torchmetrics 1.9.0, torch 2.13.0, numpy 2.4.6, CPU.
# Guess: visual_information_fidelity has no data_range, so it asks for none: pictures in [0, 1], as
#   each other image metric of the package takes them, have the score of the same pictures in 0-255,
#   or are refused.
# What happens: the noise of the eye, sigma_n_sq, is 2.0 as in the published code, whose pictures
#   are 0-255; it is not scaled, and the text names no range. In [0, 1] it is some sixty times the
#   picture's whole variance: log(1 + s / 2) becomes s / 2, and the score the gain of the
#   regression on the target. Added noise, which has no gain, costs almost nothing; less contrast
#   costs its square; more contrast gains its square. In [-1, 1] it is the same.
# Why it matters: of four translations of one photo the noisy one is the worst by the published
#   measure and the second best in [0, 1], and the one with less contrast the other way about. A
#   loss, or a choice of checkpoints, by this score prefers noise to blur. The numbers look
#   plausible, and a copy has 1 in each range.
# Seen (0-255; [0, 1]; [-1, 1]; [0, 1] with sigma_n_sq=2/255**2, which mends it):
#   copy           1.000 1.000 1.000 1.000
#   noisy          0.152 0.936 0.908 0.152
#   blurred        0.321 0.392 0.393 0.321
#   less contrast  0.819 0.361 0.363 0.819
#   more contrast  0.965 1.612 1.601 0.965
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torchmetrics.functional.image import visual_information_fidelity as vif

SIDE = 256
rng = torch.Generator().manual_seed(0)


def natural_picture():
    """Amplitudes fall with the frequency, as in photos; mean 128, standard deviation 45."""
    ys = torch.fft.fftfreq(SIDE)[:, None]
    xs = torch.fft.fftfreq(SIDE)[None, :]
    frequency = (ys ** 2 + xs ** 2).sqrt().clamp(min=1 / SIDE)
    white = torch.randn(3, SIDE, SIDE, generator=rng)
    picture = torch.fft.ifft2(torch.fft.fft2(white) / frequency).real
    picture = (picture - picture.mean()) / picture.std()
    return (128 + 45 * picture).clamp(0, 255).round()[None]


real = natural_picture()
noise = 40 * torch.randn(real.shape, generator=rng)
box = torch.full((3, 1, 3, 3), 1 / 9)
blurred = F.conv2d(F.pad(real, (1, 1, 1, 1), mode="reflect"), box, groups=3)
fakes = {
    "copy": real,
    "noisy": (real + noise).clamp(0, 255).round(),
    "blurred": blurred.round(),
    "less contrast": (128 + 0.6 * (real - 128)).round(),
    "more contrast": (128 + 1.3 * (real - 128)).clamp(0, 255).round(),
}
for package in ("torch", "torchmetrics", "numpy"):
    print(package, version(package))
scores = {}
for name, fake in fakes.items():
    scores[name] = (
        float(vif(fake, real)),
        float(vif(fake / 255, real / 255)),
        float(vif(fake / 127.5 - 1, real / 127.5 - 1)),
        float(vif(fake / 255, real / 255, sigma_n_sq=2 / 255 ** 2)),
    )
    print(f"{name:14}", *[f"{score:.3f}" for score in scores[name]])


def order(column):
    """The four translations, the worst first."""
    names = list(scores)[1:]
    return sorted(names, key=lambda name: scores[name][column])


print("0-255, worst to best: ", order(0))
print("[0, 1], worst to best:", order(1))
same = scores["noisy"][0] < 0.4 and scores["noisy"][1] > 0.8
same = same and order(0)[0] == "noisy" and order(1)[0] == "less contrast"
same = same and scores["more contrast"][1] > 1.3
same = same and all(abs(s[0] - s[3]) < 0.01 for s in scores.values())
sys.exit(0 if same else "the behaviour has changed")
PYTHON
