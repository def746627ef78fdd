#!/usr/bin/env bash
# onnxruntime: InstanceNormalization of a large, flat picture returns the wrong mean and spread.
#
# Versions: onnxruntime 1.32.0 (and 1.20.1, the same numbers), onnx 1.23.2, numpy 2.4.6, on an
#   x86-64 CPU (AMD EPYC).
# Guess: with scale 1 and bias 0 every map leaves with mean 0 and standard deviation 1, to about
#   1e-5, whatever its size, as in torch and as numpy's float32 mean gives it.
# What happens: up to 512x512 it does. At 2048x2048, stripes of 999.5 and 1000.5 (mean 1000,
#   deviation 0.5, both exact in float32) leave with mean 0.99 and deviation 0.13; at 4096x4096
#   those of 99.5 and 100.5 with 0.94 and 0.32. ReduceMean over (N, H, W) of the latter is off by
#   18%. The graph's optimizations and the number of threads change nothing.
# Why it matters: U-Nets with instance norm are exported for any size, and checked at the small one
#   they were trained at. Flat areas (label maps, white paper, sky) suffer most, since there all
#   roundings go the same way; random test inputs, whose roundings cancel, do not show it. A
#   trained facades generator differs from torch by 3e-6 at 256x256, by 4e-4 at 2048x2048.
# Seen: side, stripes around, mean and deviation of what leaves (right: 0 and 1)
#   512 100 0.0000 1.0000; 2048 1000 0.99 0.13; 4096 100 0.94 0.32; ReduceMean 118, right: 100
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def session_of(node, weights=()):
    """One operator from x (N, 1, H, W) to y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", [x], [y], list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"])


def stripes(side, level):
    x = np.full((1, 1, side, side), level - 0.5, np.float32)
    x[..., 1::2] = level + 0.5
    return x


norm = session_of(
    helper.make_node("InstanceNormalization", ["x", "scale", "bias"], ["y"], epsilon=1e-5),
    [helper.make_tensor("scale", TensorProto.FLOAT, [1], [1.0]),
     helper.make_tensor("bias", TensorProto.FLOAT, [1], [0.0])])
mean = session_of(helper.make_node("ReduceMean", ["x"], ["y"], axes=[0, 2, 3], keepdims=0))
rows = [(512, 100, 0.0, 1.0), (2048, 1000, 0.99, 0.13), (4096, 100, 0.94, 0.32)]
same = True
for side, level, expected_mean, expected_spread in rows:
    y = norm.run(None, {"x": stripes(side, level)})[0].astype(np.float64)
    print(f"{side} {level}: mean {y.mean():.4f}, deviation {y.std():.4f}")
    same &= abs(y.mean() - expected_mean) < 0.02
    same &= abs(y.std() - expected_spread) < 0.02
x = stripes(4096, 100)
[found] = mean.run(None, {"x": x})[0]
print(f"ReduceMean {found:.1f}, numpy's float32 mean {x.mean():.1f}")
same &= abs(found - 118) < 2 and x.mean() == 100
sys.exit(0 if same else 1)
PYTHON
