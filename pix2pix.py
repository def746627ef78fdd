"""pix2pix: how does one picture become another?

A U-Net generator G and a PatchGAN discriminator D learn, from pairs of pictures (x, y), to turn x
into y. Isola, Zhu, Zhou & Efros, "Image-to-Image Translation with Conditional Adversarial
Networks", arXiv 1611.07004v3: Sec. 3.1 losses, 3.2 networks, 3.3 training and testing.

    UNet, down on the left, up on the right: 64 x 128 is      PatchGAN, 70x70
    64 channels of 128 x 128 pixels
    x   3 x 256                          3 x 256 fake          x and y 6 x 256
    e1 64 x 128 -------- skip --------> 128 x 128                     64 x 128
    e2 128 x 64 -------- skip --------> 256 x 64                     128 x 64
    e3 256 x 32 -------- skip --------> 512 x 32                     256 x 32
    e4 512 x 16 -------- skip -------> 1024 x 16                     512 x 31, of stride 1
    e5 512 x 8  -------- skip -------> 1024 x 8                        1 x 30, of stride 1:
    e6 512 x 4  -------- skip -------> 1024 x 4                  a logit for each 70x70 patch
    e7 512 x 2  -------- skip -------> 1024 x 2
         `---> e8 512 x 1, bottleneck ---^      going up: half from the decoder, half a skip

    python pix2pix.py                         every layer of both networks, with its shape
    python pix2pix.py runs/facades IN OUT     translate a picture, a folder of them, a GIF, a TIFF
To copy it out, take this file alone; it needs torch only:
    generator, settings = load_generator("generator.pt")
    photo = translate(generator, labels)      # uint8 (3, H, W) in and out

Where it leaves the paper: see Norm. Read down to initialize, then generate; the rest is comfort.
"""
import os
import sys
import zipfile
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

if __name__ == "__main__":
    if sys.version_info < (3, 11):                         # as requirements.txt needs
        print("error: Python: 3.11 or newer is needed; see Set-up in README.md", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")    # see train.py
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

import torch
import torch.nn as nn
import torch.nn.functional as F


class UNet(nn.Module):
    """The generator, Sec. 3.2: x (N, in_channels, H, W) in [-1, 1] -> fake (N, out_channels, H, W).

    The bottleneck sees the whole picture, but not where its edges are: skips carry these past it.
    H and W are multiples of 2**depth: depth 8 halves 256 pixels to 1, 7 is for 128, 6 for 64.
    depth: 3 or more. skips=False is Table 2's encoder-decoder. dropout_at: the decoder steps that
    have dropout; 0.5 in the first three is the authors' code's.
    54,414,531 parameters; the count usually quoted, 54,413,955, lacks the biases of e1 and e8.
    """

    def __init__(self, in_channels=3, out_channels=3, width=64, depth=8, skips=True,
                 norm="instance", upsample="deconv", dropout=0.5, dropout_at=(0, 1, 2)):
        super().__init__()
        self.depth = depth
        self.skips = skips
        self.dropout = dropout
        self.dropout_at = dropout_at
        self.muted_skips = ()              # for paint.py alone: decoder steps whose skip is zeros
        self.palette = None                # for translate alone, where x has a channel a class
        up = {"deconv": transposed, "nearest": nearest}[upsample]
        multiples = [1, 2, 4] + [8] * (depth - 3)  # of width; at most 8: the paper gives no reason
        channels = [width * multiple for multiple in multiples]       # 64, 128, 256, 512, ... 512

        self.encoder = nn.ModuleList()                                # e1 ... e8
        self.encoder_norms = nn.ModuleList()
        before = in_channels
        for i in range(depth):
            # A norm over the bottleneck's single pixel would give its bias, whatever x: the
            # authors' own erratum. The first layer has none in the paper, which gives no reason.
            # Both have a bias instead.
            bare = i in (0, depth - 1)
            self.encoder.append(nn.Conv2d(before, channels[i], 4, stride=2, padding=1, bias=bare))
            self.encoder_norms.append(nn.Identity() if bare else Norm(channels[i], norm))
            before = channels[i]

        # before is now e8's 512
        self.decoder = nn.ModuleList()                                # from the bottleneck up
        self.decoder_norms = nn.ModuleList()
        for after in reversed(channels[:-1]):                         # 512, ... 512, 256, 128, 64
            self.decoder.append(up(before, after, bias=False))        # the norm has a bias
            self.decoder_norms.append(Norm(after, norm))
            before = 2 * after if skips else after                    # a skip doubles the channels
        self.to_image = up(before, out_channels, bias=True)
        initialize(self)

    def forward(self, x):                              # (N, 3, 256, 256)
        skips = []
        for i, (encode, norm) in enumerate(zip(self.encoder, self.encoder_norms)):
            if i > 0:
                # In place, to save memory: the skip kept last now holds leaky_relu(v), not v. On
                # the way up it meets a ReLU, and relu(leaky_relu(v)) = relu(v), so nothing
                # changes. 0.2 is the authors' code's; it gives no reason.
                x = F.leaky_relu_(x, 0.2)
            x = norm(encode(x))                        # (N, 64, 128, 128) ... (N, 512, 1, 1)
            skips.append(x)
        skips.pop()                                    # the bottleneck is x itself, not a skip

        for i, (decode, norm) in enumerate(zip(self.decoder, self.decoder_norms)):
            x = norm(decode(F.relu_(x)))               # (N, 512, 2, 2) ... (N, 64, 128, 128)
            if i in self.dropout_at:                   # the noise z, Sec. 3.1: on at test time, too
                x = F.dropout(x, self.dropout, training=True)
            if self.skips:
                skip = skips.pop()
                if i in self.muted_skips:
                    skip = torch.zeros_like(skip)
                x = torch.cat([x, skip], dim=1)        # (N, 1024, 2, 2) ... (N, 128, 128, 128)
        x = self.to_image(F.relu_(x))                  # (N, 3, 256, 256)
        return torch.tanh(x.float())           # in bf16 tanh is 1, and flat, from 3.5 on


def transposed(channels, out_channels, bias):
    """The paper's way up, a transposed convolution: (N, C, H, W) -> (N, O, 2H, 2W)."""
    return nn.ConvTranspose2d(channels, out_channels, 4, stride=2, padding=1, bias=bias)


def nearest(channels, out_channels, bias):
    """Not in the paper, against checkerboards: each pixel is doubled, then a convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2),
                         nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias))


class Norm(nn.Module):
    """(x - mean) / std * weight + bias, for each channel. There are no running statistics.

    Kind "instance": mean and std are each picture's own. At batch 1 this is the paper's batch norm
    "using the statistics of the test batch" (Sec. 3.3); at larger batches it keeps pictures
    independent of each other. "batch": over the whole batch. "fixed": weight and
    bias alone, as converted generators have them.
    """

    def __init__(self, channels, kind="instance"):
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):                              # (N, C, H, W)
        weight = self.weight.view(-1, 1, 1)            # (C, 1, 1)
        bias = self.bias.view(-1, 1, 1)
        if self.kind == "fixed":
            return x * weight + bias
        over = (2, 3) if self.kind == "instance" else (0, 2, 3)
        mean = x.mean(over, keepdim=True)
        variance = x.var(over, correction=0, keepdim=True)
        std = (variance + 1e-5).sqrt()                 # 1e-5: flat pictures do not divide by 0
        return (x - mean) / std * weight + bias


class PatchGAN(nn.Module):
    """The discriminator, Sec. 3.2: one logit for each patch, positive for "real".

    L1 sees to what is where, so D need only judge whether small patches look sharp and real.
    D(x, y) joins its pictures and so judges y given x: the conditional GAN, Eq. 1. D(y) alone is
    the unconditional one, Eq. 2 (in_channels is then y's). receptive_field: a patch's side in
    pixels, Sec. 4.4: 1 (PixelGAN, its layers are 1x1), 16, 70, 286 (ImageGAN); also 34 and 142.
    """
    LAYERS = {  # receptive field: channels (in units of width) and stride of each 4x4 layer
        1: [(1, 1), (2, 1)],
        16: [(1, 2), (2, 1)],
        34: [(1, 2), (2, 2), (4, 1)],
        70: [(1, 2), (2, 2), (4, 2), (8, 1)],
        142: [(1, 2), (2, 2), (4, 2), (8, 2), (8, 1)],
        286: [(1, 2), (2, 2), (4, 2), (8, 2), (8, 2), (8, 1)]}   # and after each a layer to 1 logit

    def __init__(self, in_channels=6, width=64, receptive_field=70, norm="instance"):
        super().__init__()
        pixelwise = receptive_field == 1
        kernel = 1 if pixelwise else 4
        padding = 0 if pixelwise else 1
        layers = []
        before = in_channels
        for i, (multiple, stride) in enumerate(self.LAYERS[receptive_field]):
            after = multiple * width
            layers.append(nn.Conv2d(before, after, kernel, stride, padding, bias=i == 0))
            if i > 0:                                  # no norm on the first, as in G
                layers.append(Norm(after, norm))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            before = after
        # The PixelGAN's lacks a bias, as in the authors' PyTorch code; their Lua code has it.
        layers.append(nn.Conv2d(before, 1, kernel, 1, padding, bias=not pixelwise))
        self.layers = nn.Sequential(*layers)
        initialize(self)

    def forward(self, *pictures):                      # x and y, or y alone: (N, 3, 256, 256) each
        joined = torch.cat(pictures, dim=1)            # (N, 6, 256, 256)
        # (N, 64, 128, 128), (N, 128, 64, 64), (N, 256, 32, 32); at stride 1 a kernel of 4 with
        # padding 1 takes a pixel off each side's length: (N, 512, 31, 31), then the logits:
        return self.layers(joined)                     # (N, 1, 30, 30)

    def features(self, *pictures):
        """What each layer but the last puts out, after its LeakyReLU: [(N, 64, 128, 128), ...]."""
        x = torch.cat(pictures, dim=1)
        features = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                features.append(x)
        return features


def receptive_field(discriminator):
    """The side in pixels of what one logit sees.

    Start with r = 1, the logit itself, and go from the last layer back: r pixels that a layer puts
    out see (r - 1) * stride + kernel pixels that it takes in. For 70: 1, 4, 7, 16, 34, 70.
    """
    r = 1
    convolutions = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    for layer in reversed(convolutions):
        r = (r - 1) * layer.stride[0] + layer.kernel_size[0]
    return r


def discriminator_loss(real_logits, fake_logits):      # each (N, 1, 30, 30)
    """pix2pix Eq. 1 from D's side, negated to minimise, and halved to slow D down (Sec. 3.3):

        (-log D(x, y) - log(1 - D(x, G(x)))) / 2, the mean over all patches.

    D is sigmoid(logit), so cross-entropy against ones is -log D, against zeros -log(1 - D). The
    half hardly matters here, as Adam divides each gradient by its own usual size.
    """
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return (real + fake) / 2


def generator_loss(fake_logits, fake, target, l1_weight=100.0):
    """pix2pix Eq. 4 from G's side: -log D(x, G(x)) + lambda * |y - G(x)|, means over all elements.

    G maximises log D instead of minimising log(1 - D) (Sec. 3.3): where D is sure of a fake, that
    hardly changes with D's logit, and so teaches nothing. lambda = l1_weight = 100: the L1 term,
    sure of the coarse shape but blurred, "reduces these artifacts" of D alone (Sec. 4.2);
    why 100 the paper does not say. fake_logits None leaves out the adversarial term.
    Returns (loss, adversarial, l1).
    """
    l1 = F.l1_loss(fake, target)                       # 0..2, as pictures are in [-1, 1]
    if fake_logits is None:
        adversarial = torch.zeros_like(l1)             # Table 1's L1 alone
    else:
        adversarial = F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))
    return adversarial + l1_weight * l1, adversarial, l1


def feature_matching_loss(real_features, fake_features):
    """Not in the paper: pix2pixHD's further loss for G (Wang et al. 2018). G's picture should also
    look like the target to D's inner layers: |f(x, y) - f(x, G(x))|, the mean over each layer f,
    summed over the layers. semgan.py's compares means over a batch, which has no pairs."""
    loss = 0
    for real, fake in zip(real_features, fake_features):
        loss = loss + F.l1_loss(fake.float(), real.float().detach())
    return loss


def initialize(network):
    """Weights from N(0, 0.02), norms' weights from N(1, 0.02), biases 0, as in the authors' code.

    0.02 comes from DCGAN; neither gives a reason.
    """
    for name, parameter in network.named_parameters():
        if parameter.is_meta:                          # without values: load_generator fills it
            continue
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 1:                     # a norm's weight is a vector
            nn.init.normal_(parameter, mean=1.0, std=0.02)
        else:                                          # a convolution's has four dimensions
            nn.init.normal_(parameter, mean=0.0, std=0.02)


# Translating pictures of any size

@torch.no_grad()
def generate(generator, x, seed=None, tile=1024, one_noise=False):
    """G(x) for pictures of any size: x float (N, C, H, W) in [-1, 1] -> (N, out_channels, H, W).

    G is fully convolutional, Sec. 4.4: a picture is padded to the multiple that the depth needs,
    and cropped back; of one with a side above tile pixels see generate_windows. seed fixes the
    dropout noise and leaves torch's random state as it was. one_noise, on a CPU: each picture of
    the batch gets the noise that it would get alone with this seed.
    """
    seeds_torch = seed is not None and not one_noise
    with own_random_state(x.device) if seeds_torch else nullcontext():
        if max(x.shape[-2:]) <= tile:
            return generate_window(generator, x, seed, one_noise)
        return generate_windows(generator, x, seed, tile, one_noise)


def generate_windows(generator, x, seed, tile, one_noise):
    """G(x) by windows of tile pixels that overlap by a quarter and fade linearly into each other.
    Each has its own statistics, so tones may drift slowly over a large picture."""
    height, width = x.shape[-2:]
    total = None                                       # sum of windows, each weighted by its fade
    weight = x.new_zeros(height, width)                # sum of the fades
    for top in window_starts(height, tile):
        for left in window_starts(width, tile):
            window = x[..., top:top + tile, left:left + tile]
            out = generate_window(generator, window, seed, one_noise)
            rows, columns = out.shape[-2:]
            fade = torch.outer(ramp(rows, tile, x.device), ramp(columns, tile, x.device))
            if total is None:                          # out's channels are known now
                total = x.new_zeros(len(x), out.shape[1], height, width)
            total[..., top:top + rows, left:left + columns] += out * fade
            weight[top:top + rows, left:left + columns] += fade
    return total.div_(weight)


def own_random_state(device):
    """In its `with`, torch may be seeded; after it, its random state is what it was."""
    if device.type in ("cuda", "mps"):
        return torch.random.fork_rng([device], device_type=device.type)
    return torch.random.fork_rng([])                   # the CPU's is always kept


def generate_window(generator, x, seed, one_noise=False):
    """G(x) of one window: padded below and on the right to a multiple of 2**depth, cropped back."""
    if seed is not None and not one_noise:
        torch.manual_seed(seed)
    rows, columns = x.shape[-2:]
    step = 2 ** generator.depth
    below = -rows % step
    right = -columns % step
    # A picture cannot be reflected by more pixels than it has: tiny ones repeat their border.
    mode = "reflect" if below < rows and right < columns else "replicate"
    with OneNoise(seed) if one_noise else nullcontext():
        out = generator(F.pad(x, (0, right, 0, below), mode))
    return out[..., :rows, :columns]


class OneNoise(torch.overrides.TorchFunctionMode):
    """Within this, dropout draws noise for one picture, from a seed, and gives it to each of the
    batch: the very noise that torch.manual_seed(seed) gives a picture alone. torch's own random
    numbers, which all threads share, stay as they are: several threads can translate at once."""

    def __init__(self, seed):
        super().__init__()
        self.rng = torch.Generator().manual_seed(seed)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not F.dropout:
            return function(*args, **(kwargs or {}))
        x = args[0]                                        # (N, C, H, W)
        p = kwargs["p"]
        kept = torch.empty_like(x[:1]).bernoulli_(1 - p, generator=self.rng)
        return x * (kept / (1 - p))


def window_starts(side, tile):
    """Where windows of tile pixels begin: they overlap by a quarter, the last ends at the end."""
    last = max(side - tile, 0)
    return [*range(0, last, tile - tile // 4), last]


def ramp(n, tile, device):
    """(n,): 1, 2, ... up to a quarter of tile, held there, and down again."""
    up = torch.arange(1.0, n + 1, device=device)
    return torch.minimum(up, up.flip(0)).clamp(max=tile // 4)


def translate(generator, image, seed=None):
    """One picture, uint8 (C, H, W), or several, (N, C, H, W), 0-255 -> the same size, uint8.

    For runs whose x is the picture itself, or its classes (--one-hot). Where x is made of it in
    another way (colorization, inpainting, edges) call data.input_to_network, then generate.
    """
    pictures = image if image.dim() == 4 else image[None]             # (N, C, H, W)
    pictures = pictures.to(next(generator.parameters()).device)
    if generator.palette:
        x = one_channel_a_class(pictures, generator.palette)          # (N, K, H, W)
    else:
        x = pictures.float().div(127.5).sub(1)                        # 0..255 to [-1, 1]
    fake = generate(generator, x, seed)
    out = fake.add(1).mul(127.5).round().clamp(0, 255).byte().cpu()
    return out if image.dim() == 4 else out[0]


def one_channel_a_class(pictures, palette):
    """Label colours, uint8 (N, 3, H, W) -> float (N, K, H, W): 1 in the channel of the class whose
    colour is nearest, else 0. Where black is no class's, it says "ignore": 0 in all channels.
    palette: [(name, (r, g, b)), ...], one entry a class. The command knows further colours of
    Cityscapes' files (data.CITYSCAPES_ALSO), this does not."""
    colours = [tuple(colour) for _, colour in palette]
    distances = []
    for colour in colours:
        colour = torch.tensor(colour, device=pictures.device).view(3, 1, 1)
        distances.append((pictures - colour).square().sum(1))         # int64 (N, H, W)
    classes = torch.stack(distances).argmin(0)                        # (N, H, W)
    x = F.one_hot(classes, len(palette)).permute(0, 3, 1, 2).float()
    if (0, 0, 0) in colours:
        return x
    return x * (pictures > 0).any(1, keepdim=True)


# Loading what train.py saved

FORMAT = 1  # of the files that train.py writes; a reader refuses a number it does not know


class Refusal(ValueError):  # Also in data.py, repeated so that this file copies alone.
    """Bad input from outside: one line, exit code 2."""


def load_file(path, advice="train again, or restore the file from a copy"):
    """The dict that train.py saved at path, plain types and tensors; Refusal where it is damaged.

    torch.load alone does not notice flipped bits; the zip archive's own check sums do.
    """
    content = None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is None:              # no member is damaged
                content = torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise Refusal(f"{path}: no such file; is the run's folder right, and has it saved yet?")
    except (PermissionError, MemoryError):             # say nothing of the file's content
        raise
    except Exception:  # torch and zipfile raise some ten kinds for damage; their advice is unsafe
        pass
    if not isinstance(content, dict) or "format" not in content:
        raise Refusal(f"{path}: damaged, or not a file that train.py saved; {advice}")
    if content["format"] != FORMAT:
        raise Refusal(f"{path}: its format is number {content['format']!r}, this code reads "
                      f"{FORMAT}; use the version of this project that wrote it")
    return content


def build_generator(settings):
    """A new UNet as settings (a flat dict, see train.py) describe it."""
    return UNet(settings["in_channels"], settings["out_channels"], settings["width"],
                settings["depth"], skips=settings["generator"] == "unet", norm=settings["norm"],
                upsample=settings["upsample"], dropout=settings.get("dropout", 0.5),
                dropout_at=settings.get("dropout_at", (0, 1, 2)))


def build_discriminator(settings):
    """A new PatchGAN as settings describe it."""
    in_channels = settings["out_channels"]                 # D(y), Eq. 2
    if "cgan" in settings["objective"]:
        in_channels += settings["in_channels"]             # D(x, y), Eq. 1
    width = settings.get("d_width") or settings["width"]   # older runs lack d_width
    return PatchGAN(in_channels, width, settings["receptive_field"], settings["norm"])


def load_generator(path):
    """(generator, settings) from a run's folder or its generator.pt; no other file is needed."""
    path = Path(path)
    if path.is_dir():
        path = path / "generator.pt"
    content = load_file(path)
    settings = content.get("settings", {})
    if settings.get("model") != "pix2pix":
        raise Refusal(f"{path}: this is a {settings.get('model')} run; give one of a pix2pix task")
    try:
        with torch.device("meta"):                     # no weights yet: the file's take their place
            generator = build_generator(settings)
        weights = content["generator"].items()         # converted ones may be laid out otherwise
        weights = {name: weight.float().contiguous() for name, weight in weights}
        generator.load_state_dict(weights, assign=True)
    except (KeyError, TypeError, RuntimeError, AttributeError):
        raise Refusal(f"{path}: its weights do not fit its settings; train again") from None
    if settings.get("one_hot"):
        generator.palette = settings["palette"]
    return ready_to_translate(faster(generator)), settings


# Look inside a run (skip on first reading): paint.py's panel

def generate_without(generator, x, seed=None, muted_skips=(), quiet_dropouts=()):
    """generate(), with some skips replaced by zeros and some dropouts left out.

    Skip i joins what decoder step i puts out, dropout i follows that step: 0 is the first of them,
    with the smallest maps, depth - 2 the last, before to_image.
    """
    muted_before = generator.muted_skips
    dropout_before = generator.dropout_at
    generator.muted_skips = tuple(muted_skips)
    generator.dropout_at = tuple(i for i in dropout_before if i not in quiet_dropouts)
    try:
        return generate(generator, x, seed)
    finally:
        generator.muted_skips = muted_before
        generator.dropout_at = dropout_before


def logits_of(discriminator, x, y):
    """D(x, y), (N, 1, 30, 30); of an unconditional D, which has no channels for x, D(y)."""
    first = next(discriminator.parameters())               # (64, 6, 4, 4)
    conditional = first.shape[1] > y.shape[1]
    return discriminator(x, y) if conditional else discriminator(y)


def patch_of(discriminator, row, column):
    """(top, left, side) of the square of pixels that logit (row, column) sees. It may begin outside
    the picture, where D's layers pad with zeros."""
    side = 1
    step = 1                                               # pixels from a logit to its neighbour
    start = 0                                              # where the first one's square begins
    for layer in discriminator.modules():
        if isinstance(layer, nn.Conv2d):
            start -= layer.padding[0] * step
            side += (layer.kernel_size[0] - 1) * step
            step *= layer.stride[0]
    return start + row * step, start + column * step, side


def patch_grid(discriminator, size):
    """How D's logits lie over a picture of size (h, w): their rows and columns, and the side of the
    square that each sees; that of logit (i, j) begins at start + step * i, start + step * j."""
    start, _, side = patch_of(discriminator, 0, 0)
    step = patch_of(discriminator, 1, 1)[0] - start
    counts = []
    for pixels in size:
        for layer in discriminator.modules():
            if isinstance(layer, nn.Conv2d):
                padded = pixels + 2 * layer.padding[0]
                pixels = (padded - layer.kernel_size[0]) // layer.stride[0] + 1
        counts.append(pixels)
    return {"rows": counts[0], "columns": counts[1], "start": start, "step": step, "side": side}


def load_discriminator(path):
    """The D that a run's checkpoint.pt keeps, fast and in eval mode."""
    content = load_file(path)
    settings = content["settings"]
    try:
        discriminator = build_discriminator(settings)
        discriminator.load_state_dict(content["discriminator"])
    except (KeyError, TypeError, RuntimeError):
        raise Refusal(f"{path}: holds no D that fits its settings; train again") from None
    return faster(discriminator).eval()


# The same layers, faster (skip on first reading). Each gives what the plain layer above gives, by a
# quicker way; what is quicker was measured on CPUs. On a GPU the library's own layers are used, and
# with CUDA channels_last, which tensor cores want. The tests hold each layer to its plain one.

def faster(network):
    """Puts the layers below in the place of a UNet's or PatchGAN's plain ones; returns the network.

    Only the class of a layer is changed, so another forward is called. The weights, their names and
    their order are the very same, and so are the files made of them.
    """
    for layer in network.modules():
        if type(layer) is Norm:
            layer.__class__ = FastNorm
    if isinstance(network, UNet):
        for layer in network.encoder:
            layer.__class__ = Down
        for layer in [*network.decoder, network.to_image]:
            layer.__class__ = Up if type(layer) is nn.ConvTranspose2d else NearestUp
    if isinstance(network, PatchGAN):
        first, *between, last = [each for each in network.layers if isinstance(each, nn.Conv2d)]
        first.__class__ = FirstConvolution
        if last.kernel_size == (4, 4):                 # the PixelGAN's are 1x1
            last.__class__ = ToLogits
            between[-1].__class__ = Filtering
    return network


def ready_to_translate(generator):
    """The generator in eval mode, its 3x3 weights kept in the order in which OncePerTap reads them,
    which saves a tenth of the time at 256x256. Not for training: the optimizer's state in a
    checkpoint has the usual order. The deepest two layers keep it, too: on their few pixels
    NearestUp calls the library."""
    for layer in [*generator.decoder[2:], generator.to_image]:
        if isinstance(layer, NearestUp):
            weight = layer[1].weight
            weight.data = weight.data.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    return generator.eval()


def on_gpu(x):
    return x.is_cuda or on_metal(x)


def on_metal(x):
    """Whether x is on Apple's GPU, which wants no channels_last: gradients in that layout have been
    wrong there (pytorch issues 142344, 156792), or thirty times as slow (193349)."""
    return x.is_mps


def laid_out(x, side):
    """x in the memory layout that a convolution likes best.

    It is channels_last with CUDA, and in translating on a CPU where x has side * side pixels or
    more: else the library spends 8% of translating 512x512 on copying what its transposed
    convolutions put out. On smaller maps copying the weights would cost more: as measured, side is
    64 for a layer that halves x and 32 for one that doubles it. Training on a CPU leaves x as it
    is: the norms' gradients would lose more.
    """
    if on_metal(x):
        return x.contiguous()
    if torch.is_grad_enabled() and not on_gpu(x):
        return x
    large = on_gpu(x) or x.shape[2] * x.shape[3] >= side ** 2
    return x.contiguous(memory_format=torch.channels_last if large else torch.contiguous_format)


class FastNorm(Norm):
    """Norm by the library's kernels, or by in_channels_last, as device, layout and use ask."""

    def forward(self, x):                              # (N, C, H, W)
        if self.kind == "fixed" or on_metal(x):
            return super().forward(x)
        if on_gpu(x):
            # Batch norm of a picture alone is instance norm. The library's batch norm keeps
            # channels_last and half precision, its group norm does not.
            if self.kind == "instance" and len(x) > 1:
                return torch.cat([self.batch_norm(picture) for picture in x.split(1)])
            return self.batch_norm(x)
        if not torch.is_grad_enabled() and not x.is_contiguous():
            return self.in_channels_last(x)
        x = x.contiguous()                             # in channels_last its gradients are slow
        if self.kind == "instance":                    # group norm with a channel a group
            return F.group_norm(x, x.shape[1], self.weight, self.bias)
        return self.batch_norm(x)

    def batch_norm(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)

    def in_channels_last(self, x):
        """Norm.forward with fewer passes over x and fewer new maps. The library's kernel is 2e-5
        off in this layout, at 256x256."""
        over = (2, 3) if self.kind == "instance" else (0, 2, 3)
        x = x - x.mean(over, keepdim=True)
        std = (x.square().mean(over, keepdim=True) + 1e-5).sqrt()
        return x.mul_(self.weight.view(-1, 1, 1) / std).add_(self.bias.view(-1, 1, 1))


class Down(nn.Conv2d):
    """The U-Net's 4x4 convolution of stride 2: (N, C, H, W) -> (N, O, H/2, W/2)."""

    def forward(self, x):
        n, c, h, w = x.shape
        if h * w > 64 or on_gpu(x):                    # larger than 8x8: measured on two cores
            return super().forward(laid_out(x, 64))
        # Deep layers are all weights and hardly any pixels; the library's convolution then spends
        # its time rearranging the weights. One matrix product of the same numbers does not, with
        # a row for each pixel (a column for each takes up to five times as long).
        patches = F.unfold(x, 4, stride=2, padding=1)  # (N, C * 16, H/2 * W/2)
        y = row_by_row(patches.transpose(1, 2), self.weight.view(-1, c * 16), self.bias)
        return y.view(n, h // 2, w // 2, -1).permute(0, 3, 1, 2)


def row_by_row(rows, weight, bias=None):
    """rows (N, R, C) @ weight (O, C) + bias -> (N, R, O), one product for the whole batch.

    But the library rounds products of fewer than 4 rows in another way: in translating, such
    pictures are multiplied one by one, so that each gets the numbers that it gets alone.
    """
    if rows.shape[1] < 4 and not torch.is_grad_enabled():
        return torch.stack([F.linear(picture, weight, bias) for picture in rows])
    y = F.linear(rows.reshape(-1, rows.shape[2]), weight, bias)
    return y.view(*rows.shape[:2], -1)


class Up(nn.ConvTranspose2d):
    """The U-Net's 4x4 transposed convolution of stride 2: (N, C, H, W) -> (N, O, 2H, 2W)."""

    def forward(self, x):
        if on_gpu(x):
            return super().forward(laid_out(x, 32))
        return conv_transpose(x, self.weight, self.bias)


def conv_transpose(x, weight, bias):
    """conv_transpose2d(x, weight (C, O, 4, 4), bias, stride=2, padding=1) on a CPU."""
    n, c, h, w = x.shape
    to_picture = weight.shape[1] <= 4
    if h * w > 64 and not to_picture:
        return F.conv_transpose2d(laid_out(x, 32), weight, bias, stride=2, padding=1)
    weight = weight.reshape(c, -1)                     # (C, O * 16)
    if to_picture:
        # The library would take up to three times as long, and one product for the whole batch 1.5
        # times as long as one for each picture.
        y = torch.stack([weight.t() @ pixels for pixels in x.flatten(2)])
    else:                                              # deep: see Down
        y = row_by_row(x.flatten(2).transpose(1, 2), weight.t()).transpose(1, 2)
    # y (N, O * 16, H * W): each pixel has become 4x4; where these overlap they are summed.
    y = F.fold(y, (2 * h, 2 * w), 4, stride=2, padding=1)
    if bias is None:
        return y
    return y + bias.view(1, -1, 1, 1)


class NearestUp(nn.Sequential):
    """nearest() without the doubled picture: (N, C, H, W) -> (N, O, 2H, 2W).

    A 3x3 kernel over doubled pixels meets each pixel of x 36 times, but with nine weights only:
    nine products, which OncePerTap then adds up in four ways, are a quarter of the work.
    """

    def forward(self, x):
        conv = self[1]
        pixels = x.shape[2] * x.shape[3]
        in_bf16 = torch.is_autocast_enabled("cpu")
        # On so few pixels, as measured, the library is quicker: it need not reorder the weights.
        if on_gpu(x) or pixels <= (16 if in_bf16 else 4):
            return super().forward(x)
        if in_bf16:                    # OncePerTap's sums would be rounded at each addition
            return conv_transpose(x, as_4x4(conv.weight), conv.bias)
        y = OncePerTap.apply(x, conv.weight.permute(2, 3, 0, 1).contiguous())
        if conv.bias is None:
            return y
        return y + conv.bias.view(-1, 1, 1)


class OncePerTap(torch.autograd.Function):
    """A 3x3 convolution over doubled pixels: x (N, C, H, W), weight (3, 3, O, C) -> (N, O, 2H, 2W).

    Along one axis pixel i becomes two. With u[i], v[i] and w[i] for the products of pixel i with
    the kernel's first, second and third tap,
        the first is    u[i-1] + v[i] + w[i]
        the second is   u[i]   + v[i] + w[i+1]
    Along both axes each pixel has nine products, made by matrix products, and becomes four sums of
    nine.
    """

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        n, c, h, w = x.shape
        o = weight.shape[2]
        y = x.new_empty(n, o, h, 2, w, 2)
        some = max(1, 2 ** 21 // (9 * h * w))          # channels at a time: 8 MB stay in the cache
        for picture, out in zip(x.flatten(2), y):
            for kernels, channels in zip(weight.split(some, 2), out.split(some)):
                products = (kernels.reshape(-1, c) @ picture).view(3, 3, -1, h, w)
                for row, sums in enumerate(at_both(*products, axis=-2)):
                    for column, total in enumerate(at_both(*sums, axis=-1)):
                        channels[:, :, row, :, column] = total
        return y.view(n, o, 2 * h, 2 * w)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):                       # each step of forward, turned round
        x, weight = ctx.saved_tensors
        n, c, h, w = x.shape
        flat = weight.view(-1, c)                      # (9 * O, C)
        of_weight = torch.zeros_like(flat)
        of_x = torch.empty_like(x)
        for k, places in enumerate(gradient.reshape(n, -1, h, 2, w, 2)):
            rows = [of_taps(places[:, :, row, :, 0], places[:, :, row, :, 1], axis=-1)
                    for row in (0, 1)]                 # 2 of (3, O, H, W)
            of_products = of_taps(*rows, axis=-2).view(-1, h * w)
            of_weight.addmm_(of_products, x[k].flatten(1).t())
            of_x[k] = (flat.t() @ of_products).view(c, h, w)
        return of_x, of_weight.view(weight.shape)


def at_both(u, v, w, axis):
    """The two sums of OncePerTap along an axis; beyond the picture there is 0."""
    n = u.shape[axis] - 1
    first = v + w
    first.narrow(axis, 1, n).add_(u.narrow(axis, 0, n))
    second = u + v
    second.narrow(axis, 0, n).add_(w.narrow(axis, 1, n))
    return first, second


def of_taps(first, second, axis):
    """The gradients of (u, v, w), stacked, from those of at_both's sums."""
    n = first.shape[axis] - 1
    taps = torch.stack([second, first + second, first])
    u, _, w = taps
    u.narrow(axis, 0, n).add_(first.narrow(axis, 1, n))
    w.narrow(axis, 1, n).add_(second.narrow(axis, 0, n))
    return taps


def as_4x4(weight):
    """nearest()'s 3x3 weight (O, C, 3, 3) -> that of the same transposed convolution (C, O, 4, 4).

    Adding up the weights that meet the same pixel makes, along one axis, (a, b, c) to
    (c, b + c, a + b, a).
    """
    o, c = weight.shape[:2]
    sums = weight.new_zeros(3, 3, 4, 4)                # 3x3 to 4x4
    for row in range(3):
        for column in range(3):
            sums[row, column, 2 - row:4 - row, 2 - column:4 - column] = 1
    weight = weight.reshape(-1, 9) @ sums.view(9, 16)  # (O * C, 16)
    return weight.view(o, c, 4, 4).transpose(0, 1).contiguous()


class FirstConvolution(nn.Conv2d):
    """D's first layer, in channels_last as far as its first norm: 3 to 5% of a step on a CPU."""

    def forward(self, x):
        if on_metal(x):
            return super().forward(x)
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class Filtering(nn.Conv2d):
    """D's 4x4 convolution of stride 1, by Winograd's matrices below; a norm follows, so no bias.

    (N, C, H, W) -> (N, O, H-1, W-1).
    """

    def forward(self, x):
        n, c, h, w = x.shape
        # What is small, or quick in bf16, loses more by the matrices than it gains.
        if on_gpu(x) or torch.is_autocast_enabled("cpu") or c < 128 or h * w < 576:
            return super().forward(x)
        # Five pixels a side, from two to the next: T of them. Padding is 1; and one more, for w - 1
        # results are odd in number where w is even.
        pixels = F.unfold(F.pad(x, (1, 2, 1, 2)), 5, stride=2).view(n, c, 25, -1)
        pixels = along_both(PIXELS, x) @ pixels                                # (N, C, 25, T)
        taps = along_both(TAPS, x) @ self.weight.view(-1, 16).t()              # (25, O * C)
        products = torch.einsum("koc,nckt->nkot", taps.view(25, -1, c), pixels)
        sums = along_both(SUMS, x) @ products.flatten(2)                       # (N, 4, O * T)
        tiles = sums.view(n, 2, 2, -1, h // 2, w // 2)
        y = tiles.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h // 2 * 2, w // 2 * 2)
        return y[:, :, :h - 1, :w - 1]


# Winograd's matrices (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv
# 1509.09308): two neighbouring results of a kernel of four taps, over five pixels of a row, are
#     SUMS @ ((TAPS @ kernel) * (PIXELS @ pixels))
# which are five products, where plainly there are eight. Along both axes it is 25 for 64. Rounding
# errors are up to twice the library's, in gradients up to five times: 2e-5 of their spread at most.
# (Kernel and results are polynomials here, known by their values at 0, 1, -1 and 2 and by their
# highest coefficient.)
PIXELS = torch.tensor([
    [2, -1, -2, 1, 0],
    [0, -2, -1, 1, 0],
    [0, 2, -3, 1, 0],
    [0, -1, 0, 1, 0],
    [0, 2, -1, -2, 1]]).double()
TAPS = torch.tensor([
    [3, 0, 0, 0],
    [-3, -3, -3, -3],
    [-1, 1, -1, 1],
    [1, 2, 4, 8],
    [0, 0, 0, 6]]).double() / 6
SUMS = torch.tensor([
    [1, 1, 1, 1, 0],
    [0, 1, -1, 2, 1]]).double()


def along_both(matrix, x):
    """A matrix of one axis -> that of both, for pictures or kernels flattened row by row."""
    return torch.kron(matrix, matrix).to(x.dtype)


class ToLogits(nn.Conv2d):
    """D's last layer, 4x4 of stride 1 to one logit: (N, C, H, W) -> (N, 1, H-1, W-1).

    As in Up, a product gives what each pixel adds to the 4x4 logits around it, and fold sums it: a
    seventh of the library's time, 2% of a step. Seen from a pixel, the kernel is turned round, and
    its padding is 3 - 1.
    """

    def forward(self, x):
        if on_gpu(x):
            return super().forward(x)
        h, w = x.shape[2:]
        weight = self.weight.flip(2, 3).view(self.in_channels, 16)
        y = torch.stack([weight.t() @ pixels for pixels in x.flatten(2)])
        return F.fold(y, (h - 1, w - 1), 4, padding=2) + self.bias


# Generators of the popular PyTorch code, converted (skip on first reading)

def convert(path, own_statistics=False, dropout=True):
    """junyanz/pytorch-CycleGAN-and-pix2pix's latest_net_G.pth -> (settings, weights) of a UNet.

    Running statistics go into "fixed" norms: the same picture as that code's eval() gives, to 1e-5
    with dropout off. own_statistics: each picture's own, as its test script does by default.
    dropout False: it was trained with --no_dropout, which its file does not tell.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        saved = {name.removeprefix("module."): tensor for name, tensor in saved.items()}
        settings, weights = renamed(saved, own_statistics)
        if not dropout:
            settings["dropout_at"] = []
        build_generator(settings).load_state_dict(weights)
        return settings, weights
    except Exception:                                  # torch.load alone raises some ten kinds
        raise Refusal(f"{path}: missing, or no generator of the popular PyTorch pix2pix; give its "
                      f"latest_net_G.pth, a unet_128 or unet_256") from None


def renamed(saved, own_statistics):
    """What the popular code saved, {name: tensor} -> (settings, weights) of a UNet.

    That code nests: ".model.3" of each level (".model.1" of the outermost) is the next deeper one.
    In a joined tensor its skip comes first, and its dropout is a step later.
    """
    levels = ["model.model.", "model.model.1.model."]  # the names' beginnings, outermost first
    while f"{levels[-1]}3.model.1.weight" in saved:
        levels.append(f"{levels[-1]}3.model.")
    depth = len(levels)
    running = f"{levels[1]}2.running_mean" in saved    # batch norms; instance norms have a bias
    if not running and f"{levels[1]}1.bias" not in saved:
        raise ValueError("trained without norms")
    fixed = running and not own_statistics

    weights = {}
    for i, level in enumerate(levels):                 # from the picture to the bottleneck
        weights.update(level_down(saved, level, i, depth, fixed))
        weights.update(level_up(saved, level, i, depth, fixed))
    width, in_channels = weights["encoder.0.weight"].shape[:2]
    settings = {
        "model": "pix2pix",
        "in_channels": in_channels,
        "out_channels": len(weights["to_image.bias"]),
        "width": width,
        "depth": depth,
        "generator": "unet",
        "upsample": "deconv",
        "norm": "fixed" if fixed else "instance",
        "size": [2 ** depth, 2 ** depth],
        "dropout_at": list(range(1, depth - 4))}       # a step later than the paper's
    return settings, weights


def level_down(saved, level, i, depth, fixed):
    """Encoder step i: {name in a UNet: tensor}."""
    at = f"{level}1" if i > 0 else f"{level}0"
    weight = saved[f"{at}.weight"]                     # (O, C, 4, 4)
    weights = {f"encoder.{i}.weight": weight}
    if i in (0, depth - 1):
        weights[f"encoder.{i}.bias"] = saved.get(f"{at}.bias", torch.zeros(len(weight)))
    else:
        weights.update(taken_norm(saved, f"{level}2", len(weight), at, fixed, f"encoder_norms.{i}"))
    return weights


def level_up(saved, level, i, depth, fixed):
    """The way up from level i + 1 to level i, or to the picture: {name in a UNet: tensor}."""
    middle = 0 < i < depth - 1
    at = f"{level}5" if middle else f"{level}3"
    weight = saved[f"{at}.weight"]                     # (C, O, 4, 4)
    step = depth - 1 - i                               # of the decoder, counted from the bottleneck
    if step > 0:                                       # all but the bottleneck's: skips go second
        skip, deeper = weight.chunk(2)
        weight = torch.cat([deeper, skip])
    if i == 0:
        return {"to_image.weight": weight, "to_image.bias": saved[f"{at}.bias"]}
    norm = f"{level}6" if middle else f"{level}4"
    return {f"decoder.{step}.weight": weight,
            **taken_norm(saved, norm, weight.shape[1], at, fixed, f"decoder_norms.{step}")}


def taken_norm(saved, at, channels, convolution, fixed, name):
    """The norm saved at a name: {name in a UNet: tensor}. fixed: its running statistics are put in
    both, and the bias of the convolution before it, which they have been taken of."""
    weight = saved.get(f"{at}.weight", torch.ones(channels))
    bias = saved.get(f"{at}.bias", torch.zeros(channels))
    if fixed:
        weight = weight / (saved[f"{at}.running_var"] + 1e-5).sqrt()
        mean = saved[f"{at}.running_mean"] - saved.get(f"{convolution}.bias", 0)
        bias = bias - mean * weight
    return {f"{name}.weight": weight, f"{name}.bias": bias}


LUMA = torch.tensor([0.299, 0.587, 0.114])             # of ITU-R BT.601, by which Pillow makes grey


def in_colour(settings, weights):
    """A generator of grey pictures, 1 -> 1 channel (or 1 -> 3, 3 -> 1), as one of RGB ones.

    Its first layer sees LUMA's mean of the channels, its last one gives three equal ones: for a
    grey picture the very same numbers.
    """
    if settings["in_channels"] == 1:
        grey = weights["encoder.0.weight"]             # (width, 1, 4, 4)
        weights["encoder.0.weight"] = grey * LUMA.view(1, 3, 1, 1)
    if settings["out_channels"] == 1:
        weights["to_image.weight"] = weights["to_image.weight"].repeat(1, 3, 1, 1)
        weights["to_image.bias"] = weights["to_image.bias"].repeat(3)
    return {**settings, "in_channels": 3, "out_channels": 3}, weights


def write_converted(path, out, task, own_statistics, dropout):
    """--convert: makes a run's folder, with generator.pt alone, of another code's generator: of its
    file, or of one of PUBLISHED by name. task None: the published one's own, else "pairs"."""
    import data
    refuse_our_own(Path(path))
    published = not Path(path).is_file()
    if published and path not in PUBLISHED:
        raise Refusal(f"{path}: no such file, nor a published generator; give a latest_net_G.pth, "
                      f"or one of {', '.join(PUBLISHED)}")
    if task is None:
        task = PUBLISHED[path] if published else "pairs"
    row = data.look_up(task)
    file = Path(out) / "generator.pt"
    if file.exists():                                  # before anything is fetched
        raise Refusal(f"{file}: is there already; give another folder")
    if published:
        path = fetch_published(path)
    settings, weights = convert(path, own_statistics, dropout)
    found = (settings["in_channels"], settings["out_channels"])
    wanted = (row.in_channels, row.out_channels)
    if found in ((1, 1), (1, 3), (3, 1)) and wanted == (3, 3):
        settings, weights = in_colour(settings, weights)
    elif found != wanted:
        raise Refusal(f"--task {task}: {path} turns {found[0]} channels into {found[1]}; give the "
                      f"task that it was trained on")
    folder = f"datasets/{row.archive}" if row.archive else None
    settings.update(task=task, palette=row.palette, one_hot=False, drawn=False, batch=1, seed=0,
                    data=folder)
    data.write_whole(file, {"format": FORMAT, "settings": settings, "generator": weights})
    print(f"{path} -> {file}: {settings['depth']} levels, width {settings['width']}")


def refuse_our_own(path):
    """Refuses to convert a generator that this project wrote, by its file or its run's folder."""
    if path.is_dir():
        path = path / "generator.pt"
    try:
        load_file(path)
    except Refusal:                                    # another code's, or none
        return
    raise Refusal(f"--convert {path}: is one of this project's own already; give it as RUN, or to "
                  f"train.py's --start")


# That code's five published generators, each a unet_256 with batch norms: the name, as in its
# scripts/download_pix2pix_model.sh, and the task here that it is of.
PUBLISHED = {"edges2shoes": "edges2shoes", "sat2map": "maps", "map2sat": "aerial",
             "facades_label2photo": "facades", "day2night": "day2night"}
PUBLISHED_AT = "http://efrosgans.eecs.berkeley.edu/pix2pix/models-pytorch/"   # NAME.pth


def fetch_published(name):
    """The path of a published generator, datasets/NAME.pth: fetched, unless it is there.

    It appears only whole, and if convert() can read it. What came before the line broke is kept
    beside it: the next call goes on from there.
    """
    import data
    url = f"{PUBLISHED_AT}{name}.pth"
    by_hand = "fetch it by hand and give --convert FILE RUN"
    file = Path("datasets", f"{name}.pth")
    if file.is_file():
        return file
    partial = file.with_name(f".{file.name}.partial")
    file.parent.mkdir(exist_ok=True)
    try:
        data.download_rest(url, partial)
    except (OSError, ValueError) as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise Refusal(f"{url}: {why}; try again, which goes on from there, or {by_hand}") from None
    try:
        convert(partial)
    except Refusal:
        partial.unlink()
        raise Refusal(f"{url}: what came is damaged, or no generator; try again, or {by_hand}"
                      ) from None
    partial.rename(file)
    return file


# Export: G as an ONNX file, which other programs run (skip on first reading)

# Such a file is a protobuf: messages within messages, each a row of fields, each field a number and
# a value. The numbers below are those of ONNX's onnx.proto, the operators those of its opset 17.

OPSET = 17
IR_VERSION = 8                                         # of the file format that came with opset 17
FLOAT = 1                                              # float32, as the type of a tensor


def onnx_model(generator, texts, metadata, noise=False):
    """The bytes of an ONNX file: "x" (N, C, H, W) -> "fake" (N, O, H, W), as G does it in forward.

    N, H and W are open; H and W are multiples of 2**depth. Dropout is left out, or with noise comes
    in: "noise_0" ... multiply what decoder step 0 ... puts out. texts: {"model", "x", "fake",
    "noise": what stands in the file about each}. metadata: {name: text}, for programs.
    """
    graph = Graph()
    add_unet(graph, generator, noise)
    content = [field(1, node) for node in graph.nodes]
    content.append(field(2, "G"))
    content += [field(5, weight) for weight in graph.weights]
    x = ("N", generator.encoder[0].in_channels, "H", "W")
    content.append(field(11, named_tensor("x", x, texts["x"])))
    if noise:
        for i in generator.dropout_at:
            channels = len(generator.decoder_norms[i].weight)
            smaller = 2 ** (generator.depth - 1 - i)
            shape = ("N", channels, f"H/{smaller}", f"W/{smaller}")
            content.append(field(11, named_tensor(f"noise_{i}", shape, texts["noise"])))
    last = [*generator.to_image.modules()][-1]         # nearest()'s convolution, or to_image itself
    fake = ("N", last.out_channels, "H", "W")
    content.append(field(12, named_tensor("fake", fake, texts["fake"])))

    opset = field(2, OPSET)                            # of the domain "", ONNX's own operators
    model = [field(1, IR_VERSION), field(2, "pix2pix.py"), field(6, texts["model"]),
             field(7, b"".join(content)), field(8, opset)]
    for name, text in metadata.items():
        model.append(field(14, field(1, name) + field(2, text)))
    return b"".join(model)


def add_unet(graph, generator, noise):
    """UNet.forward, line by line, as steps of a graph: from the input "x" to the output "fake"."""
    x = "x"
    skips = []
    for i, (encode, norm) in enumerate(zip(generator.encoder, generator.encoder_norms)):
        if i > 0:
            x = graph.step("LeakyRelu", [x], {"alpha": 0.2})
        x = add_layer(graph, x, encode, f"encoder.{i}")
        x = add_norm(graph, x, norm, f"encoder_norms.{i}")
        skips.append(x)
    skips.pop()

    for i, (decode, norm) in enumerate(zip(generator.decoder, generator.decoder_norms)):
        x = graph.step("Relu", [x])
        x = add_layer(graph, x, decode, f"decoder.{i}")
        x = add_norm(graph, x, norm, f"decoder_norms.{i}")
        if noise and i in generator.dropout_at:
            x = graph.step("Mul", [x, f"noise_{i}"])
        if generator.skips:
            x = graph.step("Concat", [x, skips.pop()], {"axis": 1})
    x = graph.step("Relu", [x])
    x = add_layer(graph, x, generator.to_image, "to_image")
    graph.step("Tanh", [x], out="fake")


def add_layer(graph, x, layer, name):
    """A convolution, transposed or not, or nearest()'s pair of layers. -> the name of its output"""
    if isinstance(layer, nn.Sequential):
        twice = graph.weight(f"{name}.scales", torch.tensor([1.0, 1.0, 2.0, 2.0]))
        x = graph.step("Resize", [x, "", twice], {     # "": no region of interest
            "mode": "nearest",
            "nearest_mode": "floor",
            "coordinate_transformation_mode": "asymmetric"})
        return add_layer(graph, x, layer[1], f"{name}.1")
    inputs = [x, graph.weight(f"{name}.weight", layer.weight)]
    if layer.bias is not None:
        inputs.append(graph.weight(f"{name}.bias", layer.bias))
    kind = "ConvTranspose" if isinstance(layer, nn.ConvTranspose2d) else "Conv"
    return graph.step(kind, inputs, {
        "kernel_shape": layer.kernel_size,
        "strides": layer.stride,
        "pads": 2 * layer.padding})                    # top, left, bottom, right


def add_norm(graph, x, norm, name):
    """Norm.forward, or nothing for nn.Identity. -> the name of its output

    onnxruntime 1.32 sums a map's values in float32, hardly more than one after the other: so fake
    is off by up to 4e-6 at 256x256, but 4e-4 at 2048x2048, a twentieth of a step of 8 bits.
    """
    if isinstance(norm, nn.Identity):
        return x
    if norm.kind == "instance":
        weight = graph.weight(f"{name}.weight", norm.weight)
        bias = graph.weight(f"{name}.bias", norm.bias)
        return graph.step("InstanceNormalization", [x, weight, bias], {"epsilon": 1e-5})
    if norm.kind == "batch":                           # by its definition: (x - mean) / std
        over = {"axes": (0, 2, 3)}
        epsilon = graph.weight(f"{name}.epsilon", torch.tensor([1e-5]))
        mean = graph.step("ReduceMean", [x], over)
        x = graph.step("Sub", [x, mean])
        square = graph.step("Mul", [x, x])
        variance = graph.step("ReduceMean", [square], over)
        above_zero = graph.step("Add", [variance, epsilon])
        std = graph.step("Sqrt", [above_zero])
        x = graph.step("Div", [x, std])
    weight = graph.weight(f"{name}.weight", norm.weight.view(-1, 1, 1))
    bias = graph.weight(f"{name}.bias", norm.bias.view(-1, 1, 1))
    x = graph.step("Mul", [x, weight])
    return graph.step("Add", [x, bias])


class Graph:
    """The steps of an ONNX graph, in the order in which they run, and the weights they read."""

    def __init__(self):
        self.nodes = []                                # each a NodeProto's bytes
        self.weights = []                              # each a TensorProto's

    def step(self, kind, inputs, attributes=None, out=None):
        """Adds an operation on values of these names. -> the name of its output"""
        if out is None:
            out = f"{kind}_{len(self.nodes)}"
        content = [field(1, name) for name in inputs]
        content += [field(2, out), field(3, out), field(4, kind)]
        for name, value in (attributes or {}).items():
            content.append(field(5, attribute(name, value)))
        self.nodes.append(b"".join(content))
        return out

    def weight(self, name, values):
        """Adds a float tensor. -> its name"""
        import ctypes
        values = values.detach().float().cpu().contiguous()
        content = [field(1, side) for side in values.shape]
        numbers = ctypes.string_at(values.data_ptr(), 4 * values.numel())
        content += [field(2, FLOAT), field(8, name), field(9, numbers)]
        self.weights.append(b"".join(content))
        return name


def attribute(name, value):
    """An AttributeProto: a float, an int, a text or a row of ints. Field 20 says which."""
    if isinstance(value, float):
        content = field(2, value) + field(20, 1)
    elif isinstance(value, int):
        content = field(3, value) + field(20, 2)
    elif isinstance(value, str):
        content = field(4, value) + field(20, 3)
    else:
        content = b"".join(field(8, number) for number in value) + field(20, 7)
    return field(1, name) + content


def named_tensor(name, sides, text):
    """A ValueInfoProto: an input or output, with what stands about it. A side that is open has a
    name in place of its number."""
    shape = b""
    for side in sides:
        number = 1 if isinstance(side, int) else 2
        shape += field(1, field(number, side))
    tensor = field(1, FLOAT) + field(2, shape)
    return field(1, name) + field(2, field(1, tensor)) + field(3, text)


def field(number, value):
    """A field of a protobuf: its number and its value's kind, then an int from 0, the 4 bytes of a
    float, or the length and the bytes of a text or of a message."""
    import struct
    if isinstance(value, float):
        return varint(8 * number + 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(8 * number) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(8 * number + 2) + varint(len(content)) + content


def varint(number):
    """An int from 0 up, 7 bits a byte, the lowest first; the top bit says that more follow."""
    parts = []
    while number >= 128:
        parts.append(number % 128 + 128)
        number //= 128
    return bytes([*parts, number])


def export(run, out, noise):
    """--export: writes a run's G as an ONNX file, with what its user must know."""
    import data
    generator, settings = load_generator(run)
    if noise and not generator.dropout_at:
        raise Refusal(f"--noise: {run} has no dropout to bring in; leave it out")
    texts = about_export(generator, settings, noise)
    model = onnx_model(generator, texts, metadata_of(generator, settings, noise), noise)
    data.write_whole(out, model)
    print(f"{run} -> {out}: {len(model) / 1e6:.1f} MB")
    print(texts["model"])


def about_export(generator, settings, noise):
    """What stands in an ONNX file, in words: of the whole, and of each input and output."""
    height, width = settings["size"]
    if noise:
        dropout = "Dropout is an input: noise_0 and so on; all ones for none."
    elif generator.dropout_at:
        dropout = "Dropout is off; the paper keeps it on (export with --noise to bring it in)."
    else:
        dropout = "There is no dropout."
    about = (f"pix2pix generator of task {settings['task']}, trained at {height}x{width} pixels. "
             f"Height and width: multiples of {2 ** generator.depth}. {dropout}")
    if settings.get("range"):
        about += (" Values of more than 8 bits: the metadata's range holds, of A and of B, what "
                  "became 0 and what became 255; x is A where its direction is AtoB, else B.")
    kept = 1 / (1 - generator.dropout)                 # so that the mean stays
    mask = (f"What dropout multiplies by: each value 0, with a probability of "
            f"{generator.dropout:g}, or {kept:g}.")
    x, fake = about_pictures(settings)
    return {"model": about, "x": x, "fake": fake, "noise": mask}


def about_pictures(settings):
    """What the numbers of x, and of what G makes of it, mean: see data.to_network."""
    import data
    hides = data.TASKS[settings["task"]].hides
    x = about_values(settings["in_channels"])
    fake = about_values(settings["out_channels"])
    if settings["one_hot"]:
        x = "a channel for each class of the metadata's palette: 1 where a pixel is of it, else 0"
    elif hides == "colour":
        x = "a photo's L of CIE Lab (D65), 0 to 100, as L / 50 - 1"
        fake = "a and b of CIE Lab, each as value / 110; the photo's L joins them"
    elif hides == "centre":
        x += "; 1 in the central half of its height and width, which G fills"
    elif data.label_side(settings) == "x":
        x += "; a label map in the colours of the metadata's palette"
    elif data.label_side(settings) == "y":
        fake += "; a label map, each pixel of the class whose colour in the palette is nearest"
    return x, fake


def about_values(channels):
    kind = "RGB" if channels == 3 else f"channels: {channels}"
    return f"{kind}, 0 to 255, as value / 127.5 - 1"


def metadata_of(generator, settings, noise):
    """What programs may want to know of an exported G, each as JSON: {name: text}."""
    import json
    import data
    palette = settings["palette"] or []
    values = {
        "task": settings["task"],
        "direction": data.direction_of(settings),
        "size": settings["size"],                      # height and width of training
        "multiple": 2 ** generator.depth,              # of which height and width are multiples
        "one_hot": settings["one_hot"],
        "classes": [name for name, _ in palette],
        "palette": palette,                            # [[name, [r, g, b]], ...]
        "range": settings.get("range"),
        "norm": settings["norm"],
        "dropout": "input" if noise else "off"}
    return {name: json.dumps(value) for name, value in values.items()}


# The command: what the networks look like, and pictures translated (skip on first reading)

def parameters(network):
    return sum(p.numel() for p in network.parameters())


def describe(network, *inputs):
    """Prints each layer of a network: kind, output shape, number of parameters.

    -> [(channels, side), ...] of the input and of each convolution's output.
    """
    shapes = [(sum(x.shape[1] for x in inputs), inputs[0].shape[2])]

    def show(layer, _, out):
        if layer.weight.dim() == 4:
            shapes.append(tuple(out.shape[1:3]))
        kind = type(layer).__name__
        print(f"  {kind:15} {str(tuple(out.shape)):20} {parameters(layer):>11,}")
    title = " and ".join(str(tuple(x.shape)) for x in inputs)
    print(f"\n{type(network).__name__}: from {title}")
    for layer in network.modules():
        if parameters(layer) > 0 and not list(layer.children()):
            layer.register_forward_hook(show)
    network(*inputs)
    print(f"  {parameters(network):,} parameters")
    return shapes


def describe_both():
    """Prints the paper's networks. -> [(title, their shapes, with skips or not), ...], to draw."""
    x = torch.zeros(1, 3, 256, 256)
    y = torch.zeros(1, 3, 256, 256)
    unet = describe(UNet(), x)
    print("  the channels of a ConvTranspose2d are counted before its skip joins them")
    patchgan = describe(PatchGAN(), x, y)
    print(f"  each logit sees a patch of {receptive_field(PatchGAN())} pixels a side")
    return [("UNet, channels x side: red skips join layers i and n-i", unet, True),
            ("PatchGAN: 30 x 30 logits, one for each patch of 70 x 70", patchgan, False)]


def translate_files(options):
    """The command `python pix2pix.py RUN IN OUT`."""
    import data
    generator, settings = load_generator(options.run)
    generator.to(data.device_of(options.device))
    if options.fit and data.keeps_scale(settings):
        raise Refusal("--fit: this run sees a larger picture as more of the same, at a scale that "
                      "it knows; leave --fit out")
    count = data.frame_count(options.source)
    if count > 1 and options.npy:
        raise Refusal(f"--npy: {options.source} holds {count} pictures, and a .npy holds one; give "
                      f"them as single files")
    ending = ".npy" if options.npy else data.output_ending(settings)
    if count > 1:
        ending = Path(options.source).suffix
    options.out = in_new_folder(options.source, options.out, ending)
    with threads(2) as file_threads:
        if count > 1:
            translate_sequence(generator, settings, options, count, file_threads)
        else:
            translate_pictures(generator, settings, options, ending, file_threads)


def in_new_folder(source, out, ending):
    """OUT; where one file is to be read and OUT is a new folder, a name without an ending or with a
    slash at its end, the name in it of what is to be written."""
    one_file = Path(source).is_file() and not Path(out).exists()
    if one_file and (out.endswith(("/", os.sep)) or not Path(out).suffix):
        return str(Path(out, Path(source).stem + ending))
    return out


def translate_pictures(generator, settings, options, ending, file_threads):
    """A picture to a picture, a folder to a folder, whose files get this ending."""
    import data
    jobs = data.sources(options.source, options.out, ending)
    if options.npy and not data.is_numpy(jobs[0][1]):
        raise Refusal(f"--npy: {jobs[0][1]} is a picture's name; give one ending in .npy")
    if options.smooth is not None:
        jobs = in_frame_order(jobs)
    for _, out in jobs:                                    # before the work, not after it
        if not data.is_numpy(out):
            data.check_name(out)
    words = data.written_words(settings, [out for _, out in jobs])
    if words:
        print(words)
    if not options.pair:
        if data.label_side(settings) == "x":
            paths = [path for path, _ in jobs]
            data.agree_on_rows(paths, settings["palette"], data.LEARNED_HELP)
        with offering_pair(settings, jobs[0][0]):
            words = data.input_words(settings, jobs[0][0])
        print(f"{len(jobs)} to read, each as a {words}")

    def write(made):
        (source, out), x, fake = made
        data.save_output(settings, out, x, fake)
        written.append(out)
        return f"{source} -> {out}"

    outputs = translated(generator, settings, options, jobs, len(jobs), file_threads)
    # closing() ends the threads of outputs, after Ctrl-C, too.
    with closing(outputs), data.counting_written(len(jobs)) as written:
        for words in in_order(file_threads, write, outputs):
            print(words)


def translate_sequence(generator, settings, options, count, file_threads):
    """A GIF or a TIFF of count pictures to the same of G's, with one noise for all."""
    import data
    channels = data.channels_of(settings, "y")
    if channels not in (1, 3):
        raise Refusal(f"{options.source}: a film has 3 channels, and this run makes {channels}; "
                      f"give single pictures")
    out = data.sequence_out(options.source, options.out, count)
    first = next(data.frames_of(options.source))
    if not options.pair:
        print(f"{count} to read, each as a {data.input_words(settings, first)}")
    jobs = ((frame, out) for frame in data.frames_of(options.source))
    outputs = translated(generator, settings, options, jobs, count, file_threads)

    def encode(made):
        (frame, _), x, fake = made
        return data.frame_content(out, frame, data.to_pixels(settings, x, fake)[0])

    with closing(outputs):
        contents = list(in_order(file_threads, encode, outputs))
    data.write_whole(out, data.sequence_bytes(out, contents))
    print(f"{options.source} -> {out}, {count} pictures")


def in_frame_order(jobs):
    """[(picture to read, picture to write), ...] of a folder of frames, by the numbers in their
    names: 2 before 10. Refuses what is no sequence: one picture alone, a name without a number."""
    import re
    if len(jobs) < 2:
        raise Refusal(f"--smooth: {jobs[0][0]} is one picture; give a GIF, a TIFF of several "
                      f"pages or a folder of frames, or leave --smooth out")
    for path, _ in jobs:
        if not re.search(r"\d", path.stem):
            raise Refusal(f"--smooth: {path} has no number in its name, so the folder is no "
                          f"sequence; give a folder of numbered frames, or leave --smooth out")

    def in_parts(job):                                     # ["frame", 10, ""]
        parts = re.split(r"(\d+)", job[0].stem)
        return [int(part) if part.isdecimal() else part for part in parts]

    return sorted(jobs, key=in_parts)


@contextmanager
def offering_pair(settings, source):
    """What the `with` refuses as a label map may be a whole pair, of which one half is one: the
    refusal then offers --pair, too. source: a file, or a frame of data.frames_of()."""
    import data
    try:
        yield
    except data.Refusal as refusal:
        half = data.half_of(settings, "x")
        if isinstance(source, data.Stored) or not is_half_a_map(settings, source, half):
            raise
        side = ("left", "right")[half]
        raise Refusal(f"{refusal} (its {side} half alone is a label map: if this is a whole pair, "
                      f"give --pair, which takes that half)") from None


def is_half_a_map(settings, path, half):
    """Whether a file's left (0) or right (1) half is a label map to translate."""
    import data
    if data.label_side(settings) != "x":
        return False
    try:
        stored = data.read_stored(path)
        if not data.is_two_halves(stored, data.shape_of_pairs(settings)):
            return False
        data.label_picture(data.halves(stored)[half], settings["palette"])    # as --pair would
        return True
    except data.Refusal:
        return False


def translated(generator, settings, options, jobs, count, file_threads):
    """Yields (job, x, G(x)), each network value (1, C, H, W), of count jobs, in their order. A job:
    a file or frame to read, and the file to write.

    Reading, the network and writing overlap. On a CPU networks run side by side, each on its share
    of the cores: two that never wait for each other do more than one that is spread over two cores,
    as many of its layers are small. Memory holds a few batches, however many pictures there are.
    """
    import data

    def read(job):                                         # -> job, uint8 (C, H, W)
        source, _ = job
        if options.pair:
            return job, data.read_input(settings, source, pair=True)
        with offering_pair(settings, source):
            return job, data.read_input(settings, source)

    def translate_batch(batch):
        pictures = torch.stack([picture for _, picture in batch])
        x, fake = output_of(generator, settings, pictures, options)
        return [(batch[i][0], x[i:i + 1], fake[i:i + 1]) for i in range(len(batch))]

    decoded = warned(settings, options, in_order(file_threads, read, jobs))
    first = next(decoded)                                  # the others follow it, in batches
    device = next(generator.parameters()).device
    side_by_side, most = shares(settings, first[1], count, device, options.fit)
    batches = batched(first, decoded, most)
    cores = torch.get_num_threads() // side_by_side
    with threads(side_by_side, cores) as network_threads:
        outputs = in_order(network_threads, translate_batch, batches, side_by_side + 1)
        outputs = (output for batch in outputs for output in batch)
        yield from smoothed(outputs, options.smooth or 0)


def output_of(generator, settings, pictures, options):
    """uint8 (N, C, H, W) of one size -> x and G(x), float (N, C, H, W). Each picture gets the noise
    that it gets alone. --fit: G sees them at the size that it knows."""
    import data
    device = next(generator.parameters()).device
    one_noise = device.type == "cpu"                       # elsewhere there is one at a time
    x = data.input_to_network(settings, pictures).to(device)
    if not options.fit:
        return x, generate(generator, x, options.seed, one_noise=one_noise)
    known = data.at_known_size(settings, pictures)
    known_x = data.input_to_network(settings, known).to(device)
    fake = generate(generator, known_x, options.seed, one_noise=one_noise)
    return x, data.enlarged(settings, fake, pictures.shape[2:])


def shares(settings, picture, count, device, fit):
    """-> how many networks run side by side, and how many pictures go through each at once.

    Where norms are over the batch, a picture must be one. Large ones, and GPUs, are kept busy by
    one picture. Of small ones, as many as 4 of 256x256: more are no faster.
    """
    import data
    size = picture.shape[1:]
    if fit:
        size = data.known_size(settings, size)
    pixels = size[0] * size[1]
    if device.type != "cpu" or pixels > 1024 ** 2:
        return 1, 1
    side_by_side = min(torch.get_num_threads(), count, 4)
    if settings["norm"] == "batch":
        return side_by_side, 1
    share = -(-count // side_by_side)                      # few pictures are shared out evenly
    return side_by_side, max(min(4 * 256 ** 2 // pixels, 8, share), 1)


def batched(first, decoded, most):
    """(job, picture), and those that follow -> lists of them, of one size, at most `most` each.
    Where reading fails, what came before is a list first."""
    batch = [first]
    failure = None
    try:
        for job, picture in decoded:
            if len(batch) == most or picture.shape != batch[0][1].shape:
                yield batch
                batch = []
            batch.append((job, picture))
    except Exception as error:                             # raised below
        failure = error
    yield batch
    if failure:
        raise failure


def smoothed(outputs, share):
    """(job, x, fake), ... -> the same, each fake with that share of the one shown before it."""
    before = None
    for job, x, fake in outputs:
        if share and before is not None:
            if fake.shape != before.shape:
                h, w = before.shape[2:]
                raise Refusal(f"{job[0]}: is {fake.shape[3]}x{fake.shape[2]}, the frame before "
                              f"it {w}x{h}; leave --smooth out, or give frames of one size")
            fake = share * before + (1 - share) * fake
        before = fake
        yield job, x, fake


def warned(settings, options, decoded):
    """Yields (job, picture), ... as they are, and warns of the first picture that may be a whole
    pair, or is of another scale than the run's."""
    said = False
    for job, picture in decoded:
        if not said:
            size = picture.shape[1:]
            pair = not options.pair and whole_pair_words(settings, job[0], size)
            scale = not options.fit and other_scale_words(settings, job[0], size)
            for line in filter(None, (pair, scale)):
                print(line)
                said = True
        yield job, picture


def whole_pair_words(settings, source, size):
    """A line where a picture of size [h, w] may be a whole pair, as each of its halves has the
    run's shape; else None. Not where x is a label map: there data.read_input refuses pairs."""
    import data
    h, w = size
    two_halves = w % 2 == 0 and data.has_shape(w // 2, h, settings["size"])
    of_pairs = data.TASKS[settings["task"]].kind == "pairs" and data.label_side(settings) != "x"
    if not (two_halves and of_pairs) or settings.get("crop"):
        return None
    path = source.path if isinstance(source, data.Stored) else source
    side = ("left", "right")[data.half_of(settings, "x")]
    return (f"{path}: is {w}x{h}, and each of its halves has this run's shape: if it is a whole "
            f"pair, give --pair, which takes its {side} half alone")


def other_scale_words(settings, source, size):
    """A line where a picture of size [h, w] is larger or smaller than a run knows it, else None. An
    eighth is no news: training's random crops show things at 286/256 of the size."""
    import data
    times = size[0] / data.known_size(settings, size)[0]
    if 8 / 9 <= times <= 9 / 8:
        return None
    path = source.path if isinstance(source, data.Stored) else source
    height, width = settings["size"]
    other = "larger" if times > 1 else "smaller"
    return (f"{path}: is {size[1]}x{size[0]}, {other} than the {width}x{height} that this run was "
            f"trained on: it sees everything {times:.2g} times as large as it knows it; --fit "
            f"brings pictures to the size that it knows, and what comes out back to theirs")


def in_order(pool, function, items, most=2):
    """Yields function(item) for each item, as the pool's threads make them, in order, with at most
    `most` under way. Where an item or a call fails, all before it come first, and what is under way
    is finished: nothing goes on behind the error."""
    waiting = []
    failure = None
    items = iter(items)
    try:
        while failure is None:
            try:
                waiting.append(pool.submit(function, next(items)))
            except StopIteration:
                break
            except Exception as error:                     # raised below
                failure = error
            if len(waiting) >= most:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
        if failure:
            raise failure
    finally:
        for future in waiting:                             # nobody will fetch these
            if not future.cancel():                        # it has begun
                future.exception()                         # waits for its end


@contextmanager
def threads(count, cores=1):
    """A pool of threads, in each of which torch takes so many cores. At its end, after Ctrl-C, too,
    what has begun is finished, so that files are whole, and what has not begun is left."""
    from concurrent.futures import ThreadPoolExecutor      # this command alone needs it
    torch.get_num_threads()     # settles this thread's number, or the one below would become it
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(max(cores, 1),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def parse():
    import data
    parser = data.new_parser(__doc__)
    add = parser.add_argument
    add("run", nargs="?", help="a run's folder or its generator.pt; none: describe")
    add("source", nargs="?", metavar="IN", help="a picture or a folder of them")
    add("out", nargs="?", metavar="OUT", help="the picture or folder to write")
    add("--draw", type=data.picture_name, metavar="PNG", help="draw both networks")
    add("--pair", action="store_true", help="IN is a side-by-side pair: use its x")
    add("--seed", type=int, default=0, help="of the dropout noise (default 0)")
    add("--device", default="cpu", help="cpu (default), cuda or mps")
    add("--fit", action="store_true", help="show pictures to the run at the size that it was "
        "trained on, and bring what it makes of them to their own size")
    add("--smooth", type=data.below_one, metavar="A", help="of frames: each output is 1 - A of its "
        "own and A of the one before it; 0 up to, but not, 1")
    add("--npy", action="store_true", help="write .npy files, of a folder, too: measured values in "
        "the unit of the files that were learned from, or else 0 to 255")
    add("--convert", nargs=2, metavar=("PTH", "OUT"), help="make the run OUT of latest_net_G.pth, "
        "as the popular PyTorch pix2pix code saves it; a generator of grey pictures becomes one of "
        "RGB ones. A name in PTH's place fetches one that is published: " + ", ".join(PUBLISHED))
    add("--task", help="of --convert (default pairs, or the published generator's own)")
    add("--own-statistics", action="store_true", help="--convert: norms by each picture's own "
        "statistics, not by those kept from training")
    add("--no-dropout", action="store_true", help="--convert: it was trained with --no_dropout")
    add("--export", metavar="ONNX", help="write RUN's generator as an ONNX file, "
        "for sides that are multiples of 2**depth, without dropout. It takes and gives what "
        "networks see: RGB / 127.5 - 1; with --one-hot a channel a class; in colorization L / 50 - "
        "1 of Lab, and out come a / 110 and b / 110")
    add("--noise", action="store_true", help="--export: with dropout, its masks as further inputs")
    options = data.parse_options(parser)
    check_export(options)
    for_convert = options.task or options.own_statistics or options.no_dropout
    wanted = [name for name in ("run", "draw", "convert") if getattr(options, name)]
    if len(wanted) > 1 or (for_convert and not options.convert):
        raise Refusal("RUN, --draw, --convert: one at a time; --task, --own-statistics, "
                      "--no-dropout: only with --convert; see `python pix2pix.py --help`")
    if (options.fit or options.npy or options.smooth is not None) and options.out is None:
        raise Refusal("--fit, --smooth, --npy: only with RUN IN OUT; see `python pix2pix.py "
                      "--help`")
    if options.run and options.out is None and not options.export:
        raise Refusal("IN OUT: missing; give the picture or folder to read and the one to write")
    return options


def check_export(options):
    if options.export and not options.export.endswith(".onnx"):
        raise Refusal(f"--export: {options.export} is no ONNX file; give a name ending in .onnx")
    if options.noise and not options.export:
        raise Refusal("--noise: goes with --export; translating always has its noise, see --seed")
    if options.export and (not options.run or options.source or options.pair):
        raise Refusal("--export: takes a run and no pictures; give RUN --export ONNX")


def main():
    import data  # only the command needs its neighbours: reading and writing pictures
    options = parse()
    if options.convert:
        path, out = options.convert
        write_converted(path, out, options.task, options.own_statistics, not options.no_dropout)
    elif options.export:
        export(options.run, options.export, options.noise)
    elif options.run:
        translate_files(options)
    else:
        networks = describe_both()
        if options.draw:
            data.draw_networks(options.draw, networks)


if __name__ == "__main__":
    from data import run_command
    run_command(main)
