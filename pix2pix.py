"""pix2pix: how does one picture become another?

A U-Net generator and a PatchGAN discriminator learn from pairs of pictures (x, y) to turn x into y.
Isola, Zhu, Zhou & Efros, "Image-to-Image Translation with Conditional Adversarial Networks",
arXiv 1611.07004v3: Sec. 3.1 losses, Sec. 3.2 networks, Sec. 3.3 training and testing.

    UNet: each row a 4x4 convolution of stride 2; 64 x 128 is         PatchGAN, 70x70
    64 channels, 128 pixels a side. Left down, right up (transposed).
    x   3 x 256 ----------------------------------> fake 3 x 256      x and y  6 x 256
    e1 64 x 128 ---------------- skip -----------> 128 x 128               64 x 128
    e2 128 x 64 ---------------- skip -----------> 256 x 64               128 x 64
    e3 256 x 32 ---------------- skip -----------> 512 x 32               256 x 32
    e4 512 x 16 ---------------- skip ----------> 1024 x 16   stride 1:   512 x 31
    e5 512 x 8  ---------------- skip ----------> 1024 x 8    stride 1:     1 x 30, one logit
    e6 512 x 4  ---------------- skip ----------> 1024 x 4                per 70x70 patch
    e7 512 x 2  ---------------- skip ----------> 1024 x 2
                `-> e8 512 x 1, the bottleneck --^      right: decoder (half) + skip (half)
    A row down: LeakyReLU 0.2, convolution, norm; e1 and e8 have a bias instead of the norm, e1 no
    LeakyReLU. A row up: ReLU, convolution, norm, and on the first three dropout 0.5; the last ends
    in a bias and tanh. D: as down, the first and the last layer without a norm.

    python pix2pix.py [--draw out.png]        every layer of both networks, with shapes and counts
    python pix2pix.py runs/facades IN OUT     translate a picture, or each picture of a folder
    photo = translate(load_generator("generator.pt")[0], labels)  # copied out, it needs torch only

Where it leaves the paper. Norm: each picture's own statistics, in every mode. At batch 1 this is
the paper's batch norm with "the statistics of the test batch" (Sec. 3.3); at larger batches it
keeps pictures independent. So eval() and train() are the same; dropout is on in both, as in the
paper. The bottleneck has no norm: over a single pixel it gives its bias, whatever x (authors'
erratum).
"""
import itertools
import zipfile
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

FORMAT = 1  # of the files that train.py writes; a reader refuses a number it does not know


class Refusal(ValueError):  # Also in data.py, repeated so that this file copies alone.
    """Bad input from outside: one line, exit code 2."""


def on_gpu(x):
    """There the library's own layers are used, in channels_last, which tensor cores want: the
    other ways in Norm, Down, Up and ToLogits were measured on CPUs. Not yet run on a GPU."""
    return x.is_cuda


class Norm(nn.Module):
    """(x - mean) / std * weight + bias, for each channel; there are no running statistics.

    "instance": mean and std over each picture alone; group norm with one channel a group is that,
    by a faster kernel on CPUs. "batch": over the whole batch. "fixed": convert() has put a trained
    network's statistics into weight and bias. In channels_last (see laid_out) the library's norms
    on CPUs have slow gradients and rough sums, 2e-5 off at 256x256: in training x is copied back to
    the usual layout, in translating they are spelled out. On a GPU batch norm, picture by picture,
    keeps that layout and half precision; group norm would copy x out of both.
    """

    def __init__(self, channels, kind="instance"):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.kind = kind

    def forward(self, x):
        weight, bias = self.weight.view(-1, 1, 1), self.bias.view(-1, 1, 1)
        if self.kind == "fixed":
            return x * weight + bias
        alone, gpu = self.kind == "instance", on_gpu(x)
        if gpu and alone and len(x) > 1:
            return torch.cat([self(picture) for picture in x.split(1)])
        if not (torch.is_grad_enabled() or gpu or x.is_contiguous()):
            over = (2, 3) if alone else (0, 2, 3)
            x = x - x.mean(over, keepdim=True)
            std = (x.square().mean(over, keepdim=True) + 1e-5).sqrt()
            return x.mul_(weight / std).add_(bias)
        x = x if gpu else x.contiguous()
        if alone and not gpu:
            return F.group_norm(x, x.shape[1], self.weight, self.bias)
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


def laid_out(x, side):
    """x as a convolution likes it best: in channels_last on a GPU, and translating on a CPU from
    side pixels up.

    Else the library spends 8% of translating 512x512 on copying what its transposed convolutions
    put out; on small maps, copying the weights would cost more than that: measured, 64 for a layer
    that halves x and 32 for one that doubles it. In training, the norms' gradients would lose more.
    """
    if torch.is_grad_enabled() and not on_gpu(x):
        return x
    large = on_gpu(x) or x.shape[2] * x.shape[3] >= side ** 2
    return x.contiguous(memory_format=torch.channels_last if large else torch.contiguous_format)


class Down(nn.Conv2d):
    """The 4x4 convolution of stride 2: (N, C, H, W) -> (N, O, H/2, W/2), as nn.Conv2d gives it. The
    rest of this class, of Up and of ToLogits is speed: skip it on first reading."""

    def __init__(self, channels, out_channels, bias):
        super().__init__(channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, x):
        n, c, h, w = x.shape
        if h * w > 64 or on_gpu(x):                        # 8x8: measured on two cores
            return super().forward(laid_out(x, 64))
        # Deep layers are all weights and hardly any pixels; the library's convolution then spends
        # its time rearranging the weights. One matrix product of the same numbers does not, with
        # a row for each pixel (a column for each takes up to five times as long).
        patches = F.unfold(x, 4, stride=2, padding=1).transpose(1, 2).reshape(-1, c * 16)
        y = F.linear(patches, self.weight.view(-1, c * 16), self.bias)    # (N * H/2 * W/2, O)
        return y.view(n, h // 2, w // 2, -1).permute(0, 3, 1, 2)


class Up(nn.ConvTranspose2d):
    """The 4x4 transposed convolution of stride 2: (N, C, H, W) -> (N, O, 2H, 2W)."""

    def __init__(self, channels, out_channels, bias):
        super().__init__(channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, x):
        (n, c, h, w), weight = x.shape, self.weight.view(self.in_channels, -1)
        if on_gpu(x) or (h * w > 64 and self.out_channels > 4):
            return super().forward(laid_out(x, 32))
        if self.out_channels <= 4:     # the picture: the library takes up to three times as long,
            # and one product for the whole batch half as long again as one for each picture.
            y = torch.stack([weight.t() @ pixels for pixels in x.flatten(2)])
        else:                                                             # deep: see Down
            pixels = x.flatten(2).transpose(1, 2).reshape(-1, c)          # (N * H * W, C)
            y = (pixels @ weight).view(n, h * w, -1).transpose(1, 2)
        # y (N, O * 16, H * W): each pixel has become 4x4; where these overlap they are summed.
        y = F.fold(y, (2 * h, 2 * w), 4, stride=2, padding=1)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


def nearest_up(channels, out_channels, bias):
    """Nearest-neighbour upsampling, then a 3x3 convolution: (N, C, H, W) -> (N, O, 2H, 2W).

    Not in the paper: for those who see its transposed convolution's checkerboard in flat areas.
    """
    return nn.Sequential(nn.Upsample(scale_factor=2),
                         nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias))


def initialize(module):
    """Weights from N(0, 0.02), norm weights from N(1, 0.02), biases 0, as in the authors' code."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:  # a norm's weight is a vector, a convolution's has four dimensions
            nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.02)


class UNet(nn.Module):
    """The generator of Sec. 3.2: x (N, in_channels, H, W) -> (N, out_channels, H, W), both [-1, 1].

    H and W are multiples of 2**depth (generate() pads others): depth 8 halves 256 pixels to 1, 7 is
    for 128, 6 for 64. skips=False is Table 2's encoder-decoder. 54,414,531 parameters: the count
    usually quoted, 54,413,955, lacks the 64 + 512 biases of first convolution and bottleneck, kept
    here as no norm follows that would cancel them.
    """

    def __init__(self, in_channels=3, out_channels=3, width=64, depth=8, skips=True,
                 norm="instance", upsample="deconv", dropout=0.5, dropout_at=(0, 1, 2)):
        super().__init__()
        self.depth, self.skips, self.dropout, self.dropout_at = depth, skips, dropout, dropout_at
        self.muted_skips = ()          # those of the decoder steps 1 to depth - 1 to look without
        up = Up if upsample == "deconv" else nearest_up
        channels = [width * min(2 ** i, 8) for i in range(depth)]         # 64, 128, 256, 512, ...
        self.encoder, self.encoder_norms = nn.ModuleList(), nn.ModuleList()
        for i, c in enumerate(channels):
            bare = i in (0, depth - 1)                     # no norm on the first and the bottleneck
            self.encoder.append(Down(channels[i - 1] if i else in_channels, c, bias=bare))
            self.encoder_norms.append(nn.Identity() if bare else Norm(c, norm))
        self.decoder, self.decoder_norms = nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(1, depth)):                # from channels[i] up to channels[i - 1]
            joined = skips and i < depth - 1               # the bottleneck is not joined to itself
            self.decoder.append(up(channels[i] * (1 + joined), channels[i - 1], bias=False))
            self.decoder_norms.append(Norm(channels[i - 1], norm))
        self.to_image = up(width * (1 + skips), out_channels, bias=True)
        initialize(self)

    def forward(self, x):                                  # (N, 3, 256, 256)
        # In place where values are not needed again: 2% of a step. A skip has then been through
        # LeakyReLU, which the ReLU on its way up does not notice.
        skips = []
        for i, (encode, norm) in enumerate(zip(self.encoder, self.encoder_norms)):
            x = norm(encode(F.leaky_relu_(x, 0.2) if i else x))  # (N, 64, 128, 128)..(N, 512, 1, 1)
            skips.append(x)
        skips.pop()                                        # the 1x1 bottleneck is x, not a skip
        for i, (decode, norm) in enumerate(zip(self.decoder, self.decoder_norms)):
            x = norm(decode(F.relu_(x)))                   # (N, 512, 2, 2) ... (N, 64, 128, 128)
            if i in self.dropout_at:                       # CD512-CD512-CD512: the noise z of
                x = F.dropout(x, self.dropout, training=True)  # Sec. 3.1, on at test time as well
            if self.skips:
                skip = skips.pop()
                skip = torch.zeros_like(skip) if i + 1 in self.muted_skips else skip
                x = torch.cat([x, skip], dim=1)            # join layers i and n-i, Sec. 3.2
        x = self.to_image(F.relu_(x))                      # (N, 3, 256, 256)
        return torch.tanh(x.float())   # in bf16 it would round to 1, with gradient 0, from 3.5 on


class ToLogits(nn.Conv2d):
    """The 4x4 convolution of stride 1 to one logit: (N, C, H, W) -> (N, 1, H-1, W-1).

    As in Up, a product gives what each pixel adds to the 4x4 logits around it, and fold sums it: a
    seventh of the library's time, 2% of a step. Seen from a pixel, the kernel is turned round,
    and its padding is 3 - 1.
    """

    def __init__(self, channels):
        super().__init__(channels, 1, 4, padding=1)

    def forward(self, x):
        if on_gpu(x):
            return super().forward(x)
        (h, w), weight = x.shape[2:], self.weight.flip(2, 3).view(self.in_channels, 16)
        y = torch.stack([weight.t() @ pixels for pixels in x.flatten(2)])
        return F.fold(y, (h - 1, w - 1), 4, padding=2) + self.bias


class PatchGAN(nn.Module):
    """The discriminator of Sec. 3.2: one logit for each patch, "real" where positive.

    discriminator(x, y) joins its pictures and so judges y given x: the conditional GAN. With y
    alone it is the unconditional one, Eq. 2 (in_channels is then y's). receptive_field, the patch's
    side in pixels: 1 (PixelGAN), 16, 70 or 286 (ImageGAN) of Sec. 4.4; or 34 or 142.
    """
    LAYERS = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}   # the number of layers of stride 2

    def __init__(self, in_channels=6, width=64, receptive_field=70, norm="instance"):
        super().__init__()
        n = self.LAYERS[receptive_field]
        kernel, padding = (4, 1) if n else (1, 0)          # the PixelGAN's are all 1x1
        widths = [in_channels] + [width * min(2 ** i, 8) for i in range(max(n, 1) + 1)]
        layers = []                                        # 6 -> 64 -> 128 -> 256 -> 512 channels
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            layers += [nn.Conv2d(a, b, kernel, 2 if i < n else 1, padding, bias=i == 0)]
            layers += [Norm(b, norm)] if i else []         # none on the first
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        layers += [ToLogits(b) if n else nn.Conv2d(b, 1, 1, bias=False)]
        self.layers = nn.Sequential(*layers)
        initialize(self)

    def forward(self, *pictures):                          # x and y: each (N, 3, 256, 256)
        # channels_last as far as the first norm, which is slow in it: 3 to 5% of a step on a CPU.
        pictures = torch.cat(pictures, dim=1).contiguous(memory_format=torch.channels_last)
        return self.layers(pictures)                       # patch_logits (N, 1, 30, 30)


def receptive_field(discriminator):
    """The side in pixels of what a logit sees: r = (r-1)*stride+kernel from the last layer back."""
    r = 1
    for layer in reversed([m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]):
        r = (r - 1) * layer.stride[0] + layer.kernel_size[0]
    return r


def discriminator_loss(real_logits, fake_logits):          # each (N, 1, 30, 30)
    """pix2pix Eq. 1 from D's side, negated to minimise: -log D(x, y) - log(1 - D(x, G(x)))."""
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return (real + fake) / 2  # Sec. 3.3 halves it to slow D down; under Adam that hardly matters


def generator_loss(fake_logits, fake, target, l1_weight=100.0):
    """pix2pix Eq. 4 from G's side: -log D(x, G(x)) + lambda * |y - G(x)|, means over all elements.

    G maximises log D instead of minimising log(1 - D), Sec. 3.3. fake_logits None leaves out the
    adversarial term (Table 1's L1), l1_weight 0 the other one. Returns (loss, adversarial, l1).
    """
    l1 = F.l1_loss(fake, target)                           # 0..2, as pictures are in [-1, 1]
    adversarial = torch.zeros_like(l1)
    if fake_logits is not None:
        adversarial = F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))
    return adversarial + l1_weight * l1, adversarial, l1


def load_file(path, advice="train again, or restore the file from a copy"):
    """The dict that train.py saved at path, plain types and tensors; Refusal where it is damaged.

    torch.load alone does not notice flipped bits; the zip archive's own check sums do.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = None if archive.testzip() else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise Refusal(f"{path}: no such file; is the run's folder right, and has it saved yet?")
    except (PermissionError, MemoryError):                 # say nothing of the file's content
        raise
    except Exception:  # torch and zipfile raise some ten kinds for damage; their advice is unsafe
        content = None
    if not isinstance(content, dict) or "format" not in content:
        raise Refusal(f"{path}: damaged, or not a file that train.py saved; {advice}")
    if content["format"] != FORMAT:
        raise Refusal(f"{path}: its format is number {content['format']!r}, this code reads "
                      f"{FORMAT}; use the version of this project that wrote it")
    return content


def build_generator(settings):
    """A new UNet as settings (a flat dict, see train.py) describe it."""
    return UNet(settings["in_channels"], settings["out_channels"], settings["width"],
                settings["depth"], settings["generator"] == "unet", settings["norm"],
                settings["upsample"], dropout_at=settings.get("dropout_at", (0, 1, 2)))


def load_generator(path):
    """(generator, settings) from a run's folder or its generator.pt; no other file is needed."""
    path = Path(path) / "generator.pt" if Path(path).is_dir() else Path(path)
    content = load_file(path)
    settings = content.get("settings", {})
    if settings.get("model") != "pix2pix":
        raise Refusal(f"{path}: this is a {settings.get('model')} run; give one of a pix2pix task")
    try:
        generator = build_generator(settings)
        generator.load_state_dict(content["generator"])
    except (KeyError, TypeError, RuntimeError):
        raise Refusal(f"{path}: its weights do not fit its settings; train again") from None
    return generator.eval(), settings


def renamed(saved, own_statistics):
    """What the popular PyTorch code saved, {name: tensor} -> (settings, weights): see convert.

    That code nests: ".model.3" of each level (".model.1" of the outermost) is the next deeper one.
    Its skips come first; its dropout is a step later; its batch norm keeps running statistics.
    """
    levels, weights = ["model.model.", "model.model.1.model."], {}
    while f"{levels[-1]}3.model.1.weight" in saved:
        levels.append(f"{levels[-1]}3.model.")
    depth = len(levels)
    fixed = f"{levels[1]}2.running_mean" in saved and not own_statistics
    if f"{levels[1]}2.running_mean" not in saved and f"{levels[1]}1.bias" not in saved:
        raise ValueError("trained without norms")          # instance norms come with that bias

    def take_norm(name, at, channels, conv):
        scale = saved.get(f"{at}.weight", torch.ones(channels))
        shift = saved.get(f"{at}.bias", torch.zeros(channels))
        if fixed:
            scale = scale / (saved[f"{at}.running_var"] + 1e-5).sqrt()
            shift = shift + (saved.get(f"{conv}.bias", 0) - saved[f"{at}.running_mean"]) * scale
        weights.update({f"{name}.weight": scale, f"{name}.bias": shift})
    for i, at in enumerate(levels):                        # from the picture to the bottleneck
        middle, step = 0 < i < depth - 1, depth - 1 - i
        down, up = at + ("1" if i else "0"), at + ("5" if middle else "3")
        decoder = f"decoder.{step}" if i else "to_image"
        shrink, grow = saved[f"{down}.weight"], saved[f"{up}.weight"]
        weights[f"encoder.{i}.weight"] = shrink
        weights[f"{decoder}.weight"] = torch.cat(grow.chunk(2)[::-1]) if step else grow
        if middle:
            take_norm(f"encoder_norms.{i}", f"{at}2", len(shrink), down)
        else:
            weights[f"encoder.{i}.bias"] = saved.get(f"{down}.bias", torch.zeros(len(shrink)))
        if i:
            take_norm(f"decoder_norms.{step}", at + ("6" if middle else "4"), grow.shape[1], up)
    bias = weights["to_image.bias"] = saved["model.model.3.bias"]
    width, in_channels = saved["model.model.0.weight"].shape[:2]
    return {"model": "pix2pix", "in_channels": in_channels, "out_channels": len(bias),
            "width": width, "depth": depth, "generator": "unet", "upsample": "deconv",
            "norm": "fixed" if fixed else "instance", "size": [2 ** depth] * 2,
            "dropout_at": list(range(1, depth - 4))}, weights


def convert(path, own_statistics=False):
    """junyanz/pytorch-CycleGAN-and-pix2pix's latest_net_G.pth -> (settings, weights) of a UNet.

    Running statistics go into "fixed" norms: the same picture as that code's eval() gives, to 1e-5
    with dropout off. own_statistics: each picture's own, as its test script does by default.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        settings, weights = renamed({name.removeprefix("module."): tensor
                                     for name, tensor in saved.items()}, own_statistics)
        build_generator(settings).load_state_dict(weights)
        return settings, weights
    except Exception:                                      # torch.load alone raises some ten kinds
        raise Refusal(f"{path}: missing, or no generator of the popular PyTorch pix2pix; give its "
                      f"latest_net_G.pth, a unet_128 or unet_256") from None


def window_starts(side, tile):
    """Where windows of tile pixels begin: they overlap by a quarter, the last ends at the end."""
    return [*range(0, max(side - tile, 0), tile - tile // 4), max(side - tile, 0)]


@torch.no_grad()
def generate(generator, x, seed=None, tile=1024):
    """G(x) for pictures of any size: x float (N, C, H, W) in [-1, 1] -> (N, out_channels, H, W).

    G is fully convolutional, Sec. 4.4: a picture is padded by reflection to the multiple that the
    depth needs, and cropped back. seed fixes the dropout noise and leaves torch's random state as
    it was. Sides above tile pixels are cut into windows that fade linearly into each other; every
    window has its own statistics, so tones may drift slowly over a large picture.
    """
    (h, w), step = x.shape[-2:], 2 ** generator.depth
    total, weight = 0, x.new_zeros(h, w)
    with torch.random.fork_rng([x.device] if x.is_cuda else [], enabled=seed is not None):
        for top, left in itertools.product(window_starts(h, tile), window_starts(w, tile)):
            if seed is not None:
                torch.manual_seed(seed)
            window = x[..., top:top + tile, left:left + tile]
            rows, columns = window.shape[-2:]
            pad = (0, -columns % step, 0, -rows % step)    # none on the left and above
            mode = "reflect" if pad[1] < columns and pad[3] < rows else "replicate"
            out = generator(F.pad(window, pad, mode))[..., :rows, :columns]
            if window.shape == x.shape:
                return out
            ramps = (torch.arange(1.0, n + 1, device=x.device) for n in (rows, columns))
            fade = torch.outer(*(torch.minimum(r, r.flip(0)).clamp(max=tile // 4) for r in ramps))
            total = total if weight.any() else x.new_zeros(len(x), out.shape[1], h, w)
            total[..., top:top + rows, left:left + columns] += out * fade
            weight[top:top + rows, left:left + columns] += fade
    return total.div_(weight)


def translate(generator, image, seed=None):
    """One picture, uint8 (C, H, W), or several, (N, C, H, W), 0-255 -> the same size, uint8.

    For runs whose x is the picture itself. Those of --one-hot, colorization, inpainting and edges
    make theirs of it by data.input_to_network; then call generate.
    """
    x = image.to(next(generator.parameters()).device).float().div(127.5).sub(1)
    fake = generate(generator, x if x.dim() == 4 else x[None], seed)
    out = fake.add(1).mul(127.5).round().clamp(0, 255).byte().cpu()
    return out if image.dim() == 4 else out[0]


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def describe(network, *inputs):
    """Prints each layer of a network: kind, output shape, number of parameters. -> (channels, side)
    of the input and of each convolution's output."""
    shapes = [(sum(x.shape[1] for x in inputs), inputs[0].shape[2])]

    def show(layer, _, out):
        shapes.extend([tuple(out.shape[1:3])] if layer.weight.dim() == 4 else [])
        print(f"  {type(layer).__name__:10} {str(tuple(out.shape)):20} {parameters(layer):>11,}")
    print(f"\n{type(network).__name__}: from {' and '.join(str(tuple(x.shape)) for x in inputs)}")
    for layer in network.modules():
        if parameters(layer) and not list(layer.children()):
            layer.register_forward_hook(show)
    network(*inputs)
    print(f"  {parameters(network):,} parameters")
    return shapes


def describe_both():
    """Prints the paper's networks. -> [(title, their shapes, with skips or not), ...], to draw."""
    x = y = torch.zeros(1, 3, 256, 256)
    unet = describe(UNet(), x)
    print("  an Up's channels are counted before its skip joins them")
    patchgan = describe(PatchGAN(), x, y)
    print(f"  each logit sees a patch of {receptive_field(PatchGAN())} pixels a side")
    return [("UNet, channels x side: red skips join layers i and n-i", unet, True),
            ("PatchGAN: 30 x 30 logits, one for each patch of 70 x 70", patchgan, False)]


def write_converted(path, out, task, own_statistics):
    """--convert: makes a run's folder, with generator.pt alone, of another code's generator."""
    import data
    row, out = data.look_up(task), Path(out) / "generator.pt"
    settings, weights = convert(path, own_statistics)
    if any(settings[key] != getattr(row, key) for key in ("in_channels", "out_channels")):
        raise Refusal(f"--task {task}: {path} turns {settings['in_channels']} channels into "
                      f"{settings['out_channels']}; give the task that it was trained on")
    if out.exists():
        raise Refusal(f"{out}: is there already; give another folder")
    settings.update(task=task, palette=row.palette, one_hot=False, drawn=False, batch=1, seed=0,
                    data=row.archive and f"datasets/{row.archive}")
    data.write_whole(out, {"format": FORMAT, "settings": settings, "generator": weights})
    print(f"{path} -> {out}: {settings['depth']} levels, width {settings['width']}")


def main():
    import data  # only the command needs its neighbours: reading and writing pictures
    parser = data.new_parser(__doc__)
    parser.add_argument("run", nargs="?", help="a run's folder or its generator.pt; none: describe")
    parser.add_argument("source", nargs="?", metavar="IN", help="a picture or a folder of them")
    parser.add_argument("out", nargs="?", metavar="OUT", help="the picture or folder to write")
    parser.add_argument("--draw", type=data.picture_name, metavar="PNG", help="draw both networks")
    parser.add_argument("--pair", action="store_true", help="IN is a side-by-side pair: use its x")
    parser.add_argument("--seed", type=int, default=0, help="of the dropout noise (default 0)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--convert", nargs=2, metavar=("PTH", "OUT"), help="make the run OUT of "
                        "latest_net_G.pth, as the popular PyTorch pix2pix code saves it")
    parser.add_argument("--task", help="of --convert (default pairs)")
    parser.add_argument("--own-statistics", action="store_true", help="--convert: norms by each "
                        "picture's own statistics, not by those kept from training")
    options = data.parse_options(parser)
    if (options.task or options.own_statistics) and not options.convert or (
            bool(options.run) + bool(options.draw) + bool(options.convert) > 1):
        raise Refusal("RUN, --draw, --convert: one at a time; --task, --own-statistics: only with "
                      "--convert; see `python pix2pix.py --help`")
    if options.convert:
        return write_converted(*options.convert, options.task or "pairs", options.own_statistics)
    if options.run is None:
        networks = describe_both()
        return options.draw and data.draw_networks(options.draw, networks)
    if options.out is None:
        raise Refusal("IN OUT: missing; give the picture or folder to read and the one to write")
    generator, settings = load_generator(options.run)
    generator.to(data.device_of(options.device))
    for source, out in data.sources(options.source, options.out):
        picture = data.read_input(settings, source, pair=options.pair)   # uint8 (3, H, W)
        x = data.input_to_network(settings, picture[None]).to(options.device)
        fake = generate(generator, x, options.seed)
        data.save_picture(out, data.to_pixels(settings, x, fake)[0])
        print(f"{source} -> {out}")


if __name__ == "__main__":
    from data import run_command
    run_command(main)
