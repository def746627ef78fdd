#!/usr/bin/env bash
# ExecuTorch: with XNNPACK, a bilinear interpolate forgets its scale_factor, and moves what the
# picture shows; without XNNPACK the same network is right.
#
# Versions: executorch 1.5.1, torchao 0.18.0, torch 2.13.0, numpy 2.4.6, on an x86-64 CPU.
# Guess: F.interpolate(x, scale_factor=0.3, mode="bilinear") in a network gives the same picture on
#   a phone: in XNNPACK, which ExecuTorch recommends for CPUs, as by its portable kernels; what a
#   delegate cannot do, its partitioner leaves to them. The size of the result, 19 of 64, is right.
# What happens: torch steps by 1 / 0.3 pixels, as its text says (recompute_scale_factor), and leaves
#   out the last columns. The portable kernels do so, too. XNNPACK's node gets the size alone
#   (op_static_resize_bilinear_2d.py), and squeezes all 64 columns into 19: at a factor of 0.7 what
#   is shown lies up to 1.1 pixels too far left and up. The partitioner asks for static shapes, and
#   not for the factor. Where side times factor is a whole number, and with size= in place of the
#   factor, both agree.
# Why it matters: nothing is said. Networks that look at a picture in several scales are a little
#   wrong everywhere, and most at the lower and right border, or a U-Net's two halves do not lie on
#   each other; a small test picture, whose side divides well, does not show it.
# Seen (a ramp, 64 columns wide, whose pixels say which column they show; the last pixel, and the
#   largest difference between XNNPACK and torch)
#   scale_factor=0.3   19 columns  torch 61.17  portable 61.17  XNNPACK 61.82  off by 0.65
#   scale_factor=0.7   44 columns  torch 61.64  portable 61.64  XNNPACK 62.77  off by 1.13
#   scale_factor=1.3   83 columns  torch 62.96  portable 62.96  XNNPACK 63.00  off by 0.15
#   scale_factor=0.25  16 columns  torch 61.50  portable 61.50  XNNPACK 61.50  off by 0.00
#   scale_factor=2    128 columns  torch 63.00  portable 63.00  XNNPACK 63.00  off by 0.00
#   size=(19, 19)      19 columns  torch 61.82  portable 61.82  XNNPACK 61.82  off by 0.00
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile torch==2.13.0 numpy==2.4.6 flatbuffers \
  ruamel.yaml tabulate pyyaml pandas packaging
"$folder/venv/bin/pip" install --quiet --no-compile --no-deps executorch==1.5.1 torchao==0.18.0
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - 2>errors <<'PYTHON' || { cat errors >&2; exit 1; }
import logging
import sys
from importlib.metadata import version

logging.disable(logging.CRITICAL)
import torch
import torch.nn.functional as F
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime

runtime = Runtime.get()
columns = torch.arange(64, dtype=torch.float32)
ramp = columns.expand(1, 1, 64, 64).contiguous()  # each pixel's value is the column that it shows


class Scaled(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, x):
        return F.interpolate(x, mode="bilinear", **self.options)


def by_executorch(network, partitioner):
    program = torch.export.export(network, (ramp,))
    lowered = to_edge_transform_and_lower(program, partitioner=partitioner).to_executorch()
    method = runtime.load_program(lowered.buffer).load_method("forward")
    return method.execute((ramp,))[0][0, 0, 0]


for package in ("executorch", "torchao", "torch", "numpy"):
    print(package, version(package))
rows = [  # what is asked for, and whether XNNPACK is right
    (dict(scale_factor=0.3), False), (dict(scale_factor=0.7), False),
    (dict(scale_factor=1.3), False), (dict(scale_factor=0.25), True),
    (dict(scale_factor=2), True), (dict(size=(19, 19)), True)]
same = True
for options, right in rows:
    network = Scaled(**options).eval()
    wanted = network(ramp)[0, 0, 0]
    portable = by_executorch(network, None)
    delegated = by_executorch(network, [XnnpackPartitioner()])
    off = float((delegated - wanted).abs().max())
    print(f"{options}: {len(wanted)} columns; the last one shows torch {wanted[-1]:.2f}, portable "
          f"{portable[-1]:.2f}, XNNPACK {delegated[-1]:.2f}; off by up to {off:.2f} columns")
    same = same and delegated.shape == portable.shape == wanted.shape
    same = same and float((portable - wanted).abs().max()) < 1e-3
    same = same and (off < 1e-3 if right else off > 0.1)
print("as described" if same else "the behaviour has changed")
sys.exit(not same)
PYTHON
