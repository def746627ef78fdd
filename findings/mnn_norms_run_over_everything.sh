#!/usr/bin/env bash
# MNN: norms along the channels become norms of the whole batch, in files of opset 18 and later.
#
# Versions: MNN 3.6.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, CPU.
# Guess: F.normalize(x, dim=1), torch.norm, F.cosine_similarity and torch.logsumexp are exported as
#   nodes ReduceL2 and ReduceLogSumExp. MNN, by which phones run generators, converts them with the
#   words "Converted Success!", and each pixel's features have length 1 afterwards, in files of any
#   opset; one that it does not know it refuses.
# What happens: up to opset 17 the axes are an attribute of the node, and MNN is right. From 18 on
#   they are an input, which is what torch.onnx.export writes today (opset 20). For ReduceL1,
#   ReduceL2, ReduceLogSum, ReduceLogSumExp and ReduceSumSquare the converter still looks for the
#   attribute alone (tools/converter/source/optimizer/onnxextra/OnnxReduceL2.cpp), finds none, and
#   reduces over all axes, the batch too, to one number. ReduceMean, ReduceSum, ReduceMax, ReduceMin
#   and ReduceProd use the input, so that most networks are right.
# Why it matters: features are divided by the length of the whole batch of them. The shapes stay, by
#   broadcasting, and so do the directions, so that pictures still come out: but attention over
#   normalised features (exemplars that guide a translation) is flat, the response norm of ConvNeXt
#   V2 is one factor for all, and a picture's result depends on its size and on its neighbours in
#   the batch.
# Seen (2 pictures, 16 channels of 8x8; the lengths of a pixel's features after the two nodes of
#   F.normalize, right: 1; then, for one reduction over the channels of positive numbers, the
#   largest difference from onnxruntime, relative to its largest value, or what comes instead)
#   normalize        opset 17: 1.000 to 1.000   opset 18: 0.038 to 0.133
#   ReduceL1         opset 17: 0.00000          opset 18: one number, of the batch
#   ReduceL2         opset 17: 0.00000          opset 18: one number, of the batch
#   ReduceLogSum     opset 17: 0.00000          opset 18: one number, of the batch
#   ReduceLogSumExp  opset 17: 0.00000          opset 18: one number, of the batch
#   ReduceSumSquare  opset 17: 0.00000          opset 18: one number, of the batch
#   ReduceMean, ReduceSum, ReduceMax, ReduceMin, ReduceProd: 0.00000 in both
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet MNN==3.6.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import os
import sys
from importlib.metadata import version

import MNN
import _tools  # MNN's converter; its command mnnconvert would install a package that reports use
import MNN.expr
import MNN.nn
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SHAPE = (2, 16, 8, 8)
WRONG = ["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"]
RIGHT = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"]
x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
positive = np.abs(x) / 4 + 0.5  # a logarithm of a sum asks for it, and a product stays in range
over_everything = {
    "ReduceL1": np.abs(positive).sum(),
    "ReduceL2": np.sqrt((positive**2).sum()),
    "ReduceLogSum": np.log(positive.sum()),
    "ReduceLogSumExp": np.log(np.exp(positive).sum()),
    "ReduceSumSquare": (positive**2).sum(),
}


def reduction(operator, opset, output):
    """-> the node that reduces x over its channels, and the constants that it needs."""
    if opset < 18 and operator != "ReduceSum":  # its axes are an input since opset 13
        return helper.make_node(operator, ["x"], [output], axes=[1], keepdims=1), []
    node = helper.make_node(operator, ["x", "axes"], [output], keepdims=1)
    return node, [numpy_helper.from_array(np.array([1]), "axes")]


def saved(name, nodes, constants, opset, shape):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "one", [value("x", TensorProto.FLOAT, SHAPE)],
                              [value("y", TensorProto.FLOAT, shape)], constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")


def in_onnxruntime(name, picture):
    session = onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": picture})[0]


def in_mnn(name, picture):
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", f"{name}.onnx",
                       "--MNNModel", f"{name}.mnn", "--bizCode", "norms"])
    net = MNN.nn.load_module_from_file(f"{name}.mnn", ["x"], ["y"])
    fed = MNN.expr.const(picture, list(picture.shape), MNN.expr.NCHW, MNN.expr.float)
    [y] = net.onForward([fed])
    y = MNN.expr.convert(y, MNN.expr.NCHW)
    return np.array(y.read(), np.float32).reshape(y.shape)


def lengths(opset):
    """-> least and greatest length of a pixel's features after F.normalize(x, dim=1)."""
    node, constants = reduction("ReduceL2", opset, "length")
    divide = helper.make_node("Div", ["x", "length"], ["y"])
    saved(f"normalize{opset}", [node, divide], constants, opset, SHAPE)
    found = []
    for run in (in_onnxruntime, in_mnn):
        length = np.linalg.norm(run(f"normalize{opset}", x), axis=1)
        found += [float(length.min()), float(length.max())]
    return found


def compared(operator, opset):
    """-> the largest difference, or None where MNN gives one number, that of the whole batch"""
    node, constants = reduction(operator, opset, "y")
    saved(f"{operator}{opset}", [node], constants, opset, (2, 1, 8, 8))
    right = in_onnxruntime(f"{operator}{opset}", positive)
    found = in_mnn(f"{operator}{opset}", positive)
    if found.size == 1 and np.allclose(found, over_everything[operator], rtol=1e-4):
        return None
    assert found.shape == right.shape, (operator, opset, found.shape)
    return float(np.abs(found - right).max() / np.abs(right).max())


results, rows = {}, []
for opset in (17, 18):
    right_low, right_high, low, high = lengths(opset)
    results["normalize", opset] = low, high
    rows.append(f"normalize, opset {opset}: onnxruntime {right_low:.3f} to {right_high:.3f}, "
                f"MNN {low:.3f} to {high:.3f}")
for operator in WRONG + RIGHT:
    for opset in (17, 18):
        results[operator, opset] = compared(operator, opset)
        difference = results[operator, opset]
        words = "one number, of the batch" if difference is None else f"{difference:.5f}"
        rows.append(f"{operator}, opset {opset}: {words}")
print()  # the converter's own lines end above
for package in ("MNN", "onnx", "onnxruntime", "numpy"):
    print(package, version(package))
print("\n".join(rows))
same = abs(results["normalize", 17][0] - 1) < 1e-4 and abs(results["normalize", 17][1] - 1) < 1e-4
same = same and results["normalize", 18][1] < 0.2
for operator in WRONG + RIGHT:
    exact = results[operator, 17]
    same = same and exact is not None and exact < 1e-4
    later = results[operator, 18]
    if operator in WRONG:
        same = same and later is None
    else:
        same = same and later is not None and later < 1e-4
print("as described" if same else "the behaviour has changed")
sys.stdout.flush()
os._exit(0 if same else 1)
PYTHON
