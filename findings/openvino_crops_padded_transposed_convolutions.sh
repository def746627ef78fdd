#!/usr/bin/env bash
# OpenVINO: zeros in front of a transposed convolution are taken into it as if its stride were 1.
#
# Versions: openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, CPU.
# Guess: a decoder that puts a rim of zeros around its maps before it doubles them (Pad, then
#   ConvTranspose of 4x4, stride 2, padding 1), to keep the artefacts of the border outside or to
#   fill up maps of odd size, gives what it gives in torch and onnxruntime: 13x13, padded to 15x15,
#   is 30x30 afterwards. Whether the two nodes are fused is a matter of speed.
# What happens: it is 28x28. compile_model takes the rim off the padding of the transposed
#   convolution, as padding is what that crops from its output. But a rim of 1 at its input is one
#   of 2 at its output: the step (PadFusionConvolutionBackpropData) holds for stride 1 alone, and
#   does not ask for the stride. As read the model has 30x30, as compiled 28x28. Stride 1 is right;
#   so are rims wider than the layer's padding, or not of zeros (1e-30 is enough), which are not
#   fused.
# Why it matters: nothing is said. A network that cuts the rim away again (rows and columns 2 to 27)
#   gives a picture of the right size that lies a pixel too far up and left; one that ends with a
#   scaling to a fixed size a stretched one; the others a smaller one.
# Seen (side of the map by onnxruntime and by OpenVINO; which pixel of the right map is OpenVINO's
#   first one, all others following at a difference below 0.0001)
#   rim 1 of zeros, stride 2            30, 28  (1, 1)
#   the same, rows and columns 2 to 27  26, 26  (1, 1)
#   rim 1 of zeros, two layers          60, 56  (2, 2)
#   rim 1 of zeros, stride 1            16, 16  (0, 0)
#   rim 1 of ones, stride 2             30, 30  (0, 0)
#   rim 2 of zeros, stride 2            34, 34  (0, 0)
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
  openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
x = rng.normal(size=(1, 4, 13, 13)).astype(np.float32)
weight = rng.normal(size=(4, 4, 4, 4)).astype(np.float32) / 8
core = openvino.Core()


def constant(numbers, name):
    return numpy_helper.from_array(np.asarray(numbers), name)


def decoder(rim, value, stride, layers, cut):
    """A file of: a rim around x; transposed convolutions, each with a ReLU; a cut to 2:28."""
    constants = [constant(weight, "weight"), constant(np.float32(value), "value"),
                 constant([0, 0, rim, rim, 0, 0, rim, rim], "pads")]
    nodes = [helper.make_node("Pad", ["x", "pads", "value"], ["map0"])]
    for layer in range(layers):
        nodes.append(helper.make_node(
            "ConvTranspose", [f"map{layer}", "weight"], [f"doubled{layer}"],
            strides=[stride, stride], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"doubled{layer}"], [f"map{layer + 1}"]))
    output = f"map{layers}"
    if cut:
        constants += [constant([2, 2], "starts"), constant([28, 28], "ends"),
                      constant([2, 3], "axes")]
        nodes.append(helper.make_node("Slice", [output, "starts", "ends", "axes"], ["inside"]))
        output = "inside"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "decoder", [info("x", TensorProto.FLOAT, x.shape)],
        [info(output, TensorProto.FLOAT, (1, 4, "height", "width"))], constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "decoder.onnx")


def look(*settings):
    """-> the right side, OpenVINO's, and which pixel of the right map its pixel (0, 0) is."""
    decoder(*settings)
    session = onnxruntime.InferenceSession("decoder.onnx", providers=["CPUExecutionProvider"])
    right = session.run(None, {"x": x})[0]
    compiled = core.compile_model("decoder.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({0: x})[0]
    places = []
    for offset in range(3):
        part = right[:, :, offset:, offset:]
        side = min(part.shape[2], found.shape[2])
        if np.abs(part[:, :, :side, :side] - found[:, :, :side, :side]).max() < 1e-4:
            places.append(offset)
    return right.shape[2], found.shape[2], places


for package in ("openvino", "onnx", "onnxruntime", "numpy"):
    print(package, version(package))
rows = [  # title; rim, its value, stride, layers, cut; the side: right, OpenVINO's; moved by
    ("rim 1 of zeros, stride 2", (1, 0, 2, 1, False), (30, 28, [1])),
    ("the same, rows and columns 2 to 27", (1, 0, 2, 1, True), (26, 26, [1])),
    ("rim 1 of zeros, two layers", (1, 0, 2, 2, False), (60, 56, [2])),
    ("rim 1 of zeros, stride 1", (1, 0, 1, 1, False), (16, 16, [0])),
    ("rim 1 of ones, stride 2", (1, 1, 2, 1, False), (30, 30, [0])),
    ("rim 2 of zeros, stride 2", (2, 0, 2, 1, False), (34, 34, [0])),
]
same = True
for title, settings, described in rows:
    found = look(*settings)
    places = " ".join(f"({offset}, {offset})" for offset in found[2])
    print(f"{title:34}  {found[0]}, {found[1]}  {places}")
    same = same and found == described
print("as described" if same else "the behaviour has changed")
sys.exit(not same)
PYTHON
