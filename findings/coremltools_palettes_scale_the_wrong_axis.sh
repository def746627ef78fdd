#!/usr/bin/env bash
# coremltools: palettes that should have a scale for each output channel have one for each place of
# the kernel instead: small channels are lost all the same, and the file grows.
#
# Versions: coremltools 9.0, numpy 2.4.6, on Linux (its weights are looked at, no network is run).
# Guess: OpPalettizerConfig(nbits=4, enable_per_channel_scale=True) normalises the weights "along
#   the output channels using per channel scales", and then lets all channels share a palette of 16
#   values. A weight of (128, 64, 4, 4) gets 128 scales, which are 256 bytes more in the file; and
#   channels of small weights, as a batch norm folded into its convolution leaves them, keep their
#   shape.
# What happens: the greatest weight is taken across the output channels, and not within each of them
#   (np.max(..., axis=channel_axis) in coreml/_quantization_passes.py). So there are 64 x 4 x 4
#   scales, one for each input channel and place, and the output channels are as unlike as before:
#   those of small weights are lost, as without any scale. Then the scales are multiplied into the
#   palette, of which the file holds 1,024 copies. The package's other half (fake_palettize.py of
#   coremltools.optimize.torch) takes the greatest weight within each output channel, and
#   granularity="per_grouped_channel" does what it says.
# Why it matters: one turns to the option for a network that suffers from 4 bits. It mends little,
#   and makes each layer larger: the last one of a pix2pix generator, a transposed convolution from
#   128 to 3 channels, six times as large as it was before any compression.
# Seen (weights whose output channels range from 0.01 to 1 in size, in float16; scales; error of the
#   smallest channel and of the middle one, relative to its own size; bytes in the file; mode is
#   "uniform", and "by hand" means divided by the greatest weight of each output channel beforehand)
#   conv (128, 64, 4, 4), 262,272 bytes
#     no scale                  none             10.53 1.27   65,760
#     enable_per_channel_scale  (1, 64, 4, 4)    11.15 0.69  100,608
#     per_grouped_channel       none              0.13 0.12   69,824
#     by hand                   (128, 1, 1, 1)    0.15 0.13
#   conv_transpose (128, 3, 4, 4), 12,416 bytes
#     no scale                  none              4.09 1.00    3,296
#     enable_per_channel_scale  (128, 1, 4, 4)    6.21 0.40   72,960
#     per_grouped_channel       none              0.13 0.13    3,360
#     by hand                   (1, 3, 1, 1)      0.13 0.15
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet coremltools==9.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 TQDM_DISABLE=1 venv/bin/python -W ignore - <<'PYTHON'
import logging
import os
import sys
from importlib.metadata import version

logging.disable(logging.CRITICAL)
import coremltools
import numpy as np
from coremltools.converters.mil import Builder
from coremltools.optimize import coreml as optimize

rng = np.random.default_rng(0)


def network(kind, weight):
    """-> a Core ML network of one layer, its weights in float16"""
    spec = [Builder.TensorSpec(shape=(1, 64 if kind == "conv" else 128, 16, 16))]

    @Builder.program(input_specs=spec, opset_version=coremltools.target.iOS18)
    def program(x):
        layer = getattr(Builder, kind)
        return layer(x=x, weight=weight, strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1])

    return coremltools.convert(
        program, convert_to="mlprogram", minimum_deployment_target=coremltools.target.iOS18,
        skip_model_load=True)


def stored(model, kind):
    """-> the layer's weight as it will be used, and the bytes of all weights in the file"""
    model.save("network.mlpackage")
    size = 0
    for folder, _, files in os.walk("network.mlpackage"):
        if "weight.bin" in files:
            size = os.path.getsize(os.path.join(folder, "weight.bin"))
    plain = optimize.decompress_weights(model)
    for operation in plain._mil_program.functions["main"].operations:
        if operation.op_type == kind:
            return operation.weight.val.astype(np.float32), size


def scales(model):
    """-> the shape of the scales, if there are any"""
    for operation in model._mil_program.functions["main"].operations:
        if operation.op_type == "constexpr_blockwise_shift_scale":
            return operation.scale.shape[:4]
    return None


def errors(weight, found, axis):
    """-> the relative error of the channel of the smallest weights, and the middle channel's"""
    others = tuple({0, 1, 2, 3} - {axis})
    relative = np.sqrt(((found - weight) ** 2).mean(others) / (weight**2).mean(others))
    return float(relative[0]), float(relative[len(relative) // 2])


def palettized(model, **options):
    config = optimize.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0, **options)
    return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=config))


for package in ("coremltools", "numpy"):
    print(package, version(package))
layers = {"conv": ((128, 64, 4, 4), 0), "conv_transpose": ((128, 3, 4, 4), 1)}  # output's axis
options = {
    "no scale": dict(),
    "enable_per_channel_scale": dict(enable_per_channel_scale=True),
    "per_grouped_channel": dict(granularity="per_grouped_channel", group_size=1),
}
same = True
for kind, (shape, axis) in layers.items():
    channels = tuple(shape[axis] if i == axis else 1 for i in range(4))
    sizes = np.logspace(-2, 0, shape[axis]).astype(np.float32).reshape(channels)
    weight = rng.normal(size=shape).astype(np.float32) * sizes
    model = network(kind, weight)
    _, size = stored(model, kind)
    print(f"{kind} {shape}: {size:,} bytes")
    found = {}
    for title, choice in options.items():
        model_4_bits = palettized(model, **choice)
        weight_4_bits, bytes_4_bits = stored(model_4_bits, kind)
        found[title] = errors(weight, weight_4_bits, axis) + (bytes_4_bits, scales(model_4_bits))
    greatest = np.abs(weight).max(axis=tuple({0, 1, 2, 3} - {axis}), keepdims=True)
    by_hand, _ = stored(palettized(network(kind, weight / greatest)), kind)
    small, middle = errors(weight, by_hand * greatest, axis)
    for title, (error, other, bytes_4_bits, shape_of_scales) in found.items():
        print(f"  {title:24}  scales {shape_of_scales}  errors {error:.2f} {other:.2f}  "
              f"{bytes_4_bits:,} bytes")
    print(f"  {'by hand':24}  scales {channels}  errors {small:.2f} {middle:.2f}")
    places = list(shape)
    places[axis] = 1
    scaled = found["enable_per_channel_scale"]
    same = same and scaled[3] == tuple(places) and scaled[0] > 3
    same = same and scaled[2] > 1.3 * found["no scale"][2]
    same = same and max(found["per_grouped_channel"][:2] + (small, middle)) < 0.2
print("as described" if same else "the behaviour has changed")
sys.exit(not same)
PYTHON
