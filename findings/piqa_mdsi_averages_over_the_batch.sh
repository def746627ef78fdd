#!/usr/bin/env bash
# piqa: the MDSI of a perfect copy is not 0 where a bad picture stands beside it in the batch.
#
# Versions: piqa 1.3.2, piq 0.8.0 (a second implementation, to compare), torch 2.13.0, numpy 2.4.6,
#   CPU.
# Guess: MDSI (mean deviation similarity index, the lower the better) with reduction="none" judges
#   each pair by itself: 0 for a copy, whatever else the batch holds; and a pair that is turned by
#   90 degrees keeps its score, up to rounding, as a gradient and a colour have no preferred side.
# What happens: the index is how far each pixel's similarity lies from the mean of its own picture.
#   piqa's map of similarities has lost its axis of channels, and is (N, H, W), when
#   mean(dim=(-2, -3)) is taken: over the rows and the batch, and not over rows and columns. So each
#   column of pixels has a mean of its own, shared with the other pictures of the batch. A copy
#   beside a spoilt picture scores .30, and a spoilt one beside a copy less than alone; and even
#   alone a pair whose lower half is spoilt scores .37, and turned on its side .33.
# Why it matters: a test set's score depends on the batch size and on the order; as a loss it pulls
#   at pictures that are already right. Photos are not the same along rows and along columns: the
#   sky is at the top, and generators fail in the lower half. A batch of 1 does not mend that.
# Seen (piqa / piq)
#   spoilt pair alone        0.3714 / 0.3719
#   turned by 90 degrees     0.3293 / 0.3719
#   beside a copy            0.3590 / 0.3719
#   the copy alone           0.0000 / 0.0000
#   the copy beside it       0.2969 / 0.0000
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps piqa==1.3.2 piq==0.8.0
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


piqa_mdsi = module_of("piqa", "mdsi").MDSI(reduction="none")
piq_mdsi = module_of("piq", "mdsi").mdsi
rng = torch.Generator().manual_seed(0)
ground = torch.rand(1, 3, 34, 34, generator=torch.Generator().manual_seed(3))
real = F.interpolate(ground, size=(256, 256), mode="bicubic").clamp(0, 1)
real[:, :, :128] = torch.tensor([0.5, 0.7, 0.9]).view(1, 3, 1, 1)  # the sky
noise = 0.1 * torch.randn(1, 3, 128, 256, generator=rng)
fake = real.clone()
fake[:, :, 128:] = (real[:, :, 128:] + noise).clamp(0, 1)


def both(fakes, reals):
    """-> each pair's MDSI by piqa, and by piq"""
    return piqa_mdsi(fakes, reals).tolist(), piq_mdsi(fakes, reals, reduction="none").tolist()


for package in ("piqa", "piq", "torch", "numpy"):
    print(package, version(package))
[alone], [right] = both(fake, real)
[turned], [right_turned] = both(fake.rot90(1, (2, 3)), real.rot90(1, (2, 3)))
beside, right_beside = both(torch.cat([fake, real]), torch.cat([real, real]))
[copy], [right_copy] = both(real, real)
print("(piqa / piq)")
print(f"spoilt pair alone     {alone:.4f} / {right:.4f}")
print(f"turned by 90 degrees  {turned:.4f} / {right_turned:.4f}")
print(f"beside a copy         {beside[0]:.4f} / {right_beside[0]:.4f}")
print(f"the copy alone        {copy:.4f} / {right_copy:.4f}")
print(f"the copy beside it    {beside[1]:.4f} / {right_beside[1]:.4f}")
same = abs(right - right_turned) < 1e-3 and abs(right - right_beside[0]) < 1e-3
same = same and right_copy < 1e-3 and right_beside[1] < 1e-3 and copy < 1e-3
same = same and alone - turned > 0.02 and alone - beside[0] > 0.005 and beside[1] > 0.2
print("as described" if same else "the behaviour has changed")
sys.exit(not same)
PYTHON
