"""How do I know? Each test is a claim of this project; each fails if its claim is false.

    pytest test_all.py                   everything quick, a few minutes on two cores
    pytest test_all.py -m slow           the long ones: kills, bit flips, resuming at every step
    python test_all.py benchmark         speed, against the textbook training step defined below

FACADES=DIR and CAMVID=DIR name folders of real pictures; without them those tests are skipped.
"""
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import data
import pix2pix
import train

HERE = Path(__file__).parent
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


# files that copy out


@pytest.mark.parametrize("name", ["pix2pix", "semgan", "metrics", "data"])
def test_each_file_copies_out_alone(name, tmp_path):
    shutil.copy(HERE / f"{name}.py", tmp_path)
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stderr
    assert {p.name for p in tmp_path.iterdir()} <= {f"{name}.py", "__pycache__"}
