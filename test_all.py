"""How do I know? Each test is a claim of this project; each fails if its claim is false.

    pytest test_all.py -m claims         what to believe, a claim a test, in less than a minute
    pytest test_all.py                   everything quick, a few minutes on two cores
    pytest test_all.py -m slow           the long ones: kills, bit flips, resuming at every step
    python test_all.py benchmark [quick] speed, against the textbook training step defined below

FACADES=DIR and CAMVID=DIR name folders of real pictures; without them their tests are skipped.
"""
import base64
import copy
import csv
import functools
import hashlib
import http.client
import errno
import io
import json
import os
import pickle
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.signal
import scipy.stats
import skimage.metrics
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

import data
import metrics
import paint
import pix2pix
import semgan
import train

HERE = Path(__file__).parent
LOG2 = pytest.approx(np.log(2))
SHAPES, FACADES = data.TASKS["shapes"].palette, data.TASKS["facades"].palette

signal.signal(signal.SIGINT, signal.default_int_handler)     # a script's `&` leaves it ignored

@pytest.fixture(autouse=True)
def alike():
    """Each test alone is as in the whole file: one thread, one seed."""
    torch.manual_seed(0)
    torch.set_num_threads(1)

def noise_picture(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)

# The claims: what to believe of pix2pix, of SemGAN and of this code. Each test is one of them, and
# fails if it is false. What they call (settings_for, run_here, cut_after ...) stands further below.

def random_pictures(count, size=64, channels=3):
    """(count, channels, size, size), float in [-1, 1], as networks see pictures."""
    return torch.rand(count, channels, size, size) * 2 - 1

# How does one picture become another? pix2pix.py

@pytest.mark.parametrize("options, published", [
    ({}, 54_413_955), ({"depth": 7}, 41_828_995), ({"skips": False}, 39_075_459)])
def test_the_unet_has_the_published_number_of_parameters(options, published):
    with torch.device("meta"):  # shapes without values
        generator = pix2pix.UNet(**options)
    # The usual count lacks the biases of the first convolution and of the bottleneck: see UNet.
    biases = 64 + 512
    assert pix2pix.parameters(generator) == published + biases

@pytest.mark.parametrize("field, published", [
    (1, 9_024), (16, 139_585), (34, 666_433),
    (70, 2_768_705), (142, 6_964_033), (286, 11_159_361)])
def test_a_discriminator_has_the_published_number_of_parameters(field, published):
    with torch.device("meta"):
        discriminator = pix2pix.PatchGAN(receptive_field=field)
    assert pix2pix.parameters(discriminator) == published

@pytest.mark.parametrize("field, side", [
    (1, 256), (16, 126), (34, 62), (70, 30), (142, 14), (286, 6)])
def test_patchgans_give_a_map_of_logits_for_256_pixels(field, side):
    with torch.device("meta"):
        discriminator = pix2pix.PatchGAN(receptive_field=field)
        x = torch.zeros(1, 3, 256, 256)
        assert discriminator(x, x).shape == (1, 1, side, side)

@pytest.mark.parametrize("field", [1, 16, 34, 70, 142, 286])
def test_a_logit_sees_just_its_patch_by_formula_and_by_gradient(field):
    discriminator = pix2pix.PatchGAN(3, width=4, receptive_field=field)
    assert pix2pix.receptive_field(discriminator) == field
    # Norms are taken out: they couple all pixels of a picture.
    kept = [layer for layer in discriminator.layers if not isinstance(layer, pix2pix.Norm)]
    y = random_pictures(1, 512).requires_grad_()
    logits = nn.Sequential(*kept)(y)
    middle = logits.shape[2] // 2
    logits[0, 0, middle, middle].backward()
    rows = y.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == field

def test_the_unet_halves_256_pixels_eight_times():
    shapes = []  # channels, side
    with torch.device("meta"):
        generator = pix2pix.UNet()
        for layer in generator.encoder:
            layer.register_forward_hook(lambda _, x, out: shapes.append(out.shape[1:3]))
        generator(torch.zeros(1, 3, 256, 256))
    assert shapes[:4] == [(64, 128), (128, 64), (256, 32), (512, 16)]
    assert shapes[4:] == [(512, 8), (512, 4), (512, 2), (512, 1)]

def test_a_generated_picture_stays_between_minus_1_and_1():
    generator = pix2pix.UNet(in_channels=1, out_channels=2, width=4, depth=6)
    nn.init.normal_(generator.to_image.weight)  # so large that it would leave the range
    fake = generator(random_pictures(2, 128, channels=1))
    assert fake.shape == (2, 2, 128, 128)
    assert 0.9 < fake.abs().max() <= 1

@pytest.mark.parametrize("skips", [True, False])
def test_skips_carry_what_the_bottleneck_does_not_let_through(skips):
    generator = pix2pix.UNet(width=8, depth=6, skips=skips, dropout=0)
    nn.init.zeros_(generator.encoder[-1].weight)  # nothing passes the bottleneck
    one, other = generator(random_pictures(2))
    assert torch.equal(one, other) != skips

def test_the_bottleneck_keeps_what_tells_two_pictures_apart():
    """Over a single pixel a norm would give its bias for each picture, so there is none."""
    generator = pix2pix.UNet(width=8, depth=6)
    found = []
    decode = generator.decoder[0]
    decode.register_forward_pre_hook(lambda _, args: found.append(args[0].clone()))
    generator(random_pictures(2))
    one, other = found[0]
    assert one.shape == (64, 1, 1)
    assert (one - other).abs().max() > 1e-3

def test_the_noise_is_dropout_on_at_test_time_too():
    generator = pix2pix.UNet(width=8, depth=6).eval()
    x = random_pictures(1)
    assert not torch.equal(generator(x), generator(x))  # Sec. 3.1
    generator.dropout = 0
    assert torch.equal(generator(x), generator(x))

def test_a_seed_fixes_the_noise_and_leaves_torchs_alone():
    generator = pix2pix.UNet(width=8, depth=6)
    picture = noise_picture(3, 64, 64)
    before = torch.get_rng_state()
    one = pix2pix.translate(generator, picture, seed=1)
    assert torch.equal(one, pix2pix.translate(generator, picture, seed=1))
    assert not torch.equal(one, pix2pix.translate(generator, picture, seed=2))
    assert torch.equal(before, torch.get_rng_state())

def test_what_becomes_of_a_picture_does_not_depend_on_its_batch():
    generator = pix2pix.UNet(width=8, depth=6, dropout=0)
    x = random_pictures(3)
    alone = torch.cat([generator(picture[None]) for picture in x])
    assert torch.allclose(generator(x), alone, atol=1e-5)

def test_train_and_eval_mode_give_the_same_picture():
    generator = pix2pix.UNet(width=8, depth=6, dropout=0)
    x = random_pictures(2)
    assert torch.equal(generator.train()(x), generator.eval()(x))
    assert not list(generator.buffers())  # no running statistics

def test_a_norm_gives_each_channel_of_each_picture_mean_0_and_spread_1():
    x = random_pictures(4) * torch.tensor([1.0, 7.0, 30.0]).view(3, 1, 1) + 10
    y = pix2pix.Norm(3)(x)
    assert torch.allclose(y.mean(dim=(2, 3)), torch.zeros(4, 3), atol=1e-4)
    assert torch.allclose(y.std(dim=(2, 3)), torch.ones(4, 3), atol=1e-2)

@pytest.mark.parametrize("plain, count", [
    (pix2pix.UNet(width=8, depth=6, dropout=0), 6 + 4 + 5 + 6),
    (pix2pix.PatchGAN(3, width=8), 1 + 3 + 1)])
def test_the_faster_layers_give_what_the_plain_ones_give(plain, count):
    fast = pix2pix.faster(copy.deepcopy(plain))
    pairs = zip(plain.modules(), fast.modules())
    changed = [type(new) for old, new in pairs if type(old) is not type(new)]
    assert len(changed) == count
    x = random_pictures(2)
    assert torch.allclose(fast(x), plain(x), atol=1e-5)

@pytest.mark.parametrize("network", [
    pix2pix.UNet, pix2pix.PatchGAN, semgan.Generator, semgan.Discriminator])
def test_weights_start_from_the_papers_distribution(network):
    named = dict(network(3, width=32).named_parameters())
    weights = torch.cat([p.detach().flatten() for p in named.values() if p.dim() > 1])
    assert weights.mean().abs() < 2e-4
    assert weights.std() == pytest.approx(0.02, rel=0.01)
    for name, parameter in named.items():
        if parameter.dim() == 1:  # a bias, or a norm's weight
            start = 0 if name.endswith("bias") else 1
            assert (parameter - start).abs().max() <= 0.1 * start, name

@pytest.mark.parametrize("h, w", [(1, 1), (333, 517), (64, 64), (65, 200)])
def test_any_picture_is_translated_to_its_own_size(h, w):
    generator = pix2pix.UNet(width=2, depth=6)
    out = pix2pix.translate(generator, noise_picture(3, h, w))
    assert out.shape == (3, h, w)
    assert out.dtype == torch.uint8

def test_tiles_join_without_seams():
    """A stand-in network without statistics or borders: tiled and whole must then be the same."""
    class Pointwise(nn.Tanh):
        depth = 3
    x = torch.randn(1, 3, 200, 333)
    tiled = pix2pix.generate(Pointwise(), x, tile=64)
    assert torch.allclose(tiled, torch.tanh(x), atol=1e-5)

# What do the losses ask for?

def test_ds_loss_is_the_hand_worked_log_2_while_it_knows_nothing():
    zeros = torch.zeros(2, 1, 30, 30)
    assert pix2pix.discriminator_loss(zeros, zeros).item() == LOG2  # (log 2 + log 2) / 2
    assert semgan.discriminator_loss(zeros, zeros).item() / 2 == LOG2  # a sum

def test_ds_loss_is_the_hand_worked_number_where_it_is_sure_and_right():
    sure = torch.full((1, 1, 2, 2), 3.0)
    loss = np.log(1 + np.exp(-3))  # -log sigmoid(3)
    assert pix2pix.discriminator_loss(sure, -sure).item() == pytest.approx(loss)
    assert pix2pix.discriminator_loss(-sure, sure).item() == pytest.approx(loss + 3)

def test_logits_of_spread_s_give_the_hand_worked_log_2_and_s_squared_over_8():
    s = 0.3
    real = s * torch.randn(1_000_000)
    fake = s * torch.randn(1_000_000)
    loss = pix2pix.discriminator_loss(real, fake).item()
    assert loss - np.log(2) == pytest.approx(s ** 2 / 8, rel=0.05)

def test_gs_loss_is_the_hand_worked_log_2_and_100_times_l1():
    fake = torch.full((2, 3, 8, 8), 0.5)
    logits = torch.zeros(2, 1, 30, 30)
    loss, adversarial, l1 = pix2pix.generator_loss(logits, fake, -fake)
    assert l1.item() == 1
    assert adversarial.item() == LOG2
    assert loss.item() == pytest.approx(100 + np.log(2))  # Eq. 4, lambda = 100

def test_either_part_of_gs_loss_can_be_left_out():
    fake = torch.full((2, 3, 8, 8), 0.5)
    logits = torch.zeros(2, 1, 30, 30)
    l1_alone = pix2pix.generator_loss(None, fake, -fake, l1_weight=2.0)[0]
    gan_alone = pix2pix.generator_loss(logits, fake, -fake, l1_weight=0.0)[0]
    assert l1_alone.item() == 2
    assert gan_alone.item() == LOG2

def test_g_still_learns_where_d_is_sure_that_it_fakes():
    logits = torch.full((1,), -10.0, requires_grad=True)
    same = torch.zeros(1, 3, 8, 8)
    pix2pix.generator_loss(logits, same, same)[0].backward()
    # Minimising log(1 - D), as Eq. 1 has it, would leave a gradient of -0.00005.
    assert logits.grad.item() == pytest.approx(-1, abs=1e-3)

def test_feature_matching_is_the_hand_worked_number():
    real = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # batch mean (2, 3)
    fake = torch.tensor([[3.0, 0.0], [-3.0, 2.0]])  # batch mean (0, 1)
    one_layer = semgan.feature_matching_loss([real], [fake])
    three_layers = semgan.feature_matching_loss([real] * 3, [fake] * 3)
    assert one_layer.item() == 2  # (2 + 2) / 2
    assert three_layers.item() == 6  # their sum

# How are the networks trained? train.py

def test_one_pair_can_be_learned_by_heart():
    generator = pix2pix.UNet(width=8, depth=6)
    optimizer = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.5, 0.999))
    pair = data.draw_pair(0, [64, 64], "pairs")
    x, y = data.to_network(settings_for(), pair[None])
    losses = []
    for _ in range(150):
        losses.append(F.l1_loss(generator(x), y))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.25 * losses[0]

def gradients_of(optimizer):
    weights = optimizer.param_groups[0]["params"]
    return torch.cat([weight.grad.flatten() for weight in weights])

def test_g_learns_nothing_in_ds_step_and_d_learns_nothing_in_gs(pairs, tmp_path):
    kept = {}  # each optimizer's gradients as at its last step

    def compare(optimizer, *_):
        for other in kept.keys() - {optimizer}:
            assert torch.equal(gradients_of(other), kept[other])
        kept[optimizer] = gradients_of(optimizer)
    with register_optimizer_step_pre_hook(compare):
        cut_after(3, *arguments(tmp_path, pairs))
    assert len(kept) == 2

def test_a_stopped_run_goes_on_to_the_very_same_weights(pairs, tmp_path):
    train_here(*arguments(tmp_path / "straight", pairs, "--epochs", 1))
    cut_after(3, *arguments(tmp_path / "cut", pairs, "--epochs", 1))
    assert fingerprint(tmp_path / "cut") != fingerprint(tmp_path / "straight")
    train_here(*arguments(tmp_path / "cut", pairs, "--epochs", 1))
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "straight")

@pytest.mark.parametrize("command, advice", [
    ("--task facade", "facades"), ("--batchs 2", "--batch"), ("--batch 0", "above 0"),
    ("--size 100", "nearest is 128x128"), ("--data /no/such", "another with --data")])
def test_bad_input_gets_one_line_of_advice_and_code_2(command, advice, capsys):
    with pytest.raises(SystemExit) as stopped:
        data.run_command(lambda: run_here(train, *command.split()))
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith("error: ")
    assert advice in said
    assert said.count("\n") == 1

def plain_step(x, y):
    """The step in train_pix2pix's docstring, as it stands there. -> the weights that it leaves"""
    settings = {"in_channels": 3, "out_channels": 3, "width": 4, "depth": 6, "generator": "unet",
                "norm": "instance", "upsample": "deconv"}
    torch.manual_seed(0)
    names = {"pix2pix": pix2pix, "x": x, "y": y}
    names["G"] = pix2pix.build_generator(settings)
    names["D"] = pix2pix.PatchGAN(width=4)
    for network in "GD":
        weights = names[network].parameters()
        rate = train.PRESETS["pix2pix"]["laptop"]["lr"]
        names[f"{network.lower()}_optimizer"] = torch.optim.Adam(weights, rate, betas=(0.5, 0.999))
    torch.manual_seed(train.step_seed(0, 0))  # of the dropout
    lines = train.train_pix2pix.__doc__.splitlines()
    exec("\n".join(line[8:] for line in lines if line.startswith(" " * 8)), names)
    return {"generator": names["G"].state_dict(), "discriminator": names["D"].state_dict()}

def test_the_real_step_is_the_plain_one_of_its_docstring(pairs, tmp_path, monkeypatch):
    batches = []
    to_network = data.to_network
    monkeypatch.setattr(data, "to_network",
                        lambda *args: batches.append(to_network(*args)) or batches[-1])
    cut_after(1, *arguments(tmp_path, pairs))
    content = pix2pix.load_file(tmp_path / "checkpoint.pt")
    for network, weights in plain_step(*batches[0]).items():
        for name, wanted in weights.items():
            assert torch.allclose(content[network][name], wanted, atol=2e-5), name

# What do the networks see? data.py

def test_facades_are_painted_from_labels_though_these_stand_on_the_right(tmp_path):
    make_pairs(tmp_path)  # photo left, labels right
    settings = settings_for(tmp_path)
    x, y = data.held_out(settings)[0].split(3)
    assert semgan.out_of_palette(x[None], settings["palette"]) == 0
    assert semgan.out_of_palette(y[None], settings["palette"]) > 0.5

def test_no_picture_of_the_test_folder_is_trained_on_or_held_out(tmp_path):
    settings = settings_for(make_pairs(tmp_path, splits=("train", "test")))
    names = [file[0].name for file in data.training(settings).files]
    names += [file[0].name for file in data.held_out(settings).files]
    expected = [path.name for path in (tmp_path / "train").iterdir()]
    assert sorted(names) == sorted(expected)

def test_an_epoch_shows_each_picture_once_in_an_order_of_its_own():
    first = data.epoch_order(12, 3, seed=0, epoch=0)
    second = data.epoch_order(12, 3, seed=0, epoch=1)
    assert sorted(sum(first, [])) == list(range(12))
    assert sorted(sum(second, [])) == list(range(12))
    assert first != second
    assert first == data.epoch_order(12, 3, seed=0, epoch=0)

def test_both_halves_of_a_pair_are_cropped_and_mirrored_alike():
    half = noise_picture(3, 72, 72)
    pairs = torch.cat([half, half])[None].expand(16, -1, -1, -1)
    rng = torch.Generator().manual_seed(0)
    out = data.augment(pairs, [64, 64], (-1, -2), rng)
    assert out.shape == (16, 6, 64, 64)
    assert torch.equal(out[:, :3], out[:, 3:])
    different = {picture.numpy().tobytes() for picture in out}
    assert len(different) == 16

def test_networks_see_minus_1_to_1_and_pixels_come_back():
    settings = settings_for(task="pairs")
    pixels = torch.arange(256).byte().view(1, 1, 16, 16).expand(1, 6, 16, 16)
    x, y = data.to_network(settings, pixels)
    assert x.min().item() == -1
    assert x.max().item() == 1
    assert torch.equal(data.to_pixels(settings, x, y), pixels[:, 3:])

def test_resizing_a_label_map_invents_no_class():
    labels = torch.full((1, 100, 100), 2).byte()
    labels[:, 30:70, 30:70] = 9
    small = data.resize(labels, [77, 33], nearest=True)
    assert small.shape == (1, 77, 33)
    assert small.unique().tolist() == [2, 9]

@pytest.mark.parametrize("palette", [data.FACADES, data.SHAPES])
def test_a_label_map_survives_its_colours(palette):
    label_map = torch.randint(0, len(palette), (2, 64, 64))
    colours = semgan.colorize(label_map, palette)
    for module in (data, semgan):
        found = module.nearest_class(colours, palette)
        assert torch.equal(found.long(), label_map)

def test_a_one_hot_map_has_a_single_1_at_each_pixel_its_class():
    label_map = torch.randint(0, 12, (2, 64, 64))
    maps = semgan.one_hot(label_map, 12)
    assert maps.shape == (2, 12, 64, 64)
    assert torch.equal(maps.sum(dim=1), torch.ones(2, 64, 64))
    assert torch.equal(semgan.to_label_map(maps), label_map)

def test_colours_come_back_from_lab_and_white_is_100_0_0():
    pictures = noise_picture(2, 3, 64, 64)
    lab = data.rgb_to_lab(pictures)
    assert (data.lab_to_rgb(lab).int() - pictures.int()).abs().max() <= 1
    white = torch.full((1, 3, 1, 1), 255).byte()
    wanted = torch.tensor([100.0, 0.0, 0.0])
    assert torch.allclose(data.rgb_to_lab(white).flatten(), wanted, atol=0.01)

def test_colourisation_sees_the_lightness_alone():
    settings = settings_for(task="colorization")
    photos = noise_picture(2, 3, 64, 64)
    x, y = data.to_network(settings, photos)
    lightness = data.rgb_to_lab(photos)[:, :1]  # 0..100
    assert torch.allclose(x, lightness / 50 - 1)
    back = data.to_pixels(settings, x, y)
    assert (back.int() - photos.int()).abs().max() <= 1

def test_inpainting_hides_the_central_half_and_nothing_else():
    settings = settings_for(task="inpainting")
    x, y = data.to_network(settings, noise_picture(2, 3, 64, 64))
    assert (x[:, :, 16:48, 16:48] == 1).all()  # white
    x[:, :, 16:48, 16:48] = y[:, :, 16:48, 16:48]
    assert torch.equal(x, y)

def test_the_edge_of_a_disc_is_one_circle_one_pixel_wide():
    y, x = np.ogrid[:128, :128]
    radius = torch.from_numpy(np.hypot(y - 63.5, x - 60))
    disc = torch.where(radius < 40, 200, 60).byte().expand(1, 3, -1, -1)
    lines = data.edges(disc)[0, 0] == 0
    assert (radius[lines] - 40).abs().max() < 2
    assert 200 < lines.sum() < 260  # whole: 4 * sqrt(2) * 40 = 226 pixels
    blocks = F.avg_pool2d(lines[None].float(), 2, stride=1)
    assert blocks.max() < 1  # no 2x2 pixels are all line

# How does noise become a label map? semgan.py

def test_the_probabilities_of_the_classes_sum_to_1_at_each_pixel():
    generator = semgan.Generator(5, latent=8, size=64, kernel=5, width=4)
    nn.init.normal_(generator.to_classes.weight)  # far from uniform
    probs = generator(torch.randn(2, 8))
    assert probs.shape == (2, 5, 64, 64)
    assert probs.min() >= 0
    assert torch.allclose(probs.sum(dim=1), torch.ones(2, 64, 64), atol=1e-5)

def test_g_sees_the_direction_of_its_latent_alone():
    generator = semgan.Generator(4, latent=16, size=64, kernel=5, width=4)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, 0, 0.3)  # biases, too: at first they are 0
    z = torch.randn(6, 16)
    assert torch.allclose(generator(z), generator(2 * z), atol=1e-3)
    assert not torch.allclose(generator(z), generator(-z), atol=1e-3)

def test_the_rgb_gan_differs_in_its_head_alone():
    softmax = semgan.Generator(12, 16, 64, 5, 4).state_dict()
    tanh = semgan.Generator(3, 16, 64, 5, 4, head="tanh").state_dict()
    assert softmax.keys() == tanh.keys()
    different = {name for name in tanh if softmax[name].shape != tanh[name].shape}
    assert different == {"to_classes.weight", "to_classes.bias"}

@pytest.mark.parametrize("head, channels, share", [("softmax", 4, 0), ("tanh", 3, 1)])
def test_all_colours_of_semgan_are_classes_and_hardly_any_of_the_rgb_gan(head, channels, share):
    generator = semgan.Generator(channels, 16, 64, 5, 4, head=head)
    picture = semgan.to_pixels(generator(torch.randn(2, 16)), data.SHAPES, head)
    assert picture.shape == (2, 3, 64, 64)
    assert semgan.out_of_palette(picture, data.SHAPES) == pytest.approx(share, abs=0.01)

# How good is it? metrics.py

def test_swd_is_the_mean_of_scipys_distances_on_lines():
    a = torch.randn(500, 147)
    b = torch.randn(500, 147) + 0.3
    lines = F.normalize(torch.randn(147, 40), dim=0)
    on_a_line = scipy.stats.wasserstein_distance
    distances = [on_a_line(a @ line, b @ line) for line in lines.T]
    found = metrics.sliced_wasserstein(a, b, lines)
    assert found == pytest.approx(np.mean(distances), rel=1e-5)

def test_ms_ssim_of_two_flat_pictures_is_the_hand_worked_number():
    a = torch.full((1, 3, 64, 64), 100)
    b = torch.full((1, 3, 64, 64), 200)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 200 + c1) / (100 ** 2 + 200 ** 2 + c1)
    assert metrics.ms_ssim(a, a).item() == pytest.approx(1)
    last_scale = luminance ** 0.1333
    assert metrics.ms_ssim(a, b).item() == pytest.approx(last_scale)

def test_fid_of_two_gaussians_on_a_line_is_the_hand_worked_number():
    distance = metrics.frechet_distance([0.0], [[4.0]], [3.0], [[25.0]])
    # The squared distance of the means, and that of the standard deviations.
    assert distance == pytest.approx((0 - 3) ** 2 + (2 - 5) ** 2)

def test_fcn_scores_are_the_hand_worked_numbers():
    truth = torch.tensor([0, 0, 0, 0, 1, 1, 255])  # 255 is left out
    found = torch.tensor([0, 0, 0, 1, 1, 1, 0])
    matrix = metrics.confusion_matrix(truth, found, 2)
    assert matrix.tolist() == [[3, 1], [0, 2]]
    scores = metrics.segmentation_scores(matrix)
    assert scores["pixel_accuracy"] == pytest.approx(5 / 6)
    assert scores["class_accuracy"] == pytest.approx((3 / 4 + 2 / 2) / 2)
    assert scores["class_iou"] == pytest.approx((3 / 4 + 2 / 3) / 2)

# Can I take it away?

@pytest.mark.parametrize("name", ["pix2pix", "semgan", "data", "metrics"])
def test_a_file_copied_out_alone_imports_there_and_says_nothing(name, tmp_path):
    shutil.copy(HERE / f"{name}.py", tmp_path)
    done = python("-c", f"import {name}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""

# What must not break: skip on first reading

CLAIMS = [test for name, test in list(globals().items()) if name.startswith("test_")]

# Which tests run: `-m claims` those above; `-m slow` the long ones, which are skipped without it.
pytest_plugins = [__name__]            # this file is a plugin, too: pytest calls what follows

def pytest_configure(config):
    config.addinivalue_line("markers", "claims: what to believe, in less than a minute")
    config.addinivalue_line("markers", "slow: long, run by -m slow alone")

@pytest.hookimpl(tryfirst=True)                              # before pytest looks at the marks
def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.function in CLAIMS:
            item.add_marker("claims")
        if "[slow" in item.name:
            item.add_marker("slow")
            if "slow" not in config.getoption("-m"):
                item.add_marker(pytest.mark.skip(reason="long: -m slow runs it"))

def slow(*values):
    """A parameter of a test that takes long."""
    return pytest.param(*values, id=f"slow-{values[0]}")

def python(*args, **more):
    """A command in a process of its own, with one thread. -> CompletedProcess"""
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}, **more)

def started(*args):
    """The same, as a running process, its output to be read."""
    return subprocess.Popen([sys.executable, *map(str, args)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"})

def run_here(module, *args):
    """A file's command in this process. -> what it printed"""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, args)])
        module.main()
    return said.getvalue()

def refuses(words, function, *args):
    """It refuses in one line: words, a regular expression, and after a semicolon what to do."""
    with pytest.raises(ValueError, match=words) as caught:
        function(*args)
    assert type(caught.value).__name__ == "Refusal"
    assert "; " in str(caught.value) and "\n" not in str(caught.value)

def settings_for(folder=None, task="facades", size=64, **more):
    return {"task": task, "data": folder and str(folder), "drawn": folder is None, "one_hot": False,
            "size": [size, size], "palette": data.TASKS[task].palette, **more}

def make_pairs(folder, n=12, size=64, splits=("",)):
    """Side-by-side pictures of drawn facades, photo left."""
    for split in splits:
        for i in range(n):
            pair = data.draw_pair(i, [size, size], "pairs")
            joined = torch.cat([pair[3:], pair[:3]], 2)
            data.save_picture(folder / split / f"{split}{i}.png", joined)
    return folder

def tiny_run(folder, task="facades", head="softmax", **changes):
    """A run's folder with random weights, as train.py would write it."""
    settings = {**settings_for(task=task), "width": 8, "depth": 6, "generator": "unet", "batch": 4,
                "norm": "instance", "upsample": "deconv", "in_channels": 3, "out_channels": 3,
                "latent": 16, "kernel": 5, "head": head, "seed": 0,
                "pictures": "9 of names 0f3a21c4", **changes}
    module = semgan if data.TASKS[task].kind == "label maps" else pix2pix
    settings["model"] = module.__name__
    if module is semgan and head == "softmax":
        settings["out_channels"] = len(settings["palette"])
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    torch.save({"format": 1, "settings": settings, "generator":
                module.build_generator(settings).state_dict()}, folder / "generator.pt")
    return folder

# pix2pix.py

def faster_copy(network):
    return pix2pix.faster(copy.deepcopy(network))

def take_the_way_of_a_gpu(monkeypatch):
    """On the CPU: the same calls of the library, in channels_last."""
    monkeypatch.setattr(pix2pix, "on_gpu", lambda x: True)

def gradients(network, *inputs):
    """Of the mean of its outputs' squares, with respect to all weights, by name."""
    network.zero_grad()
    network(*inputs).square().mean().backward()
    return {name: weight.grad.clone() for name, weight in network.named_parameters()}

PLAIN_NETWORKS = {
    "UNet 64": lambda: pix2pix.UNet(width=8, depth=6, dropout=0),
    "UNet 128": lambda: pix2pix.UNet(width=8, depth=7, dropout=0),
    "UNet, batch norm": lambda: pix2pix.UNet(width=8, depth=6, dropout=0, norm="batch"),
    "UNet, nearest": lambda: pix2pix.UNet(width=8, depth=6, dropout=0, upsample="nearest"),
    "encoder-decoder": lambda: pix2pix.UNet(width=8, depth=6, dropout=0, skips=False),
    "PatchGAN": lambda: pix2pix.PatchGAN(3, width=8),
    "PixelGAN": lambda: pix2pix.PatchGAN(3, width=8, receptive_field=1),
    "PatchGAN, batch norm": lambda: pix2pix.PatchGAN(3, width=8, norm="batch")}

@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("name", PLAIN_NETWORKS)
def test_the_faster_networks_and_their_gradients_equal_the_plain_ones(name, gpu, monkeypatch):
    if gpu:
        take_the_way_of_a_gpu(monkeypatch)
    plain = PLAIN_NETWORKS[name]()
    fast = faster_copy(plain)
    x = random_pictures(2, 128)
    assert torch.allclose(fast(x), plain(x), atol=1e-5)
    wanted = gradients(plain, x)
    for weight, gradient in gradients(fast, x).items():
        assert torch.allclose(gradient, wanted[weight], atol=1e-6), weight

@pytest.mark.parametrize("name", PLAIN_NETWORKS)
def test_the_faster_networks_translate_like_the_plain_ones(name):
    plain = PLAIN_NETWORKS[name]()
    fast = faster_copy(plain)
    x = random_pictures(2, 128)
    with torch.no_grad():                                    # large: in another layout
        assert torch.allclose(fast(x), plain(x), atol=1e-5)

def test_what_becomes_of_a_picture_by_faster_layers_does_not_depend_on_its_batch():
    generator = faster_copy(pix2pix.UNet(width=8, depth=6, dropout=0))
    x = random_pictures(3)
    alone = torch.cat([generator(picture[None]) for picture in x])
    assert torch.allclose(generator(x), alone, atol=1e-5)

@pytest.mark.parametrize("name", ["UNet 64", "PatchGAN"])
def test_on_a_gpu_every_layer_puts_out_channels_last(name, monkeypatch):
    take_the_way_of_a_gpu(monkeypatch)
    fast = faster_copy(PLAIN_NETWORKS[name]())
    others = []

    def look(layer, _, out):
        if not out.is_contiguous(memory_format=torch.channels_last):
            others.append(layer)
    for layer in fast.modules():
        if not list(layer.children()):
            layer.register_forward_hook(look)
    fast(random_pictures(2))
    assert not others

def double(layer):
    """The layer in double precision, its biases not at their first 0."""
    nn.init.normal_(layer.bias)
    return layer.double()

FAST_LAYERS = {
    "Up": lambda: pix2pix.Up(6, 5, 4, stride=2, padding=1),
    "Up to a picture": lambda: pix2pix.Up(6, 3, 4, stride=2, padding=1),
    "Down": lambda: pix2pix.Down(6, 5, 4, stride=2, padding=1),
    "ToLogits": lambda: pix2pix.ToLogits(6, 1, 4, stride=1, padding=1)}

@pytest.mark.parametrize("h, w", [(2, 2), (4, 8), (8, 8), (16, 32), (64, 32)])
@pytest.mark.parametrize("name", FAST_LAYERS)
def test_faster_layers_and_their_gradients_equal_the_librarys(name, h, w):
    layer = double(FAST_LAYERS[name]())
    library = type(layer).__base__                           # nn.Conv2d, or the transposed one
    x = torch.randn(3, 6, h, w).double().requires_grad_()
    out = layer(x)
    wanted = library.forward(layer, x)
    assert torch.allclose(out, wanted, atol=1e-9)
    leaves = (x, layer.weight, layer.bias)
    up = torch.randn_like(out)
    ours = torch.autograd.grad(out, leaves, up)
    theirs = torch.autograd.grad(wanted, leaves, up)
    for a, b in zip(ours, theirs):
        assert torch.allclose(a, b, atol=1e-9)

@pytest.mark.parametrize("name", ["Up", "Up to a picture"])
def test_the_first_step_up_from_a_single_pixel_equals_the_librarys(name):
    layer = double(FAST_LAYERS[name]())
    x = torch.randn(3, 6, 1, 1).double()
    assert torch.allclose(layer(x), nn.ConvTranspose2d.forward(layer, x), atol=1e-9)

def norm_and_input(kind, make):
    """A norm with weights of its own, pictures whose first channel is flat, and in double precision
    what the library's norm makes of them."""
    norm = make(8, kind)
    nn.init.normal_(norm.weight, 1, 0.1)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 8, 256, 256) * 3 + 10
    x[:, 0] = 0.25                                           # no spread to divide by
    weight = norm.weight.double()
    bias = norm.bias.double()
    if kind == "instance":
        wanted = F.instance_norm(x.double(), None, None, weight, bias)
    else:
        wanted = F.batch_norm(x.double(), None, None, weight, bias, training=True)
    return norm, x, wanted

@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["instance", "batch"])
@pytest.mark.parametrize("make", [pix2pix.Norm, pix2pix.FastNorm])
def test_norms_are_exact_in_either_layout(make, kind, layout, training):
    """The library's own, in channels_last, are not: they sum 65,536 numbers one after the other."""
    norm, x, wanted = norm_and_input(kind, make)
    x = x.contiguous(memory_format=layout)
    before = x.clone()
    with torch.set_grad_enabled(training):
        assert torch.allclose(norm(x).double(), wanted, atol=1e-5)
    assert torch.equal(x, before)

# Generators of the popular PyTorch code, with its names and its nesting, written here from its
# layer list: they test --convert, and so the U-Net against an independent one; and the benchmark
# runs against them. In its joined tensors the skip is first; its dropout is a step later.

class NestedLevel(nn.Module):
    """A convolution down, the next deeper level, a convolution up; then joined to the input."""

    def __init__(self, outer, inner, deeper, norm, dropout=0, in_channels=None):
        super().__init__()
        self.outermost = in_channels is not None
        biased = norm is nn.InstanceNorm2d                   # its own norm then has no bias
        down = nn.Conv2d(in_channels or outer, inner, 4, 2, 1, bias=biased)
        joined = 2 * inner if deeper else inner
        up = nn.ConvTranspose2d(joined, outer, 4, 2, 1, bias=biased or self.outermost)
        if self.outermost:
            layers = [down, deeper, nn.ReLU(), up, nn.Tanh()]
        elif deeper:
            layers = [nn.LeakyReLU(0.2), down, norm(inner), deeper, nn.ReLU(), up, norm(outer)]
        else:                                                # the bottleneck
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, norm(outer)]
        if deeper and outer == inner:
            layers.append(nn.Dropout(dropout))
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        if self.outermost:
            return self.model(x)
        return torch.cat([x, self.model(x)], 1)

def nested_generator(levels, width, norm, dropout=0, in_channels=3, out_channels=3):
    """In eval mode; its vectors, of norms or biases, are not as at first."""
    widths = [width * min(2 ** i, 8) for i in range(levels)]
    net = None
    for i in reversed(range(1, levels)):                     # from the bottleneck out
        net = NestedLevel(widths[i - 1], widths[i], net, norm, dropout)
    whole = nn.Module()
    whole.model = NestedLevel(out_channels, width, net, norm, in_channels=in_channels)
    for tensor in whole.state_dict().values():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    return whole.eval()

def convert(source, out, *flags):
    run_here(pix2pix, "--convert", source, out, "--task", "facades", *flags)

def saved(generator, path, prefix=""):
    """What that code saves: the weights by name; of several GPUs with a prefix."""
    torch.save({prefix + name: v for name, v in generator.state_dict().items()}, path)
    return path

@pytest.mark.parametrize("levels, dropout_at", [(7, [1, 2]), (8, [1, 2, 3])])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_generators_of_the_popular_code_convert_to_the_same_pictures(
        norm, levels, dropout_at, tmp_path):
    theirs = nested_generator(levels, 8, norm)
    convert(saved(theirs, tmp_path / "latest_net_G.pth"), tmp_path / "run")
    ours, settings = pix2pix.load_generator(tmp_path / "run")
    assert list(ours.dropout_at) == dropout_at
    ours.dropout = 0
    x = random_pictures(1, 256)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs.model(x), atol=1e-5)

def test_a_generator_of_several_gpus_converts_with_each_pictures_own_statistics(tmp_path):
    theirs = nested_generator(7, 8, nn.BatchNorm2d).train()
    source = saved(theirs, tmp_path / "latest_net_G.pth", "module.")
    convert(source, tmp_path / "run", "--own-statistics")
    ours, _ = pix2pix.load_generator(tmp_path / "run")
    ours.dropout = 0
    x = random_pictures(1, 256)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs.model(x), atol=1e-5)

def test_a_generator_trained_without_dropout_converts_to_one_without(tmp_path):
    source = saved(nested_generator(7, 8, nn.BatchNorm2d), tmp_path / "latest_net_G.pth")
    convert(source, tmp_path / "run", "--no-dropout")
    ours, _ = pix2pix.load_generator(tmp_path / "run")
    x = random_pictures(1, 128)
    with torch.no_grad():
        assert torch.equal(ours(x), ours(x))

@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (3, 1)])
def test_a_generator_of_grey_pictures_converts_to_one_of_rgb_pictures(channels, tmp_path):
    theirs = nested_generator(7, 8, nn.BatchNorm2d, 0, *channels)
    convert(saved(theirs, tmp_path / "latest_net_G.pth"), tmp_path / "run")
    ours, _ = pix2pix.load_generator(tmp_path / "run")
    ours.dropout = 0
    x = random_pictures(1, 128, channels[0])
    with torch.no_grad():
        wanted = theirs.model(x).expand(-1, 3, -1, -1)
        assert torch.allclose(ours(x.expand(-1, 3, -1, -1)), wanted, atol=1e-5)

def test_what_cannot_be_converted_is_refused_and_leaves_no_run(tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"model.model.0.weight": torch.zeros(3)}, other)
    plain = nested_generator(7, 8, lambda channels: nn.Identity())       # --norm none
    without_norms = saved(plain, tmp_path / "plain.pth")
    for source in (other, without_norms, tmp_path / "missing.pth"):
        refuses(f"^{source}", convert, source, tmp_path / "run")
    assert not (tmp_path / "run").exists()

def test_converting_never_overwrites_a_run(tmp_path):
    run = tiny_run(tmp_path / "run")
    before = (run / "generator.pt").read_bytes()
    source = saved(nested_generator(7, 8, nn.BatchNorm2d), tmp_path / "latest_net_G.pth")
    refuses(f"^{run}", convert, source, run)
    assert (run / "generator.pt").read_bytes() == before

# data.py

def test_both_halves_are_cropped_and_mirrored_alike():
    grid = torch.arange(72 * 72).view(72, 72)
    half = torch.stack([grid // 72, grid % 72, grid % 7]).byte()
    for mirror in [], [-1], [-1, -2]:
        out = data.augment(torch.stack([torch.cat([half, half])] * 16), [64, 64], mirror,
                           torch.Generator().manual_seed(0))
        assert torch.equal(out[:, :3], out[:, 3:])
        assert len({tuple(p[:2, 0, 0].tolist()) for p in out}) > 8       # each has its own crop
        for dim, step in (-1, (1, 0, 1)), (-2, (0, 1, 0)):               # some are mirrored
            assert {int(p[step]) - int(p[step[0], 0, 0]) for p in out} == (
                {1, -1} if dim in mirror else {1})

def test_test_pictures_are_never_trained_on_and_held_out_ones_stay(tmp_path):
    folder = make_pairs(tmp_path / "a", 30, splits=("train", "test"))
    settings = settings_for(folder)
    splits = [{f[0].name for f in p(settings).files} for p in (data.training, data.held_out)]
    assert splits[0] and splits[1] and not splits[0] & splits[1]
    assert all(name.startswith("train") for name in splits[0] | splits[1])
    shutil.rmtree(folder / "test")
    refuses("--data: missing", data.held_out, {**settings, "data": None})
    (folder / "train" / "train0.png").unlink()               # the others keep their side
    assert {f[0].name for f in data.held_out(settings).files} == splits[1] - {"train0.png"}

def test_two_folders_side_by_side_files_and_a_small_memory_give_the_same_pictures(pairs, tmp_path):
    for path in pairs.glob("*.png"):
        for side, half in zip("AB", data.to_tensor(data.open_picture(path)).split(64, dim=2)):
            data.save_picture(tmp_path / side / path.name, half)
    one, two = (data.training(settings_for(f)) for f in (pairs, tmp_path))
    assert torch.equal(one.cache, two.cache)
    streamed = data.training(settings_for(pairs), memory=1e-9)
    assert one.cache is not None and streamed.cache is None
    order = data.epoch_order(len(one), 3, 0, 0)
    for a, b in zip(one.batches(order), streamed.batches(order), strict=True):
        assert torch.equal(a, b)

def test_colourisation_loses_no_colour_and_inpainting_hides_the_central_half_only():
    photos, settings = noise_picture(2, 3, 64, 64), settings_for(task="colorization")
    x, y = data.to_network(settings, photos)
    assert x.shape[1] == 1 and y.shape[1] == 2 and x.abs().max() <= 1 and y.abs().max() <= 1
    assert (data.to_pixels(settings, x, y).int() - photos.int()).abs().max() <= 1
    x, y = data.to_network(settings_for(task="inpainting"), photos)
    assert (x[:, :, 16:48, 16:48] == 1).all()
    x[:, :, 16:48, 16:48] = y[:, :, 16:48, 16:48]
    assert torch.equal(x, y)

def test_edges_are_thin_lines_where_a_picture_changes_and_a_sketch_becomes_such_lines():
    y, x = torch.meshgrid(torch.arange(384.0), torch.arange(384.0), indexing="ij")
    radius = torch.hypot(y - 192, x - 180) / 3               # in pixels of a third of the size
    disc = torch.where(radius[1::3, 1::3] < 40, 200, 60) + torch.randint(-3, 4, (1, 3, 128, 128))
    ring = ((radius - 40).abs() < 2).expand(3, -1, -1)       # 12 pixels wide, dark blue on yellow,
    paper = torch.tensor([240, 225, 160]).view(3, 1, 1) * (0.7 + 0.3 * x / 384)    # lit from right
    sketch = torch.where(ring, torch.tensor([30, 30, 110]).view(3, 1, 1), paper)[None].byte()
    sketch[:, :, 9:11, 9:11] = 0                             # a speck
    for drawn in (data.edges(disc.byte()), data.clean_sketch(sketch, [128, 128])):
        lines = drawn[0, 0] == 0
        assert drawn.shape == (1, 1, 128, 128) and set(drawn.unique().tolist()) == {0, 255}
        assert (radius[1::3, 1::3][lines] - 40).abs().max() < 2.5        # on the circle alone,
        assert 200 < lines.sum() < 260                       # whole: 4 * sqrt(2) * 40 = 226 pixels,
        assert F.avg_pool2d(lines.float()[None], 2, 1).max() < 1         # and one of them wide

@pytest.mark.skipif("FACADES" not in os.environ, reason="FACADES names no folder of pairs")
def test_real_facades_have_their_published_split_and_colours():
    settings = settings_for(os.environ["FACADES"])
    kept = data.held_out(settings)
    assert len(kept) == 40 and len(data.training(settings, memory=1e-9)) == 360
    labels = data.label_map_of(settings, torch.stack([kept[i] for i in range(40)]))
    shares = labels.flatten().bincount(minlength=12) / labels.numel()
    assert shares[:3].tolist() == pytest.approx([0.236, 0.343, 0.127], abs=0.05)

@pytest.mark.skipif("CAMVID" not in os.environ, reason="CAMVID names no folder of index maps")
def test_real_index_maps_are_read_as_classes_and_match_their_photos():
    folder = Path(os.environ["CAMVID"])
    settings = {**settings_for(folder, "segmentation"), "palette": data.CAMVID, "size": [96, 128]}
    assert data.palette_of("segmentation", folder) is data.CAMVID
    kept = data.held_out(settings)
    truth = data.label_map_of(settings, torch.stack([kept[i] for i in range(0, 101, 20)]))
    assert len(kept) == 101 and set(truth.unique().tolist()) <= {*range(11), 255}
    upper, lower = (half.flatten().mode()[0] for half in (truth[:, :20], truth[:, -20:]))
    assert data.CAMVID[lower][0] == "road" and data.CAMVID[upper][0] in ("sky", "building", "tree")

def test_cityscapes_as_published_keeps_its_splits_and_its_ids_become_the_22_classes(tmp_path):
    for number, split in enumerate(("train", "train", "val", "test")):
        folder = tmp_path / "gtFine" / split / f"city{number}"
        folder.mkdir(parents=True)
        ids = np.arange(64 * 64).reshape(64, 64).astype(np.uint8) % 34
        Image.fromarray(ids).save(folder / f"a{number}_gtFine_labelIds.png")
        data.save_picture(folder / f"a{number}_gtFine_color.png", noise_picture(3, 64, 64))
    settings = {**settings_for(tmp_path, "semantic-cityscapes"), "palette": data.CITYSCAPES}
    train_on, kept = data.training(settings), data.held_out(settings)
    assert (len(train_on), len(kept)) == (2, 1)              # test/ is not among them
    names = {7: "road", 11: "building", 15: "building", 9: "ground", 26: "car", 0: "static"}
    for value, name in names.items():
        assert {data.CITYSCAPES[k][0] for k in kept[0][0][ids == value].tolist()} == {name}
    for folder in (tmp_path, tmp_path / "gtFine"):           # a map of ids is not a pair
        refuses("no pictures for train", data.training, settings_for(folder, "cityscapes"))

def test_colours_of_cityscapes_mean_what_its_ids_mean():
    for number, colour in {
            5: (111, 74, 0), 7: (128, 64, 128), 9: (250, 170, 160), 10: (230, 150, 140),
            14: (180, 165, 180), 15: (150, 100, 100), 16: (150, 120, 90), 18: (153, 153, 153),
            29: (0, 0, 90), 30: (0, 0, 110)}.items():
        patch = torch.tensor(colour).byte().view(3, 1, 1).repeat(1, 9, 9)
        data.check_colours("flat", patch, data.CITYSCAPES)
        found = data.nearest_class(patch[None], data.CITYSCAPES)[0]
        clean = data.clean_label_map(patch.permute(1, 2, 0).numpy(), data.CITYSCAPES)
        assert (found == data.CITYSCAPES_IDS[number]).all() and (clean == found.numpy()).all()

def test_what_an_index_map_ignores_stays_ignored(tmp_path):
    for name, picture in (("photos", np.full((64, 64, 3), 90)), ("labels", np.full((64, 64), 2))):
        (tmp_path / name).mkdir()
        picture[:32] = 200 if name == "photos" else 255
        for i in range(12):
            Image.fromarray(picture.astype(np.uint8)).save(tmp_path / name / f"{i}.png")
    settings = settings_for(tmp_path, one_hot=True)
    pictures = data.training(settings).batches([[0]])
    shown = next(pictures)[:, :, :64, :64]
    truth, (x, _) = data.label_map_of(settings, shown), data.to_network(settings, shown)
    assert set(truth.unique().tolist()) == {2, 255}          # not the class nearest to black
    assert (x.sum(1) == (truth != 255)).all() and (x[:, 2] == (truth == 2)).all()
    assert data.training(settings_for(tmp_path, "colorization"))[0].min() > 80       # of the photos

def test_label_maps_by_kmeans_keep_their_colours_in_training(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(6):
        data.save_picture(tmp_path / "photos" / f"{i}.png", data.draw_facade(i, size=150)[0])
    data.kmeans_folder(tmp_path / "photos", tmp_path / "out", 5, size=(64, 64))
    settings = settings_for(tmp_path / "out", "pairs")
    settings["palette"] = data.palette_of("pairs", tmp_path / "out")
    for pictures in (data.training(settings), data.held_out(settings)):
        assert semgan.out_of_palette(pictures[0][None, :3], settings["palette"]) == 0
        assert semgan.out_of_palette(pictures[0][None, 3:], settings["palette"]) > 0.5
    studio = paint.Studio([tiny_run(tmp_path / "run", **settings)])
    assert studio.runs["run"]["mode"] == "labels"
    photos = tiny_run(tmp_path / "maps", "maps", palette=settings["palette"])
    assert paint.Studio([photos]).runs["maps"]["mode"] == "plain"        # its x is no label map
    Image.new("RGB", (1, 1)).save(tmp_path / "photos" / "dot.png")       # half as high as a pixel
    data.kmeans_folder(tmp_path / "photos", tmp_path / "wide", 5, size=(32, 64))

def test_resizing_invents_no_class_and_cleaning_removes_what_a_jpeg_smeared():
    wrong = [0, 0]
    for i in range(4):
        labels = data.draw_facade(i, size=286)[1]
        small = data.resize(labels[None], [100, 77], nearest=True)
        assert set(small.unique().tolist()) <= set(labels.unique().tolist())
        data.to_image(data.colorize(labels, FACADES)).save(jpeg := io.BytesIO(), "JPEG", quality=75)
        smeared = data.to_tensor(Image.open(jpeg))
        nearest = data.nearest_class(smeared[None], FACADES)[0]
        clean = torch.from_numpy(data.clean_label_map(smeared.permute(1, 2, 0).numpy(), FACADES))
        thick = -F.max_pool2d(-F.max_pool2d(F.one_hot(labels.long(), 12).permute(2, 0, 1).float(),
                                            1), 5, 1, 2)     # solid 5x5 blocks and their reach
        sure = F.max_pool2d(thick, 7, 1, 3).amax(0) > 0
        wrong = [n + ((v != labels) & sure).sum().item() for n, v in zip(wrong, (nearest, clean))]
    assert wrong[1] < 0.6 * wrong[0], wrong

def test_a_label_file_is_read_alike_in_training_and_in_use(tmp_path, monkeypatch):
    for name in ("photos", "labels"):
        (tmp_path / name).mkdir()
    maps = noise_picture(12, 64, 64).numpy() % 12
    for i, label_map in enumerate(maps):
        Image.fromarray(label_map).save(tmp_path / "labels" / f"{i}.png")
        data.save_picture(tmp_path / "photos" / f"{i}.jpg", noise_picture(3, 64, 64))
    (tmp_path / "palette.json").write_text(json.dumps(FACADES))
    for task, half in (("facades", slice(3)), ("pairs", slice(3, 6))):   # x of one, y of the other
        settings = settings_for(tmp_path, task, palette=data.palette_of(task, tmp_path))
        pictures = data.held_out(settings)
        path = pictures.files[0][1]
        expected = data.colorize(maps[int(path.stem)], FACADES)
        assert torch.equal(pictures[0][half], expected)
        studio = paint.Studio([tiny_run(tmp_path / "runs" / task, **settings)])
        painted = "labels" if task == "facades" else "plain"   # x is a photo
        assert studio.runs[task]["mode"] == painted
        if task == "facades":
            monkeypatch.chdir(path.parent)
            for name in (path, path.name):
                assert torch.equal(data.read_input(settings, name), expected)
            three = {**settings, "one_hot": True, "palette": [[n, c] for n, c in FACADES[:3]]}
            x, y = data.to_network(three, pictures[0][None])
            shown = data.to_pixels(three, x, x)              # three classes, not three colours
            assert (data.to_pixels(three, x, y).int() - pictures[0][3:].int()).abs().max() <= 1
            assert semgan.out_of_palette(shown, FACADES[:3]) == 0

def test_drawn_facades_come_from_their_numbers_alone_and_use_every_class():
    photo, labels = data.draw_facade(3, seed=1, size=128)
    again, other = (data.draw_facade(i, seed=1, size=128) for i in (3, 4))
    assert photo.shape == (3, 128, 128) and photo.dtype == torch.uint8
    assert torch.equal(photo, again[0]) and torch.equal(labels, again[1])
    assert labels.shape == (128, 128) and not torch.equal(photo, other[0])
    shares = sum(torch.bincount(data.draw_facade(i, size=64)[1].flatten().long(), minlength=12)
                 for i in range(40)) / (40 * 64 * 64)
    real = torch.tensor([.236, .343, .127, .013, .029, .037, .046, .008, .018, .084, .008, .052])
    assert shares.min() > 0.002 and (shares - real).abs().max() < 0.05

# train.py

SMALL = "--width 2 --kernel 3 --latent 4 --device cpu --preset laptop".split()         # SemGAN's

def arguments(out, pairs, *more):
    return [*("--task facades --size 64 --width 4 --batch 2 --epochs 2 --device cpu --preset laptop"
              " --out").split(), out, "--data", pairs, *more]

def train_here(*args):
    """train.py in this process; its lock is let go as at a process's end."""
    locks, lock = [], train.lock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "lock", lambda folder: locks.append(lock(folder)) or locks[-1])
        try:
            return run_here(train, *args)
        finally:
            [held.close() for held in locks]

def fingerprint(out):
    """SHA-256 of the step, G, D and both Adams."""
    content = pix2pix.load_file(Path(out) / "checkpoint.pt")
    digest = hashlib.sha256(str(content["step"]).encode())
    for name in ("generator", "discriminator", "g_optimizer", "d_optimizer"):
        for tensor in data.tensors_of(content[name]):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()

def log_steps(out):
    with open(Path(out) / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(None not in row and None not in row.values() for row in rows)   # whole rows
    return [int(row["step"]) for row in rows]

@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return make_pairs(tmp_path_factory.mktemp("pairs"))

@pytest.fixture(scope="module")
def straight_run(tmp_path_factory, pairs):
    """A small run from start to end, to compare interrupted ones with."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    done = python(HERE / "train.py", *arguments(out, pairs))
    assert done.returncode == 0, done.stderr
    return out

def test_a_run_leaves_what_the_readme_promises_and_once_finished_stays_so(straight_run, pairs):
    names = {p.name for p in straight_run.iterdir()}
    assert {"settings.json", "log.csv", "losses.png", "samples", "checkpoint.pt",
            "generator.pt"} <= names
    generator, settings = pix2pix.load_generator(straight_run)
    assert settings["size"] == [64, 64] and generator.depth == 6
    made = pix2pix.load_generator(tiny_run(straight_run.parent / "tiny"))[1]
    assert {*made} - {*settings} == {"head", "latent", "kernel"}         # the tests' runs are alike
    assert {*settings} - {*made} == {
        "epochs", "preset", "steps", "lr", "precision", "objective", "l1_weight", "decay", "ema",
        "feature_matching", "receptive_field"}               # nothing reads these later
    per_epoch = len(data.training({**settings, "palette": None})) // 2
    assert log_steps(straight_run)[-1] == settings["epochs"] * per_epoch
    before = fingerprint(straight_run)
    said = train_here(*arguments(straight_run, pairs))
    assert "going on from step 10" in said and "finished" in said
    assert fingerprint(straight_run) == before

def test_checkpoints_come_within_an_epoch_and_before_a_picture_that_has_gone(
        pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(train, "LOG_EVERY", 2)
    saved, write = [], data.write_whole
    monkeypatch.setattr(data, "write_whole", lambda path, content: (
        write(path, content) if isinstance(content, bytes) else
        saved.append((path.name, content.get("step")))))
    train_here(*arguments(tmp_path / "whole", pairs))
    assert [step for name, step in saved if name == "checkpoint.pt"] == [2, 4, 5, 6, 8, 10]
    monkeypatch.undo()
    folder = shutil.copytree(pairs, tmp_path / "pairs")
    files, finish = data.split_files(folder, "train"), train.Run.finish_step

    def lose_one(run, values):
        finish(run, values)
        for file in files if run.step == 2 else ():
            file[0].unlink()
    monkeypatch.setattr(train.Run, "finish_step", lose_one)
    args = arguments(tmp_path / "run", folder, "--memory", "1e-9")
    monkeypatch.setattr(data.Pictures, "batches", lambda self, order: (
        torch.stack([self[i] for i in indices]) for indices in order))   # none is decoded ahead
    refuses("no such file", train_here, *args)
    assert pix2pix.load_file(tmp_path / "run" / "checkpoint.pt")["step"] == 2

class Cut(Exception):
    """Stands for kill -9: nothing of the interrupted step is written."""

def cut_after(steps, *args):
    """Trains up to a step, saves there, and falls dead."""
    finish = train.Run.finish_step

    def finish_step(run, values):
        finish(run, values)
        if run.step == steps:
            run.save()
            raise Cut
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr(train.Run, "finish_step", finish_step)
        train_here(*args)

@pytest.mark.parametrize("step", [1, 4, 7, *map(slow, (2, 3, 5, 6, 8, 9))])
def test_a_run_cut_at_a_step_and_continued_equals_an_uncut_one(step, straight_run, pairs, tmp_path):
    cut_after(step, *arguments(tmp_path, pairs))
    assert fingerprint(tmp_path) != fingerprint(straight_run)
    log = (tmp_path / "log.csv").read_text() if step > 5 else ""         # its first row is step 5's
    if log:                                                  # as of steps after the last checkpoint
        (tmp_path / "log.csv").write_text(log + log.splitlines()[-1].replace("5,", "99,", 1) + "\n")
    (tmp_path / ".scores.json.partial").write_bytes(b"of a process killed while saving")
    train_here(*arguments(tmp_path, pairs))
    assert fingerprint(tmp_path) == fingerprint(straight_run)
    steps = log_steps(tmp_path)
    assert steps == sorted(set(steps)) and steps[-1] == 10
    assert not list(tmp_path.glob(".*.partial"))

@pytest.mark.parametrize("files", [1, 2, 3, 11])     # of 12: checkpoint and generator, 6 times
def test_a_run_killed_between_the_files_of_a_checkpoint_goes_on(
        files, straight_run, pairs, tmp_path, monkeypatch):
    left, write = iter(range(files, 0, -1)), data.write_whole

    def die_after(path, content):
        write(path, content)
        if path.suffix == ".pt" and next(left) == 1:
            raise Cut
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(train, "SAVE_EVERY", 0.0)
        patch.setattr(train, "LOG_EVERY", 2)
        patch.setattr(data, "write_whole", die_after)
        train_here(*arguments(tmp_path, pairs))
    train_here(*arguments(tmp_path, pairs))
    assert fingerprint(tmp_path) == fingerprint(straight_run)
    of = [pix2pix.load_file(tmp_path / name) for name in ("generator.pt", "checkpoint.pt")]
    assert all(torch.equal(of[0]["generator"][k], v) for k, v in of[1]["generator"].items())
    (tmp_path / "generator.pt").unlink()                     # a finished run never lacks it
    train_here(*arguments(tmp_path, pairs))
    assert pix2pix.load_file(tmp_path / "generator.pt")["settings"] == of[0]["settings"]

def test_d_sees_shapes_through_new_noise_each_time_and_other_maps_as_they_are(
        pairs, tmp_path, monkeypatch):
    seen, forward = [], semgan.Discriminator.forward
    monkeypatch.setattr(semgan.Discriminator, "forward",
                        lambda self, x: seen.append(x.detach()) or forward(self, x))
    for task, noise in (("shapes", 0.3), ("shapes --head tanh", 0.6),
                        (f"semantic-facades --data {pairs}", 0.0)):
        seen.clear()
        cut_after(1, "--task", *task.split(), *SMALL, "--batch", 4,
                  "--out", tmp_path / f"run{noise}")
        real, fake, real_again, fake_again = seen            # in D's step, then in G's
        for a, b in ((real, real_again), (fake, fake_again)):
            assert (a - b).std() == pytest.approx(noise * 2 ** 0.5, rel=0.03)
        assert set(real.unique().tolist()) == {0, 1} or noise

def test_d_sees_shapes_ever_less_blurred(tmp_path, monkeypatch):
    maps = torch.rand(2, 3, 64, 64)
    for sigma in (3.0, 0.4, 1e-3):
        wanted = scipy.ndimage.gaussian_filter(maps.numpy(), sigma, mode="mirror", axes=(2, 3),
                                               radius=3 * int(np.ceil(sigma)))
        assert np.allclose(train.blurred(maps, sigma), wanted, atol=1e-6)
    sigmas, blurred = [], train.blurred
    monkeypatch.setattr(train, "blurred", lambda maps, sigma: sigmas.append(sigma) or blurred(
        maps, sigma))
    train_here("--task", "shapes", *SMALL, "--batch", 1300, "--epochs", 2, "--out", tmp_path)
    assert sigmas == [start for start in (3, 2.25, 1.5, 0.75) for _ in range(4)]
    assert not any("blur" in of["paper"] for of in (*train.PRESETS.values(), train.SHAPES))

def test_the_rate_is_held_then_falls_in_a_straight_line_though_the_run_is_cut(
        pairs, tmp_path, monkeypatch):
    monkeypatch.setitem(train.PRESETS["pix2pix"]["laptop"], "decay", 0.6)
    rates, finish = [], train.Run.finish_step
    monkeypatch.setattr(train.Run, "finish_step", lambda run, values: rates.extend(
        run.parts[name].param_groups[0]["lr"] for name in ("g_optimizer", "d_optimizer")) or
        finish(run, values))
    cut_after(7, *arguments(tmp_path, pairs))
    train_here(*arguments(tmp_path, pairs))
    lr = train.PRESETS["pix2pix"]["laptop"]["lr"]            # 10 steps in all
    expected = [lr] * 4 + [lr * k / 6 for k in range(6, 0, -1)]
    assert rates[::2] == rates[1::2] == pytest.approx(expected)
    assert not any("decay" in of["paper"] for of in (*train.PRESETS.values(), train.SHAPES))

@pytest.mark.parametrize("step", [1, 7, 10, 13])
def test_an_averaged_run_goes_on_to_the_very_same_average(step, pairs, tmp_path):
    more = ("--ema", 0.9, "--decay", 0.5, "--epochs", 4)     # 20 steps
    train_here(*arguments(tmp_path / "straight", pairs, *more))
    cut_after(step, *arguments(tmp_path / "cut", pairs, *more))
    train_here(*arguments(tmp_path / "cut", pairs, *more))
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "straight")
    for name in ("checkpoint.pt", "generator.pt"):
        one = pix2pix.load_file(tmp_path / "cut" / name)
        other = pix2pix.load_file(tmp_path / "straight" / name)
        key = "average" if name == "checkpoint.pt" else "generator"
        for weight, value in one[key].items():
            assert torch.equal(value, other[key][weight])

def test_the_average_is_the_recursive_mean_of_gs_weights_and_is_what_is_used(
        pairs, tmp_path, monkeypatch):
    seen = []
    finish = train.Run.finish_step

    def keep(run, losses):
        finish(run, losses)
        if run.step % train.AVERAGE_EVERY == 0:
            seen.append(run.parts["generator"].to_image.weight.detach().clone())
    monkeypatch.setattr(train.Run, "finish_step", keep)
    train_here(*arguments(tmp_path / "run", pairs, "--ema", 0.7, "--epochs", 6))   # 30 steps
    start = train.pix2pix_networks(json.loads((tmp_path / "run/settings.json").read_text()),
                                   torch.device("cpu"))[0].to_image.weight.detach()
    wanted = start
    for step, weights in zip((10, 20, 30), seen):
        keep_share = min(0.7, (1 + step) / (10 + step)) ** 10
        wanted = keep_share * wanted + (1 - keep_share) * weights
    generator, _ = pix2pix.load_generator(tmp_path / "run")
    assert torch.allclose(generator.to_image.weight, wanted, atol=1e-6)
    assert not torch.allclose(generator.to_image.weight, seen[-1], atol=1e-6)

def test_ds_features_are_its_layers_outputs_and_their_loss_is_hand_worked():
    discriminator = pix2pix.PatchGAN(width=4)
    x, y = torch.rand(2, 2, 3, 64, 64)
    features = discriminator.features(x, y)
    assert [tuple(f.shape[1:]) for f in features] == [
        (4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 7, 7)]
    assert torch.equal(discriminator.layers[-1](features[-1]), discriminator(x, y))
    one = [torch.tensor([1.0, 3.0]), torch.tensor([[2.0]])]
    other = [torch.tensor([2.0, 5.0]), torch.tensor([[6.0]])]
    assert pix2pix.feature_matching_loss(one, other).item() == 1.5 + 4

def test_feature_matching_teaches_g_alone_and_is_logged(pairs, tmp_path):
    out = tmp_path / "run"
    train_here(*arguments(out, pairs, "--feature-matching", 10, "--epochs", 1))
    assert metrics.logged(out, "feature matching")[1][-1] > 0
    train_here(*arguments(tmp_path / "without", pairs, "--epochs", 1))
    one, other = (pix2pix.load_file(folder / "checkpoint.pt") for folder in (
        out, tmp_path / "without"))
    first = "layers.0.weight"                                # D's, whose first step is before G's
    assert not torch.equal(one["generator"]["to_image.weight"],
                           other["generator"]["to_image.weight"])
    assert torch.allclose(one["discriminator"][first], other["discriminator"][first], atol=0.02)
    refuses("has no D", train_here, *arguments(tmp_path / "l1", pairs, "--objective", "l1",
                                               "--feature-matching", 10))

def test_an_older_run_that_had_no_average_goes_on_without_one(pairs, tmp_path):
    cut_after(5, *arguments(tmp_path, pairs))
    settings = json.loads((tmp_path / "settings.json").read_text())
    for key in train.OLDER:
        del settings[key]                                    # as a run of before would have it
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert "going on from step 5" in train_here(*arguments(tmp_path, pairs))
    refuses("ema 0.0 there, 0.9 now", train_here, *arguments(tmp_path, pairs, "--ema", 0.9))

@pytest.mark.parametrize("forgotten", ["discriminator", "g_optimizer", "d_optimizer", "step"])
def test_the_resume_test_has_teeth(forgotten, straight_run, pairs, tmp_path):
    for step, name in ((4, "cut"), (1, "first")):
        cut_after(step, *arguments(tmp_path / name, pairs))
    cut, first = (pix2pix.load_file(tmp_path / name / "checkpoint.pt") for name in ("cut", "first"))
    data.write_whole(tmp_path / "cut" / "checkpoint.pt", {**cut, forgotten: first[forgotten]})
    train_here(*arguments(tmp_path / "cut", pairs))
    assert fingerprint(tmp_path / "cut") != fingerprint(straight_run)

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where, call, times, step", [
    ((data, "training"), 0, 1, 0), ((data, "augment"), 3, 1, 4),
    ((data, "contact_sheet"), 3, 1, 5), ((torch, "save"), 1, 1, 6), ((data, "augment"), 5, 2, 5)],
    ids=["load", "step", "sample", "save", "twice"])
def test_a_signal_at_any_moment_ends_in_one_step_a_second_at_once_and_nothing_is_lost(
        where, call, times, step, number, straight_run, pairs, tmp_path):
    """With a sheet each step and a checkpoint each epoch, in that call of a function."""
    calls, function = iter(range(1000)), getattr(*where)

    def interrupted(*args, **more):
        if next(calls) == call:
            [signal.raise_signal(number) for _ in range(times)]
        return function(*args, **more)
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        for clock in ("FIRST_SHEET", "LATER_SHEETS", "SAVE_EVERY"):
            patch.setattr(train, clock, 0.0)
        patch.setattr(*where, interrupted)
        data.run_command(lambda: train_here(*arguments(tmp_path, pairs)))
    [signal.signal(s, h) for s, h in zip((signal.SIGINT, signal.SIGTERM), handlers)]
    assert stop.value.code == (130 if times == 2 else 128 + number)
    if step:
        assert log_steps(tmp_path)[-1] == step
        assert pix2pix.load_file(tmp_path / "checkpoint.pt")["step"] == step
    train_here(*arguments(tmp_path, pairs))
    assert fingerprint(tmp_path) == fingerprint(straight_run)
    assert log_steps(tmp_path)[-1] == 10

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_outside_ends_a_running_process_with_its_code(number, pairs, tmp_path):
    more = arguments(tmp_path, pairs, "--epochs", 5000)
    with started(HERE / "train.py", *more) as process:
        while (line := process.stdout.readline()) and "epoch 1  step 1/" not in line:
            pass
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, error
    assert (tmp_path / "checkpoint.pt").exists() and "Traceback" not in error

def test_a_loss_that_is_not_finite_never_reaches_a_checkpoint(pairs, tmp_path, monkeypatch):
    cut_after(4, *arguments(tmp_path, pairs))
    before, loss = (tmp_path / "checkpoint.pt").read_bytes(), pix2pix.generator_loss
    monkeypatch.setattr(pix2pix, "generator_loss",
                        lambda *args: tuple(value * float("nan") for value in loss(*args)))
    with pytest.raises(SystemExit, match=r"step 5: G adversarial.*\.png"):
        train_here(*arguments(tmp_path, pairs))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    monkeypatch.undo()
    finish = train.Run.finish_step

    def poison(run, values):                                 # a weight, not a loss
        run.parts["generator"].to_image.bias.data.fill_(float("nan"))
        run.signal = signal.SIGINT
        finish(run, values)
    monkeypatch.setattr(train.Run, "finish_step", poison)
    with pytest.raises(SystemExit, match="a weight is not finite"):
        train_here(*arguments(tmp_path, pairs))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before

def test_out_of_memory_and_a_closed_stdout_end_in_one_line_or_none(
        pairs, tmp_path, monkeypatch, capsys):
    for error, code, words in (
            (MemoryError(), 1, "--batch"),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "--batch"),
            (RuntimeError("InvalidCxxCompiler: No working C++ compiler found"), 2, "--compile"),
            (RuntimeError("Failed to find C compiler. Please specify via CC"), 2, "--compile")):
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
            patch.setattr(pix2pix, "generator_loss", lambda *_: (_ for _ in ()).throw(error))
            data.run_command(lambda: train_here(*arguments(tmp_path / "run", pairs)))
        said = capsys.readouterr().err
        assert stop.value.code == code and said.startswith("error: ") and words in said
        assert said.count("\n") == 1
    command = f"{sys.executable} {HERE / 'pix2pix.py'}"
    for line, code in ((f"{command} >&-", 0), (f"set -o pipefail; {command} | true", 141)):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)
        assert done.returncode == code and not done.stderr, done.stderr

def test_one_hot_maps_train_translate_and_are_dreamt_without_colours(pairs, tmp_path, monkeypatch):
    train_here(*arguments(tmp_path / "run", pairs, "--one-hot", "--epochs", 1))
    generator, settings = pix2pix.load_generator(tmp_path / "run")
    assert settings["in_channels"] == 12 == generator.encoder[0].in_channels
    run_here(pix2pix, tmp_path / "run", pairs / "0.png", tmp_path / "photo.png", "--pair")
    maps = tiny_run(tmp_path / "maps", "semantic-facades", width=4)
    seen, generate = [], pix2pix.generate
    monkeypatch.setattr(pix2pix, "generate",
                        lambda g, x, seed: seen.append(x) or generate(g, x, seed))
    run_here(semgan, maps, "--dream", tmp_path / "run", "--count", 33, "--out", tmp_path / "d.png")
    assert [len(x) for x in seen] == [32, 1]                 # in parts: many dreams fill no memory
    assert seen[0].shape == (32, 12, 64, 64) and torch.allclose(seen[0].sum(1), torch.tensor(1.0))
    assert len(seen[0].unique()) > 100                       # probabilities, not their argmax
    assert data.open_picture(tmp_path / "d.png").size == (4 + 6 * 68, 20 + 11 * 68)

@pytest.mark.parametrize("norm, alike", [("instance", True), ("batch", False)])
def test_a_picture_depends_on_its_neighbours_by_batch_norm_alone(norm, alike, pairs, tmp_path):
    train_here(*arguments(tmp_path, pairs, "--norm", norm, "--upsample", "nearest", "--epochs", 1))
    generator, _ = pix2pix.load_generator(tmp_path)
    generator.dropout_at, x = (), torch.rand(2, 3, 64, 64) * 2 - 1       # no noise
    with torch.no_grad():
        assert torch.allclose(generator(x)[:1], generator(x[:1]), atol=1e-4) == alike
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in generator.modules())

@pytest.mark.parametrize("kind", ["semgan", "bf16", "fp16"])
def test_semgan_and_half_precision_continue_exactly_too(kind, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "map_scores", lambda *_: {"SWD": 0.0, "out of palette": 0.0})
    seen, unet = set(), pix2pix.UNet.forward
    monkeypatch.setattr(pix2pix.UNet, "forward", lambda g, x: seen.add(
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")) or unet(g, x))
    straight, cut = (
        ["--task", "shapes", *SMALL, "--batch", 400, "--epochs", 1, "--out", out]
        if kind == "semgan" else arguments(out, pairs, "--precision", kind, "--epochs", 1)
        for out in (tmp_path / "straight", tmp_path / "cut"))
    train_here(*straight), cut_after(3, *cut)
    assert fingerprint(tmp_path / "cut") != fingerprint(tmp_path / "straight")
    train_here(*cut)
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "straight")
    content = pix2pix.load_file(tmp_path / "cut" / "checkpoint.pt")
    assert {tensor.dtype for tensor in content["generator"].values()} == {torch.float32}
    assert ("scaler" in content) == (kind == "fp16")         # or its small gradients would vanish
    assert kind == "semgan" or {"bf16": torch.bfloat16, "fp16": torch.float16}[kind] in seen

def test_compile_and_tensorboard_are_used_where_asked_for(pairs, tmp_path, monkeypatch):
    name, board = "torch.utils.tensorboard", mock.Mock()
    compiled = mock.Mock(side_effect=lambda network: network)
    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setitem(sys.modules, name, board)
    args = arguments(tmp_path, pairs, "--epochs", 1, "--compile", "--tensorboard")
    train_here(*args)
    assert [type(c.args[0]) for c in compiled.mock_calls] == [pix2pix.UNet, pix2pix.PatchGAN]
    board.SummaryWriter.assert_called_once_with(tmp_path / "tensorboard")
    *rows, last = board.SummaryWriter().method_calls
    assert {row.args[::2] for row in rows} >= {("L1", 5), ("held-out L1", 5)}
    assert last == mock.call.flush()
    monkeypatch.setitem(sys.modules, name, None)             # as if it were not installed
    refuses("pip install tensorboard", train_here, *args)

@pytest.mark.parametrize("objective, judged", [("l1", set()), ("gan", {1}), ("cgan", {2}),
                                               ("l1+gan", {1}), ("l1+cgan", {2})])
def test_each_objective_trains_what_it_names(objective, judged, pairs, tmp_path, monkeypatch):
    seen, weights = [], []
    forward, loss = pix2pix.PatchGAN.forward, pix2pix.generator_loss
    monkeypatch.setattr(pix2pix.PatchGAN, "forward",
                        lambda self, *p: seen.append(len(p)) or forward(self, *p))
    monkeypatch.setattr(pix2pix, "generator_loss",
                        lambda *args: weights.append(args[3]) or loss(*args))
    train_here(*arguments(tmp_path, pairs, "--objective", objective, "--epochs", 1))
    assert set(seen) == judged                               # D(y) or D(x, y)
    assert set(weights) == {100.0 if "l1" in objective else 0.0}

def test_laptop_means_as_many_steps_whatever_the_pictures_and_paper_the_tasks_epochs(monkeypatch):
    def epochs(count, *args):
        pictures = type("Fake", (), {"names": ["a.jpg"] * count, "__len__": lambda _: count})()
        monkeypatch.setattr(data, "training", lambda *_: pictures)
        monkeypatch.setattr(data, "held_out", lambda *_: pictures)
        monkeypatch.setattr(data, "locate", lambda *_: (None, True))
        monkeypatch.setattr(sys, "argv", ["train.py", *args])
        settings = train.resolve(train.parse(), torch.device("cpu"))
        train.find_pictures(settings, 1.0)
        return settings["epochs"]
    assert epochs(360) == 80 and epochs(49_825, "--task", "edges2shoes") == 1
    assert epochs(360, "--epochs", "7") == 7 and epochs(2_625, "--task", "shapes") == 110
    assert epochs(400, "--preset", "paper") == 200
    assert epochs(49_825, "--task", "edges2shoes", "--preset", "paper") == 15

@pytest.mark.parametrize("command, words", [
    ("--batchs 2", "--batch"), ("--batch 0", "above 0"), ("--lr nan", "above 0"),
    ("--epochs x", "whole number"), ("--size 100", "nearest is"), ("--device tpu", "cpu"),
    ("--size 3x4x5", "height x width"), ("--task facade", "facades"),
    ("--data /no/such", "no such folder"), ("--one-hot --task maps", "not a label map"),
    ("--head tanh", "not an option"), ("--task shapes --l1-weight 3", "not an option"),
    ("--task shapes --precision fp16", "bf16"), ("--task shapes --data /no", "leave it out"),
    ("--size 64 --receptive-field 286", "142"),
    ("--size 100x300", "nearest is 128x320"), ("--task shapes --kernel 999", "up to 31"),
    ("--objective gan --l1-weight 3", "does not use"),
    ("--objective l1 --receptive-field 16", "does not use"),
    ("semgan RUN --train-encoder 2 --encode a.png", "goes alone"),
    ("semgan RUN --train-encoder 2 --out a.png", "goes alone"),
    ("semgan RUN --train-encoder 2 --count 3", "goes alone"),
    ("semgan --count 3", "RUN: missing"), ("semgan --encode map.png RUN", "RUN: missing"),
    ("semgan RUN --train-encoder 2 --seed 3", "goes alone"),
    ("semgan RUN --encode a.png --count 3", "without --count"),
    ("semgan RUN --encode a.png --out a.png", "--out MAP"),
    ("semgan RUN --encode grid.png", "--out MAP"),           # the default of --out
    ("semgan RUN --walk w.png", "a GIF"), ("semgan RUN --walk w.gif --out w.png", "no --out"),
    ("semgan RUN --walk w.gif --dream RUN", "not allowed with"),
    ("data shapes --classes 3", "kmeans"), ("data edges in.png out.png --size 1", "no edges"),
    ("pix2pix --convert a.pth b --draw c.png", "one at a time"),
    ("pix2pix RUN a b --own-statistics", "only with"),
    ("metrics RUN --figure7 x.bmp", "--figure7: 'x.bmp'"), ("metrics --figure4 x.png", "RUN"),
    ("metrics RUN --train-fcn facades --figure4 x.png", "not allowed with")])
def test_bad_options_get_one_line_and_code_2(command, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name, *args = (command if command[0] != "-" else f"train {command}").split()

    def said():
        with pytest.raises(SystemExit) as stopped:
            data.run_command(lambda: run_here(sys.modules[name], *args))
        assert stopped.value.code == 2 and not list(tmp_path.iterdir())
        return capsys.readouterr().err
    error = said()
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
    monkeypatch.setenv("LOCAL_RANK", "1")                    # torchrun's first process says it all
    assert not said()

def test_a_folder_in_which_another_process_trains_is_refused(pairs, tmp_path):
    with train.lock(tmp_path):
        refuses("another process", train_here, *arguments(tmp_path, pairs))

def test_the_generator_alone_translates_pictures_and_folders(straight_run, tmp_path):
    for name, size in (("a", (333, 517)), ("b", (64, 64))):
        data.save_picture(tmp_path / "in" / f"{name}.png", noise_picture(3, *size))
    shutil.copy(straight_run / "generator.pt", tmp_path / "g.pt")

    def translate(source, out):
        run_here(pix2pix, tmp_path / "g.pt", tmp_path / source, tmp_path / out)
    translate("in/a.png", "a.jpg")
    assert data.open_picture(tmp_path / "a.jpg").size == (517, 333)
    translate("in", "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "b.png"}
    refuses("missing.png", translate, "missing.png", "x.png")
    refuses("to be read", translate, "in/a.png", "in")       # over itself: nothing is lost
    refuses("to be read", translate, "in", "in")

def test_each_process_needs_a_gpu_of_its_own_and_one_process_may_choose(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    chosen = []
    assert [str(data.device_of(*args)) for args in ((), ("cuda:1",), (None, 1, 2), ("cpu", 7, 8))
            ] == ["cuda:0", "cuda:1", "cuda:1", "cpu"] and chosen == [0, 1, 1]
    for rank in range(3):                                    # the first one says it
        refuses("one for each process", data.device_of, None, rank, 3)
    refuses("one for each process", data.device_of, "cuda:0", 0, 2)
    refuses("not on this machine", data.device_of, "cuda:2")

def test_pictures_go_to_a_gpu_without_a_wait_and_stay_themselves_on_a_cpu(monkeypatch):
    picture, seen = noise_picture(2, 3), []
    assert torch.equal(train.sent(picture, torch.device("cpu")), picture)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: seen.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking:
                        seen.append((device.type, non_blocking)))
    train.sent(picture, torch.device("cuda"))
    assert seen == ["pinned", ("cuda", True)]
    there = SimpleNamespace(is_cuda=True, to=lambda device, non_blocking: "not pinned")
    assert train.sent(there, torch.device("cuda")) == "not pinned"       # which would fail there

@pytest.mark.parametrize("free, kept", [(4000, True), (3999, False)])
def test_decoded_pictures_move_to_a_gpu_with_room_for_them(free, kept, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 8000))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: device.type)
    for cache, gpu in ((noise_picture(10, 100), kept), (None, False)):
        pictures = SimpleNamespace(cache=cache)
        train.keep_on_gpu(pictures, torch.device("cpu"))
        assert pictures.cache is cache
        train.keep_on_gpu(pictures, torch.device("cuda"))
        assert pictures.cache == "cuda" if gpu else pictures.cache is cache

@pytest.mark.parametrize("task, more", [
    ("facades", {}), ("facades", {"one_hot": True, "in_channels": 12, "norm": "batch"}),
    ("colorization", {"in_channels": 1, "out_channels": 2}), ("inpainting", {}),
    ("shapes", {"head": "tanh"}), ("shapes", {"out_channels": 4})])
def test_no_training_step_waits_for_a_gpu(task, more, monkeypatch, tmp_path):
    """The device "meta" stands in for one: it keeps shapes alone, so whoever asks for a value on
    it, copies one back or mixes the two devices fails; Spy sees to copies that wait on their way
    there. finish_step reads losses when it logs."""
    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            there = str((kwargs or {}).get("device")) == "meta"
            assert not there or function is not torch.ops.aten._to_copy.default or (
                kwargs.get("non_blocking") or args[0].is_meta), f"a copy that waits: {args}"
            return function(*args, **kwargs or {})
    gpu, losses = torch.device("meta"), []

    def remaining(run, pictures):
        with Spy():
            yield from zip([[0, 1], [2, 3]], pictures.batches([[0, 1], [2, 3]]))
    monkeypatch.setattr(train.Run, "remaining", remaining)
    monkeypatch.setattr(train.Run, "begin_folder", lambda run: None)
    monkeypatch.setattr(train.Run, "finish_step", lambda run, values: losses.extend(values.values()))
    monkeypatch.setattr(train, "adam", lambda network, _: torch.optim.SGD(network.parameters()))
    monkeypatch.setattr(pix2pix, "on_gpu", lambda x: x.is_meta)
    settings = {**settings_for(make_pairs(tmp_path), task), **train.OWN["pix2pix"], "width": 8,
                "depth": 6, "in_channels": 3, "out_channels": 3, "precision": "fp32", "seed": 0,
                "latent": 8, "kernel": 5, "noise": 0.3, "blur": 3, "head": "softmax",
                "preset": "paper", "batch": 2, "epochs": 1, "lr": 1e-3, "decay": 0.0, **more}
    pictures = data.training(settings)
    pictures.cache = pictures.cache.to(gpu)
    loop = train.train_semgan if task == "shapes" else train.train_pix2pix
    loop(SimpleNamespace(settings=settings, device=gpu, rank=0, world=1, compile=False, writer=None,
                         folder=tmp_path / "run"), pictures, None)
    assert len(losses) == (8 if task == "shapes" else 10) and all(v.is_meta for v in losses)

@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("task", ["facades", "shapes"])
def test_a_run_on_a_gpu_is_used_on_a_cpu_and_goes_on(task, precision, tmp_path):
    """Not yet run: no GPU was at hand."""
    if (task, precision) == ("shapes", "fp16"):
        return refuses("fp16", run_here, train, "--task", task, "--precision", precision)
    command = ["--task", task, "--preset", "laptop", "--width", 8, "--batch", 100, "--size", 64,
               "--precision", precision, "--out", tmp_path]
    if task == "facades":
        command += ["--data", make_pairs(tmp_path / "pairs", 220)]
    assert "kept on the GPU" in run_here(train, *command, "--epochs", 1)
    assert "going on from step" in run_here(train, *command, "--epochs", 2, "--device", "cpu",
                                            "--precision", "fp32")
    assert "going on from step" in run_here(train, *command, "--epochs", 3)
    assert all(np.isfinite(metrics.logged(tmp_path, "D loss")[1]))
    if task == "facades":
        generator, x = pix2pix.load_generator(tmp_path)[0], torch.rand(2, 3, 64, 64) * 2 - 1
        generator.dropout = 0
        here, there = (pix2pix.generate(generator.to(device), x.to(device)).cpu()
                       for device in ("cpu", "cuda"))
        assert torch.allclose(here, there, atol=0.02)        # a GPU's convolutions round to TF32

DRIVER = """
import os, signal, sys, torch
sys.path.insert(0, {here!r})
import pix2pix, train
build = pix2pix.build_generator
def without_noise(settings):                                 # which differs from rank to rank
    generator = build(settings)
    generator.dropout = 0
    return generator
pix2pix.build_generator = without_noise
if {double}:
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
finish = train.Run.finish_step
def finish_step(run, values):
    if run.step == 2 and run.rank == 1 and os.path.exists({marker!r}):
        os.remove({marker!r})
        run.stop(signal.SIGTERM, None)
    if run.step == 5 and run.rank == 1 and os.path.exists({marker!r} + "9"):
        os.remove({marker!r} + "9")
        os.kill(os.getpid(), 9)
    finish(run, values)
    if run.step == 8:
        torch.save([p.detach() for part in ("generator", "discriminator")
                    for p in run.parts[part].parameters()], run.folder / f"rank{{run.rank}}.pt")
train.Run.finish_step, train.SAVE_EVERY = finish_step, 0.0
train.data.run_command(train.main)
"""

def test_two_processes_train_as_one_and_stopped_together_go_on_exactly(pairs, tmp_path):
    """Eight steps, dropout off, the same global batch. The stop is asked of one process only.

    They are compared in double precision: in single, rounding alone parts tiny networks by 1e-6 to
    1e-3, as norms over 2x2 nearly equal values, and Adam's first steps, magnify it."""
    script, marker = tmp_path / "driver.py", tmp_path / "stop"

    def train_in(workers, name, restarts=0, double=False):
        script.write_text(DRIVER.format(here=str(HERE), marker=str(marker), double=double))
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", workers,
                  "--max-restarts", restarts]
        return python(*launch[:0 if workers == 1 else 7], script, *arguments(
            tmp_path / name, pairs, "--batch", 4, "--epochs", 4, "--seed", 1))
    for workers in (1, 2):
        assert (done := train_in(workers, str(workers), 0, True)).returncode == 0, done.stderr
    one, two, other = (torch.load(tmp_path / f"{run}.pt")
                       for run in ("1/rank0", "2/rank0", "2/rank1"))
    assert one[0].dtype == torch.float64
    assert max((a - b).abs().max() for a, b in zip(one, two)) <= 1e-12
    assert all(torch.equal(a, b) for a, b in zip(two, other))
    assert log_steps(tmp_path / "2") == log_steps(tmp_path / "1")            # one writer
    shutil.rmtree(tmp_path / "2")
    assert (done := train_in(2, "2")).returncode == 0, done.stderr           # in single precision
    two, other = (torch.load(tmp_path / f"2/rank{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(two, other)) and two[0].dtype == torch.float32
    marker.touch()
    assert train_in(2, "cut").returncode != 0
    assert pix2pix.load_file(tmp_path / "cut" / "checkpoint.pt")["step"] == 3
    assert (done := train_in(2, "cut")).returncode == 0, done.stderr
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "2")
    Path(f"{marker}9").touch()                               # kill -9, and torchrun's restart
    assert (done := train_in(2, "killed", 1)).returncode == 0, done.stderr
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "2")
    assert not Path(f"{marker}9").exists()

@pytest.mark.parametrize("first", [lambda seen: ("other pictures", seen[1]),
                                   lambda seen: (seen[0], not seen[1])])
def test_processes_that_see_other_pictures_or_another_run_refuse(
        first, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1"), monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(train.dist, "rendezvous", lambda _: iter([(None,)]))
    for name in ("PrefixStore", "init_process_group"):
        monkeypatch.setattr(train.dist, name, lambda *args, **more: None)

    def gather(found, seen):
        found[:] = first(seen), seen
    monkeypatch.setattr(train.dist, "all_gather_object", gather)
    refuses("different pictures or run folders", train_here, *arguments(tmp_path / "run", pairs))

# faults

@pytest.mark.parametrize("flips, cuts", [(60, 20), slow(1_000, 400)])
def test_damage_to_a_checkpoint_is_named(flips, cuts, straight_run, tmp_path):
    """One flipped bit, or a cut, anywhere: refused, or every value is still right."""
    random, original = np.random.default_rng(0), (straight_run / "checkpoint.pt").read_bytes()
    whole, path = pix2pix.load_file(straight_run / "checkpoint.pt"), tmp_path / "bad.pt"
    for i in range(flips + cuts):
        content, at = bytearray(original), int(random.integers(len(original)))
        content[at] ^= 1 << int(random.integers(8))
        path.write_bytes(content if i < flips else content[:at])
        try:
            read = pix2pix.load_file(path)  # passes if it is a bit that nobody reads
            both = zip(data.tensors_of(read), data.tensors_of(whole), strict=True)
            assert all(torch.equal(x, y) for x, y in both)
            assert read["step"] == whole["step"] and read["settings"] == whole["settings"]
        except pix2pix.Refusal as refusal:
            assert "damaged" in str(refusal) and "weights_only" not in str(refusal)
    data.write_whole(path, {**whole, "format": 2})           # from the future
    refuses("format", pix2pix.load_generator, path)

@pytest.mark.parametrize("file, content, more, words", [
    ("log.csv", b"step\nx;1\n", "--epochs 3", "log.csv: damaged"),
    ("checkpoint.pt", b"PK", "--epochs 3", "checkpoint.pt: damaged"),
    ("checkpoint.pt", None, "--seed 5", "no checkpoint.pt to go on"),    # or a converted generator
    ("settings.json", b"{", "--epochs 3", "settings.json: missing or damaged"),
    ("settings.json", None, "", "settings.json: missing or damaged"),
    ("settings.json", b'{"noise": 0.3}', "--epochs 3", "noise 0.3 there, None now"),
    ("", None, "--width 6 --seed 3", "seed 0 there, 3 now.*width 4 there")])
def test_a_refused_run_leaves_every_file_as_it_was(
        file, content, more, words, straight_run, pairs, tmp_path):
    run = shutil.copytree(straight_run, tmp_path / "run")
    if file:
        (run / file).unlink() if content is None else (run / file).write_bytes(content)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refuses(words, train_here, *arguments(run, pairs, *more.split()))
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
@pytest.mark.parametrize("module", [pix2pix, semgan])
def test_a_checkpoint_never_runs_code(module, tmp_path):
    path, marker = tmp_path / "generator.pt", tmp_path / "marker"
    evil = type("Evil", (), {"__reduce__": lambda _: (open, (str(marker), "w"))})()
    for write in (lambda: torch.save({"format": 1, "settings": evil}, path),
                  lambda: path.write_bytes(pickle.dumps(evil))):
        write()
        refuses("generator.pt", module.load_generator, path)
        assert not marker.exists()

SAVER = """
import sys, torch
sys.path.insert(0, {here!r})
import data
from pathlib import Path
path, step = Path({path!r}), {step}
while True:
    step += 1
    weights = [torch.full((500_000,), float(step))] * 4
    data.write_whole(path, {{"format": 1, "step": step, "w": weights}})
    print(step, flush=True)
"""

@pytest.mark.parametrize("kills", [3, slow(200)])
def test_a_checkpoint_is_whole_or_absent(kills, tmp_path):
    """kill -9 at random moments of endless saves: each time a whole file, never an older one."""
    random, path, step = np.random.default_rng(0), tmp_path / "checkpoint.pt", 0
    for _ in range(kills):
        with started("-c", SAVER.format(here=str(HERE), path=str(path), step=step)) as process:
            process.stdout.readline()
            time.sleep(float(random.uniform(0, 0.2)))
            process.kill()
            printed = [int(line) for line in process.stdout.read().split()]
        content = pix2pix.load_file(path)
        assert content["step"] >= max([step + 1, *printed])
        step = content["step"]
        assert content["w"][0][-1] == step

def test_what_a_run_needs_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done, replace, fsync = [], os.replace, os.fsync          # a power cut would lose the rest

    def forced(number):
        kind = "folder" if os.path.samestat(os.fstat(number), tmp_path.stat()) else "file"
        done.append(f"{kind} {os.fstat(number).st_size > 0}")            # nothing waits in Python
        fsync(number)
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("rename") or replace(*paths))
    monkeypatch.setattr(os, "fsync", forced)
    for name, content in (("c.pt", {"a": 1}), ("settings.json", b"{}"), ("000025.png", b"picture")):
        data.write_whole(tmp_path / name, content)
        assert done == (["rename"] if name == "000025.png" else
                        ["file True", "rename", "folder True"])
        done.clear()

def test_a_full_disk_loses_nothing(pairs, tmp_path, monkeypatch):
    cut_after(4, *arguments(tmp_path, pairs))
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def limit():                                             # no file may grow beyond this
        import resource  # not on Windows
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2,) * 2)
    done = python(HERE / "train.py", *arguments(tmp_path, pairs), preexec_fn=limit)
    assert done.returncode == 2 and "checkpoint.pt" in done.stderr and "MiB" in done.stderr
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.partial")) and log_steps(tmp_path)     # whole rows only

    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    for name, content in (("log.csv", b"new"), ("checkpoint.pt", {"new": 1})):
        kept = (tmp_path / name).read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)               # all is written, but not yet in place
            refuses("No space left", data.write_whole, tmp_path / name, content)
        assert kept == (tmp_path / name).read_bytes()
    assert python(HERE / "train.py", *arguments(tmp_path, pairs)).returncode == 0
    try:
        raise data.Refusal("of another cause")               # is not taken for that of the save
    except data.Refusal:
        refuses("(?!.*another cause).*log.csv/c.pt: could not be written", data.write_whole,
                tmp_path / "log.csv" / "c.pt", {"new": 1})

# files from outside

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))

def png(width, height, depth, colour_type, rows=b"", extra=b""):
    """A PNG made by hand, for what Pillow will not write."""
    def chunk(kind, body):
        body, length = kind + body, struct.pack(">I", len(body))
        return length + body + struct.pack(">I", zlib.crc32(body))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(*extra) if extra else b"") +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))

def test_every_kind_of_picture_becomes_the_right_colour_upright(tmp_path):
    grey16 = Image.fromarray(np.full((9, 9), 40_000, np.uint16))         # 40000 / 257 = 155.6
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    kinds = {"16.png": (grey16, {}, 156), "16.tif": (grey16, {}, 156),
             "cmyk.jpg": (Image.new("CMYK", (9, 9), (0, 0, 0, 55)), {"quality": 100}, 200),
             "la.png": (Image.new("LA", (9, 9), (80, 255)), {}, 80),
             "one.png": (Image.new("1", (9, 9), 1), {}, 255),
             "rgba.webp": (Image.new("RGBA", (9, 9), (9, 9, 9, 0)), {"lossless": True}, 255),
             "palette.png": (palette, {}, (200, 100, 50)),
             "clear.gif": (palette, {"transparency": 1}, 255),
             "clear.png": (Image.new("RGB", (9, 9), (5, 6, 7)), {"transparency": (5, 6, 7)}, 255)}
    for name, (image, options, expected) in kinds.items():
        image.save(tmp_path / name, **options)
        pixel = data.open_picture(tmp_path / name).getpixel((0, 0))
        assert np.abs(np.subtract(pixel, expected)).max() <= 1, name
    exif = Image.Exif()
    exif[274] = 6  # stored lying: turn by 90 degrees to view
    PHOTO.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(data.open_picture(tmp_path / "a.png"), np.rot90(PHOTO, -1))

def test_bad_pictures_are_refused_by_name_in_one_line(tmp_path, recwarn):
    for ending in ("jpg", "png"):
        PHOTO.save(buffer := io.BytesIO(), {"jpg": "JPEG", "png": "PNG"}[ending])
        (tmp_path / f"half.{ending}").write_bytes(buffer.getvalue()[:len(buffer.getvalue()) // 2])
    PHOTO.save(tmp_path / "moves.gif", save_all=True, append_images=[PHOTO.rotate(180)])
    PHOTO.convert("F").save(tmp_path / "float.tif")
    text, rows = b"a\0" + b"x" * 80_000_000, b"\0" * 14
    packed = b"a\0\0" + zlib.compress(text)
    files = {"empty.jpg": b"", "page.jpg": b"<!DOCTYPE html>", "big.png": png(10_000, 10_000, 8, 2),
             "huge.png": png(20_000, 20_000, 8, 2),
             "text.png": png(2, 2, 8, 2, rows, (b"tEXt", text)),
             "packed.png": png(2, 2, 8, 2, rows, (b"zTXt", packed))}
    for name, whole in files.items():
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "folder.jpg").mkdir()
    Image.new("1", (9_500, 9_500)).save(tmp_path / "wide.png")           # whole, but a bomb
    (tmp_path / "heavy.png").write_bytes(b"")
    os.truncate(tmp_path / "heavy.png", data.MOST_BYTES + 1)
    for name, word in (("wide", "pixels"), ("heavy", "bytes")):
        refuses(f"{name}.*{word}", data.open_picture, tmp_path / f"{name}.png")
    for path in sorted(tmp_path.iterdir()) + [tmp_path / "missing.jpg"]:
        refuses(re.escape(str(path)), data.open_picture, path)
    assert not recwarn.list  # Pillow's warnings would be further lines

@pytest.mark.parametrize("count", [60, slow(1000)])
def test_mutated_pictures_raise_only_our_error(count, tmp_path):
    """Random bytes changed or cut off: read, or refused, and nothing else."""
    random, sources, refused = np.random.default_rng(1), [], 0
    for options in ({"format": "PNG"}, {"format": "JPEG"}, {"format": "JPEG", "progressive": True}):
        PHOTO.save(buffer := io.BytesIO(), **options)
        sources.append(buffer.getvalue())
    sources.append(png(2, 2, 2, 0, b"\0\x10" * 2))
    for i in range(count):
        content = np.frombuffer(sources[i % 4], np.uint8).copy()
        end = min(len(content), 300) if i % 3 else len(content)
        places = random.integers(0, end, random.integers(1, 9))
        content[places] = random.integers(0, 256, len(places))
        kept = len(content) if i % 5 else random.integers(len(content))
        (tmp_path / "x.png").write_bytes(content[:kept].tobytes())
        for read in (data.open_picture, lambda path: data.open_label_map(path, FACADES)):
            try:
                read(tmp_path / "x.png")
            except data.Refusal:
                refused += 1
    assert count / 2 < refused < 2 * count

STREET = data.CAMVID
BANDS = (np.indices((60, 80)).sum(0) // 12).astype(np.uint8)            # classes 0-11
GREYS = [(k, k, k) for k in range(12)]

def renumbered(rows, order):
    """BANDS as a palette picture that looks as by rows, its rows in another order: what lossless
    optimisers write."""
    places = np.zeros(12, np.uint8)
    places[order] = np.arange(12)
    image = Image.fromarray(places[BANDS])
    image.putpalette([value for k in order for value in rows[k]])
    return image

ORDER = [5, 11, 0, 3, 7, 1, 2, 10, 4, 8, 9, 6]
BAND_COLOURS = np.array([colour for _, colour in STREET], np.uint8)[BANDS]
NUMBERED = {
    "grey": Image.fromarray(BANDS),
    "grey of 16 bits": Image.fromarray(BANDS.astype(np.uint16)),
    "grey and alpha": Image.fromarray(BANDS).convert("LA"),
    "red, green and blue": Image.fromarray(np.stack([BANDS] * 3, -1)),
    "red, green, blue and alpha": Image.fromarray(np.stack([BANDS] * 3, -1)).convert("RGBA"),
    "red alone": Image.fromarray(np.stack([BANDS, 0 * BANDS, 0 * BANDS], -1)),
    "a palette of greys": renumbered(GREYS, ORDER),
    "a palette of colours": renumbered([tuple(c) for _, c in STREET], ORDER),
    "colours": Image.fromarray(BAND_COLOURS)}

@pytest.mark.parametrize("how", NUMBERED)
def test_a_label_map_is_the_same_however_it_is_stored(how, tmp_path):
    NUMBERED[how].save(tmp_path / "a.png")
    assert np.array_equal(data.open_label_map(tmp_path / "a.png", STREET), BANDS)

def test_a_label_map_survives_oxipng(tmp_path):
    oxipng = pytest.importorskip("oxipng", reason="pip install pyoxipng")
    for image in (NUMBERED["grey"], NUMBERED["a palette of colours"]):
        image.save(tmp_path / "a.png")
        oxipng.optimize(tmp_path / "a.png", tmp_path / "b.png")
        assert np.array_equal(data.open_label_map(tmp_path / "b.png", STREET), BANDS)

def test_4_bit_grey_which_pillow_spreads_keeps_its_numbers(tmp_path):
    (tmp_path / "a.png").write_bytes(png(2, 1, 4, 0, b"\0\x3b"))
    assert data.open_label_map(tmp_path / "a.png", STREET).tolist() == [[3, 11]]

def test_a_number_of_no_class_is_named_with_its_place(tmp_path):
    NUMBERED["grey"].save(tmp_path / "a.png")
    refuses("a.png: class 11 at x=73, y=59", data.open_label_map, tmp_path / "a.png", STREET[:11])

def test_palette_rows_that_are_no_class_colours_are_numbers_and_files_must_agree(tmp_path):
    rows = [(20 * k, 255 - 20 * k, 99) for k in range(12)]
    folders = make_label_folders(tmp_path, [renumbered(rows, range(12))] * 3)
    path = folders / "labels" / "0.png"
    assert np.array_equal(data.open_label_map(path, STREET), BANDS)
    data.pictures_of("cityscapes", tmp_path)
    renumbered(rows, ORDER).save(path)
    refuses(r"labels/\d.png: number \d+ is shown as .*optimiser", data.pictures_of, "cityscapes",
            tmp_path)

def make_label_folders(folder, maps, photo=None):
    """photos/ and labels/ with these maps, Pillow pictures."""
    for name in ("photos", "labels"):
        (folder / name).mkdir()
    for i, label_map in enumerate(maps):
        label_map.save(folder / "labels" / f"{i}.png")
        (photo or Image.new("RGB", label_map.size, (90, 80, 200))).save(
            folder / "photos" / f"{i}.png")
    return folder

@pytest.mark.parametrize("classes, value, words", [
    (("black", "white"), 1, None), (("white", "black"), 0, None),
    (("green", "red"), None, "0 and 255: is 255 class 1, or 'ignore'")])
def test_a_mask_of_0_and_255_is_black_and_white_or_refused(classes, value, words, tmp_path):
    colours = {"black": [0, 0, 0], "white": [255] * 3, "green": [0, 128, 0], "red": [200, 0, 0]}
    Image.fromarray(np.where(BANDS > 5, 255, 0).astype(np.uint8)).save(tmp_path / "a.png")
    palette = [[name, colours[name]] for name in classes]
    if words:
        refuses(words, data.open_label_map, tmp_path / "a.png", palette)
    else:
        expected = np.where(BANDS > 5, value, 1 - value)
        assert np.array_equal(data.open_label_map(tmp_path / "a.png", palette), expected)

def test_a_map_that_means_one_thing_by_number_and_another_by_colour_is_refused(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")        # black: class 11, or number 0
    refuses(r"classes \[11\] by colour, \[0\] by number", data.open_label_map, tmp_path / "a.png",
            STREET)

def test_a_clear_background_is_no_class(tmp_path):
    NUMBERED["a palette of colours"].save(tmp_path / "a.png", transparency=3)
    refuses("transparent background", data.open_label_map, tmp_path / "a.png", STREET)

def test_numbers_without_a_palette_are_no_pictures(tmp_path):
    make_label_folders(tmp_path, [NUMBERED["grey"].resize((64, 64))] * 3)
    refuses("whole numbers up to 11.*palette.json", data.training,
            settings_for(tmp_path, "pairs", palette=None))

def test_numbers_in_a_jpeg_are_no_colours(tmp_path):
    NUMBERED["grey"].save(tmp_path / "a.jpg")
    refuses("nearly black", data.open_label_map, tmp_path / "a.jpg", STREET)

@pytest.mark.parametrize("name, top, words", [
    ("a_gtFine_labelTrainIds.png", 18, "trainIds"), ("a_gtFine_labelIds.png", 255, "trainIds"),
    ("a_gtFine_labelIds.png", 6, "over half")])
def test_only_cityscapes_own_ids_are_read_by_them(name, top, words, tmp_path):
    Image.fromarray(np.where(BANDS > 2, top, 1).astype(np.uint8)).save(tmp_path / name)
    refuses(words, data.open_label_map, tmp_path / name, data.CITYSCAPES)

def test_a_palette_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "palette.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(STREET).encode())
    assert data.palette_of("pairs", tmp_path) == STREET

@pytest.mark.parametrize("rows, words", [
    ([["a", [0, 0, 0]], ["car", [0, 0, 300]]], "car.*300"), (["sky", "car"], "sky"),
    ([["a", [0, 0, 0]], ["c", [0, 0, 0]]], "c has the colour of a"), ({"sky": 1}, "not a list")])
def test_the_bad_entry_of_a_palette_json_is_named(rows, words, tmp_path):
    (tmp_path / "palette.json").write_text(json.dumps(rows))
    refuses(words, data.palette_of, "pairs", tmp_path)

def make_deep(folder, *tops):
    """A/ of 8 bits, B/ of 16: 7200 to each of tops."""
    for name in "AB":
        (folder / name).mkdir()
    for i, top in enumerate(tops):
        PHOTO.resize((64, 64)).save(folder / "A" / f"{i}.png")
        values = np.linspace(7200, top, 64 * 64).reshape(64, 64).astype(np.uint16)
        Image.fromarray(values).save(folder / "B" / f"{i}.png")
    return folder

def test_16_bit_pictures_share_one_scale_in_training_and_in_use(tmp_path):
    make_deep(tmp_path, 7800, 8400, 8730)
    settings = settings_for(tmp_path, "pairs")
    settings.update(data.pictures_of("pairs", tmp_path))
    assert settings["range"] == [None, [7200, 8730]]
    pictures = data.held_out(settings)
    path = pictures.files[0][1]
    expected = (np.array(Image.open(path)) - 7200.0) / 1530 * 255
    for picture in (pictures[0][3:], data.read_input(settings, path)):
        assert np.abs(picture.numpy() - expected).max() <= 0.51

def test_a_scale_can_be_set(tmp_path):
    make_deep(tmp_path, 7800, 8400)
    found = data.pictures_of("pairs", tmp_path, [0, 10_000])
    assert found["range"] == [[0, 10_000]] * 2

def test_8_and_16_bit_pictures_do_not_mix(tmp_path):
    make_deep(tmp_path, 7800, 8400)
    PHOTO.resize((64, 64)).save(tmp_path / "B" / "0.png")
    refuses("0.png: has 8 bits.*--range 0 65535", data.pictures_of, "pairs", tmp_path)

def test_one_16_bit_value_is_one_level_in_grey_and_in_rgb(tmp_path):
    values = np.linspace(0, 65535, 4000).astype(">u2").reshape(50, 80)
    expected = np.round(values / 257)
    for colour_type, channels in ((0, 1), (2, 3)):
        rows = b"".join(b"\0" + row.repeat(channels).tobytes() for row in values)
        (tmp_path / "a.png").write_bytes(png(80, 50, 16, colour_type, rows))
        assert (np.array(data.open_picture(tmp_path / "a.png")) == expected[..., None]).all()

def test_float_and_signed_pictures_have_a_scale_and_gaps_are_named(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="pip install tifffile")
    ramp = np.linspace(-120, 2400, 400).reshape(20, 20)
    for kind in (np.float32, np.int16):
        tifffile.imwrite(tmp_path / "a.tif", ramp.astype(kind))
        assert data.find_scale([tmp_path / "a.tif"]) == [-120, 2400]
        levels = np.array(data.open_picture(tmp_path / "a.tif", [-120, 2400]))
        assert levels.min() == 0 and levels.max() == 255
        refuses("no known range", data.open_picture, tmp_path / "a.tif")
    ramp[3, 5] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", ramp.astype(np.float32))
    refuses("no data.*x=5, y=3", data.open_picture, tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", ramp)
    refuses("64-bit float", data.open_picture, tmp_path / "a.tif")

@pytest.mark.parametrize("kind", ["RGBA", "LA"])
def test_a_fourth_channel_that_is_mostly_between_is_no_opacity(kind, tmp_path):
    image = PHOTO.convert(kind)
    image.putalpha(60)
    image.save(tmp_path / "a.png")
    refuses("alpha, is no opacity.*drop it", data.open_picture, tmp_path / "a.png")

def test_plain_tiffs_are_turned_as_their_tag_says(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    numbers = np.arange(1, 7, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(numbers).save(tmp_path / "a.tif", exif=exif)
    picture = np.array(data.open_picture(tmp_path / "a.tif"))
    assert picture[..., 0].tolist() == [[4, 1], [5, 2], [6, 3]]

def test_a_pair_of_which_one_half_is_turned_is_refused(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    files = (tmp_path / "a.png", tmp_path / "b.png")
    PHOTO.resize((64, 64)).save(files[0], exif=exif)
    PHOTO.resize((64, 64)).save(files[1])
    refuses("a.png: its orientation tag.*b.png", data.stored_pair, files, [64, 64])

@pytest.mark.parametrize("side_by_side", [False, True])
def test_pairs_of_another_shape_are_offered_the_size_that_fits(side_by_side, tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in files:
        Image.new("RGB", (160 if side_by_side else 80, 60)).save(path)
    files = files[:1] if side_by_side else files
    refuses("give --size 192x256", data.stored_pair, files, [128, 128])
    assert data.stored_pair(files, [192, 256])[0].image.size == (80, 60)

def test_a_wide_label_map_is_no_pair(tmp_path):
    wide = np.concatenate([BAND_COLOURS, BAND_COLOURS[:, ::-1]], 1)[:, :120]
    Image.fromarray(wide).save(tmp_path / "a.png")
    assert data.read_labels((tmp_path / "a.png",), STREET).shape == (60, 120)

def test_a_tiffs_overviews_are_not_pages(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="pip install tifffile")
    photo = np.asarray(PHOTO)
    for subfile, words in ((1, None), (0, "several frames or pages")):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(photo, photometric="rgb")
            file.write(photo[::2, ::2], photometric="rgb", subfiletype=subfile)
        if words:
            refuses(words, data.open_picture, tmp_path / "a.tif")
        else:
            assert np.array_equal(data.open_picture(tmp_path / "a.tif"), photo)

def test_what_is_not_used_is_counted_and_valid_is_a_split(tmp_path, capsys):
    for split, count in (("train", 4), ("valid", 2)):
        for i in range(count):
            data.save_picture(tmp_path / split / f"{i}.png", noise_picture(3, 64, 64))
    for ending in (".jfif", ".jp2"):
        PHOTO.save(tmp_path / "train" / f"x{ending}")
        (tmp_path / "train" / f"x{ending}").rename(tmp_path / "train" / f"{ending[1:]}{ending}")
    (tmp_path / "train" / "b.heic").write_bytes(b"x")
    (tmp_path / "train" / "c.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "more").mkdir()
    data.task_sheet("inpainting", tmp_path, [64, 64], tmp_path / "sheet.png")
    shown = capsys.readouterr().out
    assert "6 pictures to train on, 2 held out" in shown
    assert "2 files not used: 1 .heic, 1 broken links, folders more/" in shown

def test_what_stays_near_a_class_is_not_cleaned_away():
    labels = data.draw_facade(3, size=128)[1]
    labels[:, 9::32] = 3                                     # doors of one pixel: poles
    data.to_image(data.colorize(labels, FACADES)).save(jpeg := io.BytesIO(), "JPEG", quality=95,
                                                       subsampling=0)
    clean = data.clean_label_map(np.array(Image.open(jpeg)), FACADES)
    assert (clean == labels.numpy()).mean() > 0.999

def test_a_profile_is_followed_and_a_broken_one_is_no_end(tmp_path, capsys):
    from PIL import ImageCms
    swap = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, blue = swap.index(b"rXYZ"), swap.index(b"bXYZ")     # entries of its table
    swap = bytearray(swap)
    swap[red:red + 4], swap[blue:blue + 4] = b"bXYZ", b"rXYZ"
    for profile, order in ((bytes(swap), [2, 1, 0]), (swap[:40], [0, 1, 2])):
        PHOTO.save(tmp_path / "a.png", icc_profile=bytes(profile))
        expected = np.asarray(PHOTO)[..., order].astype(int)
        assert np.abs(np.asarray(data.open_picture(tmp_path / "a.png")) - expected).max() <= 3
    assert "of no use" in capsys.readouterr().err

def test_the_judges_labels_lie_under_its_photos(monkeypatch):
    modes, interpolate = [], F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *a, mode="nearest", **k:
                        modes.append(mode) or interpolate(*a, mode=mode, **k))
    photos = noise_picture(2, 3, 64, 64)
    metrics.train_fcn(photos, torch.zeros(2, 64, 64).byte(), 2, [32, 32], width=4, views=2)
    assert "nearest-exact" in modes and "nearest" not in modes

@pytest.mark.parametrize("number, passes", [(errno.ENOSYS, True), (errno.ENOTSUP, True),
                                            (errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_without_fsync_is_a_warning_alone(number, passes, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", mock.Mock(side_effect=OSError(number, "no fsync")))
    if passes:
        data.write_whole(tmp_path / "settings.json", b"{}")
        assert (tmp_path / "settings.json").read_bytes() == b"{}"
    else:
        refuses("could not be written", data.write_whole, tmp_path / "settings.json", b"{}")

def test_a_colour_of_no_class_is_named_with_its_place(tmp_path):
    """In smeared pictures, too; what a JPEG smears between two classes is no such colour."""
    labels = data.colorize(data.draw_facade(3)[1], data.FACADES)
    settings = settings_for(tmp_path, "semantic-facades")
    one_hot = settings_for(tmp_path, size=286, one_hot=True)
    for ending in ("png", "jpg"):
        path = tmp_path / f"a.{ending}"
        data.to_image(torch.cat([labels] * 2, 2)).save(path, quality=60)
        assert data.read_picture(settings, (path,), [286, 286]).max() <= 11
        pink = labels.clone()
        pink[:, 32:80, 88:128] = torch.tensor([250, 120, 200]).byte()[:, None, None]
        data.to_image(torch.cat([pink] * 2, 2)).save(path, quality=60)
        place = fr"{ending}: colour \(2\d\d, 1\d\d, \d+\) at x=\d+"
        refuses(place, data.read_picture, settings, (path,), [286, 286])
        refuses("no class's", data.read_picture, one_hot, (path,), [286, 286])

def test_only_pictures_are_listed_and_partners_are_named(tmp_path):
    a, b = tmp_path / "A", tmp_path / "B"
    for folder, names, ending in ((a, "ab c é", "png"), (b, "c éz", "jpg")):
        folder.mkdir()
        for name in names:
            PHOTO.save(folder / f"{name}.{ending}")
    for name in (".DS_Store", "Thumbs.db", ".hidden.jpg"):
        (a / name).write_bytes(b"x")
    (a / "folder.jpg").mkdir()
    (a / "dangling.jpg").symlink_to(tmp_path / "nothing")
    assert [path.stem for path in data.list_pictures(a)] == [" ", "a", "b", "c", "é"]
    refuses("B: 2 partners missing: a, b; [^;]*A: 1 partners missing: z; both", data.pair_names,
            a, b)
    (b / "z.jpg").unlink()
    (a / "a.png").unlink(), (a / "b.png").unlink()
    assert [(x.name, y.name) for x, y in data.pair_names(a, b)][1] == ("c.png", "c.jpg")
    PHOTO.save(a / "c.jpg")
    refuses("share a name", data.list_pictures, a)
    for split, width in (("val", 128), *(("train", 128 - 2 * i) for i in range(9))):
        data.save_picture(tmp_path / "C" / split / f"{width}.png", noise_picture(3, 64, width))
    refuses(r"112.png: is 112x64.*into A/ and B/ "
            r"\(and 6 more: 114.png, 116.png, 118.png, 120.png\)", data.training, settings_for(tmp_path / "C"))

FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE

def archive_of(*members):
    """A .tar.gz of (name, type, bytes or link name)."""
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w:gz") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content) if kind == FILE else 0
            member.linkname = content if kind in (LINK, HARD) else ""
            archive.addfile(member, io.BytesIO(content) if kind == FILE else None)
    return buffer.getvalue()

GOOD = archive_of(*[(f"set/train/{i}.jpg", FILE, bytes(5000)) for i in range(3)])
OUTSIDE = Path(tempfile.gettempdir(), f"evil-{os.getpid()}")
EVIL = {"up": [("set/../../evil", FILE, b"x")], "absolute": [(str(OUTSIDE), FILE, b"x")],
        "link": [("set/a", LINK, "/tmp")], "hardlink": [("set/a", HARD, "/etc/passwd")],
        "device": [("set/a", tarfile.CHRTYPE, "")], "pipe": [("set/a", tarfile.FIFOTYPE, "")],
        "chain": [("a", LINK, ".."), ("a/evil", FILE, b"x")], "twice": [("a", FILE, b"x")] * 2,
        "bomb": [("a", FILE, bytes(60_000_000))]}

class Misbehaving(BaseHTTPRequestHandler):
    """A server that answers each path in its own wrong way, and /good rightly."""

    def do_GET(self):
        kind = self.path[1:].split(".")[0]
        moved = {"loop": "/loop", "file": "file:///etc/passwd", "moved": "/good"}
        while kind == "headers":                             # they never end
            self.wfile.write(b"X")
            time.sleep(0.05)
        body = {"page": b"<!DOCTYPE html>", "few": archive_of(("set/train/1.jpg", FILE, b"x")),
                "flipped": GOOD[:-8] + b"\0" + GOOD[-7:], "empty": b""}.get(kind, GOOD)
        body = archive_of(*EVIL[kind]) if kind in EVIL else body
        length = {"cut": len(body) + 9, "short": len(body) - 9}.get(kind, len(body))
        self.send_response(302 if kind in moved else {"404": 404, "500": 500}.get(kind, 200))
        if kind in moved:
            self.send_header("Location", moved[kind])
        self.send_header("Content-Length", length)
        self.end_headers()
        if kind == "stalled":
            body = body[:9] + (time.sleep(1.5) or b"")
        for byte in (body[:60] if kind == "drip" else b""):
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)
        self.wfile.write(body[60:] if kind == "drip" else body)

    log_message = lambda self, *words: None

@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()

WHY = {"404": "404", "500": "500", "loop": "infinite loop", "file": "not allowed", "page": "header",
       "few": "has 1 pictures, not 3", "flipped": "data check", "empty": "cut short",
       "cut": "cut short", "short": "cut short", "stalled": "timed out", "drip": "stalled: ",
       "headers": "hardly answers", "twice": "File exists", "bomb": "ten times",
       **dict.fromkeys("up absolute link hardlink device pipe chain".split(), "is a link, a")}

@pytest.mark.parametrize("kind", WHY)
def test_a_failed_or_evil_download_leaves_nothing_and_the_next_works(
        kind, tmp_path, server, monkeypatch):
    monkeypatch.setattr(data, "TIMEOUT", 1)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    refuses(f"^{server}/{kind}.tar.gz: .*{WHY[kind]}", data.fetch, f"{server}/{kind}.tar.gz",
            tmp_path / "data" / "set", {"train": 3})
    assert [path.name for path in tmp_path.rglob("*")] == ["data"] and not OUTSIDE.exists()
    data.fetch(f"{server}/moved.tar.gz", tmp_path / "data" / "set", {"train": 3})
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["set"]

# semgan.py

SIZES = {"size": 64, "kernel": 5, "width": 4}

def small_networks():
    return semgan.Generator(4, 16, **SIZES), semgan.Discriminator(4, **SIZES), torch.randn(6, 16)

@pytest.mark.parametrize("size, kernel", [(64, 5), (64, 11), (128, 7)])
def test_class_probs_are_probabilities_of_the_right_size(size, kernel):
    generator = semgan.Generator(5, latent=8, size=size, kernel=kernel, width=4)
    nn.init.normal_(generator.to_classes.weight)             # far from uniform
    probs = generator(torch.randn(2, 8))
    assert probs.shape == (2, 5, size, size)
    assert probs.min() >= 0 and torch.allclose(probs.sum(1), torch.ones(2, size, size), atol=1e-5)
    logit, features = semgan.Discriminator(5, size=size, kernel=kernel, width=4)(probs)
    assert logit.shape == (2, 1) and features[-1] is logit and features[-2].shape[-2:] == (4, 4)

def test_the_head_is_the_only_difference_to_the_rgb_gan():
    softmax, tanh = semgan.Generator(12, 16, **SIZES), semgan.Generator(3, 16, **SIZES, head="tanh")
    one, two = ({k: v.shape for k, v in g.state_dict().items()} for g in (softmax, tanh))
    assert one.keys() == two.keys()
    assert {k for k in one if one[k] != two[k]} == {"to_classes.weight", "to_classes.bias"}
    image = tanh(torch.randn(2, 16))
    assert image.shape == (2, 3, 64, 64) and image.min() < 0 and image.abs().max() <= 1

def test_a_sample_depends_on_the_direction_of_its_latent_alone():
    generator, _, z = small_networks()
    alone = torch.cat([generator(z[i:i + 1]) for i in range(6)])
    assert torch.allclose(generator(z), alone, atol=1e-5)                # not on its batch
    for parameter in generator.parameters():                 # biases, too: at first they are 0
        nn.init.normal_(parameter, 0, 0.3)
    assert torch.allclose(generator(z), generator(3 * z), atol=1e-3)
    assert torch.equal(generator.train()(z), generator.eval()(z)) and not list(generator.buffers())

def test_feature_matching_reaches_g_and_not_the_real_features():
    generator, discriminator, z = small_networks()
    real = torch.rand(6, 4, 64, 64, requires_grad=True)
    fake_features = discriminator(generator(z))[1]
    semgan.feature_matching_loss(discriminator(real)[1], fake_features).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())
    assert real.grad is None
    assert semgan.feature_matching_loss(fake_features, fake_features).item() == 0

def test_label_maps_survive_the_round_trips():
    for palette in (SHAPES, FACADES):
        label_map = torch.randint(0, len(palette), (2, 64, 64))
        image = semgan.colorize(label_map, palette)
        assert image.shape == (2, 3, 64, 64) and image.dtype == torch.uint8
        assert torch.equal(image[0], data.colorize(label_map[0], palette))       # copies agree
        for module in (semgan, data):
            assert torch.equal(module.nearest_class(image, palette).long(), label_map)
        assert torch.equal(semgan.to_label_map(semgan.one_hot(label_map, len(palette))), label_map)
        assert semgan.out_of_palette(image, palette) == 0
        clean = data.clean_label_map(image[0].permute(1, 2, 0).numpy(), palette)
        assert (clean == label_map[0].numpy()).all()         # nothing is smeared: nothing changes
    image[:, :, :16] = 7                                     # a quarter in a colour of no class
    assert semgan.out_of_palette(image, palette) == 0.25
    assert semgan.one_hot(torch.full((1, 2, 2), 255), 4).sum() == 0

def test_the_2916_shapes_are_distinct_and_each_square_is_where_its_number_says():
    maps = data.draw_shapes()
    assert maps.shape == (2916, 64, 64) and maps.dtype == np.uint8 and maps.max() == 3
    assert len({m.tobytes() for m in maps}) == 2916 and (maps == data.draw_shapes()).all()
    assert maps[::97].astype(int).sum() == 33_593            # the same on every machine
    for i, m in enumerate(maps):
        row, column = divmod(i, 54)
        square, disc = m[row:row + 10, column:column + 10], (m == 1).sum()
        assert np.isin(square, (1, 3)).all() and (m == 3).sum() == (square == 3).sum()
        assert disc == 317 and 0 < (m == 2).sum() <= 12 * 24             # pixels within radius 10

def test_shapes_are_right_only_whole_alone_and_of_their_size():
    maps = torch.from_numpy(data.draw_shapes())[::27].long()
    right = metrics.shapes_right(maps, 0)
    assert right == (maps == 3).flatten(1).any(1).float().mean() > 0.97
    near = F.max_pool2d((maps == 3).float()[:, None], 5, 1, 2)[:, 0] > 0   # none near the square,
    plain = (maps == 0).flatten(1).sum(1) == 4096 - 317 - 100 - 288        # and nothing covered
    maps = maps[plain & ~(near & (maps != 0) & (maps != 3)).flatten(1).any(1)]
    stray, gone, smaller, larger = (maps.clone() for _ in range(4))
    stray[:, 32, 32] = torch.where(maps[:, 32, 32] == 3, 1, 3)
    gone[gone == 2] = 0
    for image, shape, value in ((smaller, 3, 0), (larger, 3, 3)):      # by a pixel on each side
        mask = (maps == shape).float()[:, None]
        grown = F.max_pool2d(mask if value else 1 - mask, 3, 1, 1)[:, 0] > 0
        image[grown & ((maps == 0) | (maps == 3))] = value
    assert len(maps) > 20 and metrics.shapes_right(maps, 0) == 1 and metrics.shapes_right(gone) == 0
    assert metrics.shapes_right(stray, 0) == 0 and metrics.shapes_right(stray) < 0.3
    assert metrics.shapes_right(maps.transpose(1, 2)) == 0          # a rectangle that stands
    for image in (smaller, larger):
        assert metrics.shapes_right(image, 0) == 0 and metrics.shapes_right(image, 1) == 1

def test_a_walk_starts_at_each_latent_and_keeps_its_length():
    z = F.normalize(torch.randn(3, 100), dim=1) * 10
    path = semgan.walk(z, frames=8)
    assert path.shape == (24, 100) and torch.allclose(path[::8], z, atol=1e-4)
    assert torch.allclose(path.norm(dim=1), torch.full((24,), 10.0), atol=1e-3)

def test_the_encoder_learns_the_latents_of_generated_maps():
    generator, encoder = small_networks()[0].requires_grad_(False), semgan.Encoder(4, 16, **SIZES)
    nn.init.normal_(generator.to_classes.weight, 0, 0.2)     # maps with some content
    optimizer = torch.optim.Adam(encoder.parameters(), 2e-3, betas=(0.5, 0.999))
    maps = semgan.one_hot(semgan.to_label_map(generator(torch.randn(16, 16))), 4)
    losses = []
    for _ in range(60):
        losses.append(semgan.encoder_loss(encoder, generator, maps))
        optimizer.zero_grad()
        sum(losses[-1]).backward()
        optimizer.step()
    assert losses[-1][0] < 0.9 * losses[0][0] and losses[-1][1] < losses[0][1]

def test_semgan_files_load_and_the_command_draws_and_refuses(tmp_path):
    run = tiny_run(tmp_path / "run", "shapes", width=4)
    content = torch.load(run / "generator.pt")
    loaded, settings = semgan.load_generator(run)
    assert settings == content["settings"]
    assert all(torch.equal(v, content["generator"][k]) for k, v in loaded.state_dict().items())
    assert "parameters" in run_here(semgan)
    run_here(semgan, run, "--count", 4, "--out", tmp_path / "grid.png")
    run_here(semgan, run, "--walk", tmp_path / "walk.gif", "--count", 2)
    with Image.open(tmp_path / "walk.gif") as walk:          # equal frames become one
        assert 9 < walk.n_frames <= 48 and data.open_picture(tmp_path / "grid.png")
    run_here(semgan, run, "--train-encoder", 2)
    data.save_picture(tmp_path / "map.png", data.colorize(data.draw_shapes()[7], SHAPES))
    both = "--encode", tmp_path / "map.png", "--out", tmp_path / "both.png"
    assert "constant guess" in run_here(semgan, run, *both)
    assert data.open_picture(tmp_path / "both.png")
    run_here(semgan, run / "generator.pt", *both)            # its encoder lies beside it
    data.save_picture(tmp_path / "2.png", data.colorize(data.draw_shapes()[2000], SHAPES))
    run_here(semgan, run, *both[:2], tmp_path / "2.png", "--walk", tmp_path / "between.gif")
    torch.save({**content, "settings": {**settings, "steps": 9}}, run / "generator.pt")
    refuses("trained on since", run_here, semgan, run, *both)
    with Image.open(tmp_path / "between.gif") as walk:
        assert walk.n_frames > 9 and walk.info["loop"] == 0  # for ever
    paints_labels = tiny_run(tmp_path / "y", "segmentation", palette=SHAPES)
    refuses("on such maps", run_here, semgan, run, "--dream", paints_labels, "--out", "d.png")
    torch.save({**content, "format": 2}, run / "generator.pt")
    refuses("format", semgan.load_generator, run)
    (run / "generator.pt").write_bytes(b"not a checkpoint")
    bad = python(HERE / "semgan.py", run)
    assert bad.returncode == 2 and bad.stderr.startswith("error: ") and bad.stderr.count("\n") == 1

# metrics.py

def blurred_noise(n, size, seed=0):                          # structure at several scales
    g = torch.Generator().manual_seed(seed)
    layers = [F.interpolate(torch.rand(n, 3, s, s, generator=g), (size, size), mode="bicubic")
              for s in (4, 16, 64)]
    return (sum(layers) * 85).clamp(0, 255).byte()

def test_the_pyramid_is_scipys_and_patches_reach_each_border_but_not_beyond():
    images = blurred_noise(2, 32).float()[..., :24]
    before, taps = images.clone(), np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])[None, None] / 256
    down = scipy.ndimage.convolve(images.numpy(), taps, mode="mirror")[:, :, ::2, ::2]
    zeros = np.zeros(images.shape, np.float32)
    zeros[:, :, ::2, ::2] = down
    up = scipy.ndimage.convolve(zeros, 4 * taps, mode="mirror")
    detail, low = metrics.laplacian_pyramid(images, 2)
    assert np.allclose(low, down, atol=1e-3) and np.allclose(detail, images.numpy() - up, atol=1e-3)
    assert torch.equal(images, before)
    ramp = (torch.arange(12.).view(12, 1) * 100 + torch.arange(10.)).expand(1, 3, 12, 10)
    patches = metrics.patch_descriptors(ramp, 2000, torch.Generator().manual_seed(0))
    assert set((patches[:, 0, 3, 3] // 100).tolist()) == {3, 4, 5, 6, 7, 8}
    assert set((patches[:, 0, 3, 3] % 100).tolist()) == {3, 4, 5, 6}
    flat = metrics.normalize_descriptors(patches * torch.tensor([1., 5., 0.]).view(3, 1, 1) + 7)
    assert (flat[:, 98:] == 0).all() and flat.shape == (2000, 147)       # one colour: finite
    assert np.allclose(flat[:, 49:98].std(correction=0), 1, atol=1e-5) and abs(flat.mean()) < 1e-5

def test_swd_is_the_mean_of_scipys_distances_and_0_for_a_set_itself():
    a, b, lines = torch.randn(500, 147), torch.randn(500, 147) + 0.3, torch.randn(147, 40)
    lines, swd = lines / lines.norm(dim=0), metrics.sliced_wasserstein
    reference = np.mean([scipy.stats.wasserstein_distance(a @ v, b @ v) for v in lines.T])
    assert swd(a, b, lines) == pytest.approx(reference, rel=1e-5) == swd(b, a, lines)
    shift = float((b[0] @ lines).abs().mean())
    assert swd(a, a + b[0], lines) == pytest.approx(shift, rel=1e-5)
    real, like = blurred_noise(32, 64), blurred_noise(32, 64, seed=1)
    near, far = metrics.swd(real, like), metrics.swd(real, F.avg_pool2d(like.float(), 5, 1, 2))
    assert list(near) == [64, 32, 16, "average"] and set(metrics.swd(real, real).values()) == {0}
    assert near["average"] == pytest.approx((near[64] + near[32] + near[16]) / 3)
    assert 0 < near["average"] < far["average"] and near == metrics.swd(real, like)
    assert list(metrics.swd(real[..., :62], like[..., :62], patches=9)) == [62, 31, "average"]
    for compare in (lambda: metrics.swd(real, like[:9]), lambda: swd(a, b[:9], lines)):
        with pytest.raises(ValueError):
            compare()

def test_blur_moves_the_finest_levels_of_swd_and_shuffled_tiles_the_coarsest():  # exercise 9
    real, like = (semgan.colorize(torch.from_numpy(data.draw_shapes(seed)[::60]), data.SHAPES)
                  for seed in (0, 1))
    kernel = torch.tensor([0.25, 0.5, 0.25])
    kernel = kernel.outer(kernel)[None, None]
    blurred = F.conv2d(like.float().flatten(0, 1)[:, None], kernel, padding=1)
    order = torch.rand(len(like), 4, generator=torch.Generator().manual_seed(0)).argsort(1)
    tiles = like.unfold(2, 32, 32).unfold(3, 32, 32).flatten(2, 3)       # (N, 3, 4, 32, 32)
    tiles = tiles[torch.arange(len(like))[:, None], :, order]            # (N, 4, 3, 32, 32)
    shuffled = torch.cat([torch.cat((tiles[:, i], tiles[:, i + 1]), 3) for i in (0, 2)], 2)
    plain, blurred, shuffled = (metrics.swd(real, x) for x in
                                (like, blurred.view_as(like).round().byte(), shuffled))
    rise = {name: [change[side] - plain[side] for side in (64, 32, 16)]
            for name, change in (("blurred", blurred), ("shuffled", shuffled))}
    assert max(rise["blurred"]) == rise["blurred"][0]
    assert max(rise["shuffled"]) == rise["shuffled"][2]

def ms_ssim_reference(a, b):                                 # pictures (3, S, S), in plain numpy
    product, (a, b) = 1.0, (np.asarray(v, np.float64) for v in (a, b))
    for level, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        window = scipy.signal.windows.gaussian(k := min(11, a.shape[1]), 1.5 * k / 11)
        window = np.outer(window, window)[None] / window.sum() ** 2
        ma, mb, aa, bb, ab = (scipy.signal.convolve(v, window, "valid")
                              for v in (a, b, a * a, b * b, a * b))
        cs = (2 * (ab - ma * mb) + 58.5225) / (aa - ma ** 2 + bb - mb ** 2 + 58.5225)
        full = cs * (2 * ma * mb + 6.5025) / (ma ** 2 + mb ** 2 + 6.5025)
        product *= max((full if level == 4 else cs).mean(), 0) ** weight
        if level < 4:
            a, b = (v.reshape(3, v.shape[1] // 2, 2, -1, 2).mean((2, 4)) for v in (a, b))
    return product

@pytest.mark.parametrize("size", [64, 128, 176, 256])
def test_ms_ssim_ssim_and_psnr_equal_their_references(size):
    a, b = blurred_noise(2, size), blurred_noise(2, size, seed=1)
    reference = [ms_ssim_reference(*two) for two in zip(a, b)]
    assert np.allclose(metrics.ms_ssim(a, b), reference, atol=1e-6) and reference[0] > 0
    assert metrics.ms_ssim(a[..., :32, :32], b[..., :32, :32]).isfinite().all()
    with pytest.raises(ValueError, match="32"):
        metrics.ms_ssim(a[..., :31], b[..., :31])
    one, two = a[0].numpy(), b[0].numpy()
    assert float(metrics.ssim(a, b)[0]) == pytest.approx(skimage.metrics.structural_similarity(
        one, two, channel_axis=0, data_range=255, gaussian_weights=True,
        use_sample_covariance=False))
    psnr = skimage.metrics.peak_signal_noise_ratio(one, two, data_range=255)
    assert float(metrics.psnr(a, b)[0]) == pytest.approx(psnr)
    assert metrics.ms_ssim_diversity(a[[0, 0, 1, 1, 0]]) == pytest.approx(1)     # pairs
    assert metrics.ms_ssim_diversity(a[[0, 1, 1, 0]]) < 0.9
    with pytest.raises(ValueError):
        metrics.ms_ssim_diversity(a[:1])

def test_frechet_distance_is_scipys_and_takes_singular_covariances():
    frechet, (x, y) = metrics.frechet_distance, np.random.default_rng(0).normal(size=(2, 50, 8))
    (m1, c1), (m2, c2) = metrics.feature_statistics(x), metrics.feature_statistics(2 * y + 1)
    assert np.allclose(c1, (x - m1).T @ (x - m1) / 49)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    reference = pytest.approx(((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * root))
    assert frechet(m1, c1, m2, c2) == reference == frechet(m2, c2, m1, c1)
    assert frechet([0.], [[4.]], [3.], [[25.]]) == pytest.approx(9 + (5 - 2) ** 2)
    few = metrics.feature_statistics(x[:4])                  # rank 3 of 8
    assert frechet(*few, *few) == pytest.approx(0, abs=1e-6)
    assert frechet(m1, 0 * c1, m1, c2) == pytest.approx(np.trace(c2))

def test_inception_has_the_published_names_and_shapes_and_refuses_others(tmp_path):
    network = metrics.FIDInception()
    state = network.state_dict()
    names = "\n".join(sorted(f"{name} {tuple(value.shape)}" for name, value in state.items()))
    assert hashlib.sha256(names.encode()).hexdigest() == (   # of the published list of 566, sorted
        "760681d791cb624e1bf7a2e802a68933dd17aa5e3109fcf498d9dfa521bc10d7")
    assert network.Mixed_7b.average(torch.ones(1, 1, 3, 3)).eq(1).all()  # padding is no part of it
    published = {name: value for name, value in state.items() if "num_batches" not in name}
    torch.save(published, path := tmp_path / "weights.pth")
    images = blurred_noise(2, 32)
    assert metrics.fid(images, images, path) == pytest.approx(0, abs=1e-4)
    published.pop("Mixed_6c.branch7x7_2.bn.running_var")
    torch.save(published, path)
    refuses("weights.pth", metrics.load_inception, path)

def test_segmentation_scores_are_the_hand_worked_numbers():
    truth, found = torch.tensor([[0, 0, 0, 1, 1, 255, 255, 0], [0, 0, 1, 1, 2, 2, 0, 0]])
    matrix = metrics.confusion_matrix(truth, found, 3)
    assert matrix.tolist() == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]          # class 2 is never true
    skip, zero = (metrics.segmentation_scores(matrix, how).values() for how in ("skip", "zero"))
    assert [*skip] == pytest.approx([4 / 6, (3 / 4 + 1 / 2) / 2, (3 / 4 + 1 / 3) / 2])
    assert [*zero] == pytest.approx([4 / 6, (3 / 4 + 1 / 2) / 3, (3 / 4 + 1 / 3) / 3])
    for wrong in ((truth, found + 1), (truth, found - 1), (truth + 2, found)):
        with pytest.raises(ValueError):
            metrics.confusion_matrix(*wrong, 3)

def test_the_judge_is_fcn_8s_on_vgg_16_and_learns():
    trunk = metrics.FCN8s(5, width=64).stages.parameters()
    assert sum(v.numel() for v in trunk if v.dim() == 4) == 14_710_464   # VGG-16's 13 convolutions
    labels = (torch.arange(64).view(1, 1, 64) // 32).expand(6, 72, 64).clone()
    photos = (labels * 150 + 50)[:, None].expand(-1, 3, -1, -1).byte()
    labels[:, :20], state = 255, torch.get_rng_state()
    judge = metrics.train_fcn(photos, labels.byte(), 2, (64, 64), width=4, views=160)
    assert torch.equal(state, torch.get_rng_state())
    assert [score.in_channels for score in judge.scores] == [16, 32, 64]         # pool3, pool4, top
    assert all(score.weight.grad.abs().sum() > 0 for score in judge.scores)
    matrix = metrics.confusion_matrix(labels, metrics.predict(judge, photos), 2)
    assert metrics.segmentation_scores(matrix)["pixel_accuracy"] > 0.9

def test_colours_and_fooling_rates_are_the_hand_worked_numbers():
    grey = data.rgb_to_lab(torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16).byte())
    assert [*map(len, counts := metrics.lab_histograms(grey))] == [101, 256, 256]
    assert counts[0].sum() == counts[1][128] == counts[2][128] == 256    # grey sits on 0
    one, other = torch.zeros(2, 1, 3, 1, 4)
    other[0, 0, 0], other[0, 1] = torch.tensor([0.49, 0.51, 0, 100]), 127
    assert metrics.lab_histogram_intersection(one, other) == (0.5, 0.0, 1.0)
    assert metrics.fooling_rate([10, 20, 30], 40) == pytest.approx((0.5, 0.25 / 3 ** 0.5))
    bootstrap = metrics.bootstrap_test
    assert bootstrap([4] * 9, [4] * 7, 40) == 1 and bootstrap([9], [1], 40) == 0
    p = bootstrap([0, 40], [20] * 5, 40)                     # A's means: 0, 1/2, 1 as 1 : 2 : 1
    assert p == pytest.approx(0.75, abs=0.02)

def test_the_metrics_command_scores_marks_and_says_what_is_missing(tmp_path, monkeypatch):
    run = functools.partial(run_here, metrics)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(metrics, "train_fcn", functools.partial(metrics.train_fcn, views=4))
    tiny_run(tmp_path / "a", width=2), tiny_run(tmp_path / "b", width=3)
    tiny_run(tmp_path / "s", "shapes", width=4)
    lines = run("a", "b", "--count", 3, "--train-fcn", "facades", "--figure7", "f.png").splitlines()
    first = next(i for i, line in enumerate(lines) if "L1" in line)
    assert [line.split()[0] for line in lines[first + 1:first + 4]] == ["real", "a", "b"]
    assert lines[first + 2].count("*") + lines[first + 3].count("*") >= 8        # best of 9 columns
    assert "FID: no weights at datasets/" in lines[first + 4] and data.open_picture("f.png")
    run("a", "b", "--data", "drawn", "--figure4", "sheet.png")
    sheet = data.to_tensor(data.open_picture("sheet.png")).float()          # x, a's, b's and y
    assert sheet.shape[1:] == (20 + 4 * 68, 4 + 4 * 68)
    pictures = data.held_out(pix2pix.load_generator("a")[1])
    for column, half in ((0, slice(0, 3)), (3, slice(3, 6))):
        cell = sheet[:, 20:84, 4 + 68 * column:68 + 68 * column]
        assert torch.equal(cell, pictures[0][half].float()), column
    scores = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert scores["n"] == 3 and 0 < scores["real"]["class_iou"] < 1 < scores["scores"]["PSNR"]
    assert "SWD average" in (table := run("s", "a", "--count", 6)) and "*" not in table
    tiny_run(tmp_path / "large", "shapes", width=4, size=[128, 128])     # the rules are for 64x64
    assert "right within" in table and "right within" not in run("large", "--count", 6)
    unequal = metrics.table([("a", (3,), 3, {"L1": 1}), ("b", (4,), 4, {"L1": 2})])
    assert "*" not in unequal and "*" in unequal.replace(" ", "*")
    session = {"format": 1, "trials": 4, "fooled": 1, "answers": [True, False, False, False]}
    (tmp_path / "s" / "study.jsonl").write_text(2 * (json.dumps(session) + "\n"))
    assert "25.0% +- 0.0%" in run("s", "s", "--study")
    (tmp_path / "s" / "log.csv").write_text("step,SWD\n1,30\n2,\n3,20\n")
    run("s", "s", "--curve", "SWD", tmp_path / "curve.png")
    assert data.open_picture(tmp_path / "curve.png").size == (900, 300)
    for n in (6, 7):                                         # more curves than colours
        data.plot_curves(Path(f"{n}.png"), [("t", {f"{i}": ([0, 1], [i, 9]) for i in range(n)})])
    assert not np.array_equal(*(np.asarray(data.open_picture(f"{n}.png")) for n in (6, 7)))
    refuses("log.csv", run, "s", "--curve", "L1", tmp_path / "curve.png")
    for line in ("{", json.dumps({**session, "answers": []}),
                 json.dumps(session) + "\n" + json.dumps({**session, "answers": []})):
        (tmp_path / "s" / "study.jsonl").write_text(line)
        refuses("study.jsonl", run, "s", "--study")
    refuses("--count", run, "s", "--count", 1)
    refuses("is of facades", run, "a", "--train-fcn", "cityscapes")

# paint.py and paint.html: a server in a thread here, a real Chromium that paints
@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """A paint server with a deadline of 3 s, a run of random weights and dreams of squares."""
    folder = tiny_run(tmp_path_factory.mktemp("runs") / "facades", size=[128, 128], depth=7)
    studio = paint.Studio([folder])
    studio.dreamer = lambda z: z.view(1, 12, 4, 4).repeat_interleave(32, 2).repeat_interleave(32, 3)
    studio.dream_settings = {"latent": 192, "head": "softmax", "palette": data.FACADES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paint, "DEADLINE", 3)
        server = paint.open_server(studio, "127.0.0.1", 0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
        server.server_close()

def translated(server, colour=(0, 48, 255), size=(128, 128), mode="RGB", change=bytes, **fields):
    """(status, text) for a picture of one colour, its PNG changed at will."""
    file, connection = io.BytesIO(), http.client.HTTPConnection("127.0.0.1", server.server_port)
    Image.new(mode, size, colour).save(file, "PNG")
    png = base64.b64encode(change(file.getvalue())).decode()
    connection.request("POST", "/translate", json.dumps({"run": "facades", "png": png, **fields}),
                       {"Content-Type": "application/json"})
    reply = connection.getresponse()
    return reply.status, reply.read().decode()

def test_the_paint_server_answers_strangers_in_a_sentence_and_goes_on(painter):
    def raw(content):  # the whole reply to these bytes, which ends when the server hangs up
        with socket.create_connection(painter.server_address, timeout=60) as connection:
            connection.sendall(content.encode("latin-1"))
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    host = f"Host: 127.0.0.1:{painter.server_port}\r\n"
    post, sized = f"POST /study HTTP/1.1\r\n{host}", "Content-Length: 2\r\n\r\n{}"
    typed = f"{post}Content-Type: application/json\r\n"
    strange = [
        *((f"GET / HTTP/1.1\r\n{hosts}\r\n", 403) for hosts in (
            "", "Host: evil.example\r\n", "Host: localhost:1\r\n", host + host)),
        *((f"{typed}Origin: {origin}\r\n{sized}", 403) for origin in ("http://evil.net", "null")),
        (f"{post}Content-Type: text/plain\r\n{sized}", 415), (f"{typed}\r\n", 411),
        (f"{typed}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        *((f"{typed}Content-Length: {length}\r\n\r\nshort", status) for length, status in {
            -1: 400, "ten": 400, "1\r\nContent-Length: 2": 400, 900: 400, "9" * 5000: 413,
            "0" * 20 + "9" * 12: 413}.items()),
        *((f"{typed}Content-Length: {len(body)}\r\n\r\n{body}", 400) for body in (
            "[]", "[" * 4000, "{", '{"run": "../facades"}', '{"run": ["facades"]}',
            '{"run": "facades", "seed": 1e999}', '{"run": "facades", "session": "stolen"}')),
        *((f"GET {path} HTTP/1.1\r\n{host}\r\n", 404) for path in (
            "/../paint.py", "/%2e%2e/paint.py", "//", "/\0", "/paint.html", "/translate", "/?x")),
        *((f"{method} / HTTP/1.1\r\n{host}\r\n", 501) for method in ("PUT", "HEAD", "BREW")),
        ("GET /" + "a" * 65532, 414), ("GET / HTTP/1.1\r\n" + "X: y\r\n" * 101, 431),
        ("\x16\x03\x01\x02\r\n\r\n", 400)]
    for content, status in strange:
        head, sentence = raw(content).split("\r\n\r\n", 1)
        assert head.startswith(f"HTTP/1.0 {status} ") and len(sentence) < 99, (content[:90], head)
        head, page = raw(f"GET / HTTP/1.1\r\n{host}\r\n").split("\r\n\r\n", 1)
        assert page.count(f'nonce="{head.split("nonce-")[1][:22]}"') == 2 and "://" not in page
    assert translated(painter, seed=2 ** 70)[0] == 200       # more bits than torch's seeds have
    for word in ("default-src 'none'", "frame-ancestors 'none'", "nosniff", "no-store"):
        assert word in head and "Allow-Origin" not in head
    for wrong in ({"change": lambda png: b""}, {"change": lambda png: png[:-30]}, {"size": (9, 9)},
                  {"change": lambda png: png[:16] + b"\0\0\x4e\x20" * 2 + png[24:]},   # 20000x20000
                  {"colour": (0, 48, 255, 9), "mode": "RGBA"}, {"colour": 9, "mode": "L"},
                  {"colour": (1, 2, 3)}, {"run": "nobody"}, {"seed": "x"}):
        status, sentence = translated(painter, **wrong)
        assert status == 400 and 0 < len(sentence) < 99 and "\n" not in sentence, (wrong, sentence)

def test_nobody_keeps_the_paint_server_waiting_and_all_at_once_are_right(painter):
    idle = [socket.create_connection(painter.server_address) for _ in range(100)]
    start = time.time()
    assert translated(painter, mode="L", colour=0)[0] == 400
    assert time.time() - start < 2.9, "the deadline had to let somebody go"
    with socket.create_connection(painter.server_address) as drip, pytest.raises(OSError):
        while time.time() - start < 30:                    # a byte each 0.1 s, for ever
            drip.send(b"G")
            time.sleep(0.1)
    assert time.time() - start < 20 and idle[0].recv(9) == idle[99].recv(9) == b""
    colours = [tuple(rgb) for _, rgb in data.FACADES[:6]]
    with ThreadPoolExecutor() as pool:
        together = list(pool.map(lambda colour: translated(painter, colour), colours))
    assert together == [translated(painter, colour) for colour in colours]
    assert len({*together}) == 6 and {status for status, _ in together} == {200}

def test_a_server_for_all_answers_by_the_address_it_was_asked_at(painter):
    server = paint.open_server(painter.studio, "0.0.0.0", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, status in (("127.0.0.2", 200), ("127.0.0.3", 403), ("evil.example", 403)):
        connection = http.client.HTTPConnection("127.0.0.2", server.server_port)
        connection.request("GET", "/", headers={"Host": f"{name}:{server.server_port}"})
        assert connection.getresponse().status == status, name
    server.shutdown(), server.server_close()

def test_a_taken_port_is_named_and_ctrl_c_ends_the_server(painter):
    server, taken = (started(HERE / "paint.py", painter.studio.runs["facades"]["folder"],
                             "--no-browser", "--port", port) for port in (0, painter.server_port))
    error = taken.communicate(timeout=300)[1]
    assert taken.returncode == 2 and error.count("\n") == 1 and "try --port" in error
    port = int(re.search(r"http://127.0.0.1:(\d+)/ ", server.stdout.readline())[1])
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 130 and "Traceback" not in server.stderr.read()
    socket.create_server(("127.0.0.1", port)).close()

def test_a_session_that_could_not_be_kept_ends_with_the_next_answer(painter, tmp_path, monkeypatch):
    monkeypatch.setattr(paint, "PRACTICE", 1), monkeypatch.setattr(paint, "TRIALS", 2)
    studio, run = painter.studio, {**painter.studio.runs["facades"], "folder": tmp_path}
    token = studio.study(run, {"session": "", "fake": ""})["session"]

    def answer():                                            # fooled each time
        side = {"left": "right", "right": "left"}[studio.sessions[token]["fake"]]
        return studio.study(run, {"session": token, "fake": side})
    assert answer()["fooled"] and answer()["fooled"] is None             # the second one counts
    with monkeypatch.context() as patch:
        patch.setattr(data, "write_whole", lambda path, _: (_ for _ in ()).throw(data.Refusal("")))
        with pytest.raises(data.Refusal):
            answer()
    assert answer()["total"] == 2 and token not in studio.sessions
    assert json.loads((tmp_path / "study.jsonl").read_text())["answers"] == [True, True]

@pytest.fixture(scope="module")
def page(painter, tmp_path_factory):
    """A real Chromium: js runs a script, pixels reads a canvas, press clicks, drag is a stroke."""
    if not shutil.which("chromedriver") and "CI" not in os.environ:
        pytest.skip("no browser: apt-get install chromium chromium-driver; pip install selenium")
    from selenium import webdriver
    from selenium.webdriver.support.wait import WebDriverWait
    options = webdriver.ChromeOptions()
    [options.add_argument(f"--{word}") for word in ("headless=new", "no-sandbox")]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    page.folder, page.js = tmp_path_factory.mktemp("downloads"), page.execute_script
    page.cdp = page.execute_cdp_cmd
    page.cdp("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(page.folder)})
    page.until = lambda condition: WebDriverWait(page, 60, 0.05).until(lambda _: condition())
    page.pixels = lambda id="map": page.js(
        "const c = $(arguments[0]), all = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        "return Array.from(new Uint32Array(all.data.buffer))", id)
    page.press = lambda *ids: [page.js("$(arguments[0]).click()", id) for id in ids]

    def drag(*points, kind="Mouse", names=("mousePressed", "mouseMoved", "mouseReleased")):
        box = page.js("return map.getBoundingClientRect()")    # points are pixels of the map
        points = [{k: box[k] + (v + .5) * box["width"] / 128 for k, v in zip("xy", point)}
                  for point in [*points, points[-1]]]
        for i, at in enumerate(points):
            name = names[(i > 0) + (i == len(points) - 1)]
            where = {"button": "left", **at} if kind == "Mouse" else {
                "touchPoints": [at] * (name != "touchEnd")}
            page.cdp(f"Input.dispatch{kind}Event", {"type": name, **where})

    def opened(width, height, path=""):                    # waits for the example and its photo
        page.cdp("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
        page.get(f"http://127.0.0.1:{painter.server_port}/{path}")
        page.until(lambda: path or page.js("return / ms/.test($('speed').value) && !past.length"))
        assert page.js("return document.documentElement.scrollWidth") <= width, "it overflows"
    page.drag, page.opened = drag, opened
    yield page
    faults = [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    page.quit()
    assert not faults, faults                              # the page keeps to its own policy

def test_every_stroke_stays_in_the_palette_and_undo_and_redo_are_exact(page):
    page.opened(1280, 860)
    colours = {name: 255 << 24 | b << 16 | g << 8 | r for name, (r, g, b) in data.FACADES}
    photo, states = page.pixels("photo"), [page.pixels()]
    for i, (tool, k) in enumerate([("brush", 7), ("eraser", 0), ("line", 3), ("rectangle", 10),
                                   ("fill", 8), ("block window", 0), ("block door", 0)]):
        page.press(f"class {k}", tool), page.drag((9 * i + 5, 20), (9 * i + 30, 70), (60, 90))
        states.append(page.pixels())
        assert {*states[-1]} <= {*colours.values()} and states[-1] != states[-2], tool
    page.until(lambda: page.pixels("photo") != photo)
    for key, state in [*(("undo", s) for s in states[-2::-1]), *(("redo", s) for s in states[1:])]:
        page.press(key)
        assert page.pixels() == state
    page.press("picker"), page.drag((5, 20)), page.press("clear")
    assert page.js("return chosen") == 7 and {*page.pixels()} == {colours["background"]}
    page.press("block window"), page.drag((64, 64))        # a click: the natural size, all parts
    window = page.pixels().count(colours["window"])
    page.press("block wall"), page.drag((64, 64))          # goes behind the window
    assert {colours["sill"], colours["facade"]} < {*page.pixels()}
    assert page.pixels().count(colours["window"]) == window > 50
    page.press("block balcony"), page.drag((40, 30), (79, 35))
    assert page.pixels().count(colours["balcony"]) == 40 * 6, "a drag gives the size"

def test_a_map_is_saved_loaded_and_dreamt_and_noise_changes_its_photo(page):
    page.opened(1280, 860)
    drawn = page.pixels()
    page.press("savemap", "savephoto")
    page.until(lambda: len(list(page.folder.glob("facades-*.png"))) == 2)
    image = Image.open(page.folder / "facades-map.png").convert("RGBA")
    assert image.tobytes() == b"".join(colour.to_bytes(4, "little") for colour in drawn)
    page.press("dream")
    dream = page.until(lambda: page.pixels() != drawn and page.pixels())
    page.js("$('walk').value = 60; $('walk').oninput()")
    page.until(lambda: page.pixels() not in (dream, drawn))
    page.find_element("id", "file").send_keys(str(page.folder / "facades-map.png"))
    page.until(lambda: page.pixels() == drawn)
    page.press("clear")
    page.find_element("id", "file").send_keys(str(page.folder / "facades-map.png"))    # once more
    page.until(lambda: page.pixels() == drawn)
    Image.new("RGBA", (128, 128)).save(page.folder / "clear.png")        # white stands behind it
    page.find_element("id", "file").send_keys(str(page.folder / "clear.png"))
    page.until(lambda: len({*page.pixels()}) == 1)
    white = data.FACADES[data.nearest_class(torch.full((1, 3, 1, 1), 255).byte(), data.FACADES)]
    assert page.js("return classAt({x: 5, y: 5}).name") == white[0]
    page.find_element("id", "file").send_keys(str(page.folder / "facades-photo.png"))  # it snaps
    page.until(lambda: page.pixels() != drawn and page.js("return $('frame').ariaBusy") == "false")
    assert page.js("return cells.every(colour => palette.some(c => c.colour === colour))")
    photo = page.pixels("photo")
    page.press("noise"), page.until(lambda: page.pixels("photo") != photo)

def test_what_is_painted_before_the_first_example_comes_is_not_lost(page):
    page.opened(1280, 860)
    page.js("const ask = fetch; window.fetch = (address, more) => (address === '/example' ?"
            "sleep(800) : sleep(0)).then(() => ask(address, more)); setUp()")
    page.press("class 10"), page.drag((20, 20), (60, 60))
    painted = page.pixels()
    time.sleep(1.5)
    assert page.pixels() == painted
    assert page.js("return [past.length, $('undo').disabled]") == [1, False]
    page.js("setUp()"), page.until(lambda: len({*page.pixels()}) > 3)    # left alone, it comes
    page.until(lambda: page.js("return past.length") == 0)

def test_fingers_and_keys_paint_on_a_phone_and_at_twice_the_zoom(page):
    from selenium.webdriver import ActionChains, Keys
    page.opened(640, 430), page.opened(360, 740), page.js("map.scrollIntoView(); choose(11)")
    before = page.pixels()
    page.drag((20, 20), (40, 28), kind="Touch", names=("touchStart", "touchMove", "touchEnd"))
    touched = page.until(lambda: page.pixels() != before and page.pixels())
    while page.switch_to.active_element.get_attribute("id") != "map":  # now without any pointer
        ActionChains(page).send_keys(Keys.TAB).perform()
    ActionChains(page).send_keys("0", "]", Keys.ARROW_DOWN, Keys.ARROW_RIGHT).key_down(
        " ").send_keys(Keys.ARROW_DOWN).key_up(" ").perform()
    assert page.js("return [chosen, past.length]") == [9, 2] and page.pixels() != touched
    ActionChains(page).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    assert page.pixels() == touched

def test_the_study_runs_from_its_first_to_its_last_trial_and_is_kept(page, painter):
    studio, wrong, side = painter.studio, {3, 7, 12, 20, 33, 49}, "start"  # 4 of them count
    page.opened(360, 740, "study")
    page.js("const wait = setTimeout; window.waits = []; window.setTimeout = (act, ms) => {"
            "waits.push(ms); wait(act, ms / 99); }")
    for k in range(50):
        page.press(side), page.until(lambda: not page.js("return $('left').disabled"))
        said = page.js("return $('status').textContent")
        assert ("real one" in said) == (k - 1 in wrong and k <= 10) and ("Pair" in said) == (k > 9)
        assert {*page.pixels("pair")} == {0}, "the pair is gone when the question comes"
        fake = list(studio.sessions.values())[-1]["fake"]
        side = fake if k not in wrong else {"left": "right", "right": "left"}[fake]
    page.press(side), page.until(lambda: "4 of 40" in page.js("return $('status').textContent"))
    assert page.js("return waits.filter(ms => ms === 1000).length") == 50    # one second each
    kept = studio.runs["facades"]["folder"] / "study.jsonl"
    row, = map(json.loads, kept.read_text().splitlines())
    assert (row["format"], row["algorithm"], row["trials"], row["fooled"]) == (1, "facades", 40, 4)
    assert [k for k, fooled in enumerate(row["answers"]) if fooled] == [2, 10, 23, 39]

# files that copy out

ALONE = {"pix2pix": """
generator, settings = pix2pix.load_generator(sys.argv[1])
photo = pix2pix.translate(generator, torch.zeros(3, 100, 70, dtype=torch.uint8), seed=1)
assert photo.shape == (3, 100, 70) and photo.dtype == torch.uint8
x = y = torch.zeros(1, 3, 64, 64)
g, d = pix2pix.UNet(width=4, depth=6), pix2pix.PatchGAN(width=4)
logits, fake = d(x, y), g(x)
pix2pix.discriminator_loss(logits, d(x, fake.detach())).backward()
pix2pix.generator_loss(d(x, fake), fake, y)[0].backward()
""", "semgan": """
generator, settings = semgan.load_generator(sys.argv[2])
probs = generator(torch.randn(2, settings["latent"]))
label_map = semgan.to_label_map(probs)
assert label_map.shape == (2, 64, 64) and label_map.max() < len(settings["palette"])
picture = semgan.colorize(label_map, settings["palette"])
assert torch.equal(semgan.nearest_class(picture, settings["palette"]), label_map)
real, fake = (semgan.Discriminator(4, 64, 5, 4)(x) for x in (semgan.one_hot(label_map, 4), probs))
semgan.feature_matching_loss(real[1], fake[1]).backward()
""", "metrics": """
a = torch.randint(0, 256, (40, 3, 64, 64), dtype=torch.uint8)
assert metrics.swd(a, a)["average"] == 0 < metrics.swd(a, a[:, :, :, ::2].repeat(1, 1, 1, 2))[64]
matrix = metrics.confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), 2)
assert metrics.segmentation_scores(matrix)["pixel_accuracy"] == 2 / 3
assert metrics.ssim(a, a).min() > 0.999
one, other = (metrics.feature_statistics(torch.randn(9, 4)) for _ in range(2))
assert metrics.frechet_distance(*one, *other) > 0
""", "data": """
photo, labels = data.draw_facade(0, size=64)
data.save_picture(Path("a/1.png"), torch.cat([photo, data.colorize(labels, data.FACADES)], 2))
pictures = data.list_pictures(Path("a"))
assert data.to_tensor(data.open_picture(pictures[0])).shape == (3, 64, 128)
assert torch.equal(data.to_tensor(data.stored_pair([pictures[0]], [64, 64])[0]), photo)
data.save_picture(Path("a/2.png"), torch.cat([photo, photo], 2))
settings = data.settings_of("pairs", "a", [64, 64])
x, y = data.to_network(settings, data.held_out(settings)[0][None])
assert x.shape == y.shape == (1, 3, 64, 64)
"""}  # what each file's docstring offers to those who copy it, in ten lines

@pytest.mark.parametrize("name", ALONE)
def test_each_file_copies_out_alone_and_works(name, tmp_path):
    module, there = sys.modules[name], tmp_path / "there"
    runs = [tiny_run(tmp_path / "p"), tiny_run(tmp_path / "s", "shapes")]
    there.mkdir()
    shutil.copy(module.__file__, there)
    lines = f"import sys, torch, {name}\nfrom pathlib import Path\ntorch.set_num_threads(1)"
    done = python("-c", lines + ALONE[name], *runs, cwd=there)
    assert done.returncode == 0 and not done.stdout, done.stderr
    assert {p.name for p in there.iterdir()} <= {f"{name}.py", "__pycache__", "a"}
    assert module.Refusal.__bases__ == (ValueError,)         # written in each file, alike
    assert module.Refusal.__doc__ == data.Refusal.__doc__

READMES = [HERE / "README.md", HERE / "pictures" / "README.md"]

def code_blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)

def readme_commands():
    """Every command in both READMEs, in their blocks and in their sentences."""
    text = "\n".join(readme.read_text() for readme in READMES)
    blocks = "\n".join(code_blocks(text, "sh"))
    lines = [line.split(" #")[0] for line in blocks.splitlines()]
    lines += re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    # An exercise's check is written as its last words alone, such as "-k levels".
    lines = [re.sub(r"^-k\s", "python -m pytest test_all.py -k ", line) for line in lines]
    parts = [" ".join(part.split()).removeprefix(".venv/bin/") for line in lines
             for part in line.split("&&")]
    return sorted({part for part in parts if re.match(r"(python|torchrun|pytest) ", part)})

def anchors(markdown):
    """What a link to each heading of a file is called: "## What it is" is "what-it-is"."""
    headings = re.findall(r"^#+ (.*)", markdown.read_text(), re.M)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]

@pytest.mark.parametrize("readme", READMES, ids=["front", "pictures"])
def test_the_links_of_the_readmes_lead_to_files_and_headings_that_are_there(readme):
    for link in re.findall(r"\]\(([^)]+)\)", readme.read_text()):
        name, _, heading = link.partition("#")
        if not name.startswith("https:"):
            target = readme.parent / name if name else readme
            assert target.exists(), link
            assert not heading or heading in anchors(target), link

def readme_block(word):
    """The one block of Python in the front page that holds this word."""
    [block] = [text for text in code_blocks(READMES[0].read_text(), "python") if word in text]
    return block

def test_the_step_in_the_readme_runs_and_gives_the_weights_of_the_loops_step():
    def weights_after(two_steps):
        torch.manual_seed(0)
        G, D = pix2pix.UNet(width=4, depth=6), pix2pix.PatchGAN(width=4)
        x, y = torch.rand(2, 1, 3, 64, 64) * 2 - 1
        two_steps(G, D, x, y)
        return [*G.parameters(), *D.parameters()]

    def as_written(G, D, x, y):
        g_optimizer = torch.optim.Adam(G.parameters(), 2e-4, (0.5, 0.999))
        d_optimizer = torch.optim.Adam(D.parameters(), 2e-4, (0.5, 0.999))
        step = readme_block("d_optimizer")
        exec(step + step, {"G": G, "D": D, "x": x, "y": y,
                           "g_optimizer": g_optimizer, "d_optimizer": d_optimizer})

    def as_trained(G, D, x, y):                              # with D frozen in G's step
        step = training_step(
            G, D, lambda x, y, fake: pix2pix.discriminator_loss(D(x, y), D(x, fake)),
            lambda x, y, fake: pix2pix.generator_loss(D(x, fake), fake, y)[0], True)
        step(x, y)
        step(x, y)
    torch.testing.assert_close(weights_after(as_written), weights_after(as_trained))

def test_the_readmes_lines_for_other_code_translate_a_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_run(tmp_path / "runs" / "facades")
    data.save_picture(Path("labels.png"), data.colorize(data.draw_facade(0)[1], FACADES))
    names = {}
    exec(readme_block("load_generator"), names)
    assert names["photo"].shape == names["labels"].shape
    assert names["photo"].dtype == torch.uint8

@pytest.mark.parametrize("command", readme_commands())
def test_each_command_of_the_readme_runs_in_its_quick_form(command, tmp_path, monkeypatch):
    command = re.sub(r"\bRUN\b", "runs/facades", command)
    command = re.sub(r"\bTASK\b", "facades", re.sub(r"(-encoder) \d+", r"\1 2", command))
    words = shlex.split(command)
    script = next(i for i, word in enumerate(words) if word.endswith(".py"))
    name, args = words[script].removesuffix(".py"), words[script + 1:]
    if name == "test_all":                                   # what -k names must be there; the
        # benchmark, of minutes, has its own test behind -m slow
        tests = " ".join(test for test in globals() if test.startswith("test_"))
        assert "-k" not in args or args[-1] in tests
        return
    monkeypatch.chdir(tmp_path)
    folder = make_pairs(tmp_path / "my" / "pairs", 16)
    pictures = sorted(folder.glob("*.png"))
    if "cityscapes" in command:                              # whose classes have other colours
        (folder / "palette.json").write_text(json.dumps(data.FACADES))
    [(tmp_path / link).symlink_to(folder) for link in ("DIR", "PHOTOS")]
    (tmp_path / "LABELS").mkdir()
    for file in ("labels.png", "pair.jpg", "LABELS/1.png", "big.png"):
        Image.open(pictures[0]).save(file, "PNG")
    made = {"train", "--convert"} & {name, *args}            # these make their runs themselves
    for run in {word for word in args if word.startswith("runs/") and not made}:
        named = re.sub(r"^runs/|(-tanh)?(-\d)?$", "", run)
        tiny_run(tmp_path / run, named if named in data.TASKS else "facades",
                 "tanh" if "tanh" in run else "softmax")
        (tmp_path / run / "log.csv").write_text("step,SWD,held-out L1\n1,2,3\n2,,\n3,1,2\n")
        (tmp_path / run / "study.jsonl").write_text('{"format": 1, "answers": [true, false]}\n')
    quick = {"train": "--size 64 --width 4 --epochs 1 --device cpu --out new".split(),
             "metrics": ["--count", "8"], "paint": "--no-browser --port 0".split()}.get(name, [])
    if name == "train" and (task := re.search("--task (shapes|semantic)", command)):
        quick += f"--latent 8 --kernel 5 --batch {512 if task[1] == 'shapes' else 4}".split()
    if "--convert" in args:
        torch.save(nested_generator(7, 4, nn.BatchNorm2d).state_dict(), "latest_net_G.pth")
    if name == "train" and "shapes" not in args and "--data" not in args and "pairs" not in args:
        monkeypatch.setattr(data, "locate", lambda *_: (folder, False))
    monkeypatch.setattr(metrics, "train_fcn", functools.partial(metrics.train_fcn, views=8))
    monkeypatch.setattr(metrics, "swd", functools.partial(metrics.swd, patches=8, repeats=1))
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", lambda server: None)
    run_here(sys.modules[name], *args, *quick)
    assert all(Path(word).exists() for word in args if word.endswith((".png", ".gif")))

@pytest.mark.parametrize("how", [slow("quick")])
def test_the_benchmark_runs(how):
    command = [sys.executable, HERE / "test_all.py", "benchmark", how]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "peak memory" in done.stdout, done.stderr

# The benchmark: python test_all.py benchmark [quick]

def training_step(g, d, d_loss, g_loss, ours):
    """A step on D, then one on G: as train.py's loops; else with default Adam and D not frozen."""
    g_adam, d_adam = (train.adam(net, {"lr": 2e-4}) if ours else
                      torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (g, d))

    def step(x, y):
        fake = g(x)
        d_adam.zero_grad()
        d_loss(x, y, fake.detach()).backward()
        d_adam.step()
        d.requires_grad_(not ours)
        g_adam.zero_grad()
        g_loss(x, y, fake).backward()
        g_adam.step()
        d.requires_grad_(True)
    return step

class TextbookPatchGAN(nn.Sequential):
    def __init__(self, width=64):
        layers = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, stride in ((1, 2), (2, 2), (4, 1)):
            layers += [nn.Conv2d(i * width, 2 * i * width, 4, stride, 1, bias=False),
                       nn.InstanceNorm2d(2 * i * width, affine=True), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, x, y):
        return super().forward(torch.cat([x, y], 1))

def textbook_unet(width, depth):
    return nested_generator(depth, width, nn.InstanceNorm2d, 0.5).model.train()

def pix2pix_step(size, width, ours=True):
    """Of (x, y); not ours: nn layers in their default layout."""
    depth = min(8, size.bit_length() - 1)
    if ours:
        g = pix2pix.faster(pix2pix.UNet(width=width, depth=depth))
        d = pix2pix.faster(pix2pix.PatchGAN(width=width))
    else:
        g = textbook_unet(width, depth)
        d = TextbookPatchGAN(width)
    return training_step(g, d, lambda x, y, fake: pix2pix.discriminator_loss(d(x, y), d(x, fake)),
                         lambda x, y, fake: pix2pix.generator_loss(d(x, fake), fake, y)[0], ours)

def semgan_step(kernel, width, batch, ours):
    """On drawn shapes, 64x64."""
    g, d = semgan.Generator(4, 100, 64, kernel, width), semgan.Discriminator(4, 64, kernel, width)
    real = semgan.one_hot(torch.from_numpy(data.draw_shapes()[:batch]).long(), 4)
    step = training_step(
        g, d, lambda _, y, fake: semgan.discriminator_loss(d(y)[0], d(fake)[0]),
        lambda _, y, fake: semgan.feature_matching_loss(d(y)[1], d(fake)[1]), ours)
    return lambda: step(torch.randn(batch, 100), real)

def decoded_each_step(path, size, batch):
    """The usual loader's work: open, resize, crop, scale, for each picture of each step."""
    pairs, big = [], size * 286 // 256
    for _ in range(batch):
        with Image.open(path) as image:
            image = image.convert("RGB")
        halves = [image.crop(box).resize((big, big), Image.Resampling.BICUBIC)
                  for box in ((0, 0, 256, 256), (256, 0, 512, 256))]
        pairs.append(torch.stack([data.to_tensor(h)[:, 3:3 + size, 5:5 + size].float() / 127.5 - 1
                                  for h in halves]))
    return torch.stack(pairs).transpose(0, 1)

def timed(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start

def interleaved(n, *rivals):
    """[seconds, ...] for each rival: n runs, in turn, after one that does not count."""
    return [list(times)[1:] for times in zip(*[[timed(f) for f in rivals] for _ in range(n + 1)])]

def spread(values):
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:8.4f} s ({low:.4f}-{high:.4f})"

def faster(ours, theirs):
    return f"{spread(ours)}  {spread(theirs)}  {np.median(np.divide(theirs, ours)):5.2f}x"

PEAK = """import torch, test_all  # ru_maxrss would count the parent's pages, too
step = test_all.pix2pix_step(256, 64)
for _ in range(2): step(*torch.rand(2, 1, 3, 256, 256))
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 2 ** 20)"""

def kept(pair, size):
    """Pictures kept in memory, at 286/256 of size -> a function: a batch of them, cropped."""
    uint8 = torch.cat([data.resize(half, [size * 286 // 256] * 2) for half in pair.split(3)])
    return lambda batch: data.augment(uint8.expand(batch, -1, -1, -1), [size, size], [-1],
                                      torch.Generator().manual_seed(0))

def train_table(quick, rate, pair, path):
    """Steps of both models: size/width/batch, n, ours and theirs, pictures a second, the floor."""
    from torch.utils.flop_counter import FlopCounterMode

    def row(name, batch, n, ours, theirs):
        with FlopCounterMode(display=False) as counter:
            ours()
        times = interleaved(n, ours, theirs)
        middle = np.median(times[0])
        print(f"{name:18} {n:4}  {faster(*times)}  {batch / middle:8.2f}  "
              f"{counter.get_total_flops() / rate / middle:6.0%}")
    print("\ntraining step         n     this code, s a step         textbook, s a step"
          "          faster  pictures/s  floor")
    sizes = [(128, 32, 1), (128, 32, 4), (256, 64, 1), (256, 64, 4)]
    for size, width, batch in sizes + [(64, 32, 4), (128, 32, 2), (128, 32, 8),
                                       (512, 64, 1)][:0 if quick else 4]:
        ours, theirs = (pix2pix_step(size, width, ours) for ours in (True, False))
        load = kept(pair, size)
        row(f"{size}/{width}/{batch}", batch, (6 if quick else 20) if size * batch <= 512 else
            (3 if quick else 8), lambda: ours(*data.to_network(settings_for(), load(batch))),
            lambda: theirs(*decoded_each_step(path, size, batch)))
    for kernel, width in [(5, 16), (7, 32), (11, 64)][:2 if quick else 3]:
        row(f"SemGAN {kernel}x{kernel}, {width}", 32, 3 if quick else 8,
            semgan_step(kernel, width, 32, True),
            semgan_step(kernel, width, 32, False))

def stream_table(quick, folder, pair):
    """What pictures cost: decoded, cropped; and whole steps on decoded and on kept ones."""
    crop, ours = kept(pair, 256), pix2pix_step(256, 64)
    decode, crop = interleaved(10, lambda: decoded_each_step(folder / "pair.jpg", 256, 1),
                               lambda: crop(1))
    print(f"\na 256x256 pair: decoded and resized {spread(decode)}, "
          f"cropped from memory {spread(crop)}")
    lists = [data.training(settings_for(folder / "pairs", size=256), memory).batches(
        [i % 10] for i in range(99)) for memory in (1e-9, 4.0)]
    print("decoded as needed / kept, 256/64/1:", faster(*interleaved(6 if quick else 20, *(
        lambda pictures=pictures: ours(*data.to_network(settings_for(), data.augment(
            next(pictures), [256, 256], [-1], torch.Generator()))) for pictures in lists))))

def first_steps(folder):
    """Seconds from a process's start to the end of its first laptop step, three times."""
    for i in range(3):
        command = [sys.executable, HERE / "train.py", "--data", folder / "pairs", "--size", "128",
                   "--out", folder / f"run{i}", "--epochs", "1", "--preset", "laptop"]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while "step 1/" not in (line := process.stdout.readline()) and line:
                pass
            yield time.perf_counter() - start
            process.communicate()

def benchmark(quick):
    """Prints seconds, ours and the textbook's in turn in one process; medians and quartiles."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    a = torch.randn(2048, 2048)
    rate = 2 * 2048 ** 3 / min(timed(torch.mm, a, a) for _ in range(10))
    print(f"matrix product: {rate / 1e9:.0f} GFLOP/s, the floor below; spread: quartiles")
    folder, pair = Path(tempfile.mkdtemp()), data.draw_pair(0, [256, 256], "pairs")
    data.save_picture(folder / "pair.jpg", torch.cat([pair[3:], pair[:3]], 2))
    make_pairs(folder / "pairs", 12, 256)
    train_table(quick, rate, pair, folder / "pair.jpg")
    print("\ntranslating           n     this code                   textbook, "
          "training mode       faster")
    for size in (256, 512):
        g = pix2pix.faster(pix2pix.UNet())
        plain = textbook_unet(64, 8)
        x = torch.randn(1, 3, size, size)
        times = interleaved(5 if quick else 20, lambda: pix2pix.generate(g, x), lambda: plain(x))
        print(f"{size}/64             {len(times[0]):4}  {faster(*times)}")
    stream_table(quick, folder, pair)
    starts = [*first_steps(folder)]
    print(f"process start to the end of the first laptop step: {spread(starts)}, n {len(starts)}")
    peak = subprocess.run([sys.executable, "-c", PEAK], cwd=HERE, capture_output=True, text=True)
    print(f"peak memory of our 256/64/1 step, torch included: {float(peak.stdout):.2f} GiB")
    shutil.rmtree(folder)

if __name__ == "__main__":
    if sys.argv[1:2] != ["benchmark"]:
        sys.exit("usage: python test_all.py benchmark [quick]; the tests: pytest test_all.py")
    benchmark(quick=sys.argv[2:] == ["quick"])
