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
    python semgan.py RUN --train-encoder 2000         then: RUN --encode MAP.png --out both.png

To copy it out, take this file alone; it needs torch only:
    generator, settings = load_generator("generator.pt")
    label_map = to_label_map(generator(torch.randn(1, settings["latent"])))

Where it leaves the paper. It gives no layer list; this one is our choice, after DCGAN. Each layer
but the last is followed by a norm and LeakyReLU 0.2 (D's first has a bias and no norm). Norms use
each picture's own statistics, as in pix2pix.py, so no sample depends on its batch. One follows G's
dense layer, which has no bias: so G(z) = G(2z), only the direction of z counts. For kernels 5 to 11
the library's transposed convolution was the fastest: pixel_shuffle and fold took 1.3 to 12 times.
"""
import io
import math
import zipfile
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

FORMAT = 1  # of the files that train.py writes; a reader refuses a number it does not know


class Refusal(ValueError):  # Also in data.py, repeated so that this file copies alone.
    """Bad input from outside: one line, exit code 2."""


def initialize(layer):
    """Weights from N(0, 0.02), biases 0, as in pix2pix and DCGAN; norm weights start at 1."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def doubling(size, width):
    """Channels at sides 4, 8, ... size / 2 of G: 512, 512, 256, 128, 64; D takes them reversed."""
    count = int(math.log2(size)) - 2
    assert size == 4 * 2 ** count and count > 0, f"size {size} is not 4 times a power of 2"
    return [width * min(2 ** i, 8) for i in reversed(range(count))]


class Generator(nn.Module):
    """Latent z (N, latent) from N(0, 1) -> class_probs (N, K, size, size), or colours in [-1, 1].

    head "softmax" ends in probabilities over K = out_channels classes, Sec. 3.2; "tanh" with 3
    channels is the RGB GAN: "the unique difference is the output layer", Sec. 5 (fp32: bf16 rounds
    to 1). size: 4 times a power of 2; kernel: odd. App. A, B: latents 100 to 300, kernels 7, 11."""
    def __init__(self, out_channels, latent=128, size=128, kernel=7, width=64, head="softmax"):
        super().__init__()
        self.head, half = head, kernel // 2
        channels = doubling(size, width) + [max(1, width // 2)]
        self.dense = nn.Linear(latent, channels[0] * 4 * 4, bias=False)  # so that G(z) = G(2z)
        self.grow = nn.ModuleList(                         # output_padding 1: odd kernels double
            nn.ConvTranspose2d(a, b, kernel, 2, half, output_padding=1, bias=False)
            for a, b in zip(channels, channels[1:]))
        self.norms = nn.ModuleList(nn.GroupNorm(c, c) for c in channels)  # = instance norm
        self.to_classes = nn.ConvTranspose2d(channels[-1], out_channels, kernel, padding=half)
        self.apply(initialize)

    def forward(self, z):                                  # (N, 128)
        x = self.dense(z).view(len(z), -1, 4, 4)           # (N, 512, 4, 4)
        x = F.leaky_relu(self.norms[0](x), 0.2)
        for grow, norm_ in zip(self.grow, self.norms[1:]):
            x = F.leaky_relu(norm_(grow(x)), 0.2)          # (N, 512, 8, 8) ... (N, 32, 128, 128)
        logits = self.to_classes(x.contiguous(memory_format=torch.channels_last))  # 10% of a step
        return F.softmax(logits, dim=1) if self.head == "softmax" else torch.tanh(logits.float())


class Discriminator(nn.Module):
    """One-hot maps, class_probs or colours (N, in_channels, size, size) -> (logit, features): logit
    (N, 1), positive for "real"; features, the outputs of all layers, the logit being the last."""
    def __init__(self, in_channels, size=128, kernel=7, width=64, outputs=1):
        super().__init__()
        channels = [in_channels] + doubling(size, width)[::-1]
        self.shrink = nn.ModuleList(
            nn.Conv2d(a, b, kernel, 2, kernel // 2, bias=i == 0)
            for i, (a, b) in enumerate(zip(channels, channels[1:])))
        # No norm on the first layer: how many pixels of a class there are must stay visible.
        self.norms = nn.ModuleList([nn.Identity()] + [nn.GroupNorm(c, c) for c in channels[2:]])
        self.to_logit = nn.Linear(channels[-1] * 4 * 4, outputs)
        self.apply(initialize)

    def forward(self, x):                                  # (N, K, 128, 128)
        features = []
        for shrink, norm_ in zip(self.shrink, self.norms):
            x = F.leaky_relu(norm_(shrink(x)), 0.2)        # (N, 64, 64, 64) ... (N, 512, 4, 4)
            features.append(x)
        logit = self.to_logit(x.flatten(1))
        return logit, features + [logit]


class Encoder(nn.Module):
    """One-hot maps (N, K, size, size) -> latents (N, latent), Sec. 7's "semantic encoder"."""
    def __init__(self, in_channels, latent=128, size=128, kernel=7, width=64):
        super().__init__()
        self.layers = Discriminator(in_channels, size, kernel, width, outputs=latent)

    def forward(self, x):
        return self.layers(x)[0]


def discriminator_loss(real_logits, fake_logits):          # (N, 1) each
    """SemGAN Eq. 1 from D's side, negated to minimise: -log D(x) - log(1 - D(G(z)))."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return real + fake


def feature_matching_loss(real_features, fake_features):   # lists of (N, c, side, side) and (N, 1)
    """G's loss, App. B: | mean_x f(x) - mean_z f(G(z)) |, averaged in each layer f of D, summed.
    Salimans et al. 2016 match the batch mean of one middle layer, in L2. Here all layers, D's logit
    too: from the last layer alone, which soon knows every fake, G learned to give empty maps; the
    shallow ones say what is where. L1: its gradient does not fade near the target (detached)."""
    return sum((real.float().mean(0).detach() - fake.float().mean(0)).abs().mean()
               for real, fake in zip(real_features, fake_features))


def one_hot(label_map, classes):
    """(N, H, W) integers -> float32 (N, classes, H, W); a pixel to ignore, 255, is 0 in all."""
    index = torch.arange(classes, device=label_map.device).view(1, -1, 1, 1)
    return (label_map[:, None] == index).float()


def to_label_map(class_probs):
    """(N, K, H, W) -> (N, H, W) int64: the likeliest class, Sec. 3.2 "taking the argmax"."""
    return class_probs.argmax(1)


def encoder_loss(encoder, generator, maps):                # maps: one-hot, real (N, K, size, size)
    """(latent, reconstruction) for E to minimise: E(G(z)) should be z, mean square; G(E(x)) should
    give the pixels of a real map x their classes, mean -log of their probability."""
    z = torch.randn(len(maps), generator.dense.in_features, device=maps.device)
    generated = one_hot(to_label_map(generator(z)), maps.shape[1])       # no gradient goes there
    probs = generator(encoder(maps)).clamp_min(1e-6)
    return F.mse_loss(encoder(generated), z), -(maps * probs.log()).sum(1).mean()


def colorize(label_map, palette):  # Also in data.py, repeated so that this file copies alone.
    """(N, H, W) integers -> uint8 (N, 3, H, W). palette: (name, (r, g, b)) of each class."""
    colours = F.pad(torch.tensor([c for _, c in palette]).byte(), (0, 0, 0, 256 - len(palette)))
    colours = colours.to(label_map.device, non_blocking=True)         # 255 = ignore is black
    return colours[label_map.long()].permute(0, 3, 1, 2)


def nearest_class(image, palette):  # Also in data.py, repeated so that this file copies alone.
    """uint8 (N, 3, H, W) -> (N, H, W) int64 by nearest colour: a GAN on colours needs it."""
    colours = torch.tensor([c for _, c in palette], device=image.device).float()
    return torch.stack([(image - c.view(3, 1, 1)).square().sum(1) for c in colours]).argmin(0)


def out_of_palette(image, palette):
    """The share of pixels of uint8 (N, 3, H, W) whose colour is no class's; 0 for SemGAN."""
    return (colorize(nearest_class(image, palette), palette) != image).any(1).float().mean().item()


def to_pixels(output, palette, head="softmax"):
    """What a generator with this head gives -> uint8 (N, 3, H, W) to look at."""
    if head == "softmax":
        return colorize(to_label_map(output), palette)
    return output.add(1).mul(127.5).round().clamp(0, 255).byte()


def walk(latents, frames=24):
    """Latents (M, latent) -> (M * frames, latent): from each to the next, and back to the first. On
    great circles: straight lines show the same maps (see above), but hurry through the middle."""
    t, path = torch.arange(frames, device=latents.device)[:, None] / frames, []
    for a, b in zip(latents, latents.roll(-1, 0)):
        angle = torch.acos(F.cosine_similarity(a, b, dim=0).clamp(-0.9999, 0.9999))
        path.append((((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin())
    return torch.cat(path)


def build_generator(settings):
    """A new Generator as settings (a flat dict, see train.py) describe it."""
    return Generator(settings["out_channels"], settings["latent"], settings["size"][0],
                     settings["kernel"], settings["width"], settings["head"])


def build_encoder(settings):                               # the Encoder of a run
    return Encoder(len(settings["palette"]), settings["latent"], settings["size"][0],
                   settings["kernel"], settings["width"])


def load_generator(path, key="generator", build=build_generator):
    """(generator, settings) from a run's folder or its generator.pt; no other file is needed. With
    key "encoder" and build_encoder: the encoder that --train-encoder left in the folder."""
    path = Path(path) / "generator.pt" if Path(path).is_dir() else Path(path)
    path = path.with_name(f"{key}.pt") if key != "generator" else path
    try:
        with zipfile.ZipFile(path) as archive:             # torch.load misses flipped bits
            content = {} if archive.testzip() else torch.load(path, "cpu", weights_only=True)
        settings = content["settings"] if content["format"] == FORMAT else {}
        if settings["model"] == "semgan":
            network = build(settings)
            network.load_state_dict(content[key])
            return network.eval(), settings
    except FileNotFoundError:
        raise Refusal(f"{path}: no such file; is RUN right, and saved, or --train-encoder run yet?")
    except (PermissionError, MemoryError):                 # say nothing of the file's content
        raise
    except Exception:  # torch and zipfile raise some ten kinds for damage; their advice is unsafe
        raise Refusal(f"{path}: damaged, or not of format {FORMAT}; train again, or restore a copy")
    raise Refusal(f"{path}: this is a {settings['model']} run; give one of a SemGAN task")


@torch.no_grad()
def reconstruct(encoder, generator, maps, classes):        # maps: integers (N, H, W)
    """E(x), and in words G(E(x))'s accuracy beside the constant guess's: the commonest class."""
    z = encoder(one_hot(maps, classes))
    rebuilt = to_label_map(generator(z))
    right, guess = ((x == maps).float().mean() for x in (rebuilt, maps.flatten().mode()[0]))
    return z, f"{right:.1%} of pixels right (constant guess: {guess:.1%})"


def train_encoder(generator, settings, folder, steps):
    """The loop of --train-encoder: real maps, encoder_loss, Adam; writes folder/encoder.pt."""
    import data
    torch.manual_seed(settings["seed"])
    encoder, real, n = build_encoder(settings), data.training(settings), len(settings["palette"])
    optimizer = torch.optim.Adam(encoder.parameters(), 5e-4, betas=(0.5, 0.999), fused=True)
    generator.requires_grad_(False)                        # only looked through
    for step in range(1, steps + 1):
        maps = torch.stack([real[i] for i in torch.randint(len(real), (settings["batch"],))])[:, 0]
        latent, reconstruction = encoder_loss(encoder, generator, one_hot(maps, n))
        optimizer.zero_grad()
        (latent + reconstruction).backward()
        optimizer.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}  latent {latent:.3f}  reconstruction {reconstruction:.3f}")
    data.write_whole(folder / "encoder.pt", {"format": FORMAT, "settings": settings,
                                             "encoder": encoder.state_dict()})
    maps = data.far_apart(data.held_out(settings), 256)[:, 0]
    print(f"held-out maps: {reconstruct(encoder, generator, maps, n)[1]}")


@torch.no_grad()
def dream(output, settings, path):
    """Sec. 6.1: what a generator gave -> [(map, photo by the pix2pix run at path), ...], uint8
    (3, H, W). A run on one-hot maps takes the probabilities themselves: no colours in between."""
    import data, pix2pix
    painter, other = pix2pix.load_generator(path)
    if other["palette"] not in (None, settings["palette"]) or data.label_side(other) == "y":
        raise Refusal(f"{path}: its classes are not this run's; give a pix2pix run on such maps")
    maps = to_pixels(output, settings["palette"], settings["head"])
    maps, output = (F.interpolate(x, other["size"], mode="nearest-exact") for x in (maps, output))
    if not (other["one_hot"] and settings["head"] == "softmax"):
        output = data.input_to_network(other, maps)
    photos = pix2pix.generate(painter, output, seed=0)
    return list(zip(maps, data.to_pixels(other, output, photos)))


def describe():
    """Prints the weights of both networks at their defaults: shapes and counts."""
    for network in (Generator(12), Discriminator(12)):
        print(type(network).__name__, sum(p.numel() for p in network.parameters()), "parameters")
        for name, weight in network.named_parameters():
            print(f"  {name:20} {str(tuple(weight.shape)):22} {weight.numel():>12,}")


@torch.no_grad()
def draw(generator, settings, options):
    """Samples, a walk, rebuilt maps or dreams, to the file that the options name."""
    import data
    count = options.count or (6 if options.walk else 12 if options.dream else 64)
    z = torch.randn(count, settings["latent"], generator=torch.manual_seed(options.seed))
    if options.encode:
        maps = torch.cat([data.read_picture(settings, (None, Path(path)), settings["size"])
                          for path in options.encode])     # read as in training, without a photo
        encoder, known = load_generator(options.run, "encoder", build_encoder)
        if known != settings:
            raise Refusal(f"{options.run}: trained on since its encoder was; --train-encoder anew")
        z, words = reconstruct(encoder, generator, maps, len(settings["palette"]))
        print(words)
    output = torch.cat([generator(part) for part in (walk(z) if options.walk else z).split(32)])
    pictures = to_pixels(output, settings["palette"], settings["head"])
    if options.walk:
        a, *more = [data.to_image(large) for large in F.interpolate(pictures, scale_factor=3)]
        a.save(gif := io.BytesIO(), "GIF", save_all=True, append_images=more, duration=60, loop=0)
        data.write_whole(options.walk, gif.getvalue())
        return print(f"wrote {options.walk}")
    rows, titles = pictures.split(math.ceil(len(z) ** 0.5)), ()          # a square
    if options.encode:
        rows, titles = [*zip(colorize(maps, settings["palette"]), pictures)], ("map", "rebuilt")
    if options.dream:
        pairs = sum((dream(part, settings, options.dream) for part in output.split(32)), [])
        rows, titles = [sum(pairs[i:i + 3], ()) for i in range(0, len(z), 3)], ("map", "photo") * 3
    data.save_picture(out := options.out or "grid.png", data.contact_sheet(rows, titles))
    print(f"wrote {out}")


def main():
    import data  # only the command needs its neighbours
    parser = data.new_parser(__doc__)
    add, count = parser.add_argument, data.positive(int)
    add("run", nargs="?", help="a run's folder or its generator.pt; none: describe")
    add("--count", type=count, help="samples (default 64; on a walk 6, dreams 12)")
    add("--out", type=data.picture_name, metavar="PNG", help="default grid.png")
    one = parser.add_mutually_exclusive_group().add_argument
    one("--walk", metavar="GIF", help="walk through latents, or those of the --encode maps")
    one("--dream", metavar="RUN2", help="maps, and their photos by this pix2pix run")
    one("--train-encoder", type=count, metavar="STEPS", help="train the encoder of RUN")
    add("--encode", nargs="+", metavar="MAP", help="label maps to encode and rebuild")
    add("--seed", type=int, default=0, help="of the latents (default 0)")
    options = data.parse_options(parser)
    if options.run is None:
        if any(vars(options).values()):
            raise Refusal("RUN: missing; give it first, as in `python semgan.py RUN --encode MAP`")
        return describe()
    over = not options.walk and (options.out or "grid.png") in (options.encode or ())
    if options.encode and (options.count or options.seed or over) or options.train_encoder and any(
            (options.encode, options.out, options.count, options.seed)):
        raise Refusal("--train-encoder: goes alone; --encode without --count, --seed, --out MAP")
    if options.walk and (options.out or not options.walk.lower().endswith(".gif")):
        raise Refusal(f"--walk {options.walk}: is a GIF; give a name ending in .gif, and no --out")
    generator, settings = load_generator(options.run)
    if settings["head"] == "tanh" and (options.encode or options.train_encoder):
        raise Refusal(f"{options.run}: --head tanh gives no class_probs; encode with a softmax run")
    if options.train_encoder:
        folder = Path(options.run) if Path(options.run).is_dir() else Path(options.run).parent
        return train_encoder(generator, settings, folder, options.train_encoder)
    draw(generator, settings, options)


if __name__ == "__main__":
    from data import run_command
    run_command(main)
