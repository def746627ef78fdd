#!/usr/bin/env bash
# torchmetrics: the SSIM of one pair of pictures changes with the other pairs of its batch.
#
# Versions: torchmetrics 1.9.0, torch 2.13.0, CPU.
# Guess: structural_similarity_index_measure(fake, real, reduction="none") judges each pair by
#   itself; pictures in [0, 1] have the range 1, or that of their own pixels.
# What happens: without data_range the range is found as the largest spread of values in the whole
#   call, so of whichever pictures stand in the batch. A soft pair (0.4-0.6) with a little noise
#   has .45 alone and .75 beside a contrasty one: the very same tensors. With data_range=1.0 it is
#   .75 in both. The class accumulates the mean of such values, so the score of a test set depends
#   on the batch size and on the order.
# Why it matters: tables of SSIM of translated pictures are made with whatever batch fits the
#   machine. Foggy, dark or thermal pictures score far less at batch 1 than at batch 16, and
#   two papers' numbers cannot be compared.
# Seen:
#   alone 0.4517; beside a contrasty pair 0.7483; data_range=1.0: 0.7483 and 0.7483
#   the class, two pairs: batch 1 0.6882, batch 2 0.8365
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys

import torch
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from torchmetrics.image import StructuralSimilarityIndexMeasure

rng = torch.Generator().manual_seed(0)


def stripes(low, high):
    """A picture (1, 1, 96, 96) of values low to high."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 96), indexing="ij")
    return (low + (high - low) * (0.5 + 0.5 * torch.sin(9 * x + 5 * y)))[None, None]


def noisy(picture):
    return (picture + 0.02 * torch.randn(picture.shape, generator=rng)).clamp(0, 1)


soft, hard = stripes(0.4, 0.6), stripes(0, 1)
soft_fake, hard_fake = noisy(soft), noisy(hard)
fakes, reals = torch.cat([soft_fake, hard_fake]), torch.cat([soft, hard])
alone = ssim(soft_fake, soft, reduction="none")[0].item()
beside = ssim(fakes, reals, reduction="none")[0].item()
fixed_alone = ssim(soft_fake, soft, reduction="none", data_range=1.0)[0].item()
fixed_beside = ssim(fakes, reals, reduction="none", data_range=1.0)[0].item()
print(f"alone {alone:.4f}; beside a contrasty pair {beside:.4f}; "
      f"data_range=1.0: {fixed_alone:.4f} and {fixed_beside:.4f}")
by_ones, by_two = (StructuralSimilarityIndexMeasure() for _ in range(2))
for i in range(2):
    by_ones.update(fakes[i:i + 1], reals[i:i + 1])
by_two.update(fakes, reals)
ones, two = by_ones.compute().item(), by_two.compute().item()
print(f"the class, two pairs: batch 1 {ones:.4f}, batch 2 {two:.4f}")
same = beside - alone > 0.2 and abs(fixed_alone - fixed_beside) < 1e-4 and two - ones > 0.05
sys.exit(0 if same else "the behaviour has changed")
PYTHON
