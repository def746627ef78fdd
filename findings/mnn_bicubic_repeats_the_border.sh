#!/usr/bin/env bash
# MNN: bicubic enlargement draws the top and left border from one pixel too far inside.
#
# Versions: MNN 3.6.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, CPU.
# Guess: MNN, by which phones run generators, converts F.interpolate(mode="bicubic"), a Resize with
#   "cubic" and "half_pixel" (torch's own "pytorch_half_pixel" is the same here), and enlarges as
#   onnxruntime does; beyond the border the edge pixel is repeated, as everywhere.
# What happens: all is right but for the first factor // 2 rows and columns. Their centres lie above
#   row 0 of the source, between row -1 and row 0. That -1 is made 0 too early, before the four
#   neighbours of the cubic are counted from it, while the weights stay those of -1: each row r of
#   them is an exact copy of row r + factor. So the border of a picture shows what lies one source
#   pixel further in, and then comes what belongs there: up, down, up. Bottom and right are right,
#   so are "linear", and cubic with "align_corners" or "asymmetric", where no centre is negative.
#   cubic_coeff_a is not read either: -0.5 (TensorFlow's and Pillow's) is computed as -0.75.
# Why it matters: a network that adds its details to a bicubic enlargement, as most of those for
#   super-resolution do, or that enlarges a coarse result or a small noise map by 8 or 16, gets a
#   stripe at two sides: 8 pixels wide for a factor of 16. In a picture made of tiles it runs
#   through the middle, at each seam. Every shape is right, and a mean over the picture hides it.
# Seen (a smooth drawn picture of 64x64 in levels of 255; the rows and columns that differ from
#   onnxruntime, the mean and largest difference there, and whether row r is row r + factor)
#   cubic  x2   half_pixel     row and column 0      mean 9  largest 30  copies
#   cubic  x4   half_pixel     rows and columns 0-1  mean 9  largest 33  copies
#   cubic  x8   half_pixel     rows and columns 0-3  mean 9  largest 34  copies
#   cubic  x16  half_pixel     rows and columns 0-7  mean 9  largest 35  copies
#   cubic  x4   align_corners, asymmetric; cubic x0.5; linear x4: none
#   cubic_coeff_a -0.5         up to 3.6 from onnxruntime, 0.000 from onnxruntime with -0.75
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

SIDE = 64


def drawn_picture():
    """Amplitudes fall with the frequency, as in photos; mean 128, standard deviation 45."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(2 * SIDE)[:, None], np.fft.fftfreq(2 * SIDE))
    white = np.fft.fft2(rng.normal(size=(3, 2 * SIDE, 2 * SIDE)))
    picture = np.fft.ifft2(white / np.maximum(frequency, 0.5 / SIDE) ** 1.5).real
    picture = picture[None, :, :SIDE, :SIDE]  # a part, as opposite borders of the whole agree
    picture = (picture - picture.mean()) / picture.std()
    return np.clip(128 + 45 * picture, 0, 255).astype(np.float32)


def saved(mode, factor, transformation, a):
    scales = numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "scales")
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode, cubic_coeff_a=a,
                            coordinate_transformation_mode=transformation)
    info = helper.make_tensor_value_info
    side = int(SIDE * factor)
    graph = helper.make_graph([node], "one", [info("x", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
                              [info("y", TensorProto.FLOAT, (1, 3, side, side))], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "one.onnx")


def in_onnxruntime(x):
    session = onnxruntime.InferenceSession("one.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def in_mnn(x):
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", "one.onnx",
                       "--MNNModel", "one.mnn", "--bizCode", "bicubic"])
    net = MNN.nn.load_module_from_file("one.mnn", ["x"], ["y"])
    [y] = net.onForward([MNN.expr.const(x, list(x.shape), MNN.expr.NCHW, MNN.expr.float)])
    y = MNN.expr.convert(y, MNN.expr.NCHW)
    return np.array(y.read(), np.float32).reshape(y.shape)


def compared(mode, factor, transformation):
    """-> rows and columns that differ, mean and largest difference there, are they copies"""
    saved(mode, factor, transformation, -0.75)
    right, found = in_onnxruntime(picture), in_mnn(picture)
    difference = np.abs(right - found)
    step = max(int(factor), 1)
    inside = difference[:, :, step:, step:]  # beside the other side's stripe
    assert inside.max() < 0.05, inside.max()
    rows = np.flatnonzero((difference[:, :, :, step:] > 0.05).any((0, 1, 3)))
    columns = np.flatnonzero((difference[:, :, step:, :] > 0.05).any((0, 1, 2)))
    assert rows.tolist() == columns.tolist(), (rows, columns)
    if len(rows) == 0:
        return 0, 0.0, 0.0, False
    stripe = difference[:, :, rows]
    copies = np.abs(found[:, :, rows] - found[:, :, rows + step]).max() < 0.05
    assert rows.tolist() == list(range(len(rows))), rows
    return len(rows), float(stripe.mean()), float(stripe.max()), bool(copies)


picture = drawn_picture()
lines, same = [], True
for mode, factor, transformation, width in (
        ("cubic", 2.0, "half_pixel", 1), ("cubic", 4.0, "half_pixel", 2),
        ("cubic", 4.0, "pytorch_half_pixel", 2), ("cubic", 8.0, "half_pixel", 4),
        ("cubic", 16.0, "half_pixel", 8), ("cubic", 4.0, "align_corners", 0),
        ("cubic", 4.0, "asymmetric", 0), ("cubic", 0.5, "half_pixel", 0),
        ("linear", 4.0, "half_pixel", 0)):
    count, mean, largest, copies = compared(mode, factor, transformation)
    words = f"mean {mean:4.1f} largest {largest:4.0f}" if count else ""
    lines.append(f"{mode:6} x{factor:<4g} {transformation:18} {count} {words} "
                 + ("copies" if copies else ""))
    same = same and count == width and copies == (width > 0)
    same = same and (width == 0 or mean > 0.5)

saved("cubic", 4.0, "align_corners", -0.5)
right, found = in_onnxruntime(picture), in_mnn(picture)
saved("cubic", 4.0, "align_corners", -0.75)
other = in_onnxruntime(picture)
distances = [float(np.abs(found - wanted).max()) for wanted in (right, other)]
lines.append(f"cubic_coeff_a -0.5: MNN differs from onnxruntime by up to {distances[0]:.1f}, from "
             f"onnxruntime at -0.75 by {distances[1]:.3f}")
same = same and distances[0] > 1 and distances[1] < 0.05

print()  # the converter's own lines end above
for package in ("MNN", "onnx", "onnxruntime", "numpy"):
    print(package, version(package))
print("\n".join(lines))
print("as described" if same else "the behaviour has changed")
sys.stdout.flush()
os._exit(0 if same else 1)
PYTHON
