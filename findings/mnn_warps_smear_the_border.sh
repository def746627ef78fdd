#!/usr/bin/env bash
# MNN: warps that reflect at the border smear it, and bicubic warps are bilinear.
#
# Versions: MNN 3.6.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, CPU.
# Guess: F.grid_sample(padding_mode="reflection") in a generator that warps (by flow, by pose, or to
#   straighten a face) is a node GridSample, and MNN, by which phones run it, reflects, too: its
#   file format and its API have a name for it (BorderMode_REFLECTION). What it can't do, such as
#   mode="bicubic", it refuses.
# What happens: the converter ends with "Converted Success!" each time. Reflection is computed as
#   padding_mode="border", number by number, with each mode and without a word: beyond the border
#   the edge pixel is drawn out. Bicubic is computed as bilinear; among the converter's lines of
#   progress is one that says "Don't support mode bicubic". The modes bilinear and nearest are right
#   with zeros and with border.
# Why it matters: reflection is chosen so that what comes in from outside has texture. Where the
#   network expects the mirrored picture it gets stripes, and paints on from them; label maps that
#   are warped have other classes there. Where nothing is taken from outside all is right, so that
#   a small motion, as one would try, shows nothing.
# Seen (a drawn picture of 96x96 in levels of 255, turned by 15 degrees, which takes a tenth from
#   outside: mean difference from onnxruntime there and inside; the mode with which onnxruntime
#   gives MNN's numbers, to 0.00)
#   bilinear zeros       outside  0.0  inside 0.0  bilinear zeros
#   bilinear border      outside  0.0  inside 0.0  bilinear border
#   nearest  border      outside  0.0  inside 0.0  nearest border
#   bilinear reflection  outside 25.7  inside 0.0  bilinear border
#   nearest  reflection  outside 29.0  inside 0.0  nearest border
#   bicubic  border      outside  2.6  inside 4.2  bilinear border
#   bicubic  reflection  outside 28.1  inside 4.2  bilinear border
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

SIDE = 96


def drawn_picture():
    """Amplitudes fall with the frequency, as in photos; mean 128, standard deviation 45."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(2 * SIDE)[:, None], np.fft.fftfreq(2 * SIDE))
    white = np.fft.fft2(rng.normal(size=(3, 2 * SIDE, 2 * SIDE)))
    picture = np.fft.ifft2(white / np.maximum(frequency, 0.5 / SIDE)).real
    picture = picture[None, :, :SIDE, :SIDE]  # a part, as opposite borders of the whole agree
    picture = (picture - picture.mean()) / picture.std()
    return np.clip(128 + 45 * picture, 0, 255).astype(np.float32)


def turned(degrees):
    """Where each pixel comes from, as F.affine_grid gives it; -1 and 1 are the borders."""
    centres = (np.arange(SIDE) + 0.5) * 2 / SIDE - 1
    y, x = np.meshgrid(centres, centres, indexing="ij")
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], -1)[None].astype(np.float32)


def saved(mode, padding, grid):
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], mode=mode, padding_mode=padding,
                            align_corners=0)
    info = helper.make_tensor_value_info
    shape = (1, 3, SIDE, SIDE)
    graph = helper.make_graph(
        [node], "warp", [info("x", TensorProto.FLOAT, shape)],
        [info("y", TensorProto.FLOAT, shape)], [numpy_helper.from_array(grid, "grid")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "warp.onnx")


def in_onnxruntime(mode, padding, grid):
    saved(mode, padding, grid)
    session = onnxruntime.InferenceSession("warp.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": picture})[0]


def in_mnn(mode, padding, grid):
    saved(mode, padding, grid)
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", "warp.onnx",
                       "--MNNModel", "warp.mnn", "--bizCode", "warp"])
    net = MNN.nn.load_module_from_file("warp.mnn", ["x"], ["y"])
    fed = MNN.expr.const(picture, list(picture.shape), MNN.expr.NCHW, MNN.expr.float)
    [y] = net.onForward([fed])
    y = MNN.expr.convert(y, MNN.expr.NCHW)
    return np.array(y.read(), np.float32).reshape(y.shape)


picture = drawn_picture()
lines, same = [], True
grid = turned(15)
outside = (np.abs(grid[0]) > 1).any(-1)
for mode, padding, computed_as in (
        ("bilinear", "zeros", ("bilinear", "zeros")),
        ("bilinear", "border", ("bilinear", "border")),
        ("nearest", "border", ("nearest", "border")),
        ("bilinear", "reflection", ("bilinear", "border")),
        ("nearest", "reflection", ("nearest", "border")),
        ("bicubic", "border", ("bilinear", "border")),
        ("bicubic", "reflection", ("bilinear", "border"))):
    right, found = in_onnxruntime(mode, padding, grid), in_mnn(mode, padding, grid)
    other = in_onnxruntime(*computed_as, grid)
    difference = np.abs(right - found)
    mean, inside = difference[:, :, outside].mean(), difference[:, :, ~outside].mean()
    distance = np.abs(other - found).max()
    lines.append(f"{mode:8} {padding:10}  outside ({outside.mean():.0%}) {mean:4.1f}, inside "
                 f"{inside:.1f}; as {' '.join(computed_as)} to {distance:.2f}")
    # a nearest pixel may be another one where a place lies halfway
    same = same and np.mean(np.abs(other - found) > 0.05) < 0.001
    if padding == "reflection":
        same = same and mean > 10
    if mode == "bicubic":
        same = same and inside > 0.5
    elif padding != "reflection":
        same = same and mean < 0.05 and inside < 0.05

print()  # the converter's own lines end above
for package in ("MNN", "onnx", "onnxruntime", "numpy"):
    print(package, version(package))
print("\n".join(lines))
print("as described" if same else "the behaviour has changed")
sys.stdout.flush()
os._exit(0 if same else 1)
PYTHON
