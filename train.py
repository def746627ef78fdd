"""How are the networks trained? `python train.py --task facades`

    pictures (data.py) -> one of the two loops below -> runs/NAME/
        train_pix2pix   pix2pix Sec. 3.3: a step on D, then a step on G, by Adam
        train_semgan    SemGAN App. B: D by binary cross-entropy, G by feature matching

    python train.py --task facades                       400 pairs, fetched or drawn; Ctrl-C saves
    python train.py --task pairs --data my/pairs --size 256x512
    python train.py --task shapes --head tanh --out runs/shapes-tanh      SemGAN's RGB baseline
    python train.py --task pairs --data my/pairs --start runs/theirs --keep 20   a few pairs
    torchrun --nproc-per-node 2 train.py --task facades --batch 4         several processes

The same command goes on where it stopped, on a CPU bit by bit as if it had not (a GPU may round
differently each time): all that is random in a step is a function of (seed, epoch) or of (seed,
step, rank), so a checkpoint needs no random state. On first reading, the two loops are enough.
"""
import argparse
import contextlib
import copy
import json
import math
import os
import signal
import sys
import time
import zlib
from pathlib import Path

if __name__ == "__main__":
    if sys.version_info < (3, 11):                         # as requirements.txt needs
        print("error: Python: 3.11 or newer is needed; see Set-up in README.md", file=sys.stderr)
        sys.exit(2)
    # Before torch is loaded: how often its threads look for work before they sleep. By default it
    # is 300,000 times: all slow down where another process is busy, too. No result changes.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # the CPU does what Apple's GPU lacks

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import data
import metrics
import pix2pix
import semgan
from data import Refusal, fcntl

# Presets. "paper" is pix2pix Sec. 3.3 and 4.1, its width the authors' code's, and SemGAN App. A and
# B, where latents and rates differ from one experiment to the next, with a width of ours. "laptop"
# is the same method, smaller, for two cores and some five minutes. What SemGAN's brings: see
# blurred and noisy, and pictures/README.md, which has the measurements of pix2pix's choices, too:
#     epochs       more of them, of 300 pairs, make photos sharper, and further from withheld ones
#     step_bounds  (least, most) steps: fewer make plain pictures, more take long; equal: just these
#     one_hot      label maps enter as a channel a class: a convolution need not tell colours apart
#     upsample     doubled pixels, not transposed convolutions, which make checkerboards
#     d_width      half of G's: D was far ahead of G, and took half of a step's time
#     lr, decay    ten times pix2pix's rate, which falls in the second half: much first, then fine
#     ema, dropout an average of G's weights, and less noise: less speckle
#     l1_weight    twice the paper's: nearer to withheld photos, fewer stains, a bit less contrast
# Other batches and epochs are the task's (data.TASKS). A table further down explains each key.
PRESETS = {
    "pix2pix": {
        "paper": {"size": [256, 256], "width": 64, "lr": 2e-4},
        "laptop": {"size": [128, 128], "width": 32, "lr": 2e-3, "batch": 2, "epochs": 12,
                   "step_bounds": (1_200, 14_400), "decay": 0.5, "ema": 0.999, "dropout": 0.2,
                   "upsample": "nearest", "one_hot": True, "d_width": 16, "l1_weight": 200.0}},
    "semgan": {
        "paper": {"size": [128, 128], "width": 64, "lr": 2e-4, "batch": 32, "latent": 128,
                  "kernel": 7, "step_bounds": (50_000, 50_000)},
        "laptop": {"size": [64, 64], "width": 16, "lr": 1e-3, "batch": 32, "latent": 100,
                   "kernel": 5, "step_bounds": (2_400, 2_400), "decay": 0.5, "ema": 0.999,
                   "noise": 0.3}},
    "shapes": {                                            # in --task shapes, over SemGAN's
        "paper": {"size": [64, 64], "lr": 1e-4, "latent": 100, "kernel": 11},  # end of App. B
        "laptop": {"step_bounds": (9_000, 9_000), "ema": 0.0, "blur": 3.0}}}

# context: what the command asks for (see main). In both loops `run` (see Run) does the rest:
#     run.remaining     yields the batches that are still to come
#     run.begin_step    sets the step's random seed and learning rate (constant, but for --decay),
#                       and gives a random generator, rng
#     run.to_device     moves a tensor to the processor that trains
#     run.autocast      half precision, on GPUs and processors that multiply it
#     run.descend       optimizer.zero_grad(), loss.backward(), optimizer.step()
#     run.finish_step   writes the log, sample sheets, scores and checkpoints, where they are due
# lit, blurred and noisy (below) give pictures as they are, but for --diff-augment, --blur, --noise.
# frozen_D is D, for G's step: gradients pass through it to the fake, but none are made for its
# weights. D would train the same, only slower: its own step clears them first. Under torchrun each
# of `world` processes has a number, its rank; a process alone is rank 0 in a world of 1.

def train_pix2pix(context, pictures, held_out):
    """pix2pix Sec. 3.3: "one gradient descent step on D, then one step on G". In plain PyTorch:

        fake = G(x)
        d_loss = pix2pix.discriminator_loss(D(x, y), D(x, fake.detach()))
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        g_loss, adversarial, l1 = pix2pix.generator_loss(D(x, fake), fake, y)
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
    """
    settings = context.settings
    objective = settings["objective"]                      # a row of Table 1, such as "l1+cgan"
    uses_d = "gan" in objective
    l1_weight = settings["l1_weight"] if "l1" in objective else 0.0
    light = float(settings["diff_augment"])
    generator, discriminator = pix2pix_networks(settings, context.device)
    run = Run(context, pictures, held_out, generator, discriminator,
              sheet=sample_sheet, score=held_out_scores, score_columns=["held-out L1"])
    G, D, frozen_D = run.wrapped_networks()

    for indices, batch in run.remaining():                 # uint8 (N, 6, 286, 286): x, then y
        rng = run.begin_step(indices)
        batch = data.augment(settings, batch, rng, run.rank, run.world)  # (N, 6, 256, 256)
        x, y = data.to_network(settings, run.to_device(batch))           # (N, 3, 256, 256), [-1, 1]
        condition = [x] if "cgan" in objective else []     # D(x, y), Eq. 1; else D(y), Eq. 2
        losses = {}
        with run.autocast():
            fake = G(x)                                    # G(x, z); z is the dropout

        # The step on D: behind detach() no gradient reaches G.
        if uses_d:
            with run.autocast():
                real_logits = D(*condition, lit(y, light))            # (N, 1, 30, 30)
                fake_logits = D(*condition, lit(fake.detach(), light))
            d_loss = pix2pix.discriminator_loss(real_logits.float(), fake_logits.float())
            run.descend(d_loss, run.d_optimizer)
            losses["D loss"] = d_loss
            losses["D on real"] = (real_logits > 0).float().mean()       # the share judged rightly
            losses["D on fake"] = (fake_logits < 0).float().mean()

        # The step on G. D has changed: it judges the fake anew.
        fake_logits = None
        if uses_d:
            with run.autocast():
                fake_logits = frozen_D(*condition, lit(fake, light)).float()
        g_loss, adversarial, l1 = pix2pix.generator_loss(fake_logits, fake, y, l1_weight)
        if uses_d:                                         # on L1 alone there is none
            losses["G adversarial"] = adversarial
        losses["L1"] = l1
        if settings["feature_matching"]:                   # not the paper's: a flag asks for it
            matching = matched_features(discriminator, condition, lit(fake, light),
                                        lit(y, light), run)
            g_loss = g_loss + settings["feature_matching"] * matching
            losses["feature matching"] = matching
        run.descend(g_loss, run.g_optimizer)
        run.finish_step(losses)
    return run


def train_semgan(context, pictures, held_out):
    """SemGAN Sec. 3 and App. B: D by binary cross-entropy, G by matching D's features."""
    settings = context.settings
    score_every = 1_000                                    # steps: 50 scores in the paper's 50,000
    if settings["preset"] == "laptop":
        score_every = 250                                  # 10 in 2,400
    noise = settings["noise"]                              # of probabilities, 0..1
    if settings["head"] == "tanh":
        noise = 2 * noise                                  # of colours, -1..1
    generator, discriminator = semgan_networks(settings, context.device)
    run = Run(context, pictures, held_out, generator, discriminator,
              sheet=map_sheet, score=map_scores, score_columns=["SWD", "out of palette"],
              score_every=score_every)
    G, D, frozen_D = run.wrapped_networks()

    for indices, batch in run.remaining():                 # uint8 (N, 1, 64, 64), classes
        rng = run.begin_step(indices)
        batch = data.augment(settings, batch, rng, run.rank, run.world)
        z = torch.randn(len(batch) * run.world, settings["latent"], generator=rng)
        z = z.chunk(run.world)[run.rank]                   # this process's part, (N, 100)
        real = real_maps(settings, run.to_device(batch))   # (N, K, 64, 64)
        blur = settings["blur"] * (1 - run.step / run.total)             # it fades, but never to 0

        # The step on D
        with run.autocast():
            fake = blurred(G(run.to_device(z)), blur)      # (N, K, 64, 64)
            real = blurred(real, blur)
            real_logits, _ = D(noisy(real, noise))         # (N, 1)
            fake_logits, _ = D(noisy(fake.detach(), noise))
        d_loss = semgan.discriminator_loss(real_logits.float(), fake_logits.float())
        run.descend(d_loss, run.d_optimizer)

        # The step on G, whose loss compares what the layers of D make of both.
        with run.autocast():
            _, real_features = frozen_D(noisy(real, noise))
            _, fake_features = frozen_D(noisy(fake, noise))
            g_loss = semgan.feature_matching_loss(real_features, fake_features)
        run.descend(g_loss, run.g_optimizer)
        run.finish_step({"D loss": d_loss,
                         "D on real": (real_logits > 0).float().mean(),
                         "D on fake": (fake_logits < 0).float().mean(),
                         "feature matching": g_loss})
    return run


# What the loops use

def pix2pix_networks(settings, device):
    """-> new (G, D) on the device, of the faster layers, which give what the textbook's do."""
    torch.manual_seed(settings["seed"])
    generator = pix2pix.build_generator(settings)
    discriminator = pix2pix.build_discriminator(settings)
    return pix2pix.faster(generator).to(device), pix2pix.faster(discriminator).to(device)


def lit(photos, strength):
    """Photos (N, C, H, W) in [-1, 1] as D sees them: at strength 0 as they are; at 1, which is
    --diff-augment, each in a light of its own: up to 0.5 brighter or darker, its colours 0 to 2
    times as strong, its contrast 0.5 to 1.5 times; at 0.5 half as far.

    Not in the paper: it is "color" of Zhao et al. 2020, "Differentiable Augmentation for
    Data-Efficient GAN Training". A label map does not tell a wall's colour, so D can learn the
    few photos of a folder by theirs; in changing light it cannot. Gradients pass through to G. Only
    D sees this light: L1 compares the photos as they are.
    """
    if strength == 0:
        return photos
    draws = torch.rand(3, len(photos), 1, 1, 1, device=photos.device)
    brighter, colour, contrast = strength * (2 * draws - 1)  # each -strength..strength
    photos = photos.float() + brighter / 2                 # bf16 would round them
    grey = photos.mean(1, keepdim=True)                    # (N, 1, H, W)
    photos = grey + (1 + colour) * (photos - grey)
    middle = photos.mean((1, 2, 3), keepdim=True)          # (N, 1, 1, 1)
    return middle + (1 + contrast / 2) * (photos - middle)


def matched_features(discriminator, condition, fake, y, run):
    """pix2pix.feature_matching_loss, a scalar, of this step's fake and y. It is for G alone: D's
    weights get no gradients."""
    with frozen(discriminator), run.autocast():
        fake_features = discriminator.features(*condition, fake)
        with torch.no_grad():
            real_features = discriminator.features(*condition, y)
    return pix2pix.feature_matching_loss(real_features, fake_features)


@contextlib.contextmanager
def frozen(network):
    """In its `with`, gradients pass through a network, but none is made for its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def semgan_networks(settings, device):
    """-> new (G, D) on the device."""
    torch.manual_seed(settings["seed"])
    generator = semgan.build_generator(settings)
    discriminator = semgan.Discriminator(settings["out_channels"], settings["size"][0],
                                         settings["kernel"], settings["width"])
    return generator.to(device), discriminator.to(device)


def adam(network, settings):
    """Adam with betas 0.5 and 0.999, as pix2pix Sec. 3.3 and SemGAN App. B have it. 0.5 in place of
    the usual 0.9 comes from DCGAN, whose training oscillated with 0.9; 0.999 is the usual one.
    Fused, it goes through the weights once (57 million in the paper's networks): much of what makes
    a step fast."""
    return torch.optim.Adam(network.parameters(), settings["lr"], betas=(0.5, 0.999), fused=True)


def real_maps(settings, batch):
    """Real label maps, classes (N, 1, H, W), in the form in which G makes them: as probabilities,
    one-hot (N, K, H, W), or for the RGB GAN as colours (N, 3, H, W) in [-1, 1]."""
    label_map = batch[:, 0].long()                         # (N, H, W)
    if settings["head"] == "softmax":
        return semgan.one_hot(label_map, len(settings["palette"]))
    return semgan.colorize(label_map, settings["palette"]).float() / 127.5 - 1


def blurred(maps, sigma):
    """Maps (N, K, size, size) through a Gaussian of sigma pixels, mirrored at the border; sigma 0:
    as they are.

    Not in the paper: --blur, which the shapes' preset has, fades from step to step. Without it D is
    ahead of G from early on, and G lets shapes jump from one latent to the next, instead of moving
    them.
    """
    if sigma == 0:
        return maps
    reach = 3 * math.ceil(sigma)                           # beyond three sigmas hardly any is left
    places = torch.arange(-reach, reach + 1)
    sigma = max(sigma, 1e-6)                               # what float32 rounds to 0 gives 0 / 0
    bell = torch.exp(-(places / sigma).square() / 2)
    weights = bell / bell.sum()
    matrix = metrics.filter_matrix(maps.shape[2], weights, mirror=True)  # (size, size)
    matrix = sent(matrix, maps.device)
    return matrix @ maps @ matrix.T                        # the columns, then the rows


def noisy(maps, noise):
    """Maps with noise of this standard deviation.

    Not in the paper: --noise, which the laptop presets have, to the end of a run. Without it D
    learned the shapes by heart, and knew fakes by their probabilities, which are not exactly 0
    and 1.
    """
    if noise == 0:
        return maps
    return maps + noise * torch.randn_like(maps)


def sample_sheet(run):
    """input | output | target, always of the same six held-out pictures and the same noise, as a
    sheet, uint8 (3, H, W)."""
    pairs = data.far_apart(run.held_out, 6)
    x, y = data.to_network(run.settings, pairs.to(run.device))
    fake = pix2pix.generate(run.published, x, seed=0)
    columns = [data.to_pixels(run.settings, x, image) for image in (x, fake, y)]
    pictures = []
    for triple in zip(*columns):                           # input, output, target of one pair
        pictures += triple
    rows = [pictures[i:i + 6] for i in range(0, len(pictures), 6)]       # two pairs in each
    return data.contact_sheet(rows, ("input", "output", "target") * 2)


def held_out_scores(run):
    """{"held-out L1": mean |y - G(x)|}, in [-1, 1] units, over the first 100 held-out pictures."""
    count = min(100, len(run.held_out))
    batch = 10                                             # so that memory stays flat
    if run.settings["norm"] == "batch":                    # an output then depends on its batch,
        batch = run.settings["batch"]                      # which is as large as in training
    total = 0.0
    for first in range(0, count, batch):
        indices = range(first, min(first + batch, count))
        pairs = torch.stack([run.held_out[i] for i in indices])
        x, y = data.to_network(run.settings, pairs.to(run.device))
        fake = pix2pix.generate(run.published, x, seed=0)
        total += (fake - y).abs().mean().item() * len(pairs)
    return {"held-out L1": total / count}


@torch.no_grad()
def map_sheet(run):
    """48 label maps, always of the same latents, as a sheet, uint8 (3, H, W)."""
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(48, run.settings["latent"], generator=rng)
    maps = semgan.pictures_from(run.published, z.to(run.device), run.settings)
    return data.contact_sheet(maps.cpu().split(8))         # 6 rows of 8


@torch.no_grad()
def map_scores(run):
    """Of at most 512 maps: the sliced Wasserstein distance (SWD, see metrics.py) to as many of the
    training set, and the share of pixels whose colour is no class's. -> {column of log.csv: value}
    """
    count = min(512, len(run.pictures))
    rng = torch.Generator().manual_seed(0)
    palette = run.settings["palette"]
    z = torch.randn(count, run.settings["latent"], generator=rng)
    fake = semgan.pictures_from(run.published, z.to(run.device), run.settings).cpu()
    chosen = torch.randperm(len(run.pictures), generator=rng)[:count].tolist()
    classes = torch.stack([run.pictures[i][0] for i in chosen]).long()
    real = semgan.colorize(classes, palette).cpu()
    return {"SWD": metrics.swd(real, fake)["average"],
            "out of palette": semgan.out_of_palette(fake, palette)}


# A run's folder and its clock: speed, safety and files. Skip it on first reading.

AVERAGE_EVERY = 10        # steps between two additions to the average of G's weights
LOG_EVERY = 25            # steps between two rows of log.csv
SHOW_EVERY = 2.0          # seconds between progress lines on a terminal, five times that elsewhere
SAVE_EVERY = 60.0         # seconds, at the least, between two checkpoints (they are large)
FIRST_SHEET = 20.0        # seconds until the first sample sheet
LATER_SHEETS = 120.0      # seconds between two later ones
# What asks a run to stop: Ctrl-C, the system, Windows' Ctrl-Break. No system has all of them.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK")
                if hasattr(signal, name)]
LOSS_PANELS = [           # of losses.png: title, columns of log.csv
    ("adversarial losses", ["D loss", "G adversarial", "feature matching"]),
    ("share that D judges rightly", ["D on real", "D on fake"]),
    ("mean absolute error, in [-1, 1] units", ["L1", "held-out L1"]),
    ("sliced Wasserstein distance to the training set, x1000", ["SWD"]),
    ("share of pixels whose colour is no class's", ["out of palette"])]


def step_seed(seed, step, rank=0):
    """The seed of all that is random in a step: crops, dropout, latents. No two are the same, of up
    to a million steps and a thousand processes."""
    return (seed * 1_000_003 + step) * 1_009 + rank


def sent(tensor, device):
    """A tensor, copied to the device; to a CUDA GPU from pinned memory, which needs no wait."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return data.on_device(tensor, device)


class Run:
    """A run: its networks and optimisers; batches in; log rows, sample sheets and checkpoints out.

    sheet(run) draws a sample sheet, uint8 (3, H, W); score(run) measures {column: value} every
    score_every steps (0: once an epoch). Only rank 0 of several processes writes.
    """

    def __init__(self, context, pictures, held_out, generator, discriminator, sheet, score,
                 score_columns, score_every=0):
        self.folder = context.folder
        self.settings = context.settings
        self.device = context.device
        self.rank = context.rank                           # of this process,
        self.world = context.world                         # among so many
        self.compile = context.compile
        self.keep = context.keep                           # a generator every so many epochs
        self.writer = context.writer                       # TensorBoard's, or None
        self.pictures = pictures
        self.held_out = held_out
        self.sheet = sheet
        self.score = score
        self.score_columns = score_columns
        self.score_every = score_every
        self.per_epoch = len(pictures) // self.settings["batch"]         # steps
        self.total = self.per_epoch * self.settings["epochs"]            # steps
        self.g_optimizer = adam(generator, self.settings)
        self.d_optimizer = adam(discriminator, self.settings)
        # fp16's smallest gradients would vanish: losses are scaled up, the gradients down again.
        fp16 = self.settings["precision"] == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        self.parts = {"generator": generator, "discriminator": discriminator,
                      "g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer}
        if fp16:
            self.parts["scaler"] = self.scaler             # by their names in checkpoint.pt
        self.begin_with(context.start)
        self.step = 0                                      # steps done
        self.indices = None                                # of this step's pictures
        self.signal = None                                 # that asked for a stop
        self.columns = None                                # of log.csv, once there is a row
        self.pending = []                                  # losses still on the device
        self.rows = []                                     # losses read since the last row
        self.resume()
        if self.rank == 0:
            self.begin_folder()
        now = time.monotonic()
        self.started = now
        self.saved = now
        self.flushed = now                                 # losses last read off the device
        self.printed = now
        self.next_sheet = now + FIRST_SHEET
        self.first_step = self.step                        # of this process

    def begin_with(self, start):
        """Puts --start's weights, {part: state dict}, in place of new ones; with --ema makes the
        average, which begins as a copy of G."""
        for name, weights in start.items():
            self.parts[name].load_state_dict(weights)
        if self.settings.get("ema"):
            average = copy.deepcopy(self.parts["generator"]).requires_grad_(False)
            self.parts["average"] = average

    @property
    def published(self):
        """What is shown, scored and generator.pt: G, or the average of its weights once that is
        more than a copy of the first ones."""
        if "average" in self.parts and self.step >= AVERAGE_EVERY:
            return self.parts["average"]
        return self.parts["generator"]

    def begin_folder(self):
        """Writes settings.json: all that can be refused has been."""
        content = json.dumps(self.settings, indent=1).encode()
        data.write_whole(self.folder / "settings.json", content)
        g_count = pix2pix.parameters(self.parts["generator"])
        d_count = pix2pix.parameters(self.parts["discriminator"])
        begun = f"going on from step {self.step:,}" if self.step else "starting afresh"
        print(f"generator {g_count:,} parameters, discriminator {d_count:,} parameters; {begun}\n"
              f"run folder {self.folder}; Ctrl-C saves, the same command goes on", flush=True)
        if self.device.type == "cpu":
            self.compare_rounding()
        if self.keep:
            self.begin_keeping()

    def compare_rounding(self):
        """Says so where sums will round differently from those of the process that saved."""
        now = {"threads": torch.get_num_threads(), "precision": self.settings["precision"]}
        for what, before in self.before.items():
            if before not in (None, now[what]):            # None: an older run, which did not say
                print(f"{what}: {now[what]} now, {before} before; numbers round differently, so "
                      f"the weights will not be bit by bit an uncut run's", flush=True)

    def begin_keeping(self):
        """Says how much of the disk --keep takes in the end; writes what a killed run did not."""
        kept = self.kept_file()
        if kept and not kept.exists():
            self.write_kept(kept)
        count = self.settings["epochs"] // self.keep
        size = data.megabytes(self.published.state_dict())
        generators = data.counted(count, "generator")
        print(f"--keep {self.keep}: {generators} in the end, {size:,.1f} MiB each, "
              f"{count * size:,.1f} MiB in all, as "
              f"{self.folder / 'generator-EPOCH.pt'}", flush=True)

    def resume(self):
        """Takes up checkpoint.pt, if there is one, and cuts log.csv back to its step."""
        path = self.folder / "checkpoint.pt"
        self.before = {}                                   # the saving process's threads, precision
        if path.exists():
            content = pix2pix.load_file(path, "move the run's folder away to start afresh")
            try:
                for name, part in self.parts.items():
                    if name == "scaler" and name not in content:
                        continue                           # it was trained in another precision
                    part.load_state_dict(content[name])
                self.step = int(content["step"])
                self.before = {"threads": content.get("threads"),
                               "precision": content["settings"].get("precision")}
            except (KeyError, TypeError, ValueError, RuntimeError):
                raise Refusal(f"{path}: does not fit its settings; move the folder away") from None
        if self.rank == 0:
            for stale in self.folder.glob(".*.partial"):   # of a process killed while saving
                stale.unlink()
            self.cut_log()

    def cut_log(self):
        """Drops the rows of log.csv after this step, and a half-written last one."""
        log = self.folder / "log.csv"
        text = log.read_text() if log.exists() else ""
        head, *rows = text.splitlines(keepends=True) or [""]
        kept = []
        for row in rows:
            first_cell = row.split(",")[0]
            try:
                if row.endswith("\n") and int(first_cell) <= self.step:
                    kept.append(row)
            except ValueError:
                raise Refusal(f"{log}: damaged; mend it or move it away") from None
        if kept:
            self.columns = head.strip().split(",")
            kept = [head, *kept]
        data.write_whole(log, "".join(kept).encode())

    # A step, from its batch to its end

    def wrapped_networks(self):
        """-> G, D and frozen_D, as a loop calls them: compiled where that is asked for. Several
        processes average the gradients of G and of D; frozen_D makes none to be shared."""
        discriminator = self.parts["discriminator"]
        G = self.parts["generator"]
        D = discriminator
        if self.compile:
            G = torch.compile(G)
            D = torch.compile(D)
        bare_D = D                                         # without what averages gradients

        def frozen_D(*pictures):
            with frozen(discriminator):
                return bare_D(*pictures)

        if self.world > 1:
            G = DistributedDataParallel(G)
            D = DistributedDataParallel(D)
        return G, D, frozen_D

    def remaining(self):
        """Yields (indices, uint8 batch) of each step to come, this process's part; then saves."""
        handlers = {number: signal.signal(number, self.stop) for number in STOP_SIGNALS}
        batch = self.settings["batch"] // self.world       # pictures a step, of this process
        try:
            while self.step < self.total:
                epoch, done = divmod(self.step, self.per_epoch)          # steps done of this epoch
                order = data.epoch_order(len(self.pictures), batch, self.settings["seed"], epoch,
                                         self.rank, self.world)
                to_come = order[done:]
                yield from zip(to_come, self.pictures.batches(to_come))
            if self.step > self.first_step or not (self.folder / "generator.pt").exists():
                self.save()
        except Refusal:                # a picture of rank 0's has gone in mid-epoch
            if self.step > self.first_step:
                self.save()
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def begin_step(self, indices):
        """Sets torch's random seed and the learning rate for the step on these pictures.

        -> rng for what all processes draw alike, each using its part. (Rank 0's dropout and noise
        are drawn from the same seed: that harms nothing.)
        """
        self.indices = indices
        seed = self.settings["seed"]
        torch.manual_seed(step_seed(seed, self.step, self.rank))
        decay_steps = self.settings["decay"] * self.total  # at the end of the run
        steps_left = self.total - self.step
        factor = min(1.0, steps_left / max(1.0, decay_steps))
        for optimizer in (self.g_optimizer, self.d_optimizer):
            optimizer.param_groups[0]["lr"] = self.settings["lr"] * factor
        return torch.Generator().manual_seed(step_seed(seed, self.step))

    def to_device(self, tensor):
        return sent(tensor, self.device)

    def autocast(self):
        """Half-precision convolutions, where the machine is faster with them: default_precision."""
        precision = self.settings["precision"]
        if precision == "fp32":
            return contextlib.nullcontext()
        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(self.device.type, dtypes[precision])

    def descend(self, loss, optimizer):
        """One step of gradient descent on a loss."""
        optimizer.zero_grad()
        self.scaler.scale(loss).backward()                 # loss.backward(), unless in fp16
        self.scaler.step(optimizer)                        # optimizer.step(), likewise

    def stop(self, number, _):
        """A signal's handler: the first stops the run after this step, the second at once."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        if self.rank == 0:
            with contextlib.suppress(RuntimeError):        # raised where it came within a print
                print("\nstopping after this step, and saving", flush=True)

    def finish_step(self, losses):
        """Ends a step: losses, {name: scalar tensor}, go to the log; saves and stops where due."""
        self.step += 1
        self.scaler.update()
        if "average" in self.parts and self.step % AVERAGE_EVERY == 0:
            self.update_average()
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self.pending.append((self.step, self.indices, values))
        names = list(losses)
        problem = None
        if self.reading_due():
            problem = self.read_losses(names)
        problem, stopping = self.agree(problem)            # from here on a signal waits a step
        if problem:
            sys.exit(f"error: {problem}")
        if self.rank == 0:
            self.log(names, stopping)
            self.show(stopping)
            kept = self.kept_file()
            if kept:
                self.write_kept(kept)
            self.save_where_due(stopping)
        if stopping:
            self.leave(stopping)

    # Parts of finish_step

    @torch.no_grad()
    def update_average(self):
        """The exponential moving average of G's weights. For each step

            average = share * average + (1 - share) * weights

        where share is settings["ema"]; early on, when weights change fast, it is less, as in
        TensorFlow's averages: (1 + step) / (10 + step), which reaches 0.999 at step 8,990. To save
        time this is done for AVERAGE_EVERY steps at once, as if all had had the last one's weights.
        """
        share = min(self.settings["ema"], (1 + self.step) / (10 + self.step))
        average = list(self.parts["average"].parameters())
        weights = list(self.parts["generator"].parameters())
        torch._foreach_lerp_(average, weights, 1 - share ** AVERAGE_EVERY)

    def row_due(self):
        return self.step % LOG_EVERY == 0 or self.step % self.per_epoch == 0

    def reading_due(self):
        """Reading losses off a GPU waits for it, so it is not done at each step."""
        first = self.step == self.first_step + 1
        late = time.monotonic() - self.flushed > SHOW_EVERY
        return self.row_due() or first or late or self.signal is not None

    def read_losses(self, names):
        """Reads the pending losses off the device. -> a sentence where one is not finite."""
        rows = torch.stack([values for _, _, values in self.pending]).cpu()
        for (step, indices, _), values in zip(self.pending, rows):
            if not torch.isfinite(values).all():
                wrong = torch.isfinite(values).logical_not()
                bad = names[int(wrong.nonzero()[0])]       # the first of them
                pictures = ", ".join(self.pictures.names[i] for i in indices)
                return (f"step {step}: {bad} is not finite, on {pictures}; nothing of it was saved."
                        f" Try a smaller --lr, or --precision fp32")
        self.rows += rows.tolist()
        self.pending = []
        self.flushed = time.monotonic()
        self.progress(names)
        return None

    def agree(self, problem):
        """All processes stop at the same step: any one's reason is everybody's."""
        if self.world == 1:
            return problem, self.signal
        flags = torch.tensor([int(problem is not None), self.signal or 0])   # on the CPU
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        bad, number = flags.tolist()
        if bad and problem is None:
            problem = "another process met a loss that is not finite"
        return problem, number

    def progress(self, names):
        """The progress line: rewritten in place on a terminal, a new one now and then elsewhere."""
        now = time.monotonic()
        terminal = sys.stdout.isatty()
        pause = SHOW_EVERY if terminal else 5 * SHOW_EVERY
        first = self.step == self.first_step + 1
        if self.rank > 0 or (now - self.printed < pause and not first):
            return
        self.printed = now
        speed = (self.step - self.first_step) / (now - self.started)     # steps a second
        minutes, seconds = divmod(int((self.total - self.step) / speed), 60)
        epoch = (self.step - 1) // self.per_epoch + 1
        values = "  ".join(f"{name} {value:.3f}" for name, value in zip(names, self.rows[-1]))
        line = (f"epoch {epoch}  step {self.step:,}/{self.total:,}"
                f"  {speed * self.settings['batch']:.1f} pictures/s  {minutes}:{seconds:02d} left  "
                f"{values}")
        if terminal:
            print(f"\r{line}\x1b[K", end="", flush=True)
        else:
            print(line, flush=True)

    def log(self, names, stopping):
        """A row of log.csv where one is due, with the scores where they are."""
        score_every = self.score_every or self.per_epoch
        score_due = self.step % score_every == 0 or self.step == self.total
        if self.row_due() or score_due or stopping:
            scores = {}
            if score_due:
                scores = self.score(self)
            self.write_row(names, scores)

    def write_row(self, names, scores):
        """One row of log.csv: means of the losses since the last row, and the scores, if any."""
        log = self.folder / "log.csv"
        if self.columns is None:
            self.columns = ["step", "epoch", "pictures_per_second", *names, *self.score_columns]
            data.append_line(log, ",".join(self.columns))
        speed = (self.step - self.first_step) / (time.monotonic() - self.started)
        means = [sum(column) / len(column) for column in zip(*self.rows)]
        row = {"step": self.step, "epoch": self.step / self.per_epoch,
               "pictures_per_second": speed * self.settings["batch"]}
        row.update(zip(names, means))
        row.update(scores)
        cells = []
        for column in self.columns:
            cells.append(f"{row[column]:.7g}" if column in row else "")
        data.append_line(log, ",".join(cells))
        if self.writer:
            for name, value in row.items():
                self.writer.add_scalar(name, value, self.step)
        self.rows = []

    def show(self, stopping):
        """A sample sheet and losses.png, where they are due."""
        now = time.monotonic()
        if now > self.next_sheet or self.step == self.total or stopping:
            self.next_sheet = now + LATER_SHEETS
            data.save_picture(self.folder / "samples" / f"{self.step:06d}.png", self.sheet(self))
            if self.columns:                               # there is a row
                self.draw_losses()

    def draw_losses(self):
        """losses.png from log.csv: the panels above, as far as their columns are there."""
        panels = []
        for title, columns in LOSS_PANELS:
            series = {column: metrics.logged(self.folder, column)
                      for column in columns if column in self.columns}
            if series:
                panels.append((title, series))
        data.plot_curves(self.folder / "losses.png", panels)

    def save_where_due(self, stopping):
        due = self.row_due() and time.monotonic() - self.saved > SAVE_EVERY
        if stopping or (due and self.step < self.total):   # remaining() saves after the last step
            self.save()

    def save(self):
        """checkpoint.pt to go on, generator.pt to use; never with a weight that is not finite."""
        if self.rank > 0:
            return
        content = {name: part.state_dict() for name, part in self.parts.items()}
        files = {"generator.pt": self.with_settings(generator=self.published.state_dict()),
                 "checkpoint.pt": self.with_settings(step=self.step, **content)}
        if self.device.type == "cpu":                      # how sums round depends on their number
            files["checkpoint.pt"]["threads"] = torch.get_num_threads()
        # The generator first: killed between the two, a run goes on from the older checkpoint and
        # writes both again; the other way round, a finished run would keep an old generator. Only
        # the first time the checkpoint comes first, as a generator alone is refused (check_same).
        order = ["generator.pt", "checkpoint.pt"]
        if not (self.folder / "checkpoint.pt").exists():
            order = ["checkpoint.pt", "generator.pt"]
        for name in order:
            data.write_whole(self.folder / name, files[name])
        if self.writer:
            self.writer.flush()
        self.saved = time.monotonic()

    def with_settings(self, **content):
        """What a .pt file of this step holds; ends the run where a weight is not finite."""
        if not all(torch.isfinite(tensor).all() for tensor in data.tensors_of(content)):
            sys.exit(f"error: step {self.step}: a weight is not finite; nothing of it was saved. "
                     f"Try a smaller --lr, or --precision fp32")
        settings = {**self.settings, "steps": self.step}
        return {"format": pix2pix.FORMAT, "settings": settings, **content}

    def kept_file(self):
        """--keep: the path of generator-EPOCH.pt, where one is due after this step; else None."""
        epoch, rest = divmod(self.step, self.per_epoch)
        within_an_epoch = rest > 0
        if not self.keep or within_an_epoch:
            return None
        if epoch == 0 or epoch % self.keep > 0:
            return None
        return self.folder / f"generator-{epoch:04d}.pt"

    def write_kept(self, path):
        """What generator.pt would be after this step, under a name that nothing overwrites."""
        if not (self.folder / "checkpoint.pt").exists():
            self.save()                    # as a generator alone is refused (check_same)
        data.write_whole(path, self.with_settings(generator=self.published.state_dict()))

    def leave(self, stopping):
        """Ends the process with the code that shells give a signal."""
        if self.world > 1:
            dist.barrier()                 # torchrun ends the others as soon as one has left
        if self.rank == 0:
            print(f"saved at step {self.step:,}; the same command goes on from here")
        sys.exit(128 + stopping)


# Settings: flags over preset over task. Skip all from here on first reading.

# Every key of settings.json, which the .pt files hold, too, and who reads it:
#
#     model            "pix2pix" or "semgan"                             all commands
#     task             a row of data.TASKS                               all commands
#     preset           "paper" or "laptop"                               train.py
#     seed             of all randomness                                 train.py, semgan.py
#     data             the pictures' folder, or None                     data.py
#     drawn            True if data.py draws them                        data.py
#     pictures         how many, and a check sum of their names          train.py: the same run?
#     contents         a check sum of their files, or None if drawn;     train.py: the same run?
#                      older runs lack it
#     palette          [[name, [r, g, b]], ...] or None                  all commands
#     labels           of pairs with a palette, the half that is a       data.py, metrics.py
#                      label map: "A" or "B"; else None
#     reading          how label maps are read, data.usual_reading,      data.py: a map to translate
#                      or None without such; older runs lack it
#     range            None where all is of 8 bits; else, for A and      data.py, pix2pix.py
#                      for B, None or [low, high]: the values that
#                      become 0 and 255, each a list if a channel has
#                      its own
#     one_hot          True if x is a channel for each class             data.py, both networks
#     size             [height, width] in pixels                         all commands
#     direction        "AtoB": x is A, the left half of a pair; "BtoA"   all commands
#     mirror           what is mirrored at random: -1 left and right,    data.py
#                      -2 top and bottom; []: nothing
#     crop             True if pictures keep their scale: size is cut    data.py
#                      out of them; False: they are resized
#     in_channels      of x                                              networks
#     out_channels     of y; of SemGAN, classes or 3 colours             networks
#     width            channels of the first layer                       networks
#     depth            levels of the U-Net                               networks
#     batch            pictures a step, over all processes               train.py, metrics.py
#     epochs           passes over the pictures                          train.py
#     steps            done so far                                       train.py
#     lr               Adam's learning rate                              train.py
#     decay            the last share of the steps, 0..1, over which     train.py
#                      the rate falls in a straight line to 0; 0: never
#     ema              share, 0..1, that the average of G's weights      train.py
#                      keeps at each step, at most; 0: no average
#     precision        "fp32", "bf16" or "fp16"                          train.py
#     start            the run, or generator.pt, whose weights came      train.py
#                      first, as --start named it, or None
#   pix2pix alone
#     feature_matching weight of pix2pixHD's loss; 0: without it         train.py
#     objective        of Table 1: "l1", "gan", "cgan", "l1+gan" or      train.py, pix2pix.py
#                      "l1+cgan"
#     l1_weight        lambda of Eq. 4                                   train.py
#     generator        of Table 2: "unet" or "encoder-decoder"           pix2pix.py
#     receptive_field  of D, in pixels, of Table 3                       train.py, pix2pix.py
#     d_width          channels of D's first layer                       train.py, pix2pix.py
#     diff_augment     how strongly the light of D's photos changes,     train.py: lit
#                      0..1; older runs have True for 1
#     dropout          the share of values that dropout sets to 0        pix2pix.py: the noise z
#     norm             "instance", "batch"; "fixed" of converted ones    networks
#     upsample         "deconv" or "nearest"                             networks
#     dropout_at       decoder steps with dropout, where others than     networks
#                      ours: of converted runs, and what started there
#   SemGAN alone
#     head             "softmax" or "tanh"                               networks
#     latent           numbers in a latent                               networks
#     kernel           side of the kernels in pixels                     networks
#     noise            standard deviation, in units of the values'       train.py: noisy
#                      range (instance noise, Sonderby et al. 2017)
#     blur             standard deviation in pixels, at the first step   train.py: blurred


# Defaults of the keys that one model alone has; a preset may override them. lambda = 100: Sec. 4.2;
# 70: Sec. 4.4; the norm: Sec. 3.3; dropout and deconv: the authors' code; softmax: SemGAN Sec. 3.2.
# None: the preset or another key says it.
OWN = {
    "pix2pix": {"l1_weight": 100.0, "objective": "l1+cgan", "generator": "unet",
                "receptive_field": 70, "norm": "instance", "upsample": "deconv", "dropout": 0.5,
                "d_width": None, "diff_augment": 0.0, "feature_matching": 0.0},
    "semgan": {"head": "softmax", "latent": None, "kernel": None, "noise": 0.0, "blur": 0.0}}

# Keys that older runs lack, and what was done before there were such keys. Besides, D was as wide
# as G, and direction and mirror were the task's.
OLDER = {"decay": 0.0, "ema": 0.0, "feature_matching": 0.0, "diff_augment": 0.0, "dropout": 0.5,
         "start": None, "crop": False, "noise": 0.0, "blur": 0.0}


def of_the_task(row):
    """Settings that come from the task's row, where no flag says otherwise."""
    return {"direction": row.direction, "mirror": list(row.mirror),
            "in_channels": row.in_channels, "out_channels": row.out_channels}


def from_0_to(most):
    """An argparse type: a number from 0 to most."""
    def checked(text):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number <= most:                        # nan is in no range
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {most}; give one")
        return number
    return checked


def size_text(size):
    """[64, 128] -> "64x128", as --size takes it."""
    return "x".join(map(str, size))


def preset_words(key):
    """What the presets have for a key, for --help: "paper 256x256, laptop 128x128, SemGAN ..."."""
    presets = {}
    for model, prefix in (("pix2pix", ""), ("semgan", "SemGAN "), ("shapes", "shapes ")):
        presets[f"{prefix}paper"] = PRESETS[model]["paper"]
        presets[f"{prefix}laptop"] = PRESETS[model]["laptop"]
    words = []
    for name, values in presets.items():
        value = values.get(key)
        if isinstance(value, tuple):                       # step_bounds
            least, most = value
            words.append(f"{name} {least:,}" if least == most else f"{name} {least:,} to {most:,}")
        elif isinstance(value, list):
            words.append(f"{name} {size_text(value)}")
        elif isinstance(value, int):
            words.append(f"{name} {value:,}")
        elif value is not None:
            words.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(words)


def parse():
    """The flags as given; None where a flag takes its value from the task and the preset."""
    parser = data.new_parser(__doc__)
    add_pictures(parser.add_argument)
    add_training(parser.add_argument)
    add_networks(parser.add_argument)
    add_machine(parser.add_argument)
    return data.parse_options(parser)


def add_pictures(add):
    """Flags that say what is learned from."""
    add("--task", default="facades",
        help=f"{', '.join(data.TASKS)} (default facades)")
    add("--data", metavar="DIR",
        help="a folder, not the task's archive (of facades, also: drawn)")
    add("--size", type=data.sides,
        help="pixels: 128, or height x width 256x512 "
             f"({preset_words('size')})")
    add("--range", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="what is black and white of values of more than 8 bits "
             "(default: the lowest and highest of the folder)")
    add("--one-hot", action=argparse.BooleanOptionalAction,
        help="label maps enter as a channel for each class, not as colours "
             "(default: in preset laptop, where the task has x as label maps)")
    data.add_pair_flags(add)
    add("--memory", type=data.positive(float), default=4.0,
        help="GiB for a split's decoded pictures (default 4)")


def add_training(add):
    """Flags that say how it is learned."""
    own = OWN["pix2pix"]
    add("--preset", choices=["paper", "laptop"],
        help="default: paper with CUDA, else laptop")
    add("--seed", type=int, default=0,
        help="of all randomness (default 0)")
    add("--batch", type=data.positive(int),
        help="pictures a step, over all processes "
             f"({preset_words('batch')}; else the task's, 1 or 4)")
    add("--epochs", type=data.positive(int),
        help="passes over the pictures (paper: the task's; "
             f"{preset_words('epochs')}). Not given, they make so many steps: "
             f"{preset_words('step_bounds')}; a run that goes on has at least its own")
    add("--lr", type=data.positive(float),
        help=f"Adam's learning rate ({preset_words('lr')})")
    add("--decay", type=from_0_to(1),
        help="the last share of the steps, over which the rate falls to 0 "
             f"(default 0; {preset_words('decay')})")
    add("--ema", type=data.below_one,
        help="average G's weights, of which each step keeps this share, such "
             f"as 0.999 (default 0: no average; {preset_words('ema')})")
    add("--objective", choices=["l1", "gan", "cgan", "l1+gan", "l1+cgan"],
        help=f"Table 1 (default {own['objective']})")
    add("--l1-weight", type=data.positive(float),
        help=f"lambda of Eq. 4 (default {own['l1_weight']:g}; {preset_words('l1_weight')})")
    add("--feature-matching", type=data.positive(float), metavar="WEIGHT",
        help="of pix2pixHD's loss: D's layers should see the same in fake "
             "and target (default 0)")
    add("--diff-augment", type=from_0_to(1), nargs="?", const=1.0, metavar="STRENGTH",
        help="show D each photo in another light, so that it cannot know the "
             "few of a small folder by their colours: nearer to withheld "
             "photos; at 0.5 half as far, at 1, if no number is given, with "
             "less contrast")
    add("--start", metavar="RUN",
        help="begin with the weights of another run, or a converted one, of "
             "like networks: G of RUN/generator.pt (with --ema its average), "
             "D of RUN/checkpoint.pt, if there; RUN may be a generator.pt "
             "(torchrun has a --start-method: write `torchrun ... -- train.py`)")


def add_networks(add):
    """Flags that say what learns."""
    own = OWN["pix2pix"]
    add("--width", type=data.positive(int),
        help=f"channels of the first layer ({preset_words('width')})")
    add("--d-width", type=data.positive(int),
        help=f"of D's first layer ({preset_words('d_width')}; else --width)")
    add("--dropout", type=data.below_one,
        help="the share of values that dropout sets to 0, the noise z of "
             f"Sec. 3.1 (default {own['dropout']}; {preset_words('dropout')})")
    add("--generator", choices=["unet", "encoder-decoder"],
        help=f"Table 2 (default {own['generator']})")
    add("--receptive-field", type=int, choices=list(pix2pix.PatchGAN.LAYERS),
        help=f"of D in pixels, Table 3 (default {own['receptive_field']})")
    add("--norm", choices=["instance", "batch"],
        help=f"default {own['norm']}")
    add("--upsample", choices=["deconv", "nearest"],
        help="nearest cures checkerboards (default: the paper's "
             f"{own['upsample']}; {preset_words('upsample')})")
    add("--head", choices=["softmax", "tanh"],
        help=f"SemGAN, {OWN['semgan']['head']} (default), or its RGB baseline")
    add("--latent", type=data.positive(int),
        help=f"numbers in a latent ({preset_words('latent')})")
    add("--kernel", type=data.positive(int),
        help=f"side of SemGAN's kernels, odd ({preset_words('kernel')})")
    add("--noise", type=from_0_to(1), metavar="SD",
        help="standard deviation of the noise in front of SemGAN's D, in units of the maps' range "
             f"(default 0; {preset_words('noise')})")
    # Three sigmas of 16 are 48 pixels: blurred takes fewer than the smallest side, 64.
    add("--blur", type=from_0_to(16), metavar="SD",
        help="standard deviation, in pixels, of a blur in front of SemGAN's D, which fades over "
             f"the run (default 0; {preset_words('blur')})")


def add_machine(add):
    """Flags that say where it is learned, and what is kept of it."""
    add("--out", metavar="RUN",
        help="the run's folder (default runs/TASK)")
    add("--keep", type=data.positive(int), metavar="N",
        help="also keep the generator of every Nth epoch, as "
             "RUN/generator-EPOCH.pt: `metrics.py RUN --epochs` compares them")
    add("--device",
        help="cpu, cuda or Apple's mps (default: a GPU where there is one)")
    add("--precision", choices=["fp32", "bf16", "fp16"],
        help="default: bf16 or else fp16 with CUDA; without it bf16 where "
             "the processor multiplies it, else fp32")
    add("--compile", action="store_true",
        help="torch.compile the networks, for long runs")
    add("--tensorboard", action="store_true",
        help="also write event files to RUN/tensorboard")


def depth_for(size):
    """The U-Net's levels, 6 to 8; each halves both sides. As many as make the smaller one 1 (8 for
    256, 7 for 128, 6 for 64), but no more than both can be halved: 192x256 has 6, down to 3x4."""
    depth = min(8, max(6, int(math.log2(min(size)))))
    while depth > 6 and any(side % 2 ** depth for side in size):
        depth -= 1
    return depth


def refuse_impossible(settings, flags, labels, world):
    """Refuses what does not go together, though each flag is right by itself. flags: those of the
    command line; labels: "x" or "y", which the task has as label maps, or None."""
    refuse_sizes(settings)
    refuse_for_the_task(settings, labels)
    refuse_without_effect(settings, flags)
    if settings["batch"] % world:
        raise Refusal(f"--batch {settings['batch']}: cannot be shared by {world} processes; give a "
                      f"multiple of {world}")


def refuse_sizes(settings):
    """Refuses sides and kernels that the networks cannot have: a U-Net halves its sides 6 times at
    the least."""
    size = settings["size"]
    wanted = size_text(size)
    nearest = [max(1, round(side / 64)) * 64 for side in size]
    if nearest != size:
        raise Refusal(f"--size {wanted}: sides must be multiples of 64; "
                      f"the nearest is {size_text(nearest)}")
    if settings["model"] == "semgan":
        kernel = settings["kernel"]
        if size[0] != size[1] or size[0] not in (64, 128, 256):
            raise Refusal(f"--size {wanted}: SemGAN makes squares of 64, 128 or 256 pixels; give "
                          f"--size 64")
        if kernel % 2 == 0 or kernel > 31:                 # larger than the maps of most layers
            raise Refusal(f"--kernel {kernel}: SemGAN has odd kernels up to 31; give 5, 7 or 11")
    if settings.get("receptive_field") == 286 and min(size) < 128:
        # Five layers halve a side of 64 to 2, and two of stride 1 take a pixel each: none is left.
        raise Refusal(f"--receptive-field 286: larger than --size {wanted} allows; give --size 128 "
                      f"or more, or --receptive-field 142")


def refuse_for_the_task(settings, labels):
    """Refuses what a task's pictures, or its model, are not made for."""
    task = settings["task"]
    if settings["model"] == "semgan" and settings["precision"] == "fp16":
        # Its loss was not tried with scaling.
        raise Refusal("--precision fp16: not an option of SemGAN's; give bf16 or fp32")
    if settings.get("diff_augment") and data.TASKS[task].hides == "colour":
        raise Refusal(f"--diff-augment: {task} is about the photos' own colours; leave it out")
    if task != "pairs":                                    # of which a palette.json tells later
        refuse_for_the_labels(settings, labels)


def refuse_for_the_labels(settings, labels):
    """Refuses what needs a label map as x, or a photo as y. labels: "x", "y" or None."""
    task = settings["task"]
    if settings["one_hot"] and labels != "x":
        advice = "give the other --direction, or leave it out" if labels == "y" else "leave it out"
        raise Refusal(f"--one-hot: the input of {task} is not a label map; {advice}")
    if settings.get("diff_augment") and labels == "y":
        raise Refusal(f"--diff-augment: the output of {task} is a label map, whose colours are its "
                      f"classes; leave it out")


def refuse_without_effect(settings, flags):
    """Refuses flags of which the objective makes nothing."""
    objective = settings.get("objective", "")
    if "l1_weight" in flags and "l1" not in objective:
        raise Refusal(f"--l1-weight: --objective {objective} does not use it; leave it out")
    if "gan" in objective:
        return
    if flags.get("feature_matching"):
        raise Refusal(f"--feature-matching: --objective {objective} has no D; leave it out")
    for key in ("receptive_field", "d_width", "diff_augment"):           # of D
        if key in flags:
            raise Refusal(f"--{key.replace('_', '-')}: --objective {objective} does not use it; "
                          f"leave it out")


def default_precision(device, model):
    """The fastest that was tried of a model on a device. bf16: on a CUDA GPU that has it and, in
    pix2pix alone, on a processor that does (a step takes .69 to .94 of fp32's time there). fp16: of
    pix2pix on older CUDA GPUs. fp32 elsewhere."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        if model == "pix2pix":
            return "fp16"
    if device.type == "cpu" and model == "pix2pix" and multiplies_bf16():
        return "bf16"
    return "fp32"


def multiplies_bf16():
    """Whether this processor has instructions for bf16 (AVX512-BF16 or AMX). On others bf16 works,
    too, but slower than fp32. Older torch does not tell, 2.13 does."""
    instructions = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(instructions.get("avx512_bf16") or instructions.get("amx_bf16"))


def refuse_on_metal(settings, compiled):
    """Refuses what we dare not promise on Apple's GPUs, as nobody here has one: in torch 2.5
    autocast knows no bf16 there, and fp16's scaler wants float64, which Metal lacks."""
    if settings["precision"] != "fp32":
        raise Refusal(f"--precision {settings['precision']}: not tried on mps; give fp32")
    if compiled:
        raise Refusal("--compile: not tried on mps; leave it out")


def resolve(options, device, world=1):
    """Flags over preset over task -> the settings: a flat dict of plain types, all that is needed
    to repeat the run. Refuses what cannot work, before anything is fetched or written."""
    row = data.look_up(options.task)
    model = "semgan" if row.kind == "label maps" else "pix2pix"
    other = "pix2pix" if model == "semgan" else "semgan"
    no_settings = ("device", "memory", "tensorboard", "out", "compile", "keep")
    flags = {key: value for key, value in vars(options).items()
             if value is not None and key not in no_settings}
    for key in OWN[other]:
        if key in flags:
            raise Refusal(f"--{key.replace('_', '-')}: not an option of {options.task}, a {model} "
                          f"task; leave it out")
    data.refuse_pair_flags(options.task, flags)
    preset = options.preset
    if preset is None:
        preset = "paper" if device.type == "cuda" else "laptop"
    settings = {
        "model": model, "epochs": row.epochs, "batch": row.batch, "step_bounds": None,
        "precision": default_precision(device, model), "data": None, "drawn": False, "decay": 0.0,
        "ema": 0.0, "start": None, "one_hot": False}
    settings.update(of_the_task(row))
    settings.update(OWN[model])
    settings.update(PRESETS[model][preset])
    if options.task == "shapes":
        settings.update(PRESETS["shapes"][preset])
    settings.update(flags)
    if options.epochs:
        settings["step_bounds"] = None                     # just so many, whatever the preset has
    labels = data.label_side({**settings, "palette": None})
    if "one_hot" not in flags and labels != "x":           # the preset has it for label maps only
        settings["one_hot"] = False
    if model == "pix2pix" and settings["d_width"] is None:
        settings["d_width"] = settings["width"]
    if options.start:
        settings["start"] = str(Path(options.start))       # without a slash at its end
    settings["preset"] = preset
    settings["depth"] = depth_for(settings["size"])
    refuse_impossible(settings, flags, labels, world)
    if device.type == "mps":
        refuse_on_metal(settings, options.compile)
    return settings


def find_pictures(settings, memory):
    """Finds, fetches or draws the pictures; completes the settings. -> (to train on, held out)"""
    scale = settings.pop("range", None)                    # --range
    settings.update(data.pictures_of(settings["task"], settings["data"], scale, settings))
    refuse_for_the_labels(settings, data.label_side(settings))
    if settings["one_hot"]:
        settings["in_channels"] = len(settings["palette"])
    if settings["model"] == "semgan" and settings["head"] == "softmax":
        settings["out_channels"] = len(settings["palette"])
    pictures = data.training(settings, memory)
    held_out = data.held_out(settings, memory)
    names = "/".join(pictures.names)
    settings["pictures"] = f"{len(pictures)} of names {zlib.crc32(os.fsencode(names)):08x}"
    settings["contents"] = data.contents_of(pictures)
    if len(pictures) < settings["batch"]:
        raise Refusal(f"--batch {settings['batch']}: there are only {len(pictures)} pictures; give "
                      f"at most that many")
    bounds = settings.pop("step_bounds")                   # a preset's
    if bounds:
        per_epoch = len(pictures) // settings["batch"]     # steps
        least, most = bounds
        steps = (settings["epochs"] or 0) * per_epoch      # None: of SemGAN, whose bounds tell all
        steps = min(max(steps, least), most)
        settings["epochs"] = math.ceil(steps / per_epoch)
    return pictures, held_out


def check_same(folder, settings):
    """Refuses a folder in which another run lives, naming each differing option and both values.
    Where a run goes on that began by --start, its dropout_at is put into settings. -> a line to
    print where the run's pictures have changed, or None."""
    if not (folder / "checkpoint.pt").exists():
        generators = sorted(folder.glob("generator*.pt"))  # --keep's, too
        if generators:
            raise Refusal(f"--out {folder}: holds a {generators[0].name}, but no checkpoint.pt to "
                          f"go on from; give another --out, or move it away")
        return None
    before = settings_before(folder, settings)
    if settings["start"] and "dropout_at" in before:       # --start's run is not read again
        settings["dropout_at"] = before["dropout_at"]
    pictures = str(before.get("pictures"))                 # "300 of names 89abcdef"
    count, _, _ = pictures.partition(" of ")
    if pictures != settings["pictures"] and settings["pictures"].startswith(f"{count} of "):
        raise Refusal(f"--out {folder}: holds a run of {count} pictures of other names than "
                      f"these; give those, or another --out")
    # Trained longer, or moved; what changed pictures change is said below.
    may_change = {"epochs", "data", "preset", "precision", "contents", "reading"}
    keys = sorted((before.keys() | settings.keys()) - may_change)
    different = differing(before, settings, keys)
    if "one_hot" in different and "in_channels" in different:
        different.remove("in_channels")                    # it follows
    if not different:
        return changed_pictures(folder, before, settings)
    words = [f"{key} {before.get(key)} there, {settings.get(key)} now" for key in different]
    advice = "give the same values (and a picture under each name) to go on, or another --out"
    chosen = PRESETS[settings["model"]]["laptop"].keys() | PRESETS["shapes"]["laptop"].keys()
    if set(different) <= chosen:
        advice = (f"to go on with it, add {as_flags(before, different)} (presets may have changed "
                  f"since); else give another --out")
    raise Refusal(f"--out {folder}: holds another run ({'; '.join(words)}); {advice}")


def changed_pictures(folder, before, settings):
    """A line where pictures of the same names as before now hold something else: some may have been
    mended. Refusal where they are another folder's: names such as 0001.png are everywhere."""
    if before.get("contents") in (None, settings.get("contents")):           # None: an older run
        return None
    if Path(before["data"]).resolve() != Path(settings["data"]).resolve():
        raise Refusal(f"--out {folder}: holds a run of other pictures, though of these names, from "
                      f"{before['data']}; give those, or another --out")
    return ("pictures of this run have changed since it began; it goes on with them as they are "
            "now (another --out begins anew)")


def epochs_before(folder, settings):
    """For how many epochs the run that goes on in a folder was begun; 0 where none does."""
    if not (folder / "checkpoint.pt").exists():
        return 0
    epochs = settings_before(folder, settings).get("epochs")
    if not isinstance(epochs, int):
        raise Refusal(f"{folder / 'settings.json'}: its epochs are {epochs!r}; move the folder "
                      f"away")
    return epochs


def settings_before(folder, settings):
    """A run folder's settings.json; what an older run's lacks, as it was done then."""
    path = folder / "settings.json"
    try:
        before = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        raise Refusal(f"{path}: missing or damaged; move the folder away") from None
    older = {**OLDER, **of_the_task(data.TASKS[settings["task"]]), "d_width": before.get("width"),
             "labels": settings["labels"]}
    for key in older.keys() & settings.keys():
        before.setdefault(key, older[key])
    theirs = before.get("range")                           # an older run's is of 8-bit halves, too
    ours = settings.get("range")
    if theirs and ours:
        before["range"] = [scale if used else None for scale, used in zip(theirs, ours)]
    return before


def differing(theirs, ours, keys):
    """Those of the keys whose values differ in two dicts; one that is lacking counts as None."""
    return [key for key in keys if theirs.get(key) != ours.get(key)]


def as_flags(settings, keys):
    """Flags that give these values: "--lr 0.0005 --no-one-hot --size 64x64"."""
    flags = []
    for key in keys:
        name = key.replace("_", "-")
        value = settings.get(key)
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            flags.append(f"--{name} {size_text(value)}")
        else:
            flags.append(f"--{name} {value}")
    return " ".join(flags)


# --start: the weights of another run come first.

# Settings that must be equal for the weights to fit.
G_FITS = {"pix2pix": ("one_hot", "in_channels", "out_channels", "width", "depth", "generator",
                      "norm", "upsample"),
          "semgan": ("size", "out_channels", "width", "head", "latent", "kernel")}


def starting_weights(folder, settings):
    """--start RUN: ({part: state dict}, a line about them) for G and, if RUN kept one, for D.

    G is what RUN publishes in generator.pt, with --ema its average. Its dropout stays at the
    decoder steps where it was, in converted generators others than ours. Nothing, ({}, ""), without
    --start, and where the run goes on: its own checkpoint.pt holds all, and RUN is read no more.
    Refusal where weights do not fit.
    """
    if settings["start"] is None:
        return {}, ""
    if (folder / "checkpoint.pt").exists():
        return {}, ""
    start = Path(settings["start"])
    module = pix2pix if settings["model"] == "pix2pix" else semgan
    try:
        generator, theirs = module.load_generator(start)
    except (pix2pix.Refusal, semgan.Refusal) as refusal:
        raise Refusal(f"--start {refusal}") from None
    check_fits(start, theirs, settings)
    if "dropout_at" in theirs:
        settings["dropout_at"] = theirs["dropout_at"]
    weights = {"generator": generator.state_dict()}
    averaged = f", an average by --ema {theirs['ema']}" if theirs.get("ema") else ""
    line = f"--start: G is {start}'s ({theirs['task']}{averaged})"
    if trains_d(settings):
        discriminator, words = starting_discriminator(start, theirs, settings)
        line += f", D {words}"
        if discriminator:
            weights["discriminator"] = discriminator
    line += meant_otherwise(theirs, settings)
    return weights, f"{line}; Adam begins anew"


def meant_otherwise(theirs, ours):
    """Words on weights that fit, but meant something else there: x was what is y here, a channel
    was another class's, or a class had another colour. "" where nothing is known to differ."""
    sides = [data.label_side(settings) for settings in (theirs, ours)]
    if None not in sides and sides[0] != sides[1]:
        return f", for the other direction (there {sides[0]} is the label map, here {sides[1]})"
    directions = [data.direction_of(settings) for settings in (theirs, ours)]
    same_task = theirs["task"] == ours["task"]
    if sides == [None, None] and same_task and directions[0] != directions[1]:
        return f", for the other direction ({directions[0]} there)"
    there = theirs.get("palette") or []
    here = ours.get("palette") or []
    by_number = ours["one_hot"] or ours.get("head") == "softmax"         # a channel a class
    if by_number:
        for i, ((name, _), (name_here, _)) in enumerate(zip(there, here)):
            if name != name_here:
                return f", for other classes ({i}: {name} there, {name_here} here)"
        return ""
    colours = dict(there)
    for name, colour in here:
        if colours.get(name, colour) != colour:
            return f", for other colours ({name}: {colours[name]} there, {colour} here)"
    return ""


def trains_d(settings):
    """Whether a run has a D; of SemGAN's each has one, and so no objective to choose."""
    return settings["model"] == "semgan" or "gan" in settings["objective"]


def check_out(folder, *splits):
    """Refuses a run's folder in which its Pictures lie: its losses.png would be one more."""
    homes = {path.parent for pictures in splits for files in pictures.files or [] for path in files}
    if folder.resolve() in {home.resolve() for home in homes}:
        raise Refusal(f"--out {folder}: holds the pictures to learn from; give a folder of the "
                      f"run's own")


def check_start(folder, settings):
    """Refuses a run that would begin with weights of its own folder."""
    start = settings["start"]
    if start is None:
        return
    path = Path(start)
    if path.suffix == ".pt":
        path = path.parent
    if folder.resolve() == path.resolve():
        raise Refusal(f"--start {start}: is the run's own folder, --out; give another --out, or to "
                      f"go on leave --start out")


def check_fits(start, theirs, settings):
    """Refuses a G of other settings, naming each one that differs and both values."""
    different = differing(theirs, settings, G_FITS[settings["model"]])
    words = [f"{key} {theirs.get(key)} there, {settings[key]} here" for key in different]
    advice = "give the same values (the depth follows from --size)"
    if theirs.get("norm") == "fixed":
        advice = "convert it with --own-statistics, as fixed norms are not trained"
    if different:
        raise Refusal(f"--start {start}: its generator is another ({'; '.join(words)}); {advice}")


def starting_discriminator(start, theirs, settings):
    """(state dict of RUN's D, or None; words about it). None where RUN has or trained no D."""
    if start.is_file():
        return None, "is new, as a generator alone was named"
    path = start / "checkpoint.pt"
    if not path.exists():                                  # of a converted run
        return None, f"is new, as there is no {path}"
    if not trains_d(theirs):
        return None, f"is new, as --objective {theirs['objective']} trained none there"
    there = d_kind(theirs)
    here = d_kind(settings)
    words = [f"{key} {there[key]} there, {here[key]} here" for key in differing(there, here, here)]
    if words:
        raise Refusal(f"--start {start}: its discriminator is another ({'; '.join(words)}); "
                      f"give the same values, or --start {start / 'generator.pt'}, for G alone")
    networks = pix2pix_networks if settings["model"] == "pix2pix" else semgan_networks
    _, discriminator = networks(theirs, torch.device("cpu"))
    try:
        discriminator.load_state_dict(pix2pix.load_file(path)["discriminator"])
    except (KeyError, TypeError, RuntimeError):
        raise Refusal(f"{path}: holds no D that fits its settings; give --start "
                      f"{start / 'generator.pt'}, for G alone") from None
    return discriminator.state_dict(), "its checkpoint.pt's"


def d_kind(settings):
    """What can differ in the discriminators of two runs whose generators are alike."""
    return {"receptive_field": settings.get("receptive_field"),
            "d_width": settings.get("d_width") or settings["width"],     # older runs lack it
            "conditional": "cgan" in settings.get("objective", "")}      # D(x, y), not D(y)


def lock(folder):
    """Holds the folder for this process; the system lets go even of a killed one's lock."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w")
        if fcntl:                                          # Windows has none, and so no lock
            with data.where_supported(folder, "locks"):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except BlockingIOError:
        raise Refusal(f"--out {folder}: another process trains there; give another --out") from None
    except OSError as error:
        raise Refusal(f"--out {folder}: {error.strerror}; give a folder to write to") from None


# The command: devices, processes, first and last words

def keep_on_gpu(pictures, device):
    """Moves the decoded pictures to a GPU where a quarter of its free memory holds them: batches
    are then cut there, and no step waits for a copy."""
    in_one_tensor = isinstance(pictures.cache, torch.Tensor)             # whole pictures: a list
    if device.type == "cuda" and in_one_tensor:
        free, _ = torch.cuda.mem_get_info(device)
        if pictures.cache.numel() <= free / 4:             # bytes
            pictures.cache = pictures.cache.to(device)


def event_writer(folder):
    """TensorBoard's writer; it is not among this project's requirements, so it may be refused."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise Refusal("--tensorboard: not installed; `pip install tensorboard`, or leave it out: "
                      "log.csv and losses.png hold the same values") from None
    return SummaryWriter(folder / "tensorboard")


def join_processes(context, task):
    """Meets torchrun's other processes. What one alone can see to be wrong has been refused."""
    # In torch 2.13 the store in which they meet outlives a restart: each gets a part of its own.
    store = next(dist.rendezvous("env://"))[0]
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend = "cpu:gloo,cuda:nccl" if context.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=context.rank, world_size=context.world)
    mine = (context.settings["pictures"], (context.folder / "checkpoint.pt").exists())
    everyones = [None] * context.world
    dist.all_gather_object(everyones, mine)
    if len(set(everyones)) > 1:                            # one fetched or goes on, another not
        raise Refusal(f"--task {task}: the processes see different pictures or run folders; run "
                      f"`python data.py {task}` first, and share --out")


def introduce(context, pictures, held_out, seconds, lines):
    """The first lines: what is trained, where, with which settings and pictures; then `lines`."""
    settings = context.settings
    size = size_text(settings["size"])
    if context.device.type == "cuda":
        where = torch.cuda.get_device_name()
    elif context.device.type == "mps":
        where = "Apple's GPU (mps; nobody has tried this code on one)"
    else:
        where = f"cpu with {torch.get_num_threads()} threads"
    processes = "1 process" if context.world == 1 else f"{context.world} processes"
    other = "laptop" if settings["preset"] == "paper" else "paper"
    steps = len(pictures) // settings["batch"] * settings["epochs"]
    epochs = data.counted(settings["epochs"], "epoch")
    if pictures.cache is None:
        kept = "decoded as needed"
    elif not pictures.whole and pictures.cache.is_cuda:
        kept = "kept on the GPU"
    else:
        kept = "kept in memory"
    print(f"{settings['model']} on {settings['task']}: torch {torch.__version__}, {where}, "
          f"{settings['precision']}, {processes}\n"
          f"preset {settings['preset']} (the other: --preset {other}): size {size}, width "
          f"{settings['width']}, batch {settings['batch']}, {epochs} = "
          f"{data.counted(steps, 'step')}, seed {settings['seed']}\n"
          f"{data.counted(len(pictures), 'picture')} to train on, {len(held_out):,} held out, from "
          f"{settings['data'] or 'drawings'}, ready after {seconds:.1f} s, {kept}")
    for line in [*data.what_was_read(settings, pictures, held_out), *lines]:
        print(line)


def run_folder(options, settings):
    """--out, or runs/TASK; drawn facades have a folder of their own."""
    if options.out:
        return Path(options.out)
    name = options.task
    if settings["drawn"]:
        name += "-drawn"
    return Path("runs") / name


def main():
    started = time.monotonic()
    options = parse()
    for number in set(STOP_SIGNALS) - {signal.SIGINT}:     # until there is a run; Ctrl-C ends it
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    rank = int(os.environ.get("RANK", 0))                  # these four are torchrun's
    world = int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    device = data.device_of(options.device, local_rank, local_world)
    settings = resolve(options, device, world)
    pictures, held_out = find_pictures(settings, options.memory)
    folder = run_folder(options, settings)
    if not options.epochs:                                 # the preset's; or it was begun with more
        settings["epochs"] = max(settings["epochs"], epochs_before(folder, settings))
    if options.keep and options.keep > settings["epochs"]:
        raise Refusal(f"--keep {options.keep}: the run has "
                      f"{data.counted(settings['epochs'], 'epoch')}, so none would be kept; give "
                      f"at most that many")
    check_out(folder, pictures, held_out)
    check_start(folder, settings)
    changed_words = check_same(folder, settings)
    start, start_words = starting_weights(folder, settings)
    held_lock = lock(folder) if rank == 0 else None
    keep_on_gpu(pictures, device)
    writer = event_writer(folder) if options.tensorboard and rank == 0 else None
    context = argparse.Namespace(folder=folder, settings=settings, device=device, rank=rank,
                                 world=world, compile=options.compile, writer=writer,
                                 keep=options.keep, start=start)
    if world > 1:
        join_processes(context, options.task)
    if rank == 0:
        lines = filter(None, [changed_words, start_words])
        introduce(context, pictures, held_out, time.monotonic() - started, lines)
    train = train_pix2pix if settings["model"] == "pix2pix" else train_semgan
    run = train(context, pictures, held_out)
    if rank == 0:
        more = ", at a rate that rises again" if settings["decay"] else ""
        print(f"\nfinished: {data.counted(run.step, 'step')}. Samples are in {folder / 'samples'}, "
              f"the generator is {folder / 'generator.pt'}; a larger --epochs trains on{more}.")
    if world > 1:
        dist.barrier()                                     # while rank 0 saves: all leave together
        dist.destroy_process_group()
    if held_lock:
        held_lock.close()


if __name__ == "__main__":
    data.run_command(main)
