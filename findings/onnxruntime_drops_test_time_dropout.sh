#!/usr/bin/env bash
# onnxruntime's default optimisation removes dropout that is meant to stay on.
#
# Versions: torch 2.13.0 (torch.onnx.export, its default exporter, opset 20), onnx 1.23.2,
#   onnxscript 0.7.2, onnxruntime 1.32.0, CPU.
# Guess: pix2pix's only noise is dropout that stays on at test time (F.dropout(x, 0.5,
#   training=True)). The exported file has a Dropout node whose training_mode input is the constant
#   true, which by the ONNX operator's text means random zeros; so onnxruntime draws anew each run.
# What happens: the file is right, and onnx's own reference evaluator draws noise, and so does
#   onnxruntime with ORT_DISABLE_ALL. From ORT_ENABLE_BASIC on (the default is ORT_ENABLE_ALL) the
#   node is gone from the optimised graph: the output has no zeros, is the same in each run, and
#   nothing is warned of. A Dropout that stands alone between input and output is kept, so that
#   the smallest test one would write misses it.
# Why it matters: a pix2pix generator served by onnxruntime has lost z. Its pictures are those of
#   a network without dropout, which it was never trained to be, and all samples are alike.
# Seen:
#   nodes in the file             Relu Dropout Mul, training_mode True
#   reference evaluator           share of zeros 0.4-0.6, runs differ
#   onnxruntime, ORT_DISABLE_ALL  share of zeros 0.4-0.6, runs differ
#   onnxruntime, ORT_ENABLE_BASIC share of zeros 0.000, runs alike, nodes Relu Mul
#   onnxruntime, default          share of zeros 0.000, runs alike, nodes Relu Mul
#   the Dropout alone, default    share of zeros 0.4-0.6, runs differ, nodes Dropout
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 \
    onnxruntime==1.32.0 numpy
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import logging
import sys

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

logging.disable(logging.WARNING)
picture = np.ones((1, 1, 64, 64), np.float32)
Level = ort.GraphOptimizationLevel


class Alone(torch.nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


class Between(torch.nn.Module):
    def forward(self, x):
        return F.dropout(F.relu(x), 0.5, training=True) * 2


def export(module, name):
    torch.onnx.export(module.eval(), (torch.from_numpy(picture),), name, verbose=False)
    return onnx.load(name)


def describe(runs):
    zeros = float(np.mean([run == 0 for run in runs]))
    alike = all(np.array_equal(runs[0], run) for run in runs)
    return zeros, alike


def by_onnxruntime(name, level=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if level is not None:
        options.graph_optimization_level = level
    options.optimized_model_filepath = "optimised.onnx"
    session = ort.InferenceSession(name, options, providers=["CPUExecutionProvider"])
    runs = [session.run(None, {session.get_inputs()[0].name: picture})[0] for _ in range(5)]
    nodes = [node.op_type for node in onnx.load("optimised.onnx").graph.node]
    return (*describe(runs), nodes)


model = export(Between(), "between.onnx")
export(Alone(), "alone.onnx")
constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
dropout = next(node for node in model.graph.node if node.op_type == "Dropout")
training = bool(constants[dropout.input[2]])
print("nodes in the file:", *[node.op_type for node in model.graph.node], "training_mode", training)
reference = ReferenceEvaluator(model)
name = model.graph.input[0].name
rows = {
    "reference evaluator": describe([reference.run(None, {name: picture})[0] for _ in range(5)]),
    "ORT_DISABLE_ALL": by_onnxruntime("between.onnx", Level.ORT_DISABLE_ALL),
    "ORT_ENABLE_BASIC": by_onnxruntime("between.onnx", Level.ORT_ENABLE_BASIC),
    "default": by_onnxruntime("between.onnx"),
    "the Dropout alone, default": by_onnxruntime("alone.onnx"),
}
for title, (zeros, alike, *nodes) in rows.items():
    print(f"{title}: share of zeros {zeros:.3f}, runs {'alike' if alike else 'differ'}", *nodes)
random = ["reference evaluator", "ORT_DISABLE_ALL", "the Dropout alone, default"]
same = training
for title, (zeros, alike, *_) in rows.items():
    if title in random:
        same = same and 0.4 < zeros < 0.6 and not alike
    else:
        same = same and zeros == 0 and alike
sys.exit(0 if same else "the behaviour has changed")
PYTHON
