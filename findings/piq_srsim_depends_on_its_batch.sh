#!/usr/bin/env bash
# piq: SR-SIM with reduction="none" changes with the other pictures of the batch, and with it which
# of two methods is better.
#
# Versions: piq 0.8.0, torch 2.13.0, numpy 2.4.6, CPU.
# Guess: SR-SIM weighs the pixels of a pair by how salient they are, as found from the spectrum of
#   each picture. srsim(fakes, reals, reduction="none") gives a number for each pair that
#   depends on that pair alone, as its FSIM, VSI, GMSD, VIF and the others of the package do.
# What happens: each map of saliency is to be scaled to 0-1 by its own least and greatest value.
#   piq takes these over the whole batch (torch.min(saliency_map[:])). Beside a picture with one
#   strong edge, whose peak the others do not reach, their maps are pressed together near 0, where
#   the constant of the formula (0.4) makes all maps alike. And the fakes of a batch are scaled
#   apart from its reals: one bad fake moves the maps of all fakes, and not those of the reals, so
#   that good pairs, too, differ from then on.
# Why it matters: SR-SIM's numbers lie close together, near 1, and are moved by as much as is to be
#   measured. Tables depend on the batch size and on the order of the files, and a method loses
#   points on good pictures for a bad one.
# Seen (one and the same pair, whose fake is a blurred or a noisy copy; FSIM beside it)
#                                           SR-SIM                FSIM
#                                           blurred   noisy       blurred   noisy
#   alone                                   0.9941    0.9865      0.9879    0.9729
#   beside a copy of two halves             0.9946    0.9883      0.9879    0.9729
#   beside a bad copy of two halves         0.9669    0.9688      0.9879    0.9729
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps piq==0.8.0
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import importlib
import importlib.util
import sys
import types
from importlib.metadata import version

import torch
import torch.nn.functional as F


def module_of(package, name):
    """-> package.name without the package's __init__, which needs torchvision for LPIPS and FID."""
    bare = types.ModuleType(package)
    bare.__path__ = list(importlib.util.find_spec(package).submodule_search_locations)
    sys.modules[package] = bare
    return importlib.import_module(f"{package}.{name}")


srsim = module_of("piq", "srsim").srsim
fsim = importlib.import_module("piq.fsim").fsim
rng = torch.Generator().manual_seed(0)
ground = torch.rand(1, 3, 34, 34, generator=torch.Generator().manual_seed(1))
real = F.interpolate(ground, size=(256, 256), mode="bicubic").clamp(0, 1)
noise = torch.randn(real.shape, generator=rng)
noisy = (real + 0.03 * noise).clamp(0, 1)
blurred = F.avg_pool2d(F.pad(real, (2, 2, 2, 2), mode="reflect"), 5, stride=1).clamp(0, 1)
halves = torch.zeros(1, 3, 256, 256)
halves[..., 128:] = 1  # the left half is black, the right one white
weak = (halves + 0.3 * noise).clamp(0, 1)  # a bad copy of that


def first(measure, fake, *pairs):
    """-> the score of (fake, real) where the pairs, of fake and real, stand behind it"""
    fakes = torch.cat([fake] + [pair[0] for pair in pairs])
    reals = torch.cat([real] + [pair[1] for pair in pairs])
    return float(measure(fakes, reals, data_range=1.0, reduction="none")[0])


for package in ("piq", "torch", "numpy"):
    print(package, version(package))
rows = {"alone": [], "beside a copy of two halves": [(halves, halves)],
        "beside a bad copy of two halves": [(weak, halves)]}
found = {}
print(f"{'':34}SR-SIM: blurred, noisy; FSIM: blurred, noisy")
for title, pairs in rows.items():
    found[title] = []
    for measure in (srsim, fsim):
        for fake in (blurred, noisy):
            found[title].append(first(measure, fake, *pairs))
    print(f"{title:34}" + "  ".join(f"{number:.4f}" for number in found[title]))
alone, copy, bad = found.values()
same = alone[0] > alone[1] + 0.004 and bad[0] < bad[1] - 0.001  # which one is better turns round
same = same and alone[0] - bad[0] > 0.02 and copy[1] - alone[1] > 0.001
for fsim_now, fsim_alone in zip(copy[2:] + bad[2:], alone[2:] + alone[2:]):
    same = same and abs(fsim_now - fsim_alone) < 1e-4
print("as described" if same else "the behaviour has changed")
sys.exit(not same)
PYTHON
