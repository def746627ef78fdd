#!/usr/bin/env bash
# LiteRT: label maps made smaller by "nearest" are moved up and left by half a cell on the phone.
#
# Versions: litert-torch 0.10.0, ai-edge-litert 2.3.0, litert-converter 0.5.0, torch 2.13.0, CPU.
# Guess: litert-torch, Google's converter from torch to phones (it was ai-edge-torch), carries over
#   F.interpolate with mode="nearest", which is also the default, so that each pixel comes from
#   where torch takes it. TensorFlow has its own rule, but the converter knows torch: it brings a
#   rewriting of this very operator into indices, which is exact (_decomp_registry.py).
# What happens: that rewriting is not reached. A pass before it (build_aten_composite_pass.py) wraps
#   the operator as tfl.resize_nearest_neighbor, and what comes out takes the pixel at the middle
#   of each cell, where torch takes the one at its corner: of a factor of 8, number 4 and not 0.
#   Factors that are no whole numbers are off, too. Whole enlargements, which U-Nets use and which
#   are what one would try, agree bit by bit; so does mode="nearest-exact".
# Why it matters: a generator that makes its label map smaller inside, as SPADE does for each of its
#   levels, as layouts and inpainting masks come to the size of latents, sees the map moved by half
#   a cell, up and left, against what it learned with. All shapes are right and nothing is said. If
#   a layer sees the full map as well (SPADE's last), edges stay in place and colours suffer; if
#   not, the picture is moved. x[..., ::factor, ::factor] in its place is converted exactly, and
#   "nearest-exact" too.
# Seen (which of 16 pixels are taken; then two small generators trained in torch on drawn label
#   maps: L1 to the target in torch and as converted, and the mean difference between the two in
#   levels of 255; then the network converted with slices in place of "nearest")
#   16 to 4                        torch 0 4 8 12            LiteRT 2 6 10 14
#   16 to 8                        torch 0 2 4 6 8 10 12 14  LiteRT 1 3 5 7 9 11 13 15
#   16 to 12                       torch 0 1 2 4 5 6 8 ...   LiteRT 0 2 3 4 6 7 8 ...
#   16 to 32                       the same
#   16 to 4, nearest-exact         the same
#   label map at a quarter of its side   0.1063  0.1466  17.2 levels  sliced 0.1063, 0 levels
#   SPADE, all four levels               0.0339  0.0350   2.2 levels  sliced 0.0339, 0 levels
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchao==0.18.0 litert-torch==0.10.0 \
  litert-converter==0.5.0 ai-edge-litert==2.3.0 ai-edge-quantizer==0.10.0 jax==0.10.2 \
  numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - 2>log <<'PYTHON' || { tail -n 5 log; exit 1; }
import contextlib
import io
import sys
from importlib.metadata import version

import litert_torch
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SIDE, CLASSES, STEPS = 64, 5, 200
COLOURS = torch.tensor(
    [[-.8, -.6, .7], [.8, -.5, -.5], [-.4, .7, -.5], [.8, .7, -.6], [.6, .6, .7]])


def nearest(label_map, side):
    return F.interpolate(label_map, size=(side, side), mode="nearest")


def exact(label_map, side):
    return F.interpolate(label_map, size=(side, side), mode="nearest-exact")


def sliced(label_map, side):
    factor = label_map.shape[2] // side
    return label_map[:, :, ::factor, ::factor]


class Resized(nn.Module):
    def __init__(self, resize, side):
        super().__init__()
        self.resize, self.side = resize, side

    def forward(self, x):
        return self.resize(x, self.side)


class Spade(nn.Module):
    """A block of SPADE: features are normalised, then scaled and shifted by the label map."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.shared = nn.Conv2d(CLASSES, 16, 3, padding=1)
        self.scale = nn.Conv2d(16, channels, 3, padding=1)
        self.shift = nn.Conv2d(16, channels, 3, padding=1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, label_map):
        hidden = F.relu(self.shared(label_map))
        x = self.norm(x) * (1 + self.scale(hidden)) + self.shift(hidden)
        return self.conv(F.leaky_relu(x, 0.2))


class SpadeGenerator(nn.Module):
    """Sides 8, 16, 32 and 64; the last block sees the full label map."""

    def __init__(self, channels=24):
        super().__init__()
        self.resize = nearest
        self.first = nn.Conv2d(CLASSES, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Spade(channels) for _ in range(4))
        self.to_image = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, label_map):
        x = self.first(self.resize(label_map, 8))
        for block, side in zip(self.blocks, (8, 16, 32, 64)):
            if side > 8:
                x = F.interpolate(x, scale_factor=2)
            x = block(x, self.resize(label_map, side))
        return torch.tanh(self.to_image(F.leaky_relu(x, 0.2)))


class LatentGenerator(nn.Module):
    """Sees the label map at a quarter of its side, the size of its latents."""

    def __init__(self, channels=32):
        super().__init__()
        self.resize = nearest
        layers, inputs = [], CLASSES
        for _ in range(4):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.LeakyReLU(0.2)]
            inputs = channels
        layers += [nn.ConvTranspose2d(channels, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        layers += [nn.ConvTranspose2d(channels, 3, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, label_map):
        return self.layers(self.resize(label_map, SIDE // 4))


def pairs(count, rng):
    """Label maps of boxes, one channel a class; the colours of the classes, a little blurred."""
    label_map = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    for picture in label_map:
        for _ in range(12):
            top, left = torch.randint(0, SIDE - 4, (2,), generator=rng).tolist()
            height, width = torch.randint(4, 24, (2,), generator=rng).tolist()
            label = int(torch.randint(CLASSES, (1,), generator=rng))
            picture[top:top + height, left:left + width] = label
    x = F.one_hot(label_map, CLASSES).permute(0, 3, 1, 2).float()
    colours = COLOURS[label_map].permute(0, 3, 1, 2)
    light = F.avg_pool2d(F.pad(colours, (4, 4, 4, 4), mode="replicate"), 9, 1)
    return x, 0.6 * colours + 0.4 * light


def trained(kind):
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    network = kind()
    optimizer = torch.optim.Adam(network.parameters(), 0.002, betas=(0.5, 0.999))
    for _ in range(STEPS):
        x, y = pairs(4, rng)
        optimizer.zero_grad()
        F.l1_loss(network(x), y).backward()
        optimizer.step()
    return network.eval()


def converted(network, x):
    """-> what LiteRT makes of each picture of x; the converter's own lines are not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        model = litert_torch.convert(network.eval(), (x[:1],))
        pictures = [np.asarray(model(one.numpy())) for one in x.split(1)]
    return torch.tensor(np.concatenate(pictures))


for package in ("torch", "litert-torch", "ai-edge-litert", "litert-converter", "numpy"):
    print(package, version(package))
ramp = torch.arange(16.).expand(1, 1, 16, 16).contiguous()
same = True
for resize, side, agrees in ((nearest, 4, False), (nearest, 8, False), (nearest, 12, False),
                             (nearest, 32, True), (exact, 4, True)):
    network = Resized(resize, side)
    right = network(ramp)
    found = converted(network, ramp)
    print(f"16 to {side}, {resize.__name__}: torch", *right[0, 0, 0].int().tolist(),
          "LiteRT", *found[0, 0, 0].int().tolist(), flush=True)
    same = same and torch.equal(right, found) == agrees
    if side == 4 and not agrees:
        same = same and found[0, 0, 0].tolist() == [2, 6, 10, 14]

x, y = pairs(16, torch.Generator().manual_seed(1))
for kind, least in ((LatentGenerator, 5), (SpadeGenerator, 0.5)):
    network = trained(kind)
    with torch.no_grad():
        right = network(x)
    found = converted(network, x)
    network.resize = sliced
    mended = converted(network, x)
    errors = [float(F.l1_loss(fake, y)) for fake in (right, found, mended)]
    levels = [float((fake - right).abs().mean()) * 127.5 for fake in (found, mended)]
    print(f"{kind.__name__:16} L1 torch {errors[0]:.4f} LiteRT {errors[1]:.4f}, {levels[0]:.1f} "
          f"levels apart; with slices {errors[2]:.4f}, {levels[1]:.4f} levels", flush=True)
    same = same and levels[0] > least and errors[1] > errors[0] and levels[1] < 0.01
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
