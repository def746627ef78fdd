#!/usr/bin/env bash
# OpenCV: a network that one-hots its label map takes void (255) for a class, in silence.
#
# Versions: OpenCV 5.0.0.93 (headless), onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, CPU.
# Guess: a generator such as SPADE's is exported with the step from label map to one-hot planes in
#   the file, as a node OneHot. Pixels of void, 255, have no class. By the operator's text a number
#   outside of [-depth, depth - 1] has off_value in all planes: so all planes are 0 at void,
#   wherever the file runs.
# What happens: so it is in onnxruntime. OpenCV's dnn takes each number modulo the depth, and sets
#   that plane: class 255 mod K (the line with % depth in its onehot_layer.cpp). With the 19
#   classes of Cityscapes void is vegetation, with the 12 of facades class 3, with 5 class 0; with
#   the 150 of ADE20K class 105. Legal numbers, and -1 for the last class, are right.
# Why it matters: the planes look as they should: one of them is 1 at each pixel, and the sum is 1
#   everywhere. The picture that comes out is a plausible one, in which the car's bonnet, the frame
#   around a scan and unlabelled things are painted as trees. Maps without void, as tests tend to
#   have, agree to the last bit. A file says nothing of the range: torch's F.one_hot refuses 255,
#   and the OneHot that torch.onnx.export(dynamo=False) writes for it does not.
# Seen (64x64; the class of the 1216 pixels of void; the sum of the planes at a pixel):
#     5 classes: onnxruntime None, OpenCV 0; elsewhere the same; sum in OpenCV 1 to 1
#    12 classes: onnxruntime None, OpenCV 3; elsewhere the same; sum in OpenCV 1 to 1
#    19 classes: onnxruntime None, OpenCV 8; elsewhere the same; sum in OpenCV 1 to 1
#   150 classes: onnxruntime None, OpenCV 105; elsewhere the same; sum in OpenCV 1 to 1
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet opencv-python-headless==5.0.0.93 onnx==1.23.2 \
    onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIDE, VOID = 64, 255


def one_hot_of(classes):
    """A file from labels (1, H, W) to planes (1, K, H, W), as a network's first step."""
    labels = helper.make_tensor_value_info("labels", TensorProto.INT64, [1, SIDE, SIDE])
    planes = helper.make_tensor_value_info("planes", TensorProto.FLOAT, [1, classes, SIDE, SIDE])
    constants = [numpy_helper.from_array(np.array(classes), "depth"),
                 numpy_helper.from_array(np.array([0, 1], np.float32), "values")]
    node = helper.make_node("OneHot", ["labels", "depth", "values"], ["planes"], axis=1)
    graph = helper.make_graph([node], "one", [labels], [planes], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def in_onnxruntime(model, labels):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"labels": labels})[0]


def in_opencv(model, labels):
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))
    net.setInput(labels, "labels")
    return net.forward()


def where_void(planes, void):
    """-> the class that void has: None, its number, or "mixed"."""
    at_void = planes[0][:, void]  # (K, pixels)
    if not at_void.any():
        return None
    found = np.unique(at_void.argmax(0))
    if len(found) == 1 and (at_void.sum(0) == 1).all():
        return int(found[0])
    return "mixed"


for package in ("opencv-python-headless", "onnxruntime", "onnx", "numpy"):
    print(package, version(package))
same = True
for classes in (5, 12, 19, 150):
    labels = np.random.default_rng(0).integers(0, classes, (1, SIDE, SIDE))
    labels[0, 30:40, :] = -1  # the last class, by ONNX's text
    labels[0, -15:, :] = VOID  # the bonnet
    labels[0, :4, :] = VOID
    void = labels[0] == VOID
    model = one_hot_of(classes)
    right, found = in_onnxruntime(model, labels), in_opencv(model, labels)
    right_void, found_void = where_void(right, void), where_void(found, void)
    elsewhere = np.array_equal(right[0][:, ~void], found[0][:, ~void])
    print(f"{classes:3} classes: onnxruntime {right_void}, OpenCV {found_void}; elsewhere "
          f"{'the same' if elsewhere else 'not the same'}; sum in OpenCV "
          f"{found.sum(1).min():.0f} to {found.sum(1).max():.0f}")
    same = same and right_void is None and found_void == VOID % classes and elsewhere
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
