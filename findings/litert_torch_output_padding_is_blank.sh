#!/usr/bin/env bash
# LiteRT: the row and column that output_padding adds to a 4x4 transposed convolution are blank.
#
# Versions: litert-torch 0.10.0, ai-edge-litert 2.3.0, litert-converter 0.5.0, torch 2.13.0, CPU.
# Guess: a U-Net for pictures whose side is no power of two (62, 31, 15, 7, 3, 1) comes back to odd
#   sides by ConvTranspose2d(4, stride=2, padding=1, output_padding=1). output_padding says only
#   how much of the result is kept, so that the last row is computed like the others; the converter
#   either knows that, or refuses, as it does for the 3x3 kernel of CycleGAN with the same numbers.
# What happens: the converted layer has the right shape, and all rows but the last are right. The
#   last row and the last column hold the bias and nothing else, as if the layer had been computed
#   without output_padding and zeros had been put behind it. The 3x3 kernel is refused with an
#   error; 2x2 without padding is right, as torch's added row is the bias there, too.
# Why it matters: the name makes one expect zeros there, but torch has values there, and the U-Net
#   was trained with them. At the inner levels a row is much: of 3x3 the third row and column, so
#   that the lower and right third of the picture lose what came through the bottleneck. The error
#   is a stripe at two sides of each picture that fades inwards; the upper left is exact, and so
#   are sides that are powers of two, with which one tries. A layer with padding=0, cut to
#   [1:2n+2], is the same layer in torch and is converted exactly.
# Seen (a layer with stride 2; then a small U-Net trained in torch, of which every transposed
#   convolution is 4x4: the difference between torch and LiteRT in levels of 255, its mean over the
#   last 8 rows, its largest, its mean over the upper left; L1 to the target)
#   kernel 4, padding 1, output_padding 1   the last row and column are the bias
#   kernel 4, padding 1, output_padding 0   right
#   kernel 2, padding 0, output_padding 1   right
#   kernel 3, padding 1, output_padding 1   refused
#   U-Net, side 64               0.0,  0, 0.000  torch 11.0, LiteRT 11.0
#   U-Net, side 62              13.3, 90, 0.000  torch 11.5, LiteRT 13.1
#   the same, padding 0 and cut  0.0,  0, 0.000
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

STEPS = 200


def converted(network, x):
    """-> what LiteRT makes of each picture of x, or None where the converter refuses."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            model = litert_torch.convert(network.eval(), (x[:1],))
        except Exception:  # of several kinds, deep inside
            return None
        pictures = [np.asarray(model(one.numpy())) for one in x.split(1)]
    return torch.tensor(np.concatenate(pictures))


class Cut(nn.Module):
    """The same transposed convolution: all rows are computed, then those wanted are kept."""

    def __init__(self, layer, extra):
        super().__init__()
        self.layer = nn.ConvTranspose2d(layer.in_channels, layer.out_channels, 4, stride=2)
        self.layer.load_state_dict(layer.state_dict())
        self.extra = extra

    def forward(self, x):
        side = 2 * x.shape[2] + self.extra
        return self.layer(x)[:, :, 1:1 + side, 1:1 + side]


class UNet(nn.Module):
    """Five kernels of 4x4 down and up; the sides are halved, and rounded down."""

    def __init__(self, side, width=16):
        super().__init__()
        sides = [side]
        for _ in range(5):
            sides.append(sides[-1] // 2)
        channels = [3, width, 2 * width, 2 * width, 2 * width, 2 * width]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level in range(5):
            self.encoder.append(nn.Conv2d(channels[level], channels[level + 1], 4, 2, 1))
        for level in reversed(range(5)):
            inputs = channels[level + 1] * (1 if level == 4 else 2)
            self.decoder.append(nn.ConvTranspose2d(
                inputs, channels[level], 4, 2, 1,
                output_padding=sides[level] - 2 * sides[level + 1]))

    def forward(self, x):
        skips = []
        for encode in self.encoder:
            x = F.leaky_relu(encode(x), 0.2)
            skips.append(x)
        skips.pop()
        for decode in self.decoder:
            x = decode(x)
            if skips:
                x = F.relu(torch.cat([x, skips.pop()], dim=1))
        return torch.tanh(x)


def pairs(count, side, rng):
    """Noisy negatives of coloured clouds; the clouds."""
    clouds = F.interpolate(torch.randn(count, 3, 8, 8, generator=rng), (side, side), mode="bicubic")
    y = torch.tanh(clouds)
    return -y + 0.5 * torch.randn(y.shape, generator=rng), y


def trained(side):
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    network = UNet(side)
    optimizer = torch.optim.Adam(network.parameters(), 0.002, betas=(0.5, 0.999))
    for _ in range(STEPS):
        x, y = pairs(4, side, rng)
        optimizer.zero_grad()
        F.l1_loss(network(x), y).backward()
        optimizer.step()
    return network.eval()


for package in ("torch", "litert-torch", "ai-edge-litert", "litert-converter", "numpy"):
    print(package, version(package))
x = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(0))
same = True
for kernel, padding, extra, described in (
        (4, 1, 1, "blank"), (4, 1, 0, "right"), (2, 0, 1, "right"), (3, 1, 1, "refused")):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 3, kernel, 2, padding, output_padding=extra)
    with torch.no_grad():
        right = layer(x)
    found = converted(layer, x)
    if found is None:
        words = "refused"
    elif (found - right).abs().max() < 1e-4:
        words = "right"
    else:
        inside = (found - right)[:, :, :-1, :-1].abs().max()
        bias = layer.bias.detach()[None, :, None]
        rim = max(float((found[:, :, -1] - bias).abs().max()),
                  float((found[:, :, :, -1] - bias).abs().max()))
        words = "blank" if inside < 1e-4 and rim < 1e-6 else "otherwise wrong"
    print(f"kernel {kernel}, padding {padding}, output_padding {extra}: {words}", flush=True)
    same = same and words == described

for side in (64, 62):
    network = trained(side)
    x, y = pairs(8, side, torch.Generator().manual_seed(1))
    with torch.no_grad():
        right = network(x)
    found = converted(network, x)
    for place, layer in enumerate(network.decoder):
        network.decoder[place] = Cut(layer, layer.output_padding[0])
    mended = converted(network, x)
    levels = (found - right).abs() * 127.5
    rim = float(levels[:, :, -8:].mean())
    corner = float(levels[:, :, :16, :16].mean())
    largest = float(levels.max())
    cut = float((mended - right).abs().max()) * 127.5
    errors = [float(F.l1_loss(fake, y)) * 127.5 for fake in (right, found)]
    print(f"side {side}: last 8 rows {rim:.1f}, largest {largest:.0f}, upper left {corner:.3f}, "
          f"cut {cut:.3f}; L1 to the target: torch {errors[0]:.1f}, LiteRT {errors[1]:.1f}",
          flush=True)
    same = same and corner < 0.01 and cut < 0.01
    if side == 64:
        same = same and largest < 0.01
    else:
        same = same and rim > 2 and largest > 20 and errors[1] > errors[0]
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
