#!/usr/bin/env bash
# Lightning: an average updated every 2 (4, 10, 100) steps hands a GAN back untrained.
#
# Versions: lightning 2.6.6, torch 2.13.0, numpy 2.4.6, CPU.
# Guess: EMAWeightAveraging(update_every_n_steps=10) updates its average at every tenth batch of a
#   GAN, or at every fifth, as there are two optimisers: in manual optimisation each optimiser's
#   step counts in trainer.global_step, which is known (issue 17958). Either way an average of the
#   generator is kept, and is what fit() leaves in the module.
# What happens: the average is never updated. The callback looks once a batch, at global_step - 1,
#   and asks whether the rest by n is 0. With two steps a batch that number is 1, 3, 5 ...: always
#   odd, so that no even n divides it. Odd n work, and once every n batches. The average was made
#   of the networks as they were before training; validation uses it, checkpoints hold it as their
#   weights, and at the end it is copied over the trained networks, without a warning. A network
#   with one optimiser is averaged with each n. (The text says only that the interval is in steps.)
# Why it matters: pix2pix, SemGAN and each GAN in Lightning have two optimisers and manual
#   optimisation, and the numbers that one would choose, 2, 10 or 100, are even. The losses in the
#   log fall as they should; what is saved is the initialisation, and passes for a GAN that
#   collapsed. The trained weights stand in the checkpoint only, as current_model_state.
# Seen (256 batches; updates of the average; L1 of what fit() leaves and of the last weights, to the
#   targets in [-1, 1]; whether what fit() leaves is the initialisation, bit by bit):
#   two optimisers, n=1   256 updates  L1 0.06  last 0.08  trained
#   two optimisers, n=2     0 updates  L1 0.50  last 0.08  the initialisation
#   two optimisers, n=5    51 updates  L1 0.07  last 0.08  trained
#   two optimisers, n=10    0 updates  L1 0.50  last 0.08  the initialisation
#   one optimiser, n=10    26 updates  L1 0.07  last 0.07  trained
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 lightning==2.6.6 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import copy
import logging
import sys
from importlib.metadata import version

import lightning
import torch
import torch.nn as nn
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pictures = torch.rand(256, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
targets = -pictures.flip(1)  # the negative, with red and blue exchanged


def judged(logits, real):
    wanted = torch.full_like(logits, float(real))
    return F.binary_cross_entropy_with_logits(logits, wanted)


class Pix2Pix(lightning.LightningModule):
    """The two steps of pix2pix, by Lightning's manual optimisation."""

    def __init__(self, adversarial):
        super().__init__()
        self.automatic_optimization = False
        self.adversarial = adversarial
        self.G = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(),
                               nn.Conv2d(8, 3, 3, padding=1), nn.Tanh())
        self.D = nn.Sequential(nn.Conv2d(6, 8, 4, 2, 1), nn.LeakyReLU(0.2),
                               nn.Conv2d(8, 1, 4, 2, 1))
        self.trained = []

    def configure_optimizers(self):
        G = torch.optim.Adam(self.G.parameters(), 1e-2, betas=(0.5, 0.999))
        if not self.adversarial:
            return [G]
        return [G, torch.optim.Adam(self.D.parameters(), 2e-4, betas=(0.5, 0.999))]

    def step(self, optimizer, loss):
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def training_step(self, batch, index):
        x, y = batch
        fake = self.G(x)
        loss = 100 * (fake - y).abs().mean()
        optimizers = self.optimizers()
        if not self.adversarial:
            self.step(optimizers, loss)
            return
        logits_real = self.D(torch.cat([x, y], dim=1))
        logits_fake = self.D(torch.cat([x, fake.detach()], dim=1))
        self.step(optimizers[1], judged(logits_real, True) + judged(logits_fake, False))
        logits_fake = self.D(torch.cat([x, fake], dim=1))
        self.step(optimizers[0], judged(logits_fake, True) + loss)

    def on_train_epoch_end(self):
        self.trained = [copy.deepcopy(self.G)]  # in a list, as it is no part of the module


@torch.no_grad()
def error(network):
    return float((network(pictures) - targets).abs().mean())


def look(adversarial, every):
    """-> updates of the average, L1 of what fit() leaves, of the last weights, is it untrained"""
    torch.manual_seed(1)
    model = Pix2Pix(adversarial)
    before = copy.deepcopy(model.state_dict())
    callback = EMAWeightAveraging(decay=0.8, update_every_n_steps=every)
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="cpu", callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(model, DataLoader(TensorDataset(pictures, targets), batch_size=4))
    untrained = all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    updates = int(callback._average_model.n_averaged)
    return updates, error(model.G), error(model.trained[0]), untrained


for name in ("lightning", "torch", "numpy"):
    print(name, version(name))
rows = [  # two optimisers or one, n, updates
    (True, 1, 256), (True, 2, 0), (True, 5, 51), (True, 10, 0), (False, 10, 26)]
as_described = True
for adversarial, every, wanted in rows:
    updates, left, last, untrained = look(adversarial, every)
    title = "two optimisers" if adversarial else "one optimiser"
    fate = "the initialisation" if untrained else "trained"
    print(f"{title}, n={every:<3} {updates:3} updates  L1 {left:.2f}  last {last:.2f}  {fate}")
    as_described &= abs(updates - wanted) <= 1
    as_described &= untrained == (wanted == 0)
    as_described &= last < 0.15
    as_described &= left > 0.3 if untrained else left < 0.15
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
