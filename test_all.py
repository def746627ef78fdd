"""How do I know? Each test is a claim of this project; each fails if its claim is false.

    pytest test_all.py                   everything quick, a few minutes on two cores
    pytest test_all.py -m slow           the long ones: kills, bit flips, resuming at every step
    python test_all.py benchmark         speed, against the textbook training step defined below

FACADES=DIR and CAMVID=DIR name folders of real pictures; without them those tests are skipped.
"""
import base64
import csv
import hashlib
import http.client
import io
import json
import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image

import data
import metrics
import paint
import pix2pix
import semgan
import train

HERE = Path(__file__).parent

# `pytest test_all.py -m slow` runs the long tests; without it they are skipped.
warnings.filterwarnings("ignore", category=pytest.PytestUnknownMarkWarning)


def slow(test):
    wanted = pytest.mark.skipif("slow" not in " ".join(sys.argv), reason="long: pytest test_all.py -m slow")
    return pytest.mark.slow(wanted(test))


real_facades = pytest.mark.skipif("FACADES" not in os.environ, reason="FACADES names no folder of pairs")


# The textbook pix2pix: the independent reference for the networks here, and the benchmark's rival.
# Plain nn layers, instance norm as nn has it, built from the paper's layer list.
class TextbookUNet(nn.Module):
    def __init__(self, width=64, depth=8):
        super().__init__()
        c = [width * min(2 ** i, 8) for i in range(depth)]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i in range(depth):
            layers = [nn.LeakyReLU(0.2)] if i else []
            layers += [nn.Conv2d(c[i - 1] if i else 3, c[i], 4, 2, 1, bias=i in (0, depth - 1))]
            layers += [nn.InstanceNorm2d(c[i], affine=True)] if 0 < i < depth - 1 else []
            self.downs.append(nn.Sequential(*layers))
        for i in range(depth - 1, 0, -1):
            self.ups.append(nn.Sequential(
                nn.ReLU(), nn.ConvTranspose2d(c[i] * (1 if i == depth - 1 else 2), c[i - 1], 4, 2, 1,
                                              bias=False), nn.InstanceNorm2d(c[i - 1], affine=True)))
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, 3, 4, 2, 1), nn.Tanh())

    def forward(self, x, dropout=0.5):
        kept = []
        for down in self.downs:
            x = down(x)
            kept.append(x)
        for i, up in enumerate(self.ups):
            x = up(x)
            x = F.dropout(x, dropout) if i < 3 else x
            x = torch.cat([x, kept[-2 - i]], 1)
        return self.last(x)


def textbook_patchgan(width=64):
    return nn.Sequential(
        nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.InstanceNorm2d(2 * width, affine=True),
        nn.LeakyReLU(0.2), nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False),
        nn.InstanceNorm2d(4 * width, affine=True), nn.LeakyReLU(0.2),
        nn.Conv2d(4 * width, 8 * width, 4, 1, 1, bias=False),
        nn.InstanceNorm2d(8 * width, affine=True), nn.LeakyReLU(0.2), nn.Conv2d(8 * width, 1, 4, 1, 1))


def copy_weights(source, target):
    """Parameters in order: both U-Nets list a convolution, then its norm, level by level."""
    def ordered(net):
        if not isinstance(net, pix2pix.UNet):
            return list(net.parameters())
        pairs = [*zip(net.encoder, net.encoder_norms), *zip(net.decoder, net.decoder_norms)]
        return [p for pair in pairs for part in pair for p in part.parameters()] + \
            list(net.to_image.parameters())
    for a, b in zip(ordered(source), ordered(target), strict=True):
        b.data.copy_(a.data)


def count(network):
    return sum(p.numel() for p in network.parameters())


# pix2pix.py


def test_parameter_counts_are_the_published_ones():
    biases = 64 + 512  # of the first convolution and of the bottleneck, kept here: see UNet
    assert count(pix2pix.UNet()) == 54_413_955 + biases
    assert count(pix2pix.UNet(skips=False)) == 39_075_459 + biases
    assert count(pix2pix.UNet(depth=7)) == 41_828_995 + biases


@pytest.mark.parametrize("field, parameters, logits", [
    (1, 9_024, 256), (16, 139_585, 126), (34, 666_433, 62), (70, 2_768_705, 30),
    (142, 6_964_033, 14), (286, 11_159_361, 6)])
def test_patchgans_have_the_published_counts_and_logit_maps(field, parameters, logits):
    discriminator = pix2pix.PatchGAN(receptive_field=field)
    x = torch.zeros(1, 3, 256, 256)
    assert count(discriminator) == parameters
    assert discriminator(x, x).shape == (1, 1, logits, logits)
    assert pix2pix.receptive_field(discriminator) == field


@pytest.mark.parametrize("field", [1, 16, 34, 70])
def test_one_patch_logit_sees_just_its_receptive_field(field):
    discriminator = pix2pix.PatchGAN(width=4, receptive_field=field)
    for layer in discriminator.layers:          # norm layers couple all pixels: take them out
        if isinstance(layer, pix2pix.Norm):
            layer.forward = lambda x: x
    x, y = torch.randn(2, 1, 3, 256, 256)
    y.requires_grad_()
    logits = discriminator(x, y)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows = y.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == field


@pytest.mark.parametrize("size, depth", [(64, 6), (128, 7)])
def test_the_fast_networks_equal_the_textbook_ones(size, depth):
    torch.manual_seed(0)
    fast, plain = pix2pix.UNet(width=8, depth=depth, dropout=0), TextbookUNet(8, depth)
    copy_weights(fast, plain)
    d_fast, d_plain = pix2pix.PatchGAN(width=8), textbook_patchgan(8)
    copy_weights(d_fast, d_plain)
    x, y = torch.rand(2, 3, 3, size, size) * 2 - 1
    a, b = fast(x), plain(x, dropout=0)
    assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(d_fast(x, y), d_plain(torch.cat([x, y], 1)), atol=1e-5)
    for out in (a, b):
        (out - y).abs().mean().backward()
    assert torch.allclose(fast.encoder[-1].weight.grad, plain.downs[-1][1].weight.grad, atol=1e-5)
    assert torch.allclose(fast.decoder[0].weight.grad, plain.ups[0][1].weight.grad, atol=1e-5)


@pytest.mark.parametrize("h, w", [(1, 1), (2, 2), (4, 8), (8, 8), (16, 32)])
def test_fast_layers_equal_the_library_at_every_size(h, w):
    for fast, plain in ((pix2pix.Down, nn.Conv2d.forward), (pix2pix.Up, nn.ConvTranspose2d.forward)):
        if fast is pix2pix.Down and h < 2:
            continue
        layer, x = fast(6, 5, bias=True), torch.randn(3, 6, h, w)
        assert torch.allclose(layer(x), plain(layer, x), atol=1e-5)


def test_losses_are_the_hand_worked_numbers():
    zeros = torch.zeros(2, 1, 30, 30)           # D undecided: log 2, halved sum of two equal terms
    assert pix2pix.discriminator_loss(zeros, zeros).item() == pytest.approx(np.log(2))
    half = torch.full((2, 3, 8, 8), 0.5)
    loss, adversarial, l1 = pix2pix.generator_loss(zeros, half, -half)
    assert (adversarial.item(), l1.item()) == (pytest.approx(np.log(2)), 1.0)
    assert loss.item() == pytest.approx(np.log(2) + 100)
    assert pix2pix.generator_loss(None, half, -half, 2.0)[0].item() == 2.0
    sure = torch.full((1, 1, 2, 2), 3.0)        # real judged real, fake judged fake: -log sigmoid(3)
    assert pix2pix.discriminator_loss(sure, -sure).item() == pytest.approx(np.log(1 + np.exp(-3)))


def test_eval_and_train_mode_are_the_same_and_nothing_is_buffered():
    generator = pix2pix.UNet(width=4, depth=6)
    x = torch.randn(2, 3, 64, 64)
    outs = [pix2pix.generate(generator.train(mode), x, seed=5) for mode in (True, False)]
    assert torch.equal(*outs) and not list(generator.buffers())
    assert not torch.equal(outs[0], pix2pix.generate(generator, x, seed=6))  # dropout is on: Sec. 3.1


def test_a_batch_translates_like_its_pictures_one_by_one():
    generator = pix2pix.UNet(width=4, depth=6, dropout=0)
    x = torch.randn(3, 3, 64, 64)
    assert torch.allclose(generator(x), torch.cat([generator(p[None]) for p in x]), atol=1e-5)


def test_weights_start_from_the_papers_distribution():
    torch.manual_seed(0)
    generator = pix2pix.UNet(width=16)
    weights = torch.cat([m.weight.detach().flatten() for m in (*generator.encoder, *generator.decoder)])
    assert weights.mean().abs() < 1e-4 and weights.std() == pytest.approx(0.02, rel=0.01)
    assert all(m.bias.abs().max() == 0 for m in generator.modules() if getattr(m, "bias", None) is not None)


@pytest.mark.parametrize("h, w", [(1, 1), (333, 517), (64, 64), (65, 200), (150, 150)])
def test_any_size_translates_to_its_own_size(h, w):
    generator = pix2pix.UNet(width=2, depth=6)
    image = torch.randint(0, 256, (3, h, w), dtype=torch.uint8)
    before = torch.get_rng_state()
    out = pix2pix.translate(generator, image, seed=1)
    assert out.shape == image.shape and out.dtype == torch.uint8
    assert torch.equal(out, pix2pix.translate(generator, image, seed=1))
    assert torch.equal(before, torch.get_rng_state())       # the caller's randomness is untouched


def test_tiles_join_without_seams():
    """A stand-in network without statistics or borders: tiled and whole must then be the same."""
    class Pointwise(nn.Module):
        depth = 3

        def forward(self, x):
            return torch.tanh(2 * x)
    x = torch.randn(1, 3, 200, 333)
    assert torch.allclose(pix2pix.generate(Pointwise(), x, tile=64), torch.tanh(2 * x), atol=1e-5)


def test_one_pair_can_be_learned_by_heart():
    torch.manual_seed(0)
    generator = pix2pix.UNet(width=8, depth=6)
    optimizer = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.5, 0.999))
    x, y = data.to_network({"task": "facades", "one_hot": False},
                           data.draw_pair(0, [64, 64], "pairs")[None])
    first = F.l1_loss(generator(x), y).item()
    for _ in range(150):
        optimizer.zero_grad()
        F.l1_loss(generator(x), y).backward()
        optimizer.step()
    assert F.l1_loss(generator(x), y).item() < 0.25 * first


# data.py


def settings_for(folder=None, task="facades", size=64, **more):
    return {"task": task, "data": folder and str(folder), "drawn": folder is None, "size": [size, size],
            "palette": data.TASKS[task]["palette"], "one_hot": False, **more}


def make_pairs(folder, n=12, size=64, splits=("",)):
    """Side-by-side JPEGs of drawn facades, photo left."""
    for split in splits:
        (folder / split).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pair = data.draw_pair(i, [size, size], "pairs")
            data.save_picture(folder / split / f"{split}{i}.png", torch.cat([pair[3:], pair[:3]], 2))
    return folder


def test_both_halves_are_cropped_and_mirrored_alike():
    grid = torch.arange(72 * 72).view(72, 72)
    half = torch.stack([grid // 72, grid % 72, grid % 7]).byte()
    out = data.augment(torch.stack([torch.cat([half, half])] * 16), [64, 64], True,
                       torch.Generator().manual_seed(0))
    assert torch.equal(out[:, :3], out[:, 3:])
    corners = {tuple(p[:2, 0, 0].tolist()) for p in out}
    assert len(corners) > 8                                  # each picture has its own crop
    steps = {int(p[1, 0, 1]) - int(p[1, 0, 0]) for p in out}
    assert steps == {1, -1}                                  # some are mirrored, some are not


def test_two_processes_together_see_what_one_would():
    pictures = torch.randint(0, 256, (4, 6, 72, 72), dtype=torch.uint8)

    def draw(p, *share):
        return data.augment(p, [64, 64], True, torch.Generator().manual_seed(3), *share)
    assert torch.equal(torch.cat([draw(pictures[:2], 0, 2), draw(pictures[2:], 1, 2)]), draw(pictures))
    whole = data.epoch_order(10, 4, 0, 7)
    shares = [data.epoch_order(10, 2, 0, 7, rank, 2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares)] == whole and len(whole) == 2
    assert whole != data.epoch_order(10, 4, 0, 8)


def test_test_pictures_are_never_trained_on_and_held_out_ones_stay(tmp_path):
    folder = make_pairs(tmp_path / "a", 30, splits=("train", "test"))
    splits = [{f[0].name for f in p(settings_for(folder)).files} for p in (data.training, data.held_out)]
    assert splits[0] and splits[1] and not splits[0] & splits[1]
    assert all(name.startswith("train") for name in splits[0] | splits[1])
    shutil.rmtree(folder / "test")
    (folder / "train" / "train0.png").unlink()               # the others keep their side
    assert {f[0].name for f in data.held_out(settings_for(folder)).files} == splits[1] - {"train0.png"}


def test_folders_and_side_by_side_files_give_the_same_pictures(tmp_path):
    joined = make_pairs(tmp_path / "joined", 12)
    for side, half in (("A", slice(3, 6)), ("B", slice(0, 3))):
        for i in range(12):
            (tmp_path / "two" / side).mkdir(parents=True, exist_ok=True)
            data.save_picture(tmp_path / "two" / side / f"{i}.png", data.draw_pair(i, [64, 64], "pairs")[half])
    one, two = (data.training(settings_for(f)) for f in (joined, tmp_path / "two"))
    assert len(one) == len(two) and torch.equal(one[3], two[3])


def test_pictures_that_do_not_fit_in_memory_are_the_same_pictures(tmp_path):
    folder = make_pairs(tmp_path / "a", 12)
    kept, streamed = (data.training(settings_for(folder), memory=m) for m in (1, 1e-9))
    assert kept.cache is not None and streamed.cache is None
    order = data.epoch_order(len(kept), 3, 0, 0)
    for a, b in zip(kept.batches(order), streamed.batches(order), strict=True):
        assert torch.equal(a, b)


def test_colourisation_loses_no_colour():
    photos = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    settings = settings_for(task="colorization")
    x, y = data.to_network(settings, photos)
    assert x.shape[1] == 1 and y.shape[1] == 2 and x.abs().max() <= 1 and y.abs().max() <= 1
    assert (data.to_pixels(settings, x, y).int() - photos.int()).abs().max() <= 1


def test_inpainting_hides_the_central_half_only():
    photos = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    x, y = data.to_network(settings_for(task="inpainting"), photos)
    assert (x[:, :, 16:48, 16:48] == 1).all()
    x[:, :, 16:48, 16:48] = y[:, :, 16:48, 16:48]
    assert torch.equal(x, y)


@real_facades
def test_real_facades_have_their_published_split_and_colours():
    settings = settings_for(os.environ["FACADES"])
    kept = data.held_out(settings)
    assert len(kept) == 40 and len(data.training(settings, memory=1e-9)) == 360
    labels = data.label_map_of(settings, torch.stack([kept[i] for i in range(40)]))
    shares = labels.flatten().bincount(minlength=12) / labels.numel()
    assert shares[0] == pytest.approx(0.236, abs=0.05) and shares[1] == pytest.approx(0.343, abs=0.05)
    assert shares[2] == pytest.approx(0.127, abs=0.04)      # windows


# train.py


def arguments(out, *more, task="facades"):
    return ["--task", task, "--size", "64", "--width", "4", "--batch", "2", "--epochs", "2",
            "--device", "cpu", "--preset", "laptop", "--out", str(out), *map(str, more)]


def run_train(*args, **kwargs):
    """python train.py in a process of its own, one thread. -> CompletedProcess"""
    return subprocess.run([sys.executable, HERE / "train.py", *args], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120, **kwargs)


def train_here(monkeypatch, *args):
    """train.main() in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, args)])
    train.main()


def fingerprint(out):
    """SHA-256 of G, D and both Adams."""
    content = pix2pix.load_file(Path(out) / "checkpoint.pt")
    digest = hashlib.sha256(str(content["step"]).encode())
    for name in ("generator", "discriminator", "g_optimizer", "d_optimizer"):
        for tensor in train.tensors_of(content[name]):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def log_steps(out):
    with open(Path(out) / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(None not in row and None not in row.values() for row in rows)   # whole rows
    return [int(row["step"]) for row in rows]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return make_pairs(tmp_path_factory.mktemp("pairs"), 12, size=64)


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory, pairs):
    """A small run from start to end, to compare interrupted ones with."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    done = run_train(*arguments(out, "--data", pairs))
    assert done.returncode == 0, done.stderr
    return out


def test_a_run_leaves_what_the_readme_promises(straight_run):
    names = {p.name for p in straight_run.iterdir()}
    assert {"settings.json", "log.csv", "losses.png", "samples", "checkpoint.pt", "generator.pt"} <= names
    generator, settings = pix2pix.load_generator(straight_run)
    assert settings["size"] == [64, 64] and generator.depth == 6
    assert log_steps(straight_run)[-1] == json.loads((straight_run / "settings.json").read_text())["epochs"] * \
        (len(data.training({**settings, "palette": None})) // 2)


def test_a_finished_run_says_so_and_stays_as_it_is(straight_run, pairs):
    before = fingerprint(straight_run)
    again = run_train(*arguments(straight_run, "--data", pairs))
    assert again.returncode == 0 and "finished" in again.stdout and fingerprint(straight_run) == before


class Cut(Exception):
    """Stands for kill -9: nothing of the interrupted step is written."""


def cut_after(monkeypatch, steps, out, pairs, save=True):
    """Trains up to a step, saves there (or not), and falls dead."""
    finish = train.Run.finish_step

    def finish_step(run, values):
        finish(run, values)
        if run.step == steps:
            run.save() if save else None
            raise Cut
    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "finish_step", finish_step)
        with pytest.raises(Cut):
            train_here(patch, *arguments(out, "--data", pairs))


@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_run_cut_at_a_step_and_continued_equals_an_uncut_one(step, straight_run, pairs, tmp_path, monkeypatch):
    torch.set_num_threads(1)                                 # as the run it is compared with
    cut_after(monkeypatch, step, tmp_path / "cut", pairs)
    assert fingerprint(tmp_path / "cut") != fingerprint(straight_run)
    train_here(monkeypatch, *arguments(tmp_path / "cut", "--data", pairs))
    assert fingerprint(tmp_path / "cut") == fingerprint(straight_run)
    assert log_steps(tmp_path / "cut") == sorted(set(log_steps(tmp_path / "cut")))


@pytest.mark.parametrize("forgotten", ["discriminator", "g_optimizer", "d_optimizer", "step"])
def test_the_resume_test_has_teeth(forgotten, straight_run, pairs, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    cut_after(monkeypatch, 4, tmp_path / "cut", pairs)
    path = tmp_path / "cut" / "checkpoint.pt"
    content, first = pix2pix.load_file(path), tmp_path / "first"
    cut_after(monkeypatch, 1, first, pairs)
    content[forgotten] = pix2pix.load_file(first / "checkpoint.pt")[forgotten]
    train.save_whole(path, content)
    train_here(monkeypatch, *arguments(tmp_path / "cut", "--data", pairs))
    assert fingerprint(tmp_path / "cut") != fingerprint(straight_run)


def test_killed_without_warning_and_continued_gives_identical_weights(straight_run, pairs, tmp_path):
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, HERE / "train.py", *arguments(out, "--data", pairs)],
                               env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    while not (out / "settings.json").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run_train(*arguments(out, "--data", pairs))
    assert again.returncode == 0, again.stderr
    assert fingerprint(out) == fingerprint(straight_run)
    assert log_steps(out) == log_steps(straight_run) and not list(out.glob(".*.partial"))


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_the_run_goes_on_exactly(number, code, straight_run, pairs, tmp_path):
    out = tmp_path / "stopped"
    process = subprocess.Popen([sys.executable, HERE / "train.py", *arguments(out, "--data", pairs)],
                               env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "run folder" not in process.stdout.readline():
        pass
    time.sleep(0.3)
    process.send_signal(number)
    out_text, err = process.communicate(timeout=60)
    if process.returncode != 0:                              # 0: it had just finished
        assert process.returncode == code, err
    assert run_train(*arguments(out, "--data", pairs)).returncode == 0
    assert fingerprint(out) == fingerprint(straight_run)


def test_a_loss_that_is_not_finite_never_reaches_a_checkpoint(pairs, tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    cut_after(monkeypatch, 4, tmp_path / "run", pairs)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    loss = pix2pix.generator_loss

    def poisoned(*args):
        return tuple(value * float("nan") for value in loss(*args))
    monkeypatch.setattr(pix2pix, "generator_loss", poisoned)
    with pytest.raises(SystemExit) as stopped:
        train_here(monkeypatch, *arguments(tmp_path / "run", "--data", pairs))
    message = str(stopped.value)
    assert "step 4" in message and "G adversarial" in message and ".png" in message
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("objective, conditional", [("l1", None), ("gan", False), ("cgan", True),
                                                    ("l1+gan", False), ("l1+cgan", True)])
def test_each_objective_trains_what_it_names(objective, conditional, pairs, tmp_path, monkeypatch):
    seen = []
    forward = pix2pix.PatchGAN.forward
    monkeypatch.setattr(pix2pix.PatchGAN, "forward",
                        lambda self, *p: seen.append(len(p)) or forward(self, *p))
    weights = []
    loss = pix2pix.generator_loss
    monkeypatch.setattr(pix2pix, "generator_loss",
                        lambda *args: weights.append(args[3]) or loss(*args))
    train_here(monkeypatch, *arguments(tmp_path / "run", "--data", pairs, "--objective", objective,
                                       "--epochs", 1))
    assert set(seen) == ({2} if conditional else {1} if conditional is False else set())
    assert set(weights) == {100.0 if "l1" in objective else 0.0}


def test_d_learns_nothing_in_gs_step_and_g_nothing_in_ds(pairs, tmp_path, monkeypatch):
    """In D's step no gradient reaches G (the fake is detached); in G's step none reaches D."""
    torch.set_num_threads(1)
    found = {}
    d_loss, g_loss = pix2pix.discriminator_loss, pix2pix.generator_loss

    def watch_d(real, fake):
        loss = d_loss(real, fake)
        found["g"] = [p.grad is None for p in found["generator"].parameters()]
        return loss
    build = pix2pix.build_generator
    monkeypatch.setattr(pix2pix, "build_generator",
                        lambda s: found.setdefault("generator", build(s)))
    monkeypatch.setattr(pix2pix, "discriminator_loss", watch_d)
    adam, networks = train.adam, []
    monkeypatch.setattr(train, "adam", lambda n, s: networks.append(n) or adam(n, s))

    def watch_g(logits, *args):
        found["d"] = [p.requires_grad for p in networks[1].parameters()]
        return g_loss(logits, *args)
    monkeypatch.setattr(pix2pix, "generator_loss", watch_g)
    cut_after(monkeypatch, 1, tmp_path / "run", pairs)
    assert all(found["g"]) and not any(found["d"])


@pytest.mark.parametrize("args, words", [
    (["--batchs", "2"], "--batch"), (["--batch", "0"], "above 0"), (["--lr", "nan"], "above 0"),
    (["--epochs", "x"], "whole number"), (["--size", "100"], "nearest is"), (["--size", "3x4x5"], "height x width"),
    (["--device", "tpu"], "cpu"), (["--task", "facade"], "facades"), (["--data", "/no/such"], "no such folder"),
    (["--one-hot", "--task", "maps"], "not a label map")])
def test_bad_options_get_one_line_and_code_2(args, words, tmp_path):
    done = run_train("--out", str(tmp_path / "run"), *args, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and words in done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_another_networks_run_folder_is_refused_with_each_difference(straight_run, pairs):
    before = fingerprint(straight_run)
    done = run_train(*arguments(straight_run, "--data", pairs, "--width", 6, "--seed", 3))
    assert done.returncode == 2 and "--width 4 there, 6 now" in done.stderr and "--seed 0 there" in done.stderr
    assert fingerprint(straight_run) == before


def test_two_processes_cannot_train_in_one_folder(pairs, tmp_path):
    held = train.lock(tmp_path / "run")
    done = run_train(*arguments(tmp_path / "run", "--data", pairs))
    assert done.returncode == 2 and "another process" in done.stderr
    held.close()


def test_the_generator_alone_translates_pictures_and_folders(straight_run, tmp_path):
    (tmp_path / "in").mkdir()
    for name, size in (("a", (333, 517)), ("b", (64, 64))):
        data.save_picture(tmp_path / "in" / f"{name}.png", torch.randint(0, 256, (3, *size), dtype=torch.uint8))
    shutil.copy(straight_run / "generator.pt", tmp_path / "g.pt")

    def translate(*args):
        return subprocess.run([sys.executable, HERE / "pix2pix.py", *map(str, args)], capture_output=True,
                              text=True, timeout=60)
    assert translate(tmp_path / "g.pt", tmp_path / "in" / "a.png", tmp_path / "a.jpg").returncode == 0
    assert data.to_tensor(data.open_picture(tmp_path / "a.jpg")).shape == (3, 333, 517)
    assert translate(tmp_path / "g.pt", tmp_path / "in", tmp_path / "out").returncode == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "b.png"}
    bad = translate(tmp_path / "g.pt", tmp_path / "missing.png", tmp_path / "x.png")
    assert bad.returncode == 2 and bad.stderr.startswith("error: ")


DRIVER = """
import sys, torch
sys.path.insert(0, {here!r})
import pix2pix, train
build = pix2pix.build_generator
pix2pix.build_generator = lambda settings: build({{**settings, "dropout": 0}})   # its noise is per rank
ends = train.train_pix2pix
def watched(context, *pictures):
    run = ends(context, *pictures)
    torch.save([p.detach() for part in ("generator", "discriminator")
                for p in run.parts[part].parameters()], context.folder / f"rank{{context.rank}}.pt")
    return run
train.train_pix2pix = watched
{extra}
train.data.run_command(train.main)
"""
STOP_RANK_1 = """
import os, signal
finish = train.Run.finish_step
def finish_step(run, values):
    if run.step == 2 and run.rank == 1 and os.path.exists({marker!r}):
        os.remove({marker!r})
        run.stop(signal.SIGTERM, None)
    finish(run, values)
train.Run.finish_step = finish_step
"""


def train_in_processes(workers, out, pairs, tmp_path, extra=""):
    """train.py, dropout off, in one process or in several of torchrun's. -> its return code"""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(here=str(HERE), extra=extra))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    return subprocess.run([sys.executable, *(launch if workers > 1 else []), str(script),
                           *arguments(out, "--data", pairs)], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_two_processes_train_as_one_with_the_same_global_batch(pairs, tmp_path):
    for workers in (1, 2):
        done = train_in_processes(workers, tmp_path / str(workers), pairs, tmp_path)
        assert done.returncode == 0, done.stderr
    one, two, other = (torch.load(tmp_path / run / f"rank{rank}.pt")
                       for run, rank in (("1", 0), ("2", 0), ("2", 1)))
    assert max((a - b).abs().max() for a, b in zip(one, two)) <= 1e-6
    assert all(torch.equal(a, b) for a, b in zip(two, other))
    assert log_steps(tmp_path / "2") == log_steps(tmp_path / "1")            # one writer


def test_processes_stopped_together_go_on_exactly(pairs, tmp_path):
    """A stop after step 3, asked of one process only: both leave there, and continue as if uncut."""
    assert train_in_processes(2, tmp_path / "straight", pairs, tmp_path).returncode == 0
    marker = tmp_path / "stop"
    marker.touch()
    stop = STOP_RANK_1.format(marker=str(marker))
    assert train_in_processes(2, tmp_path / "cut", pairs, tmp_path, stop).returncode != 0
    assert pix2pix.load_file(tmp_path / "cut" / "checkpoint.pt")["step"] == 3
    assert train_in_processes(2, tmp_path / "cut", pairs, tmp_path, stop).returncode == 0
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "straight")


def damage(path, kind, random):
    """One flipped bit, or a cut, anywhere in a file."""
    content = bytearray(path.read_bytes())
    at = int(random.integers(len(content)))
    if kind == "flip":
        content[at] ^= 1 << int(random.integers(8))
    return bytes(content if kind == "flip" else content[:at])


def same(a, b):
    """Whether two checkpoints hold the same: the tensors by value, the rest by equality."""
    tensors = [list(train.tensors_of(c)) for c in (a, b)]
    return a["step"] == b["step"] and a["settings"] == b["settings"] and all(
        torch.equal(x, y) for x, y in zip(*tensors, strict=True))


def check_damage(run, folder, flips, cuts):
    random, whole = np.random.default_rng(0), pix2pix.load_file(run / "checkpoint.pt")
    for i in range(flips + cuts):
        (folder / "bad.pt").write_bytes(damage(run / "checkpoint.pt", "flip" if i < flips else "cut", random))
        try:
            assert same(pix2pix.load_file(folder / "bad.pt"), whole)     # a bit that nobody reads
        except pix2pix.Refusal as refusal:
            assert "damaged" in str(refusal) and "weights_only" not in str(refusal)


def test_damage_to_a_checkpoint_is_named(straight_run, tmp_path):
    check_damage(straight_run, tmp_path, flips=60, cuts=20)


@slow
def test_a_thousand_flipped_bits_and_400_cuts_are_named(straight_run, tmp_path):
    check_damage(straight_run, tmp_path, flips=1_000, cuts=400)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_never_runs_code(zipped, tmp_path):
    import pickle
    path, marker = tmp_path / "generator.pt", str(tmp_path / "marker")
    if zipped:
        torch.save({"format": 1, "settings": Evil(marker)}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(pix2pix.Refusal):
        pix2pix.load_generator(path)
    assert not Path(marker).exists()


def test_a_checkpoint_from_the_future_is_refused(straight_run, tmp_path):
    content = pix2pix.load_file(straight_run / "generator.pt")
    train.save_whole(tmp_path / "generator.pt", {**content, "format": 2})
    with pytest.raises(pix2pix.Refusal, match="format"):
        pix2pix.load_generator(tmp_path / "generator.pt")


SAVER = """
import sys, torch
sys.path.insert(0, {here!r})
import train
from pathlib import Path
path, step = Path({path!r}), {step}
while True:
    step += 1
    train.save_whole(path, {{"format": 1, "step": step, "w": [torch.full((500_000,), float(step))] * 4}})
    print(step, flush=True)
"""


def kill_while_saving(folder, kills):
    """kill -9 at random moments of endless saves: each time a whole file, never an older one."""
    random, path, step = np.random.default_rng(0), folder / "checkpoint.pt", 0
    for _ in range(kills):
        script = SAVER.format(here=str(HERE), path=str(path), step=step)
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(float(random.uniform(0, 0.2)))
            process.kill()
            printed = [int(line) for line in process.stdout.read().split()]
        content = pix2pix.load_file(path)
        assert content["step"] >= max([step + 1, *printed]) and content["w"][0][-1] == content["step"]
        step = content["step"]


def test_a_checkpoint_is_whole_or_absent(tmp_path):
    kill_while_saving(tmp_path, 3)


@slow
def test_a_checkpoint_is_whole_or_absent_after_200_kills(tmp_path):
    kill_while_saving(tmp_path, 200)


def test_a_full_disk_loses_nothing(pairs, tmp_path, monkeypatch):
    import resource
    torch.set_num_threads(1)
    out = tmp_path / "run"
    cut_after(monkeypatch, 4, out, pairs)
    before = (out / "checkpoint.pt").read_bytes()

    def limit():                                             # no file may grow beyond this
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2,) * 2)
    done = run_train(*arguments(out, "--data", pairs), preexec_fn=limit)
    assert done.returncode == 2 and "checkpoint.pt" in done.stderr and "MiB" in done.stderr
    assert (out / "checkpoint.pt").read_bytes() == before and not list(out.glob(".*.partial"))
    assert log_steps(out)                                    # whole rows only
    again = run_train(*arguments(out, "--data", pairs))
    assert again.returncode == 0


@slow
def test_a_run_cut_at_every_step_of_two_epochs_equals_an_uncut_one(straight_run, pairs, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    for step in range(1, 10):
        cut_after(monkeypatch, step, tmp_path / str(step), pairs)
        done = run_train(*arguments(tmp_path / str(step), "--data", pairs))      # a fresh process
        assert done.returncode == 0 and fingerprint(tmp_path / str(step)) == fingerprint(straight_run)


def test_label_maps_outside_their_classes_are_named_with_the_place(tmp_path):
    for folder in ("photos", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        Image.new("RGB", (80, 80)).save(tmp_path / "photos" / f"{i}.png")
        labels = Image.new("L", (80, 80), 3)
        labels.putpixel((5, 7), 12 if i == 2 else 1)
        labels.save(tmp_path / "labels" / f"{i}.png")
    done = run_train("--task", "cityscapes", "--data", str(tmp_path), "--size", "64", "--width", "4", "--epochs",
                     "1", "--out", str(tmp_path / "run"))
    assert done.returncode == 2 and "2.png: class 12 at x=5, y=7" in done.stderr


# files from outside

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def png(width, height, depth, colour_type, rows=b"", extra=b""):
    """A PNG made by hand, for what Pillow will not write."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(*extra) if extra else b"") +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def first_pixel(path, **options):
    return data.open_picture(path, **options).getpixel((0, 0))


def test_every_kind_of_picture_becomes_the_right_colour(tmp_path):
    grey16 = np.full((9, 9), 40_000, np.uint16)               # 40000 / 257 = 155.6
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    kinds = {"16.png": (Image.fromarray(grey16), {}, 156), "16.tif": (Image.fromarray(grey16), {}, 156),
             "cmyk.jpg": (Image.new("CMYK", (9, 9), (0, 0, 0, 55)), {"quality": 100}, 200),
             "la.png": (Image.new("LA", (9, 9), (0, 128)), {}, 127), "one.png": (Image.new("1", (9, 9), 1), {}, 255),
             "rgba.webp": (Image.new("RGBA", (9, 9), (9, 9, 9, 0)), {"lossless": True}, 255),
             "palette.png": (palette, {}, (200, 100, 50)), "clear.gif": (palette, {"transparency": 1}, 255),
             "clear.png": (Image.new("RGB", (9, 9), (5, 6, 7)), {"transparency": (5, 6, 7)}, 255)}
    for name, (image, options, expected) in kinds.items():
        image.save(tmp_path / name, **options)
        wanted = expected if isinstance(expected, tuple) else (expected,) * 3
        assert np.abs(np.subtract(first_pixel(tmp_path / name), wanted)).max() <= 1, name
    assert first_pixel(tmp_path / "16.png", channels=1) == 156


def test_a_phones_picture_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6                                            # stored lying: turn by 90 degrees to view
    PHOTO.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(data.open_picture(tmp_path / "a.png"), np.rot90(PHOTO, -1))


def bad_pictures(folder):
    for ending in ("jpg", "png"):
        PHOTO.save(folder / f"half.{ending}")
        whole = (folder / f"half.{ending}").read_bytes()
        (folder / f"half.{ending}").write_bytes(whole[:len(whole) // 2])
    PHOTO.save(folder / "moves.gif", save_all=True, append_images=[PHOTO.rotate(180)])
    PHOTO.convert("F").save(folder / "float.tif")
    text = b"a\0" + b"x" * 80_000_000
    files = {"empty.jpg": b"", "page.jpg": b"<!DOCTYPE html>", "big.png": png(10_000, 10_000, 8, 2),
             "huge.png": png(20_000, 20_000, 8, 2), "text.png": png(2, 2, 8, 2, b"\0" * 14, (b"tEXt", text)),
             "packed.png": png(2, 2, 8, 2, b"\0" * 14, (b"zTXt", b"a\0\0" + zlib.compress(text)))}
    for name, whole in files.items():
        (folder / name).write_bytes(whole)
    (folder / "folder.jpg").mkdir()
    return sorted(folder.iterdir()) + [folder / "missing.jpg"]


def test_bad_pictures_are_refused_by_name_in_one_line(tmp_path, recwarn):
    for path in bad_pictures(tmp_path):
        with pytest.raises(data.Refusal) as caught:
            data.open_picture(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not recwarn.list                                 # Pillow's warnings would be further lines


def mutate_pictures(folder, count):
    """Pictures with random bytes changed or cut off: read, or refused, and nothing else."""
    random, sources, refused = np.random.default_rng(1), [], 0
    for options in ({"format": "PNG"}, {"format": "JPEG"}, {"format": "JPEG", "progressive": True}):
        PHOTO.save(buffer := io.BytesIO(), **options)
        sources.append(buffer.getvalue())
    sources.append(png(2, 2, 2, 0, b"\0\x10" * 2))
    for i in range(count):
        content = np.frombuffer(sources[i % 4], np.uint8).copy()
        places = random.integers(0, min(len(content), 300 if i % 3 else len(content)), random.integers(1, 9))
        content[places] = random.integers(0, 256, len(places))
        (folder / "x.png").write_bytes(content[:len(content) if i % 5 else random.integers(len(content))].tobytes())
        for read in (data.open_picture, lambda path: data.open_label_map(path, 12)):
            try:
                read(folder / "x.png")
            except data.Refusal:
                refused += 1
    return refused


def test_mutated_pictures_raise_only_our_error(tmp_path):
    assert 30 < mutate_pictures(tmp_path, 60) < 120


@slow
def test_a_thousand_mutated_pictures_raise_only_our_error(tmp_path):
    assert 500 < mutate_pictures(tmp_path, 1000) < 2000


def test_a_label_map_keeps_its_numbers_whatever_the_mode(tmp_path):
    numbers = np.array([[0, 3], [11, 255]], np.uint8)
    for mode in ("L", "P"):
        image = Image.fromarray(numbers)
        if mode == "P":
            image.putpalette(list(range(255, -1, -1)) * 3)   # .convert("L") would give other numbers
        image.save(tmp_path / "a.png", bits=8)
        assert np.array_equal(data.open_label_map(tmp_path / "a.png", 12), numbers), mode
    (tmp_path / "a.png").write_bytes(png(2, 1, 4, 0, b"\0\x3b"))   # 4-bit grey, which Pillow spreads
    assert data.open_label_map(tmp_path / "a.png", 12).tolist() == [[3, 11]]
    Image.fromarray(numbers).save(tmp_path / "a.png")
    with pytest.raises(data.Refusal, match=r"a.png: class 11 at x=0, y=1"):
        data.open_label_map(tmp_path / "a.png", 11)
    PHOTO.save(tmp_path / "rgb.png")
    with pytest.raises(data.Refusal, match="colours"):
        data.open_label_map(tmp_path / "rgb.png", 12)


def test_only_pictures_are_listed_and_partners_are_named(tmp_path):
    a, b = tmp_path / "A", tmp_path / "B"
    for folder, names in ((a, "ab c é"), (b, "c é")):
        folder.mkdir()
        for name in names:
            PHOTO.save(folder / f"{name}{'.png' if folder == a else '.jpg'}")
    for name in (".DS_Store", "Thumbs.db", ".hidden.jpg"):
        (a / name).write_bytes(b"x")
    (a / "folder.jpg").mkdir()
    (a / "dangling.jpg").symlink_to(tmp_path / "nothing")
    assert [path.stem for path in data.list_pictures(a)] == [" ", "a", "b", "c", "é"]
    with pytest.raises(data.Refusal, match=r"B: 2 partners missing: a, b"):
        data.pair_names(a, b)
    (a / "a.png").unlink(), (a / "b.png").unlink()
    assert [(x.name, y.name) for x, y in data.pair_names(a, b)][1] == ("c.png", "c.jpg")
    PHOTO.save(a / "c.jpg")
    with pytest.raises(data.Refusal, match="share a name"):
        data.list_pictures(a)


def test_drawn_facades_come_from_their_numbers_alone_and_use_every_class():
    photo, labels = data.draw_facade(3, seed=1, size=128)
    again, other = data.draw_facade(3, seed=1, size=128), data.draw_facade(4, seed=1, size=128)
    assert photo.shape == (3, 128, 128) and labels.shape == (128, 128) and photo.dtype == torch.uint8
    assert torch.equal(photo, again[0]) and torch.equal(labels, again[1]) and not torch.equal(photo, other[0])
    shares = sum(torch.bincount(data.draw_facade(i, size=64)[1].flatten().long(), minlength=12)
                 for i in range(40)) / (40 * 64 * 64)
    real = torch.tensor([.236, .343, .127, .013, .029, .037, .046, .008, .018, .084, .008, .052])
    assert shares.min() > 0.002 and (shares - real).abs().max() < 0.05


def archive_of(*members, **options):
    """A .tar.gz of (name, type, bytes or link name)."""
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:gz", **options) as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            member.linkname = content if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(member, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
    return buffer.getvalue()


FILE, GOOD = tarfile.REGTYPE, archive_of(*[(f"set/train/{i}.jpg", tarfile.REGTYPE, bytes(5000)) for i in range(3)])
EVIL = {"up": [("set/../../evil", FILE, b"x")], "absolute": [("/tmp/evil-pix2pix", FILE, b"x")],
        "link": [("set/a", tarfile.SYMTYPE, "/tmp")], "hard link": [("set/a", tarfile.LNKTYPE, "/etc/passwd")],
        "device": [("set/a", tarfile.CHRTYPE, "")], "pipe": [("set/a", tarfile.FIFOTYPE, "")],
        "chain": [("a", tarfile.SYMTYPE, ".."), ("a/evil", FILE, b"x")], "twice": [("a", FILE, b"x")] * 2,
        "bomb": [("a", FILE, bytes(60_000_000))]}


@pytest.mark.parametrize("name", EVIL)
def test_an_evil_archive_leaves_nothing_outside_its_folder(tmp_path, name):
    (tmp_path / "evil.tar.gz").write_bytes(archive_of(*EVIL[name]))
    with pytest.raises(data.Refusal, match="evil.tar.gz"):
        data.extract(tmp_path / "evil.tar.gz", tmp_path / "inner" / "folder")
    outside = {path.name for path in tmp_path.rglob("*")} - {"evil.tar.gz", "inner", "folder"}
    assert outside <= {"a", "set"} and not list(tmp_path.rglob("evil"))


class Misbehaving(BaseHTTPRequestHandler):
    """A server that answers each path in its own wrong way, and /good rightly."""

    def do_GET(self):
        kind = self.path[1:].split(".")[0]
        moved = {"loop": "/loop", "file": "file:///etc/passwd", "ftp": "ftp://127.0.0.1/x", "moved": "/good"}
        body = {"page": b"<!DOCTYPE html>", "few": archive_of(("set/train/1.jpg", FILE, b"x")),
                "flipped": GOOD[:-8] + b"\0" + GOOD[-7:], "empty": b""}.get(kind, GOOD)
        self.send_response(302 if kind in moved else {"404": 404, "500": 500}.get(kind, 200))
        if kind in moved:
            self.send_header("Location", moved[kind])
        self.send_header("Content-Length", {"cut": len(body) + 9, "short": len(body) - 9, "negative": -1}.get(kind, len(body)))
        self.end_headers()
        if kind == "stalled":
            body = body[:9] + (time.sleep(1.5) or b"")
        for byte in (body[:60] if kind == "drip" else b""):
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("kind", "404 500 loop file ftp page few flipped empty cut short stalled drip".split())
def test_a_failed_download_leaves_nothing_and_the_next_repairs_it(tmp_path, server, monkeypatch, kind):
    monkeypatch.setattr(data, "TIMEOUT", 1)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(data.Refusal, match=r"; (remove|try)"):
        data.fetch(f"{server}/{kind}.tar.gz", tmp_path / "data" / "set", {"train": 3})
    assert list((tmp_path / "data").iterdir()) == []
    data.fetch(f"{server}/moved.tar.gz", tmp_path / "data" / "set", {"train": 3})
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["set"]


def test_a_download_is_checked_against_size_and_sha256(tmp_path, server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for wrong in ({"sha256": "0123"}, {"expected_size": 9}):
        with pytest.raises(data.Refusal):
            data.download(f"{server}/good", tmp_path / "a", **wrong)
    data.download(f"{server}/good", tmp_path / "a", expected_size=len(GOOD))
    assert (tmp_path / "a").read_bytes() == GOOD and len(list(tmp_path.iterdir())) == 1


# semgan.py

def clean_shapes_share(label_maps, size=64, side=10, radius=10, rectangle=(12, 24)):
    """How well label maps (N, 64, 64) keep the rules of the Coloured Shapes (SemGAN Sec. 5.0.1).

    Each map is compared with the legal map next to it: the three shapes, at the places that explain
    most of its pixels, painted as data.draw_shapes paints. Returns the shares "exact" (no pixel is
    wrong) and "clean" (one disc, one rectangle, one square, edges off by at most one pixel, at most 40
    of 4096 pixels wrong, none of them stray), and the mean count "wrong_pixels". Some of the square
    must show, or a generator without squares would pass: of the real maps 98.3% do.
    """
    label_maps = torch.as_tensor(np.asarray(label_maps)).long()
    masks = F.one_hot(label_maps, 4).permute(0, 3, 1, 2).float()               # (N, 4, 64, 64)
    grid = torch.arange(-radius, radius + 1)
    disc = (grid[:, None] ** 2 + grid ** 2 <= radius ** 2).float()
    shapes = ((1, disc, []), (3, torch.ones(side, side), [1]), (2, torch.ones(rectangle), [1, 3]))
    legal = torch.zeros_like(label_maps)
    for shape, stamp, covers in shapes:                    # from the top down
        # A place earns 1 for a pixel of its class, and less for one that what lies above may hide.
        score = masks[:, shape] + 0.1 * sum(masks[:, c] for c in covers)
        place = F.conv2d(score[:, None], stamp[None, None]).flatten(1).argmax(1)
        width = size - stamp.shape[1] + 1
        canvas = torch.zeros(len(legal), (size - stamp.shape[0] + 1) * width)
        canvas = canvas.scatter(1, place[:, None], 1.0).view(len(legal), 1, -1, width)
        painted = F.conv_transpose2d(canvas, stamp[None, None])[:, 0] > 0.5
        legal = torch.where(painted & (legal == 0), shape, legal)
    wrong = legal != label_maps
    near = F.one_hot(legal, 4).permute(0, 3, 1, 2).float()
    edge = (F.avg_pool2d(F.pad(near, (1, 1, 1, 1), mode="replicate"), 3, 1).amax(1) < 0.999)
    shown = (label_maps == 3).flatten(1).any(1)
    clean = shown & (wrong.flatten(1).sum(1) <= 40) & ~(wrong & ~edge).flatten(1).any(1)
    return {"exact": (shown & ~wrong.flatten(1).any(1)).float().mean().item(),
            "clean": clean.float().mean().item(),
            "wrong_pixels": wrong.flatten(1).sum(1).float().mean().item()}


SHAPES = data.TASKS["shapes"]["palette"]
FACADES = data.TASKS["facades"]["palette"]
SIZES = {"size": 64, "kernel": 5, "width": 4}
SETTINGS = {"model": "semgan", "task": "shapes", "data": None, "drawn": False, "size": [64, 64], "width": 4,
            "kernel": 5, "latent": 16, "head": "softmax", "out_channels": 4, "seed": 0, "batch": 4,
            "palette": [[n, list(c)] for n, c in SHAPES], "one_hot": False}


def small_networks():
    torch.manual_seed(0)
    return semgan.Generator(4, 16, **SIZES), semgan.Discriminator(4, **SIZES), torch.randn(6, 16)


@pytest.mark.parametrize("size, kernel", [(64, 5), (64, 11), (128, 7)])
def test_class_probs_are_probabilities_of_the_right_size(size, kernel):
    generator = semgan.Generator(5, latent=8, size=size, kernel=kernel, width=4)
    torch.nn.init.normal_(generator.to_classes.weight)     # far from uniform
    probs = generator(torch.randn(2, 8))
    assert probs.shape == (2, 5, size, size)
    assert probs.min() >= 0 and torch.allclose(probs.sum(1), torch.ones(2, size, size), atol=1e-5)
    assert set(semgan.to_label_map(probs).unique().tolist()) <= set(range(5))
    logit, features = semgan.Discriminator(5, size=size, kernel=kernel, width=4)(probs)
    assert logit.shape == (2, 1) and features[-1] is logit and features[-2].shape[-2:] == (4, 4)


def test_the_head_is_the_only_difference_to_the_rgb_gan():
    softmax, tanh = semgan.Generator(12, 16, **SIZES), semgan.Generator(3, 16, **SIZES, head="tanh")
    shapes = [{k: v.shape for k, v in g.state_dict().items()} for g in (softmax, tanh)]
    assert shapes[0].keys() == shapes[1].keys()
    differing = {k for k in shapes[0] if shapes[0][k] != shapes[1][k]}
    assert differing == {"to_classes.weight", "to_classes.bias"}
    image = tanh(torch.randn(2, 16))
    assert image.shape == (2, 3, 64, 64) and image.min() < 0 and image.abs().max() <= 1


def test_a_sample_depends_on_the_direction_of_its_latent_alone():
    generator, _, z = small_networks()
    alone = torch.cat([generator(z[i:i + 1]) for i in range(6)])
    assert torch.allclose(generator(z), alone, atol=1e-5)                 # not on its batch
    generator.dense.weight.data.mul_(50)                   # so that eps does not count
    assert torch.allclose(generator(z), generator(3 * z), atol=1e-3)
    assert torch.equal(generator.train()(z), generator.eval()(z)) and not list(generator.buffers())


def test_transposed_convolutions_equal_zeros_between_pixels_and_a_plain_convolution():
    """The layer as its definition has it, in float64: zeros inserted, then the flipped kernel."""
    generator, _, _ = small_networks()
    for layer in generator.double().grow:
        x = torch.randn(2, layer.in_channels, 5, 5, dtype=torch.float64)
        spread = torch.zeros(2, layer.in_channels, 10, 10, dtype=torch.float64)
        spread[:, :, ::2, ::2] = x
        plain = F.conv2d(spread, layer.weight.flip(2, 3).transpose(0, 1), padding=2)
        assert torch.allclose(layer(x), plain, atol=1e-10)
        assert torch.allclose(layer.float()(x.float()), plain.float(), atol=1e-5)


def test_semgan_losses_by_hand():
    zero = torch.zeros(4, 1)
    assert semgan.discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    real = [torch.tensor([[1.0, 2.0], [3.0, 4.0]])]                       # batch mean (2, 3)
    fake = [torch.tensor([[0.0, 0.0], [0.0, 2.0]])]                       # batch mean (0, 1)
    assert semgan.feature_matching_loss(real, fake).item() == 2           # (2 + 2) / 2
    assert semgan.feature_matching_loss(real * 3, fake * 3).item() == 6   # layers are summed


def test_feature_matching_reaches_g_and_leaves_d_and_the_real_features_alone():
    generator, discriminator, z = small_networks()
    real = torch.rand(6, 4, 64, 64, requires_grad=True)
    discriminator.requires_grad_(False)
    loss = semgan.feature_matching_loss(discriminator(real)[1], discriminator(generator(z))[1])
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())
    assert all(p.grad is None for p in discriminator.parameters()) and real.grad is None
    same = discriminator(generator(z))[1]
    assert semgan.feature_matching_loss(same, same).item() == 0


def test_label_maps_survive_the_round_trips():
    for palette in (SHAPES, FACADES):
        label_map = torch.randint(0, len(palette), (2, 64, 64))
        image = semgan.colorize(label_map, palette)
        assert image.shape == (2, 3, 64, 64) and image.dtype == torch.uint8
        assert torch.equal(semgan.nearest_class(image, palette), label_map)
        assert torch.equal(semgan.to_label_map(semgan.one_hot(label_map, len(palette))), label_map)
        assert semgan.out_of_palette(image, palette) == 0
        assert (data.clean_label_map(image[0].permute(1, 2, 0).numpy(), palette)
                == label_map[0].numpy()).all()             # nothing is smeared: nothing changes
    image[:, :, :16] = 7                                   # a quarter in a colour of no class
    assert semgan.out_of_palette(image, palette) == 0.25
    assert semgan.one_hot(torch.full((1, 2, 2), 255), 4).sum() == 0


def test_the_2916_shapes_are_distinct_and_each_square_is_where_its_number_says():
    maps = data.draw_shapes()
    assert maps.shape == (2916, 64, 64) and maps.dtype == np.uint8 and maps.max() == 3
    assert len({m.tobytes() for m in maps}) == 2916 and (maps == data.draw_shapes()).all()
    assert maps[::97].astype(int).sum() == 33_593           # the same on every machine
    for i, m in enumerate(maps):
        row, column = divmod(i, 54)
        square, disc = m[row:row + 10, column:column + 10], (m == 1).sum()
        assert np.isin(square, (1, 3)).all() and (m == 3).sum() == (square == 3).sum()
        assert disc == 317 and 0 < (m == 2).sum() <= 12 * 24              # pixels within radius 10


def test_the_count_of_clean_shapes_sees_what_is_wrong():
    maps = data.draw_shapes()[1000:1040]
    maps = maps[(maps == 3).any((1, 2))]
    assert clean_shapes_share(maps) == {"exact": 1, "clean": 1, "wrong_pixels": 0}
    stray = maps.copy()
    stray[:, 0, 0] = (stray[:, 0, 0] + 1) % 4              # one pixel
    assert clean_shapes_share(stray)["exact"] == 0 and clean_shapes_share(stray)["wrong_pixels"] == 1
    for gone in (1, 2, 3):
        assert clean_shapes_share(np.where(maps == gone, 0, maps))["clean"] < 0.1
    assert clean_shapes_share(np.maximum(maps, np.roll(maps, 24, 1)))["clean"] < 0.1       # too many


def test_a_walk_starts_at_each_latent_and_keeps_its_length():
    z = F.normalize(torch.randn(3, 100), dim=1) * 10
    path = semgan.walk(z, frames=8)
    assert path.shape == (24, 100) and torch.allclose(path[::8], z, atol=1e-4)
    assert torch.allclose(path.norm(dim=1), torch.full((24,), 10.0), atol=1e-3)


def test_the_encoder_learns_the_latents_of_generated_maps():
    generator, _, _ = small_networks()
    torch.nn.init.normal_(generator.to_classes.weight, 0, 0.2)            # maps with some content
    encoder = semgan.Encoder(4, 16, **SIZES)
    optimizer = torch.optim.Adam(encoder.parameters(), 2e-3, betas=(0.5, 0.999))
    maps = semgan.one_hot(semgan.to_label_map(generator.requires_grad_(False)(torch.randn(16, 16))), 4)
    losses = []
    for step in range(60):
        losses.append(semgan.encoder_loss(encoder, generator, maps))
        optimizer.zero_grad()
        sum(losses[-1]).backward()
        optimizer.step()
    first, last = ([float(x) for x in pair] for pair in (losses[0], losses[-1]))
    assert last[0] < 0.9 * first[0] and last[1] < first[1]


def test_semgan_files_load_and_the_command_draws_and_refuses(tmp_path):
    generator = semgan.build_generator(SETTINGS)
    torch.save({"format": 1, "settings": SETTINGS, "generator": generator.state_dict()},
               tmp_path / "generator.pt")
    loaded, settings = semgan.load_generator(tmp_path)
    z = torch.randn(2, 16)
    assert torch.equal(loaded(z), generator(z)) and settings == SETTINGS

    def command(*options):
        return subprocess.run([sys.executable, Path(semgan.__file__), *map(str, options)],
                              capture_output=True, text=True, timeout=120)
    assert "parameters" in command().stdout
    done = command(tmp_path, "--count", 4, "--out", tmp_path / "grid.png")
    assert done.returncode == 0 and data.open_picture(tmp_path / "grid.png"), done.stderr
    assert command(tmp_path, "--walk", tmp_path / "walk.gif").returncode == 0
    assert command(tmp_path, "--train-encoder", 2).returncode == 0
    done = command(tmp_path, "--encode", tmp_path / "grid.png", "--out", tmp_path / "both.png")
    assert done.returncode == 0 and "constant guess" in done.stdout, done.stderr
    (tmp_path / "generator.pt").write_bytes(b"not a checkpoint")
    bad = command(tmp_path)
    assert bad.returncode == 2 and bad.stderr.startswith("error: ") and "Traceback" not in bad.stderr


# the paint tool

def tiny_run(folder, task="facades"):
    """A run's folder with random weights at 128x128, as train.py would write it."""
    row = data.look_up(task)
    settings = {"model": "pix2pix", "task": task, "data": None, "drawn": True, "size": [128, 128],
                "width": 8, "depth": 7, "generator": "unet", "norm": "instance", "upsample": "deconv",
                "one_hot": False, "in_channels": 3, "out_channels": 3,
                "palette": row["palette"] and [[name, list(rgb)] for name, rgb in row["palette"]]}
    torch.manual_seed(0)
    folder.mkdir()
    torch.save({"format": 1, "settings": settings,
                "generator": pix2pix.build_generator(settings).state_dict()}, folder / "generator.pt")
    return folder


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """A paint server in a thread, with a deadline of 2 s and a dreamer of coloured squares."""
    folder = tmp_path_factory.mktemp("runs")
    studio = paint.Studio([tiny_run(folder / "facades"), tiny_run(folder / "shoes", "edges2shoes")])
    studio.dreamer = lambda z: z.view(1, 12, 4, 4).repeat_interleave(32, 2).repeat_interleave(32, 3)
    studio.dream_settings = {"latent": 192, "head": "softmax", "palette": data.FACADES}
    paint.DEADLINE, before = 2, paint.DEADLINE
    server = paint.open_server(studio, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
    paint.DEADLINE = before


def raw(server, content):
    """Sends bytes as they are; returns the whole reply, which ends when the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(content)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def png_of(colour=(0, 48, 255), size=(128, 128), mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def translated(server, body=None, **fields):
    """(status, text) for one picture sent to be translated."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    png = base64.b64encode(png_of() if body is None else body).decode()
    connection.request("POST", "/translate", json.dumps({"run": "facades", "png": png, **fields}),
                       {"Content-Type": "application/json"})
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def test_the_paint_server_answers_strangers_in_a_sentence_and_goes_on(painter):
    host = f"Host: 127.0.0.1:{painter.server_port}\r\n"
    post = f"POST /study HTTP/1.1\r\n{host}Content-Type: application/json\r\n"
    strange = [
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403), ("GET / HTTP/1.1\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\nHost: localhost:1\r\n\r\n", 403), (f"GET / HTTP/1.1\r\n{host}{host}\r\n", 403),
        (f"{post}Origin: http://evil.example\r\nContent-Length: 2\r\n\r\n" + "{}", 403),
        (f"{post}Origin: null\r\nContent-Length: 2\r\n\r\n" + "{}", 403),
        (f"{post.replace('application/json', 'text/plain')}Content-Length: 2\r\n\r\n" + "{}", 415),
        (f"{post}\r\n", 411), (f"{post}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (f"{post}Content-Length: -1\r\n\r\n", 400), (f"{post}Content-Length: ten\r\n\r\n", 400),
        (f"{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (f"{post}Content-Length: {10 ** 8}\r\n\r\n", 413), (f"{post}Content-Length: {'9' * 5000}\r\n\r\n", 413),
        *((f"{post}Content-Length: {len(body)}\r\n\r\n{body}", 400) for body in (
            "[]", "[" * 4000, "{", '{"run": "../facades"}', '{"run": ["facades"]}',
            '{"run": "facades", "seed": 1e999}', '{"run": "facades", "session": "stolen"}')),
        (f"{post}Content-Length: 900\r\n\r\nshort", 400),
        *((f"GET {path} HTTP/1.1\r\n{host}\r\n", 404) for path in (
            "/../paint.py", "/%2e%2e/paint.py", "//", "//paint.html", "/\0", "/paint.html", "/translate",
            "http://127.0.0.1/", "/study/", "/?x")),
        *((f"{method} / HTTP/1.1\r\n{host}\r\n", 501) for method in ("PUT", "HEAD", "OPTIONS", "BREW")),
        ("GET /" + "a" * 65532, 414), ("\x16\x03\x01\x02\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n" + "X: y\r\n" * 101, 431)]
    for content, status in strange:
        reply = raw(painter, content.encode("latin-1"))
        assert reply.startswith(f"HTTP/1.0 {status} ".encode()), (content[:90], reply[:90])
        assert b"Traceback" not in reply and b"nosniff" in reply and b"frame-ancestors 'none'" in reply
        assert raw(painter, f"GET / HTTP/1.1\r\n{host}\r\n".encode()).startswith(b"HTTP/1.0 200")
    assert translated(painter)[0] == 200


def test_the_paint_server_takes_only_whole_pictures_of_the_right_kind(painter):
    good, bomb = png_of(), bytearray(png_of())
    bomb[16:24] = b"\0\0\x4e\x20" * 2                      # a header that says 20000x20000
    for body in (b"", b"GIF89a", good[:60], good[:-30], bytes(bomb), png_of(size=(64, 64)),
                 png_of((0, 48, 255, 9), mode="RGBA"), png_of(9, mode="L"), png_of((1, 2, 3))):
        status, sentence = translated(painter, body)
        assert status == 400 and len(sentence) < 120 and sentence.count("\n") == 0, sentence
    assert translated(painter, run="nobody")[0] == translated(painter, seed="x")[0] == 400
    photo = base64.b64decode(json.loads(translated(painter)[1])["png"])
    assert Image.open(io.BytesIO(photo)).size == (128, 128)


def test_nobody_can_keep_the_paint_server_waiting(painter):
    idle = [socket.create_connection(("127.0.0.1", painter.server_port)) for _ in range(100)]
    start = time.monotonic()
    assert translated(painter)[0] == 200 and time.monotonic() - start < 1.9   # before the deadline
    with socket.create_connection(("127.0.0.1", painter.server_port), timeout=0.2) as drip:
        start = time.monotonic()
        while time.monotonic() - start < 20:               # a byte each 0.2 s, for ever
            try:
                drip.send(b"G")
                assert drip.recv(9) != b""
            except TimeoutError:
                continue
            except (ConnectionError, AssertionError):
                break
        assert time.monotonic() - start < 10
    assert idle[0].recv(9) == b"" and idle[99].recv(9) == b""
    [connection.close() for connection in idle]


def test_two_paint_requests_at_once_are_both_right(painter):
    pictures, replies = [png_of(colour) for _, colour in data.FACADES[:6]], {}
    alone = [translated(painter, picture) for picture in pictures]
    threads = [threading.Thread(target=lambda i=i: replies.update({i: translated(painter, pictures[i])}))
               for i in range(6)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert [replies[i] for i in range(6)] == alone and len({*alone}) == 6


def test_the_paint_page_can_run_nothing_but_its_own_script(painter):
    request = f"GET / HTTP/1.1\r\nHost: localhost:{painter.server_port}\r\n\r\n".encode()
    (head, page), (_, other) = (raw(painter, request).decode().split("\r\n\r\n", 1) for _ in range(2))
    nonce = head.split("'nonce-")[1].split("'")[0]
    assert page.count(f'nonce="{nonce}"') == 2 and nonce not in other and "{NONCE}" not in page
    assert "default-src 'none'" in head and "no-store" in head and "Access-Control" not in head
    assert "://" not in page, "nothing is loaded from outside"


def test_a_taken_port_is_named_and_ctrl_c_frees_it(tmp_path, painter):
    def start(port):
        return subprocess.Popen([sys.executable, HERE / "paint.py", tiny_run(tmp_path / str(port)),
                                 "--no-browser", "--port", str(port)], cwd=HERE, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    taken, free = start(painter.server_port), socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    server = start(port)
    error = taken.communicate(timeout=60)[1]
    assert taken.returncode == 2 and error.count("\n") == 1 and "try --port" in error
    assert f"http://127.0.0.1:{port}/" in server.stdout.readline()
    server.send_signal(signal.SIGINT)
    assert server.wait(10) == 130 and "Traceback" not in server.stderr.read()
    socket.create_server(("127.0.0.1", port)).close()


# files that copy out


@pytest.mark.parametrize("name", ["pix2pix", "semgan", "metrics", "data"])
def test_each_file_copies_out_alone(name, tmp_path):
    shutil.copy(HERE / f"{name}.py", tmp_path)
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stderr
    assert {p.name for p in tmp_path.iterdir()} <= {f"{name}.py", "__pycache__"}


# The benchmark: python test_all.py benchmark [quick]


def textbook_step(size, width):
    """The textbook training step: nn layers, default Adam, default layout, pairs decoded per step."""
    g, d = TextbookUNet(width, min(8, size.bit_length() - 1)), textbook_patchgan(width)
    adams = [torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999)) for n in (g, d)]
    bce = F.binary_cross_entropy_with_logits

    def step(x, y):
        fake = g(x)
        real_logits, fake_logits = d(torch.cat([x, y], 1)), d(torch.cat([x, fake.detach()], 1))
        loss = (bce(real_logits, torch.ones_like(real_logits)) +
                bce(fake_logits, torch.zeros_like(fake_logits))) / 2
        adams[1].zero_grad()
        loss.backward()
        adams[1].step()
        fake_logits = d(torch.cat([x, fake], 1))
        loss = bce(fake_logits, torch.ones_like(fake_logits)) + 100 * F.l1_loss(fake, y)
        adams[0].zero_grad()
        loss.backward()
        adams[0].step()
    return step


def our_step(size, width):
    """train.py's step, without its log and files; tests above show that the loop does the same."""
    settings = {"lr": 2e-4}
    g, d = pix2pix.UNet(width=width, depth=min(8, size.bit_length() - 1)), pix2pix.PatchGAN(width=width)
    adams = [train.adam(n, settings) for n in (g, d)]

    def step(x, y):
        fake = g(x)
        loss = pix2pix.discriminator_loss(d(x, y), d(x, fake.detach()))
        adams[1].zero_grad()
        loss.backward()
        adams[1].step()
        d.requires_grad_(False)
        loss = pix2pix.generator_loss(d(x, fake), fake, y)[0]
        adams[0].zero_grad()
        loss.backward()
        adams[0].step()
        d.requires_grad_(True)
    return step


def decoded_each_step(path, size, batch):
    """The usual loader's work: open, resize, crop, scale, for each picture of each step."""
    pairs = []
    for _ in range(batch):
        with data.Image.open(path) as image:
            image = image.convert("RGB")
        big = size * 286 // 256
        halves = [image.crop(box).resize((big, big), data.Image.Resampling.BICUBIC)
                  for box in ((0, 0, 256, 256), (256, 0, 512, 256))]
        pairs.append(torch.stack([data.to_tensor(h)[:, 3:3 + size, 5:5 + size].float() / 127.5 - 1
                                  for h in halves]))
    return torch.stack(pairs).transpose(0, 1)


def timed(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def interleaved(rivals, n):
    """{name: [seconds, ...]} of n runs each, in turn, after one that does not count."""
    times = {name: [] for name in rivals}
    for i in range(n + 1):
        for name, function in rivals.items():
            seconds = timed(function)
            if i:
                times[name].append(seconds)
    return times


def spread(values):
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:8.4f} s ({low:.4f}-{high:.4f})"


def benchmark(quick):
    """Prints seconds a step, ours against the textbook's, in turn in one process; medians and quartiles."""
    from torch.utils.flop_counter import FlopCounterMode
    import resource
    import tempfile
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    a = torch.randn(2048, 2048)
    rate = 2 * 2048 ** 3 / min(timed(torch.mm, a, a) for _ in range(10))
    print(f"matrix product: {rate / 1e9:.0f} GFLOP/s, the floor below; spread: quartiles")
    folder = Path(tempfile.mkdtemp())
    pair = data.draw_pair(0, [256, 256], "pairs")
    data.save_picture(folder / "pair.jpg", torch.cat([pair[3:], pair[:3]], 2))
    print("\ntraining step       n     this code, s a step         textbook, s a step          faster  "
          "pictures/s  floor")
    sizes = [(128, 32, 1), (128, 32, 4), (256, 64, 1), (256, 64, 4)]
    sizes += [] if quick else [(64, 32, 4), (128, 32, 2), (128, 32, 8), (512, 64, 1)]
    for size, width, batch in sizes:
        ours, theirs = our_step(size, width), textbook_step(size, width)
        kept = torch.stack([data.resize(pair, [size * 286 // 256] * 2)] * batch)

        def our_run():
            uint8 = data.augment(kept, [size, size], True, torch.Generator().manual_seed(0))
            ours(*data.to_network({"task": "facades", "one_hot": False}, uint8))
        with FlopCounterMode(display=False) as counter:
            our_run()
        n = (6 if quick else 20) if size * batch <= 512 else (3 if quick else 8)
        times = interleaved({"ours": our_run, "theirs": lambda: theirs(
            *decoded_each_step(folder / "pair.jpg", size, batch))}, n)
        ratio = np.median(np.divide(times["theirs"], times["ours"]))
        middle = np.median(times["ours"])
        print(f"{size}/{width}/{batch:<10} {n:4}  {spread(times['ours'])}  {spread(times['theirs'])}  "
              f"{ratio:5.2f}x  {batch / middle:8.2f}  {counter.get_total_flops() / rate / middle:6.0%}")
    print("\ntranslating         n     this code                   textbook, training mode     faster")
    for size in (256, 512):
        g, plain, x = pix2pix.UNet(), TextbookUNet(), torch.randn(1, 3, size, size)
        times = interleaved({"ours": lambda: pix2pix.generate(g, x), "theirs": lambda: plain(x)},
                            5 if quick else 20)
        print(f"{size}/64           {len(times['ours']):4}  {spread(times['ours'])}  "
              f"{spread(times['theirs'])}  {np.median(np.divide(times['theirs'], times['ours'])):5.2f}x")
    times = interleaved({"decode": lambda: decoded_each_step(folder / "pair.jpg", 256, 1),
                         "kept": lambda: data.augment(kept[:1], [size, size] if size < 256 else [256, 256],
                                                      True, torch.Generator())}, 10)
    print(f"\na 256x256 pair: decoded and resized {spread(times['decode'])}, cropped from memory {spread(times['kept'])}")
    make_pairs(folder / "pairs", 12, 256)
    starts = []
    for i in range(3):
        command = [sys.executable, HERE / "train.py", "--data", str(folder / "pairs"), "--size", "128", "--out",
                   str(folder / f"run{i}"), "--epochs", "1", "--preset", "laptop"]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while not (line := process.stdout.readline()).startswith("first step") and line:
                pass
            starts.append(time.perf_counter() - start)
            process.communicate()
    print(f"process start to the end of the first laptop step: {spread(starts)}, n {len(starts)}")
    print(f"peak memory of all the above: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20:.2f} GiB")
    shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] != ["benchmark"]:
        sys.exit("usage: python test_all.py benchmark [quick]; the tests: pytest test_all.py")
    benchmark(quick=sys.argv[2:] == ["quick"])
