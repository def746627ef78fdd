#!/usr/bin/env bash
# onnxruntime: Bernoulli draws a one with probability 1 - p.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, torch 2.13.0 (torch.onnx.export, the default exporter
#   and the older one), onnxscript 0.7.2, numpy 2.4.6, CPU.
# Guess: the operator's text says that "an output of 1 is produced with probability p". So a
#   generator that keeps each number of its noise, or each unit of a layer, with probability 0.9,
#   by torch.bernoulli(keep), keeps nine tenths of them in the exported file, too.
# What happens: it keeps one tenth. p = 1 always gives 0, and p = 0 always 1. onnxruntime has no
#   code of its own for Bernoulli, and takes the operator's definition by other operators, which
#   onnx ships beside the text: RandomUniformLike, Greater, Cast, which is 1 where the uniform
#   number is above p. Optimisation makes no difference. onnx's reference evaluator does what the
#   text says. The older exporter writes Less by itself up to opset 14, and is right; at opset 15,
#   where Bernoulli came, the same call is wrong; so is the default exporter. bernoulli_(0.9), whose
#   probability is a plain number, is written as Less by both. (torch-mlir's issue 3527 met a
#   mismatch when that definition was tried there.)
# Why it matters: p = 0.5, pix2pix's dropout and the first thing that one would test, is right. A
#   mask that keeps 0.9 and is scaled by 1 / 0.9 makes a layer nine times too faint; a map of
#   probabilities that is drawn from becomes its negative. Random output is not compared number by
#   number, so that no usual check of an export finds it.
# Seen (share of ones):
#   p                              0.00  0.10  0.50  0.90  1.00
#   the reference evaluator        0.00  0.10  0.50  0.90  1.00
#   onnxruntime                    1.00  0.90  0.50  0.10  0.00
#   onnxruntime, not optimised     1.00  0.90  0.50  0.10  0.00
#   torch                          0.00  0.10  0.50  0.90  1.00
#   default exporter, opset 20     1.00  0.90  0.50  0.10  0.00
#   older exporter, opset 14       0.00  0.10  0.50  0.90  1.00
#   older exporter, opset 15       1.00  0.90  0.50  0.10  0.00
#   onnx's definition: RandomUniformLike Greater Cast
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
from onnx import helper
from onnx.reference import ReferenceEvaluator

logging.disable(logging.WARNING)
COUNT = 100_000
PROBABILITIES = (0.0, 0.1, 0.5, 0.9, 1.0)
Level = onnxruntime.GraphOptimizationLevel


class Mask(torch.nn.Module):
    """Ones with the probabilities p, one for each number."""

    def forward(self, p):
        return torch.bernoulli(p)


def alone():
    """A file of one operator, as its text describes it."""
    p = helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, [COUNT])
    mask = helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [COUNT])
    node = helper.make_node("Bernoulli", ["p"], ["mask"])
    graph = helper.make_graph([node], "alone", [p], [mask])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def definition():
    """The operators by which onnx defines Bernoulli."""
    schema = onnx.defs.get_schema("Bernoulli", 15)
    node = helper.make_node("Bernoulli", ["p"], ["mask"]).SerializeToString()
    kind = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [COUNT])
    body = schema.get_context_dependent_function(node, [kind.SerializeToString()])
    function = onnx.FunctionProto.FromString(body)
    return [part.op_type for part in function.node]


def exported(opset, dynamo):
    p = (torch.full((COUNT,), 0.5),)
    torch.onnx.export(Mask().eval(), p, "mask.onnx", opset_version=opset, dynamo=dynamo,
                      input_names=["p"], verbose=False)
    return onnx.load("mask.onnx")


def in_onnxruntime(model, level=Level.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda p: session.run(None, {"p": p})[0]


def in_torch(p):
    return Mask()(torch.from_numpy(p)).numpy()


for name in ("onnxruntime", "onnx", "torch", "onnxscript", "numpy"):
    print(name, version(name))
model = alone()
reference = ReferenceEvaluator(model)
rows = {
    "the reference evaluator": (lambda p: reference.run(None, {"p": p})[0], "right"),
    "onnxruntime": (in_onnxruntime(model), "opposite"),
    "onnxruntime, not optimised": (in_onnxruntime(model, Level.ORT_DISABLE_ALL), "opposite"),
    "torch": (in_torch, "right"),
    "default exporter, opset 20": (in_onnxruntime(exported(20, True)), "opposite"),
    "older exporter, opset 14": (in_onnxruntime(exported(14, False)), "right"),
    "older exporter, opset 15": (in_onnxruntime(exported(15, False)), "opposite"),
}
as_described = definition() == ["RandomUniformLike", "Greater", "Cast"]
print("p                          ", *(f"{p:.2f}" for p in PROBABILITIES))
for title, (draw, expected) in rows.items():
    shares = [float(draw(np.full(COUNT, p, np.float32)).mean()) for p in PROBABILITIES]
    print(f"{title:27}", *(f"{share:.2f}" for share in shares))
    for share, p in zip(shares, PROBABILITIES):
        wanted = 1 - p if expected == "opposite" else p
        as_described &= abs(share - wanted) < 0.01
print("onnx's definition:", *definition())
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
