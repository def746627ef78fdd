#!/usr/bin/env bash
# onnxslim writes one drawing of a generator's latent into the file: it makes one picture for ever.
#
# Versions: onnxslim 0.1.98, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6.
# Guess: a slimmer takes away what never changes. A generator that draws its own z has a node
#   RandomNormal, whose output differs at each run, so it stays, as a convolution of an input does.
# What happens: RandomNormal has no inputs, so the slimmer takes it for something that can be
#   computed beforehand: it runs it once, and stores the numbers. Bernoulli on a constant, as for a
#   dropout that stays on, goes the same way. RandomNormalLike of an input stays.
# Why it matters: the slimmed file runs, is right in shape and range, and its picture is one that
#   the generator could have made. That it makes no second one shows only to those who draw twice.
# Seen (different outputs in 5 runs; random nodes in the file):
#   RandomNormal      as exported 5, 1   slimmed 1, 0
#   Bernoulli         as exported 5, 1   slimmed 1, 0
#   RandomNormalLike  as exported 5, 1   slimmed 5, 1
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxslim==0.1.98 onnx==1.23.2 onnxruntime==1.32.0 \
    numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import onnxslim
from onnx import helper, numpy_helper

SHAPE = (1, 16)


def generator_of(operator):
    """A file: noise of its own, plus the input's condition, through one layer and tanh."""
    rng = np.random.default_rng(0)
    constants = {"weight": rng.normal(size=(16, 16))}
    if operator == "RandomNormal":
        draw = helper.make_node(operator, [], ["z"], shape=SHAPE)
    elif operator == "Bernoulli":
        constants["halves"] = np.full(SHAPE, 0.5)
        draw = helper.make_node(operator, ["halves"], ["z"])
    else:
        draw = helper.make_node(operator, ["condition"], ["z"])
    nodes = [draw,
             helper.make_node("Add", ["z", "condition"], ["both"]),
             helper.make_node("MatMul", ["both", "weight"], ["picture_before"]),
             helper.make_node("Tanh", ["picture_before"], ["picture"])]
    weights = [numpy_helper.from_array(value.astype(np.float32), name)
               for name, value in constants.items()]
    graph = helper.make_graph(
        nodes, "generator",
        [helper.make_tensor_value_info("condition", onnx.TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, SHAPE)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def look(model, operator):
    """-> how many different pictures five runs give, how many random nodes there are"""
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    condition = np.zeros(SHAPE, np.float32)
    pictures = [session.run(None, {"condition": condition})[0].tobytes() for _ in range(5)]
    nodes = [node for node in model.graph.node if node.op_type == operator]
    return len(set(pictures)), len(nodes)


for name in ("onnxslim", "onnx", "onnxruntime", "numpy"):
    print(name, version(name))
wanted = {"RandomNormal": (1, 0), "Bernoulli": (1, 0), "RandomNormalLike": (5, 1)}
as_described = True
for operator, slimmed in wanted.items():
    model = generator_of(operator)
    before = look(model, operator)
    after = look(onnxslim.slim(model), operator)
    print(f"{operator:17} as exported {before[0]}, {before[1]}   slimmed {after[0]}, {after[1]}")
    as_described &= before == (5, 1) and after == slimmed
print("as described" if as_described else "the behaviour has changed")
sys.exit(not as_described)
PYTHON
