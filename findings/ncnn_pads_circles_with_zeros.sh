#!/usr/bin/env bash
# ncnn: circular padding becomes padding with zeros, and a seamless texture gets a seam.
#
# Versions: pnnx 20261020, ncnn 1.0.20261020, torch 2.13.0, numpy 2.4.6, CPU.
# Guess: ncnn, by which phones run generators, has padding with zeros, by reflection and by the edge
#   pixel. A network whose convolutions wrap round (F.pad with mode="circular", nn.CircularPad2d) is
#   either refused by pnnx, its converter, as other modes are that ncnn lacks (nearest-exact: the
#   file does not load), or is written as crops that are joined.
# What happens: it is converted without a word, loads, runs, and gives a picture of the right size,
#   padded with zeros. The converter's pass for F.pad sets the kind of padding for three modes, and
#   leaves it at its default for each other one, which is "constant"; the padding is then merged
#   into the convolution. padding_mode="circular" of nn.Conv2d does the same after one line
#   among the converter's output, "unsupported padding_mode circular". Reflected and repeated
#   edges are right.
# Why it matters: textures that tile, maps of a whole globe and panoramas are translated by such
#   networks, as the left edge continues the right one there. The middle of each picture is right,
#   and so is any number averaged over it; what was the purpose of the padding is lost, and shows
#   only when two copies are laid side by side.
# Seen (three convolutions of 3x3, 48x48, output in [-1, 1]; largest difference from torch within 3
#   pixels of the border, and further inside; the mean step from the last column to the first one,
#   in mean steps between columns inside, by torch and by ncnn; what the converter says)
#   zeros                        border 0.000  inside 0.000
#   reflect                      border 0.000  inside 0.000
#   replicate                    border 0.000  inside 0.000
#   circular, F.pad              border 0.730  inside 0.000  step 0.9, 5.0  nothing
#   circular, nn.CircularPad2d   border 0.730  inside 0.000  step 0.9, 5.0  nothing
#   circular, nn.Conv2d          border 0.730  inside 0.000  step 0.9, 5.0  one line each
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pnnx==20261020 ncnn==1.0.20261020 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import math
import subprocess
import sys
from importlib.metadata import version

import ncnn
import numpy as np
import pnnx
import torch
import torch.nn.functional as F
from torch import nn

SIZE, BORDER = 48, 3  # three convolutions of 3x3 see three pixels further


class Wrapped(nn.Module):
    """A convolution behind F.pad."""

    def __init__(self, convolution, mode):
        super().__init__()
        self.convolution = convolution
        self.mode = mode

    def forward(self, x):
        return self.convolution(F.pad(x, (1, 1, 1, 1), mode=self.mode))


def generator(way):
    """Three convolutions; their weights are the same in each way."""
    torch.manual_seed(0)
    layers, channels = [], 3
    for out in (16, 16, 3):
        if way == "nn.Conv2d":
            layers.append(nn.Conv2d(channels, out, 3, padding=1, padding_mode="circular"))
        elif way == "nn.CircularPad2d":
            layers += [nn.CircularPad2d(1), nn.Conv2d(channels, out, 3)]
        else:
            layers.append(Wrapped(nn.Conv2d(channels, out, 3), way))
        layers.append(nn.Tanh() if out == 3 else nn.LeakyReLU(0.2))
        channels = out
    network = nn.Sequential(*layers).eval()
    for weight in network.parameters():
        weight.data *= 2
    return network


def waves():
    """A smooth picture that tiles, (1, 3, 48, 48) in [-1, 1]."""
    turn = torch.arange(SIZE) * 2 * math.pi / SIZE
    rows, columns = turn[:, None], turn[None]
    return torch.stack([torch.cos(columns + rows), torch.cos(2 * columns) * torch.cos(rows),
                        torch.sin(columns - 2 * rows)])[None]


def in_ncnn(network, x):
    """-> its picture, what the converter says beside its usual lines"""
    torch.jit.trace(network, x).save("network.pt")
    shape = ",".join(map(str, x.shape))
    run = subprocess.run([pnnx.EXEC_PATH, "network.pt", f"inputshape=[{shape}]f32", "fp16=0"],
                         capture_output=True, text=True, check=True)
    said = [line for line in (run.stdout + run.stderr).splitlines() if "support" in line]
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = False
    assert net.load_param("network.ncnn.param") == 0
    assert net.load_model("network.ncnn.bin") == 0
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x[0].numpy()).clone())
    result, picture = extractor.extract("out0")
    assert result == 0
    return np.array(picture), said


def step_at_the_seam(picture):
    inside = np.abs(np.diff(picture, axis=2)).mean()
    return float(np.abs(picture[:, :, -1] - picture[:, :, 0]).mean() / inside)


for package in ("pnnx", "ncnn", "torch", "numpy"):
    print(package, version(package))
x = waves()
middle = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
as_described = True
for way in ("constant", "reflect", "replicate", "circular", "nn.CircularPad2d", "nn.Conv2d"):
    network = generator(way)
    with torch.no_grad():
        right = network(x)[0].numpy()
    found, said = in_ncnn(network, x)
    difference = np.abs(found - right)
    inside = float(difference[middle].max())
    difference[middle] = 0
    border = float(difference.max())
    steps = step_at_the_seam(right), step_at_the_seam(found)
    print(f"{way:17} border {border:.3f}  inside {inside:.3f}  step {steps[0]:.1f}, "
          f"{steps[1]:.1f}  says {said}")
    as_described &= inside < 1e-3
    if way in ("constant", "reflect", "replicate"):
        as_described &= border < 1e-3
    else:
        as_described &= border > 0.1 and steps[0] < 1.5 and steps[1] > 2 * steps[0]
        as_described &= bool(said) == (way == "nn.Conv2d")
        with torch.no_grad():
            zeros = generator("constant")(x)[0].numpy()
        as_described &= bool(np.allclose(found, zeros, atol=1e-3))
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
