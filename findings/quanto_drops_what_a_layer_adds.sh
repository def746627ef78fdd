#!/usr/bin/env bash
# optimum-quanto: a layer that is more than a convolution comes back as nothing but a convolution.
#
# Versions: optimum-quanto 0.2.7, torch 2.13.0, numpy 2.4.6, CPU.
# Guess: quantize(generator, weights=qint8) exchanges nn.Conv2d, nn.Linear and nn.LayerNorm for
#   layers that hold 8 bits. "Only modules that have quantized counterparts will be quantized", says
#   its text: a class of one's own that inherits from nn.Conv2d has none, and stays as it is, or its
#   forward is called with the rounded weights. Pictures differ by a few thousandths.
# What happens: isinstance decides (quantize_module in optimum/quanto/nn/qmodule.py), so that each
#   subclass is exchanged as well, and for the plain layer: sizes, weights and bias are taken along,
#   its forward is not. Whatever that did besides is gone: the scale of an equalised learning rate
#   (as in ProGAN and StyleGAN), standardised weights, a norm and an activation inside of the
#   convolution (as in detectron2's Conv2d, on which Mask2Former stands), and, if activations are
#   quantised, a LayerNorm2d's way along the channels: it goes along the width of a map that is as
#   wide as it has channels, and stops with an error at others. Otherwise there is neither warning
#   nor error, and the shapes are right. exclude=[names] leaves layers alone. (For GPTQ the same was
#   found in another package, huggingface/optimum, pull request 2416.)
# Why it matters: such layers are common in generators and in networks that make label maps. It
#   looks as if 8 bits were too few; float8 is no better, though, and 4 bits are no worse.
# Seen (mean difference of pictures in [-1, 1], before and after; of label maps, the share of pixels
#   whose class changes; then the same with these layers excluded):
#                                         8 bits  by name excluded
#   plain convolutions                     0.000   0.000
#   equalised learning rate                0.680   0.000
#   standardised weights                   0.117   0.000
#   norm and ReLU inside, label map          47%      1%
#   LayerNorm2d, activations in 8 bits     0.217   0.001
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 optimum-quanto==0.2.7 \
    numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import copy
import math
import sys
from importlib.metadata import version

import torch
from optimum.quanto import Calibration, freeze, qint8, quantize
from torch import nn


class EqualisedConv2d(nn.Conv2d):
    """Weights of N(0, 1), scaled as they are used"""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        nn.init.normal_(self.weight)

    def forward(self, x):
        scale = math.sqrt(2 / self.weight[0].numel())
        return self._conv_forward(x, self.weight * scale, self.bias)


class StandardisedConv2d(nn.Conv2d):
    """Each filter has mean 0 and deviation 1 / sqrt(inputs)."""

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        spread = self.weight.std((1, 2, 3), keepdim=True) * math.sqrt(self.weight[0].numel())
        return self._conv_forward(x, (self.weight - mean) / spread, self.bias)


class NormedConv2d(nn.Conv2d):
    """Convolution, norm and ReLU in one"""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.norm = nn.InstanceNorm2d(self.out_channels)

    def forward(self, x):
        return torch.relu(self.norm(super().forward(x)))


class LayerNorm2d(nn.LayerNorm):
    """Along the channels of (N, C, H, W)"""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def painter(kind):
    return nn.Sequential(
        kind(4, 16, 3, padding=1), nn.LeakyReLU(0.2), kind(16, 16, 3, padding=1),
        nn.LeakyReLU(0.2), kind(16, 3, 3, padding=1), nn.Tanh())


def labeller():
    return nn.Sequential(
        NormedConv2d(4, 16, 3, padding=1), NormedConv2d(16, 16, 3, padding=1),
        nn.Conv2d(16, 4, 1))


def normed_painter():
    return nn.Sequential(
        nn.Conv2d(4, 16, 3, padding=1), LayerNorm2d(16), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 3, 3, padding=1), nn.Tanh())


def quantised(network, **options):
    network = copy.deepcopy(network)
    quantize(network, weights=qint8, **options)
    if "activations" in options:
        with Calibration():
            network(x)
    freeze(network)
    return network


def compare(title, network, exclude, is_map=False, **options):
    """-> differences, with all layers and without the excluded ones"""
    with torch.no_grad():
        before = network(x)
        pair = [quantised(network, **options)(x), quantised(network, exclude=exclude, **options)(x)]
    if is_map:
        found = [float((after.argmax(1) != before.argmax(1)).float().mean()) for after in pair]
        print(f"{title:37} {found[0]:6.0%}  {found[1]:6.0%}")
    else:
        found = [float((after - before).abs().mean()) for after in pair]
        print(f"{title:37} {found[0]:6.3f}  {found[1]:6.3f}")
    return found


for package in ("optimum-quanto", "torch", "numpy"):
    print(package, version(package))
print(f"{'':37} 8 bits  by name excluded")
torch.manual_seed(0)
numbers = torch.randint(0, 4, (4, 4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
x = nn.functional.one_hot(numbers, 4).permute(0, 3, 1, 2).float()
convolutions = ["0", "2", "4"]
plain = compare("plain convolutions", painter(nn.Conv2d), convolutions)
wrong = [
    compare("equalised learning rate", painter(EqualisedConv2d), convolutions),
    compare("standardised weights", painter(StandardisedConv2d), convolutions),
    compare("norm and ReLU inside, label map", labeller(), ["0", "1"], is_map=True),
    compare("LayerNorm2d, activations in 8 bits", normed_painter(), ["1"], activations=qint8),
]
same = max(plain) < 0.01
same = same and all(changed > 0.1 and kept < 0.03 for changed, kept in wrong)
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
