#!/usr/bin/env bash
# torch.onnx.export draws a generator's mask once, while exporting, and stores it for ever.
#
# Versions: torch 2.13.0 (torch.onnx.export, its default exporter), onnxscript 0.7.2, onnx 1.23.2,
#   onnxruntime 1.32.0, numpy 2.4.6, CPU.
# Guess: folding constants never touches what is random. torch.randn of a fixed shape depends on no
#   input, and is exported as a node that draws anew at each run; so are dropout that stays on, and
#   a mask of torch.bernoulli.
# What happens: randn and rand stay. The optimisation that the export ends with (optimize=True, the
#   default) knows five random operators that it must not compute, and Bernoulli and Dropout are
#   not among them. Where nothing in front of them comes from the input, it runs them, and writes
#   what they drew as numbers: the file has no random node. That is so for a mask of fixed shape,
#   also by full_like of an input whose shape is fixed, and for dropout on a learned constant, the
#   start of StyleGAN's generator, even with a dynamic batch. With optimize=False they stay;
#   bernoulli_() stays, too. (That onnxruntime by default removes some dropouts, and draws
#   Bernoulli the wrong way round, are other matters: here it runs unoptimised, and p is 0.5.)
# Why it matters: one mask, drawn on the machine of whoever exported, is part of each picture. The
#   pictures look right; only their variety is lost, or the average of many that was to tell how
#   sure the generator is. Torch's own graph still has the random operators.
# Seen (different pictures in 10 runs: torch; exported; with optimize=False; random nodes exported):
#   randn                      10  10  10  RandomNormalLike
#   bernoulli, fixed shape     10   1  10  -
#   bernoulli of full_like(x)  10   1  10  -
#   bernoulli_()               10  10  10  RandomUniformLike
#   dropout of x               10  10  10  Dropout
#   dropout of a constant      10   1  10  -
#   the same, dynamic batch    10   1  10  -
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 \
    onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import logging
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F

logging.disable(logging.WARNING)
SHAPE = (1, 8, 16, 16)
RANDOM = {"Bernoulli", "Dropout", "RandomNormal", "RandomNormalLike",
          "RandomUniform", "RandomUniformLike"}
RUNS = 10
condition = torch.linspace(-1, 1, 8 * 16 * 16).reshape(SHAPE)


class Generator(torch.nn.Module):
    """The noise of one kind, beside the input, through one layer and tanh."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise
        self.start = torch.nn.Parameter(torch.ones(SHAPE))
        self.layer = torch.nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.layer(x + self.noise(self, x)))


noises = {
    "randn": lambda network, x: torch.randn(SHAPE),
    "bernoulli, fixed shape": lambda network, x: torch.bernoulli(torch.full(SHAPE, 0.5)),
    "bernoulli of full_like(x)": lambda network, x: torch.bernoulli(torch.full_like(x, 0.5)),
    "bernoulli_()": lambda network, x: torch.empty_like(x).bernoulli_(0.5),
    "dropout of x": lambda network, x: F.dropout(x, 0.5, training=True),
    "dropout of a constant": lambda network, x: F.dropout(network.start, 0.5, training=True),
}
noises["the same, dynamic batch"] = noises["dropout of a constant"]
frozen = ("bernoulli, fixed shape", "bernoulli of full_like(x)", "dropout of a constant",
          "the same, dynamic batch")


def exported(network, title, optimize):
    """-> how many different pictures the file makes, its random nodes"""
    shapes = None
    if "dynamic" in title:
        shapes = {"x": {0: torch.export.Dim("batch")}}
    torch.onnx.export(network, (condition,), "generator.onnx", optimize=optimize,
                      dynamic_shapes=shapes, input_names=["x"], verbose=False)
    model = onnx.load("generator.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession("generator.onnx", options,
                                           providers=["CPUExecutionProvider"])
    pictures = [session.run(None, {"x": condition.numpy()})[0].tobytes() for _ in range(RUNS)]
    nodes = [node.op_type for node in model.graph.node if node.op_type in RANDOM]
    return len(set(pictures)), nodes


for name in ("torch", "onnxscript", "onnx", "onnxruntime", "numpy"):
    print(name, version(name))
as_described = True
for title, noise in noises.items():
    network = Generator(noise).eval()
    with torch.no_grad():
        own = len({network(condition).numpy().tobytes() for _ in range(RUNS)})
    optimised, nodes = exported(network, title, optimize=True)
    plain, _ = exported(network, title, optimize=False)
    print(f"{title:26} {own:2}  {optimised:2}  {plain:2} ", *(nodes or ["-"]))
    as_described &= own == plain == RUNS
    if title in frozen:
        as_described &= optimised == 1 and not nodes
    else:
        as_described &= optimised == RUNS and len(nodes) == 1
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
