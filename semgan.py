"""SemGAN: how does noise become a label map?

A generator turns a random vector into probabilities of classes for each pixel; a discriminator
compares its maps with real ones. Ghelfi et al., "Adversarial Pixel-Level Generation of Semantic
Images": Sec. 3.2 idea, Sec. 5 experiments, Sec. 6 dreams, App. B training.

    Generator, size 128, width 64                  Discriminator (and Encoder)
    z          128 numbers from N(0, 1)            label map  K x 128 x 128, one-hot or probs
    dense      512 x 4 x 4                         conv /2   64 x 64 x 64   without a norm
    deconv x2  512 x 8 x 8                         conv /2  128 x 32 x 32
    deconv x2  256 x 16 x 16                       conv /2  256 x 16 x 16
    deconv x2  128 x 32 x 32                       conv /2  512 x 8 x 8
    deconv x2   64 x 64 x 64                       conv /2  512 x 4 x 4
    deconv x2   32 x 128 x 128                     dense    1 logit (the Encoder: the latent z)
    deconv x1    K x 128 x 128, then the head:
      softmax over K classes: SemGAN               feature_matching_loss, which trains G, compares
      tanh, K = 3 colours: the RGB GAN             the mean outputs of all layers of D

    python semgan.py                                  every weight, with its shape and count
    python semgan.py RUN --count 64 --out grid.png    label maps from noise
    python semgan.py RUN --walk walk.gif              from one latent to the next, and back
    python semgan.py RUN --dream RUN2 --out d.png     each map, and the photo a pix2pix makes of it
    python semgan.py RUN --dream RUN2 --count 1000 --pairs DIR      as pictures to train on
    python semgan.py RUN --train-encoder 2000         then: RUN --encode MAP.png --out both.png

To copy it out, take this file alone; it needs torch only:
    generator, settings = load_generator("generator.pt")
    label_map = to_label_map(generator(torch.randn(1, settings["latent"])))

Where it leaves the paper, which gives no layer list: this one is our choice, after DCGAN. Each
layer but the last is followed by a norm and LeakyReLU 0.2 (D's first has a bias and no norm). Norms
use each picture's own statistics, as in pix2pix.py, so no sample depends on its batch. G's dense
layer has no bias, and the norm behind it divides by the spread of what comes. So G(2z) is G(z), but
for the norm's 1e-5: only the direction of z counts.
"""
import io
import json
import math
import os
import sys
import zipfile
from pathlib import Path

if __name__ == "__main__":
    if sys.version_info < (3, 11):                         # as requirements.txt needs
        print("error: Python: 3.11 or newer is needed; see Set-up in README.md", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")    # see train.py

import torch
import torch.nn as nn
import torch.nn.functional as F


class Generator(nn.Module):
    """Latent z (N, latent) from N(0, 1) -> class_probs (N, K, size, size), or colours in [-1, 1].

    head "softmax" ends in probabilities over K = out_channels classes, Sec. 3.2; "tanh" with 3
    channels is the RGB GAN: "the unique difference is the output layer", Sec. 5. size: 4 times a
    power of 2; kernel: odd. Latents of 100 to 300 and kernels of 7 and 11 are App. A and B's.
    """

    def __init__(self, out_channels, latent=128, size=128, kernel=7, width=64, head="softmax"):
        super().__init__()
        self.head = head
        channels = layer_channels(size, width)             # 512, 512, 256, 128, 64
        channels.append(max(1, width // 2))                # 32, at the full size
        padding = kernel // 2                              # so that only strides change sides
        self.dense = nn.Linear(latent, channels[0] * 4 * 4, bias=False)  # so that G(z) = G(2z)
        self.grow = nn.ModuleList()
        for before, after in zip(channels, channels[1:]):
            # output_padding 1: with an odd kernel the side doubles exactly.
            self.grow.append(nn.ConvTranspose2d(before, after, kernel, stride=2,
                                                padding=padding, output_padding=1, bias=False))
        self.norms = nn.ModuleList(instance_norm(count) for count in channels)
        self.to_classes = nn.ConvTranspose2d(channels[-1], out_channels, kernel, padding=padding)
        self.apply(initialize)

    def forward(self, z):                                  # (N, 128)
        x = self.dense(z).view(len(z), -1, 4, 4)           # (N, 512, 4, 4)
        x = F.leaky_relu(self.norms[0](x), 0.2)            # 0.2 is DCGAN's; it gives no reason
        for grow, norm in zip(self.grow, self.norms[1:]):
            x = grow(x)
            x = F.leaky_relu(norm(x), 0.2)                 # (N, 512, 8, 8) ... (N, 32, 128, 128)
        if not on_metal(x):
            x = x.contiguous(memory_format=torch.channels_last)  # saves a tenth of a step's time
        logits = self.to_classes(x)                        # (N, K, 128, 128)
        if self.head == "softmax":
            return F.softmax(logits, dim=1)
        return torch.tanh(logits.float())                  # in bf16 it is 1, and flat, from 3.5 on


class Discriminator(nn.Module):
    """One-hot maps, class_probs or colours (N, in_channels, size, size) -> (logit, features): logit
    (N, 1), positive for "real"; features, the outputs of all layers, the logit being the last. size
    and kernel are as in Generator; outputs is 1, but for the Encoder."""

    def __init__(self, in_channels, size=128, kernel=7, width=64, outputs=1):
        super().__init__()
        channels = layer_channels(size, width)[::-1]       # 64, 128, 256, 512, 512
        padding = kernel // 2
        # No norm on the first layer: how many pixels of a class there are must stay visible.
        self.shrink = nn.ModuleList([nn.Conv2d(in_channels, channels[0], kernel, 2, padding)])
        self.norms = nn.ModuleList([nn.Identity()])
        for before, after in zip(channels, channels[1:]):
            self.shrink.append(nn.Conv2d(before, after, kernel, 2, padding, bias=False))
            self.norms.append(instance_norm(after))
        self.to_logit = nn.Linear(channels[-1] * 4 * 4, outputs)
        self.apply(initialize)

    def forward(self, x):                                  # (N, K, 128, 128)
        features = []
        for shrink, norm in zip(self.shrink, self.norms):
            x = shrink(x)
            x = F.leaky_relu(norm(x), 0.2)                 # (N, 64, 64, 64) ... (N, 512, 4, 4)
            features.append(x)
        logit = self.to_logit(x.flatten(1))                # (N, 1)
        features.append(logit)
        return logit, features


def on_metal(x):  # Also in pix2pix.py, repeated so that this file copies alone.
    """Whether x is on Apple's GPU, which wants no channels_last: gradients in that layout have been
    wrong there (pytorch issues 142344, 156792), or thirty times as slow (193349)."""
    return x.is_mps


def layer_channels(size, width):
    """Channels at sides 4, 8, ... size / 2 of G: 512, 512, 256, 128, 64; D takes them reversed.
    Half the side, twice the channels, up to 8 widths: as in pix2pix.py."""
    count = int(math.log2(size)) - 2
    assert size == 4 * 2 ** count and count > 0, f"size {size} is not 4 times a power of 2"
    return [width * min(2 ** i, 8) for i in reversed(range(count))]


def instance_norm(channels):
    """Each picture's channels to mean 0 and std 1, times a weight, plus a bias. Group norm with one
    channel a group is just that."""
    return nn.GroupNorm(channels, channels)


def initialize(layer):
    """Weights from N(0, 0.02), biases 0, as in DCGAN. Norm weights start at 1; pix2pix.py draws
    them from N(1, 0.02), as its authors' code does, of which SemGAN's paper says nothing."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(layer.weight, mean=0.0, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


# The losses

def discriminator_loss(real_logits, fake_logits):          # (N, 1) each
    """SemGAN Eq. 1 from D's side, negated to minimise: -log D(x) - log(1 - D(G(z))).

    D is sigmoid(logit): cross-entropy against ones is -log D, against zeros -log(1 - D). That
    pix2pix halves this loss, and SemGAN does not, hardly matters under Adam.
    """
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return real + fake


def feature_matching_loss(real_features, fake_features):   # lists of (N, c, side, side) and (N, 1)
    """G's loss, App. B: | mean_x f(x) - mean_z f(G(z)) |, summed over the layers f of D. mean_x is
    over the batch's real maps, mean_z over its fakes.

    The paper has no formula, but names Salimans et al. 2016 and "the features of an intermediate
    layer" (Sec. 3.1): they match the batch means of one layer, by squared differences. Two things
    here are our choice. All layers are matched, and D's logit: the shallow layers say what is
    where, and when we matched the last layer alone, where D soon knows every fake, G learned to
    give empty maps. And differences are absolute, as their gradient does not fade near the target.
    """
    loss = 0
    for real, fake in zip(real_features, fake_features):   # layer by layer
        real_mean = real.float().mean(0).detach()          # over the batch; it is the target
        fake_mean = fake.float().mean(0)                   # (c, side, side)
        distance = (real_mean - fake_mean).abs().mean()
        loss = loss + distance
    return loss


# Label maps, colours and walks

def one_hot(label_map, classes):
    """(N, H, W) integers -> float32 (N, classes, H, W); a pixel to ignore, 255, is 0 in all."""
    index = torch.arange(classes, device=label_map.device).view(1, -1, 1, 1)
    return (label_map[:, None] == index).float()


def to_label_map(class_probs):
    """(N, K, H, W) -> (N, H, W) int64: the likeliest class, Sec. 3.2 "taking the argmax"."""
    return class_probs.argmax(1)


def colorize(label_map, palette):
    """Integers (N, H, W) -> uint8 (N, 3, H, W). palette: (name, (r, g, b)) of each class.
    data.py's takes one map by numpy; this one a batch, on a GPU as well."""
    colours = torch.tensor([colour for _, colour in palette]).byte()     # (K, 3)
    colours = F.pad(colours, (0, 0, 0, 256 - len(palette)))              # 255 = ignore is black
    colours = on_device(colours, label_map.device)
    return colours[label_map.long()].permute(0, 3, 1, 2)


def on_device(tensor, device):  # Also in data.py, repeated so that this file copies alone.
    """A tensor on the device, without a wait for the copy; but for Apple's GPU, which may read it
    when its memory is another's already (torch 2.5 to 2.13, pytorch issues 139550, 189690)."""
    return tensor.to(device, non_blocking=device.type != "mps")


def nearest_class(image, palette):
    """uint8 (N, 3, H, W) -> (N, H, W) int64 by nearest colour: a GAN on colours needs it.
    data.py's is for files, and so knows Cityscapes' further colours too, which G never sees."""
    colours = torch.tensor([colour for _, colour in palette], device=image.device).float()
    distances = [(image - colour.view(3, 1, 1)).square().sum(1) for colour in colours]
    return torch.stack(distances).argmin(0)                # of (K, N, H, W)


def out_of_palette(image, palette):
    """The share of pixels of uint8 (N, 3, H, W) whose colour is no class's; 0 for SemGAN."""
    nearest = colorize(nearest_class(image, palette), palette)
    return (nearest != image).any(1).float().mean().item()


def to_pixels(output, palette, head="softmax"):
    """What a generator with this head gives -> uint8 (N, 3, H, W) to look at."""
    if head == "softmax":
        return colorize(to_label_map(output), palette)
    return output.add(1).mul(127.5).round().clamp(0, 255).byte()


def walk(latents, frames=24):
    """Latents (M, latent) -> (M * frames, latent): from each to the next, and back to the first. As
    only directions count, straight lines would show the same maps, but hurry through the middle: so
    directions move on great circles, by equal angles, and lengths evenly. The formula is known as
    slerp, "spherical linear interpolation"."""
    t = torch.arange(frames, device=latents.device)[:, None] / frames    # (frames, 1)
    path = []
    for start, end in zip(latents, latents.roll(-1, 0)):
        length = (1 - t) * start.norm() + t * end.norm()
        start = F.normalize(start, dim=0)
        end = F.normalize(end, dim=0)
        cosine = start.dot(end).clamp(-0.9999, 0.9999)     # of equal ones the sine would be 0
        angle = torch.acos(cosine)
        of_start = ((1 - t) * angle).sin() / angle.sin()
        of_end = (t * angle).sin() / angle.sin()
        path.append(length * (of_start * start + of_end * end))
    return torch.cat(path)


def dream(output, settings, painter, its_settings, seed=0):
    """Sec. 6.1: a generator's output (N, K, size, size) -> [(map, photo by the painter), ...], each
    uint8 (3, H, W) of the painter's size. The paper's painter takes colours. One of one-hot maps
    takes the probabilities themselves, from which, says the paper, it "can benefit". To copy this,
    take data.py and pix2pix.py along."""
    import data
    import pix2pix
    maps = to_pixels(output, settings["palette"], settings["head"])
    maps = F.interpolate(maps, its_settings["size"], mode="nearest-exact")
    if its_settings["one_hot"] and settings["head"] == "softmax":
        x = F.interpolate(output, its_settings["size"], mode="nearest-exact")
    else:
        x = data.input_to_network(its_settings, maps)
    fake = pix2pix.generate(painter, x, seed)
    photos = data.to_pixels(its_settings, x, fake)
    return list(zip(maps, photos))


# The encoder: from a map back to its latent, Sec. 7. Skip it on first reading.

class Encoder(nn.Module):
    """One-hot maps (N, K, size, size) -> latents (N, latent), Sec. 7's "semantic encoder"."""

    def __init__(self, in_channels, latent=128, size=128, kernel=7, width=64):
        super().__init__()
        self.layers = Discriminator(in_channels, size, kernel, width, outputs=latent)

    def forward(self, x):
        latents, _ = self.layers(x)
        return latents


def encoder_loss(encoder, generator, maps):                # maps: one-hot, real (N, K, size, size)
    """(latent, reconstruction), scalars for E to minimise. latent: E(G(z)) should be z, mean
    square. reconstruction: G(E(x)) should give the pixels of a real map x their classes, mean -log
    of their probability. Both are our choice: the paper only names such an encoder."""
    z = torch.randn(len(maps), generator.dense.in_features, device=maps.device)
    generated = to_label_map(generator(z))                 # an argmax: no gradient reaches G by it
    latent = F.mse_loss(encoder(one_hot(generated, maps.shape[1])), z)
    probs = generator(encoder(maps)).clamp_min(1e-6)       # else -log could be infinite
    reconstruction = -(maps * probs.log()).sum(1).mean()   # sum(1): the true class's alone
    return latent, reconstruction


def build_encoder(settings):
    """A new Encoder for the Generator that settings describe."""
    return Encoder(len(settings["palette"]), settings["latent"], settings["size"][0],
                   settings["kernel"], settings["width"])


def train_encoder(generator, settings, folder, steps):
    """The loop of --train-encoder: real maps, encoder_loss, Adam; writes folder/encoder.pt, and
    prints how well held-out maps are rebuilt."""
    import data
    torch.manual_seed(settings["seed"])
    encoder = build_encoder(settings)
    real = data.training(settings)
    classes = len(settings["palette"])
    generator.requires_grad_(False)                        # gradients pass through it to E
    # The betas are App. B's; the rate, our choice, lies among App. A's for G, 1e-4 to 2e-3.
    optimizer = torch.optim.Adam(encoder.parameters(), 5e-4, betas=(0.5, 0.999), fused=True)
    for step in range(1, steps + 1):
        chosen = torch.randint(len(real), (settings["batch"],))
        maps = torch.stack([real[i] for i in chosen])[:, 0]  # (N, size, size)
        latent, reconstruction = encoder_loss(encoder, generator, one_hot(maps, classes))
        optimizer.zero_grad()
        (latent + reconstruction).backward()
        optimizer.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}  latent {latent:.3f}  reconstruction {reconstruction:.3f}")
    content = {"format": FORMAT, "settings": settings, "encoder": encoder.state_dict()}
    data.write_whole(folder / "encoder.pt", content)
    maps = data.far_apart(data.held_out(settings), 256)[:, 0]    # (256, size, size), or fewer
    _, words = reconstruct(encoder, generator, maps, classes)
    print(f"held-out maps: {words}")


@torch.no_grad()
def reconstruct(encoder, generator, maps, classes):        # maps: integers (N, H, W)
    """E(x), and in words G(E(x))'s accuracy beside the constant guess's: the commonest class.
    Pixels to ignore, 255, count for neither."""
    latents = []
    rebuilt = []
    for part in maps.split(AT_ONCE):
        z = encoder(one_hot(part, classes))
        latents.append(z)
        rebuilt.append(to_label_map(generator(z)))
    z = torch.cat(latents)
    rebuilt = torch.cat(rebuilt)
    known = maps != 255
    if not known.any():
        return z, "no pixel has a class to compare"
    truth = maps[known]
    commonest = truth.mode()[0]
    right = (rebuilt[known] == truth).float().mean()
    guess = (truth == commonest).float().mean()
    return z, f"{right:.1%} of pixels right (constant guess: {guess:.1%})"


# Files. Skip all from here on first reading.

FORMAT = 1  # of the files that train.py writes; a reader refuses a number it does not know
AT_ONCE = 32  # maps or latents that go through a network together: memory stays flat


class Refusal(ValueError):  # Also in data.py, repeated so that this file copies alone.
    """Bad input from outside: one line, exit code 2."""


def build_generator(settings):
    """A new Generator as settings (a flat dict, see train.py) describe it."""
    return Generator(settings["out_channels"], settings["latent"], settings["size"][0],
                     settings["kernel"], settings["width"], settings["head"])


def load_generator(path):
    """(generator, settings) from a run's folder or its generator.pt; no other file is needed."""
    path = Path(path)
    if path.is_dir():
        path = path / "generator.pt"
    return load_network(path, "generator", build_generator)


def folder_of(run):
    """A run's folder, which the folder itself or its generator.pt may name."""
    path = Path(run)
    return path if path.is_dir() else path.parent


def load_encoder(path):
    """(encoder, settings): what --train-encoder left in a run's folder, or beside generator.pt."""
    return load_network(folder_of(path) / "encoder.pt", "encoder", build_encoder)


def load_network(path, key, build):
    """The network under a key of a file, built by its settings, in eval mode, and the settings."""
    try:
        with zipfile.ZipFile(path) as archive:             # torch.load misses flipped bits
            if archive.testzip():
                raise ValueError
        content = torch.load(path, "cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError
        settings = content["settings"]
        model = settings["model"]
        if model == "semgan" and key in content:
            network = build(settings)
            network.load_state_dict(content[key])
            return network.eval(), settings
    except FileNotFoundError:
        advice = "run --train-encoder first" if key == "encoder" else "is RUN right, and saved?"
        raise Refusal(f"{path}: no such file; {advice}")
    except (PermissionError, MemoryError):                 # say nothing of the file's content
        raise
    except Exception:  # torch and zipfile raise some ten kinds for damage; their advice is unsafe
        raise Refusal(f"{path}: damaged, or not of format {FORMAT}; train again, or restore a copy")
    if model == "semgan":
        raise Refusal(f"{path}: holds no {key}; give a run's folder, or its {key}.pt")
    raise Refusal(f"{path}: this is a {model} run; give one of a SemGAN task")


def load_painter(path, settings):
    """(generator, settings) of the pix2pix run at path; Refusal where it does not take label maps
    of these settings' classes, as one-hot maps or as colours."""
    import data
    import pix2pix
    painter, its_settings = pix2pix.load_generator(path)
    same_classes = its_settings["palette"] in (None, settings["palette"])    # None: it does not say
    if not same_classes or data.label_side(its_settings) == "y":
        raise Refusal(f"{path}: its classes are not this run's; give a pix2pix run on such maps")
    if not its_settings["one_hot"] and its_settings["in_channels"] not in (1, 3):
        channels = its_settings["in_channels"]
        raise Refusal(f"{path}: takes pictures of {channels} channels, and label maps have 3; give "
                      f"a pix2pix run on such maps")
    return painter, its_settings


# The command

def describe():
    """Prints the weights of both networks at their defaults: shapes and counts."""
    for network in (Generator(12), Discriminator(12)):     # 12 classes, as the facades have
        count = sum(parameter.numel() for parameter in network.parameters())
        print(type(network).__name__, count, "parameters")
        for name, weight in network.named_parameters():
            shape = str(tuple(weight.shape))
            print(f"  {name:20} {shape:22} {weight.numel():>12,}")


@torch.no_grad()
def draw(generator, settings, options):
    """Writes samples, a walk, rebuilt maps or dreams, as the options ask, to the file they name."""
    import data
    if options.encode:
        maps, z = encode_files(generator, settings, options)
    else:
        z = sample_latents(settings, options)
    if options.pairs:
        write_pairs(generator, z, settings, options)
        return
    if options.walk:
        if len(z) < 2:
            raise Refusal("--walk: goes from one latent to the next, and there is one; give --count"
                          " 2 or more, or more maps to --encode")
        write_gif(options.walk, pictures_from(generator, walk(z), settings))
        print(f"wrote {options.walk}")
        return
    titles = ()
    if options.dream:
        rows = dream_rows(generator, z, settings, options.dream)
        titles = ("map", "photo") * 3
    elif options.encode:
        rebuilt = pictures_from(generator, z, settings)
        rows = list(zip(colorize(maps, settings["palette"]), rebuilt))
        titles = ("map", "rebuilt")
    else:
        side = math.ceil(len(z) ** 0.5)                    # of a square
        rows = pictures_from(generator, z, settings).split(side)
    out = options.out or "grid.png"
    data.save_picture(out, data.contact_sheet(rows, titles))
    print(f"wrote {out}")


def sample_latents(settings, options):
    """As many latents (count, latent) from N(0, 1) as the options ask for."""
    count = 64
    if options.walk:
        count = 6
    if options.dream:
        count = 12
    if options.count:
        count = options.count
    rng = torch.Generator().manual_seed(options.seed)
    return torch.randn(count, settings["latent"], generator=rng)


def encode_files(generator, settings, options):
    """The label maps (N, H, W) that --encode names, and their latents; prints how well they fit."""
    import data
    maps = []
    paths = [Path(path) for path in options.encode]
    data.agree_on_rows(paths, settings["palette"], data.LEARNED_HELP)
    for path in paths:
        files = (path,)                                    # read as in training
        with data.offering_no_palette():
            maps.append(data.read_picture(settings, files, settings["size"]))
        print(f"{path}: a label map, {data.how_labels_are_read(settings, files)}")
    maps = torch.cat(maps)
    encoder, its_settings = load_encoder(options.run)
    if its_settings != settings:                           # "steps" are the run's so far
        raise Refusal(f"{options.run}: trained on since its encoder was; --train-encoder anew")
    z, words = reconstruct(encoder, generator, maps, len(settings["palette"]))
    print(words)
    return maps, z


def pictures_from(generator, z, settings):
    """What G makes of any number of latents, uint8 (N, 3, size, size)."""
    pictures = []
    for part in z.split(AT_ONCE):
        pictures.append(to_pixels(generator(part), settings["palette"], settings["head"]))
    return torch.cat(pictures)


def dreams(generator, z, settings, painter, its_settings):
    """Yields a dream (see there) of each latent: map, photo. Each part has a noise of its own."""
    for seed, part in enumerate(z.split(AT_ONCE)):
        yield from dream(generator(part), settings, painter, its_settings, seed)


def dream_rows(generator, z, settings, path):
    """Rows of a sheet, three dreams each: map, photo, map, photo, map, photo."""
    painter, its_settings = load_painter(path, settings)
    pictures = []
    for drawn_map, photo in dreams(generator, z, settings, painter, its_settings):
        pictures += [drawn_map, photo]
    return [pictures[i:i + 6] for i in range(0, len(pictures), 6)]


def write_pairs(generator, z, settings, options):
    """--pairs: writes each dream to DIR/00001.png and so on, map and photo side by side, as in the
    pairs that RUN2 learned: a run of RUN2's task takes them as its --data."""
    import data
    folder = Path(options.pairs)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise Refusal(f"--pairs {folder}: there already, and not empty; give a new folder")
    painter, its_settings = load_painter(options.dream, settings)
    kind = data.look_up(its_settings["task"]).kind
    if kind != "pairs" or its_settings["out_channels"] != 3:
        raise Refusal(f"{options.dream}: makes no photos of label maps, in three colours; give a "
                      f"pix2pix run on pairs that does")
    folder.mkdir(parents=True, exist_ok=True)
    photo_first, flag = layout_of(its_settings)
    palette = its_settings["palette"]
    if palette and palette != data.look_up(its_settings["task"]).palette:    # not the task's own
        data.write_whole(folder / "palette.json", json.dumps(palette).encode())
    pairs = dreams(generator, z, settings, painter, its_settings)
    for number, (drawn_map, photo) in enumerate(pairs, 1):
        halves = [drawn_map, photo]
        if photo_first:
            halves = [photo, drawn_map]
        data.save_picture(folder / f"{number:05}.png", torch.cat(halves, dim=2))
        if number % AT_ONCE == 0 or number == len(z):
            print(f"{number:,} of {len(z):,} pairs in {folder}", flush=True)
    task = its_settings["task"]
    print(f"to train on them: python train.py --task {task} --data {folder}{flag}")


def layout_of(its_settings):
    """Whether the photo stands left of its map in pairs for a painter's task, and the flag that the
    task then needs. Pairs with a palette.json take A, the left half, for the map, whatever the
    painter's direction (data.half_of_labels)."""
    import data
    row = data.look_up(its_settings["task"])
    direction = data.direction_of(its_settings)
    if its_settings["palette"] and row.labels is None:
        direction = row.direction
    flag = "" if direction == row.direction else f" --direction {direction}"
    return direction == "BtoA", flag                       # BtoA: x is B, the right half


def write_gif(path, pictures):
    """Writes uint8 (N, 3, H, W), three times as large, as an animation that plays for ever."""
    import data
    large = F.interpolate(pictures, scale_factor=3)        # each pixel becomes 3x3
    first, *others = [data.to_image(picture) for picture in large]
    gif = io.BytesIO()
    first.save(gif, "GIF", save_all=True, append_images=others, duration=60, loop=0)  # 60 ms each
    data.write_whole(path, gif.getvalue())


def new_parser():
    """The flags of `python semgan.py`; at most one of three says what is made."""
    import data
    parser = data.new_parser(__doc__)
    add = parser.add_argument
    add_one_of = parser.add_mutually_exclusive_group().add_argument
    add("run", nargs="?",
        help="a run's folder or its generator.pt; none: describe")
    add("--count", type=data.positive(int),
        help="samples (default 64; on a walk 6, dreams 12)")
    add("--out", type=data.picture_name, metavar="PNG",
        help="default grid.png")
    add_one_of("--walk", metavar="GIF",
               help="walk through latents, or those of the --encode maps")
    add_one_of("--dream", metavar="RUN2",
               help="maps, and their photos by this pix2pix run")
    add("--pairs", metavar="DIR",
        help="write the dreams as pairs to train on, one a file, to DIR")
    add_one_of("--train-encoder", type=data.positive(int), metavar="STEPS",
               help="train the encoder of RUN")
    add("--encode", nargs="+", metavar="MAP",
        help="label maps to encode and rebuild")
    add("--seed", type=int, default=0,
        help="of the latents (default 0)")
    return parser


def refuse_clashes(options):
    """Refuses options that do not go together."""
    draws_noise = options.count or options.seed
    if options.train_encoder and (draws_noise or options.encode or options.out):
        raise Refusal("--train-encoder: goes alone; leave --count, --seed, --encode and --out out")
    if options.encode and draws_noise:
        raise Refusal("--encode: gives the latents, so none are drawn; leave --count and --seed "
                      "out")
    if options.encode:
        out = options.walk or options.out or "grid.png"
        for name in options.encode:
            if Path(name).resolve() == Path(out).resolve():
                flag = "--walk" if options.walk else "--out"
                raise Refusal(f"{flag} {out}: would overwrite {name}, which is to be encoded; give "
                              f"another name")
    if options.pairs and (not options.dream or options.out or options.encode):
        raise Refusal("--pairs: goes with --dream RUN2 and --count, without --out and --encode")
    if options.walk and not options.walk.lower().endswith(".gif"):
        raise Refusal(f"--walk: {options.walk} is no GIF; give a name ending in .gif")
    if options.walk and options.out:
        raise Refusal(f"--out {options.out}: a walk is written to --walk {options.walk}; leave it "
                      f"out")


def main():
    import data  # only the command needs its neighbours
    options = data.parse_options(new_parser())
    if options.run is None:
        if any(vars(options).values()):                    # any option at all
            raise Refusal("RUN: missing; give it first, as in `python semgan.py RUN --count 64`")
        describe()
        return
    refuse_clashes(options)
    generator, settings = load_generator(options.run)
    if settings["head"] == "tanh" and (options.encode or options.train_encoder):
        raise Refusal(f"{options.run}: --head tanh gives no class_probs; encode with a softmax run")
    if options.train_encoder:
        train_encoder(generator, settings, folder_of(options.run), options.train_encoder)
    else:
        draw(generator, settings, options)


if __name__ == "__main__":
    from data import run_command
    run_command(main)
