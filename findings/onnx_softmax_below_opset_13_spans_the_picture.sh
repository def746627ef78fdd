#!/usr/bin/env bash
# torch.onnx.export to opset 12 or lower: a softmax over the classes becomes one over classes and
# pixels together, because onnx's version converter keeps the axis and not its meaning.
#
# Versions: torch 2.13.0 (torch.onnx.export, its default exporter), onnx 1.23.2, onnxscript 0.7.2,
#   onnxruntime 1.32.0, numpy 2.4.6, CPU.
# Guess: softmax(dim=1) of a network that makes label maps gives probabilities which sum to 1 in
#   each pixel, in files of any opset. An older runtime asks for opset 11 or 12; the exporter then
#   converts its opset 18 down, and warns that this may not succeed: what cannot be expressed stays
#   at 18, or is an error.
# What happens: it succeeds, and the file is one of opset 12. But before opset 13 axis=1 means "1
#   and all axes after it". onnx.version_converter, which the exporter calls, leaves axis=1 as it
#   is: each probability is divided by the sum over all classes of all pixels of the picture.
#   LogSoftmax is shifted in the same way. Upwards, from 12 to 13, the converter knows of the change
#   and adds a Flatten; on the last axis nothing is wrong. (A maintainer said in onnx issue 6340
#   that transposes would be needed; pull request 6608, which answered it, has none.)
#   Networks of convolutions, transposed ones, instance norms, pools, LeakyReLU, PReLU and ELU get
#   through, as the generator of label maps below, which is like SemGAN's. ReLU, Concat, Add and
#   batch norms that are not folded have no converter: there the exporter keeps opset 18, and says
#   so. (From a file of opset 13 batch norms get through, too.)
# Why it matters: the class with the largest probability stays the same in each pixel, so that maps
#   drawn from it look right. The probabilities of all 4096 pixels of a 64x64 picture together add
#   up to 1, and depend on its size: a soft label map that is fed to the next network is nearly all
#   zeros, a threshold of 0.5 finds nothing, and an ensemble's mean follows its surest network.
# Seen (2 maps of 6 classes, 64x64; sums of the classes in a pixel; largest difference from torch;
#   pixels with the same class as in torch; pixels in which a class has more than 0.5, in torch 52%)
#   exporter, opset 18   sums 1.0000 to 1.0000  difference 0.0000  same class 100%  sure 52%
#   exporter, opset 13   sums 1.0000 to 1.0000  difference 0.0000  same class 100%  sure 52%
#   exporter, opset 12   sums 0.0000 to 0.9590  difference 0.9996  same class 100%  sure 0%
#   exporter, opset 11   sums 0.0000 to 0.9590  difference 0.9996  same class 100%  sure 0%
#   converter, 13 to 12  sums 0.0000 to 0.9590  difference 0.9996  same class 100%  sure 0%
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 \
  onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import version_converter
from torch import nn

CLASSES = 6


class Generator(nn.Module):
    """Noise to a label map, as a DCGAN: the probability of each class in each pixel."""

    def __init__(self):
        super().__init__()
        layers, channels = [nn.ConvTranspose2d(16, 64, 4)], 64  # (N, 64, 4, 4)
        for _ in range(3):
            layers += [nn.InstanceNorm2d(channels, affine=True), nn.LeakyReLU(0.2),
                       nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1)]
            channels //= 2
        layers += [nn.LeakyReLU(0.2), nn.ConvTranspose2d(channels, CLASSES, 4, 2, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise):
        return torch.softmax(self.layers(noise), dim=1)  # (N, CLASSES, 64, 64)


def in_onnxruntime(model, noise):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: noise})[0]


torch.manual_seed(0)
network = Generator()
for layer in network.layers:
    if isinstance(layer, nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0, 0.15)
network.eval()
network.layers[-1].weight.data *= 4  # surer of its classes, as a trained one
noise = torch.randn(2, 16, 1, 1)
with torch.no_grad():
    right = network(noise).numpy()

files = {}
for opset in (18, 13, 12, 11):
    program = torch.onnx.export(network, (noise,), opset_version=opset, verbose=False)
    files["exporter", opset] = program.model_proto
files["converter", 12] = version_converter.convert_version(files["exporter", 13], 12)

for package in ("torch", "onnx", "onnxscript", "onnxruntime", "numpy"):
    print(package, version(package))
print(f"torch itself: sure {(right.max(1) > 0.5).mean():.0%}")
as_described = True
for (maker, opset), model in files.items():
    [now] = [entry.version for entry in model.opset_import if entry.domain == ""]
    found = in_onnxruntime(model, noise.numpy())
    sums = found.sum(1)
    difference = float(np.abs(found - right).max())
    same_class = float((found.argmax(1) == right.argmax(1)).mean())
    sure = float((found.max(1) > 0.5).mean())
    print(f"{maker}, opset {opset} (the file says {now}): sums {sums.min():.4f} to "
          f"{sums.max():.4f}, difference {difference:.4f}, same class {same_class:.0%}, "
          f"sure {sure:.0%}")
    as_described &= now == opset and same_class > 0.99
    if opset >= 13:
        as_described &= difference < 1e-4
    else:
        as_described &= bool(np.allclose(sums.sum((1, 2)), 1, atol=1e-3))  # of a whole picture
        as_described &= difference > 0.5 and sure < 0.01
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
