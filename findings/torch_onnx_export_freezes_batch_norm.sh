#!/usr/bin/env bash
# torch.onnx.export of a model in train() keeps the dropout and quietly freezes the batch norm.
#
# Versions: torch 2.13.0 (torch.onnx.export, its default exporter), onnx 1.23.2, onnxscript 0.7.2,
#   onnxruntime 1.32.0, numpy 2.4.6, CPU.
# Guess: pix2pix is run with the statistics of the picture at hand and with dropout, so its ports
#   leave the generator in train(). The argument `training` is deprecated, and its text says to set
#   the mode before exporting instead; the export warns "Exporting a model while it is in training
#   mode". So the file computes what model.train() computes.
# What happens: nn.Dropout is written with training_mode true. nn.BatchNorm2d is written with the
#   running averages, as after eval(), and then folded into the convolution before it, so that the
#   file has no norm at all. torch.export's own graph still says training=True; onnxscript, which
#   turns it into ONNX, overwrites that by False. A file with dropout in it so computes neither
#   mode of the model. The exporter of old (dynamo=False, training=PRESERVE) writes training_mode
#   1, and track_running_stats=False gives the picture's own mean and variance.
# Why it matters: a picture whose contrast or colours differ from the average of the training set
#   leaves with wrong tones; the shapes are right, so that it looks like a weak generator. The
#   warning says the opposite of what was done.
# Seen (largest difference from the model's output in each mode, in [-1, 1]; the file's nodes):
#   default exporter         train() 1.25, eval() 0.0000: Conv Relu ConvTranspose Tanh
#   the same with a Dropout  Conv Dropout Relu ConvTranspose Tanh, its training_mode True
#   dynamo=False             train() 0.0000, eval() 1.04: Conv BatchNormalization Relu ...
#   no running averages      train() 0.0000, eval() 0.0000
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

import onnx
import onnxruntime
import torch
import torch.nn as nn
from onnx import numpy_helper

logging.disable(logging.WARNING)
torch.manual_seed(0)
# Soft pictures, as a training set has them, and a contrasty one that comes later.
pictures = [0.3 * torch.rand(1, 3, 32, 32) - 0.5 for _ in range(100)]
later = 2 * torch.rand(1, 3, 32, 32) - 1


def generator(dropout=False, **norm):
    """A level down and a level up, whose batch norm has seen the training pictures."""
    layers = [nn.Conv2d(3, 16, 4, 2, 1), nn.BatchNorm2d(16, **norm)]
    if dropout:
        layers.append(nn.Dropout(0.5))
    layers += [nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()]
    model = nn.Sequential(*layers).train()
    with torch.no_grad():
        for picture in pictures:
            model(picture)
    return model


def nodes_of(model, **options):
    torch.onnx.export(model, (later,), "g.onnx", verbose=False, **options)
    return onnx.load("g.onnx").graph.node


def differences(title, model, **options):
    """Of the file's output: from the model's in train() and from that in eval()."""
    names = [node.op_type for node in nodes_of(model, **options)]
    session = onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    fake = torch.from_numpy(session.run(None, {name: later.numpy()})[0])
    with torch.no_grad():
        # eval() first: the pass in train() moves the running averages.
        frozen = float((fake - model.eval()(later)).abs().max())
        train = float((fake - model.train()(later)).abs().max())
    print(f"{title}: from train() {train:.4f}, from eval() {frozen:.4f};", *names)
    return train, frozen


for package in ("torch", "onnx", "onnxscript", "onnxruntime", "numpy"):
    print(package, version(package))
new = differences("default exporter", generator())
old = differences("dynamo=False", generator(), dynamo=False,
                  training=torch.onnx.TrainingMode.PRESERVE)
own = differences("no running averages", generator(track_running_stats=False))
nodes = nodes_of(generator(dropout=True))
names = [node.op_type for node in nodes]
print("with a Dropout:", *names)
drop = nodes[names.index("Dropout")]
weights = {item.name: item for item in onnx.load("g.onnx").graph.initializer}
stays_on = bool(numpy_helper.to_array(weights[drop.input[2]]))
print("the Dropout's training_mode:", stays_on)
same = new[0] > 0.1 and new[1] < 1e-4
same = same and old[0] < 1e-4 and old[1] > 0.1
same = same and max(own) < 1e-4
same = same and stays_on and "BatchNormalization" not in names
sys.exit(0 if same else "the behaviour has changed")
PYTHON
