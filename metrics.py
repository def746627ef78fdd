"""How good is it? The measures of the pix2pix and SemGAN papers, and the command that prints them.

    generated pictures --+--> Laplacian pyramid -> 7x7 patches -> sorted projections    SWD
                         +--> local means and variances at five scales                 MS-SSIM
    real pictures -------+--> Inception, 2048 features -> two Gaussians                FID
                         +--> FCN-8s, trained on real photos -> confusion matrix       FCN-score
                         +--> histograms of L, a and b                                 Figure 7

    python metrics.py runs/a runs/b                   a row a run, the best of each column marked *
    python metrics.py --train-fcn facades             the FCN-score's judge, trained once and kept
    python metrics.py runs/facades --figure7 out.png  log-probability of L, a and b, as a picture
    python metrics.py runs/a runs/b --figure4 s.png   input | a's and b's output | target, a sheet
    python metrics.py runs/a runs/b --curve SWD c.png any column of log.csv over the steps
    python metrics.py runs/a runs/b --study           the real-or-fake sessions that paint.py kept

pix2pix (arXiv 1611.07004v3) Sec. 4.1: FCN-score, study; Fig. 7: colours. SemGAN (Ghelfi et al.)
Sec. 4: SWD, FID, MS-SSIM. pix2pix runs are scored on held-out pictures, SemGAN's against training
pictures, as in its App. B. No number without its n: where runs differ in n, size or data, none is
marked, and FID at small n is far too high (11 for two equal 32-d Gaussians at n = 50). To copy it
out, take this file alone; it needs torch and numpy. Images are (N, 3, H, W), 0-255, throughout.
"""
import csv
import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

FID_WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"  # the last part begins its SHA-256
FID_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FID_WEIGHTS}"
HIGHER_IS_BETTER = ("PSNR", "SSIM", "pixel_accuracy", "class_accuracy", "class_iou", "L", "a", "b",
                    *(f"right within {t} px" for t in (1, 2, 3)))

class Refusal(ValueError):  # Also in data.py, repeated so that this file copies alone.
    """Bad input from outside: one line, exit code 2."""

def pair(a, b, smallest=1):
    """Two sets of images as tensors; ValueError unless of one shape, sides from smallest up."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    n, c, h, w = a.shape if a.ndim == 4 else (0, 0, 0, 0)
    if a.shape != b.shape or n == 0 or c != 3 or min(h, w) < smallest:
        raise ValueError(f"{[*a.shape]}, {[*b.shape]}: not one (N, 3, H, W) from {smallest} pixels")
    return a, b

def filter_matrix(size, taps, mirror=False):
    """A 1-D filter as a matrix (out, size): rows @ image @ columns.T filters both directions, on a
    CPU ten times as fast as convolving. mirror: reflected border, out = size; else size - k + 1."""
    k, shifted = len(taps), torch.eye(size, dtype=taps.dtype)
    if mirror:
        shifted = F.pad(shifted[None], (k // 2, k // 2), mode="reflect")[0]
    return (shifted.unfold(1, k, 1) @ taps).T


# Sliced Wasserstein distance (Karras et al. 2017): do patches look alike, scale by scale?
def laplacian_pyramid(images, levels):
    """(N, 3, H, W) -> levels float tensors, finest first, the last one the low-pass. Each plus the
    next one's upsampling gives the images again. Cost grows as N*H*W*(H+W)."""
    taps = torch.tensor([1., 4., 6., 4., 1.]) / 16             # in both directions: ^2 / 256
    pyramid, images = [], torch.as_tensor(images).float()
    for _ in range(levels - 1):
        rows, columns = (filter_matrix(side, taps, mirror=True) for side in images.shape[-2:])
        low = rows[::2] @ images @ columns[::2].T              # blurred, each second pixel kept
        # Up again: zeros at odd positions leave every second column of the filter, times 4 in all.
        pyramid.append(images - 4 * (rows[:, ::2] @ low @ columns[:, ::2].T))
        images = low
    return pyramid + [images]

def patch_descriptors(level, count, generator):
    """(N, 3, h, w) -> (N*count, 3, 7, 7): patches around centres drawn evenly from [3, side-4]."""
    n, _, h, w = level.shape
    top = torch.randint(h - 6, (n, count), generator=generator)            # centre - 3
    left = torch.randint(w - 6, (n, count), generator=generator)
    windows = level.unfold(2, 7, 1).unfold(3, 7, 1)                        # a view: no copy yet
    return windows[torch.arange(n)[:, None], :, top, left].flatten(0, 1)

def normalize_descriptors(descriptors):
    """(M, 3, 7, 7) -> (M, 147): each colour to mean 0, std 1 over its set; sums are in float64."""
    centred = descriptors - descriptors.mean((0, 2, 3), keepdim=True, dtype=torch.float64).float()
    std = centred.square().mean((0, 2, 3), keepdim=True, dtype=torch.float64).sqrt().float()
    return centred.div_(std.clamp_min(1e-8)).flatten(1)

def sliced_wasserstein(a, b, directions):
    """Mean 1-D Wasserstein distance over directions (147, K) of unit length; a, b (M, 147), else
    ValueError. On a line the best transport joins smallest to smallest and so on: the mean absolute
    difference of the sorted projections. Cost K*M*(147 + log M)."""
    a, b, directions = (torch.as_tensor(v) for v in (a, b, directions))
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} descriptors: compare equal numbers of images")
    total = 0.0
    for some in directions.split(32, dim=1):                   # a few at a time, to spare memory
        with ThreadPoolExecutor(2) as pool:                    # numpy sorts thrice as fast as torch
            low, high = pool.map(lambda v: np.sort((some.T @ v.T).numpy(), axis=1), (a, b))
        total += np.abs(low - high).mean(axis=1, dtype=np.float64).sum()   # of (32, M)
    return float(total / directions.shape[1])

def swd(real, fake, seed=0, patches=128, repeats=4, directions=128):
    """Two sets of equal N (published: 16,384) -> 1000 * distance, {side: ..., "average": ...}. The
    levels halve from the full size to 16. Time grows as N*patches*repeats*directions, memory as
    N*patches (2 kB). Both sets are cut at the same places, so a set against itself scores 0."""
    sets, scores, generator = pair(real, fake, 16), {}, torch.Generator().manual_seed(seed)
    side = min(sets[0].shape[-2:])
    levels = (side // 16).bit_length()
    for level in range(levels):
        places, described = generator.get_state(), []
        for images in sets:
            generator.set_state(places)
            # A few at a time: only patches stay in memory. Sorting takes far longer than pyramids.
            bands = (laplacian_pyramid(part, levels)[level] for part in images.split(64))
            found = [patch_descriptors(band, patches, generator) for band in bands]
            described.append(normalize_descriptors(torch.cat(found)))      # (N*patches, 147)
        lines = [torch.randn(147, directions, generator=generator) for _ in range(repeats)]
        distances = [sliced_wasserstein(*described, F.normalize(v, dim=0)) for v in lines]
        scores[side >> level] = 1000 * sum(distances) / repeats
    return {**scores, "average": sum(scores.values()) / len(scores)}


# PSNR, SSIM and MS-SSIM: two pictures side by side
def psnr(a, b):
    """Peak signal-to-noise ratio in dB of two sets -> (N,); inf for equal pictures."""
    a, b = pair(a, b)
    return 10 * torch.log10(255 ** 2 / (a.double() - b.double()).square().mean((1, 2, 3)))

def similarity(a, b):
    """Two sets -> SSIM and its contrast-structure factor, means over pixels and channels, (N,).
    Wang et al. 2004: Gaussian window of 11, sigma 1.5, K = 0.01 and 0.03; in a smaller picture the
    window shrinks to it, and sigma in proportion. In float64, as variances are differences."""
    (a, b), k = (v.double() for v in pair(a, b)), min(11, *a.shape[-2:])
    taps = torch.exp(-(torch.arange(k).double() - (k - 1) / 2) ** 2 / (2 * (1.5 * k / 11) ** 2))
    rows, columns = (filter_matrix(side, taps / taps.sum()) for side in a.shape[-2:])
    mean_a, mean_b, aa, bb, ab = (rows @ v @ columns.T for v in (a, b, a * a, b * b, a * b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    contrast = (2 * (ab - mean_a * mean_b) + c2) / (aa - mean_a ** 2 + bb - mean_b ** 2 + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a ** 2 + mean_b ** 2 + c1)
    return (contrast * luminance).mean((1, 2, 3)), contrast.mean((1, 2, 3))

def ssim(a, b):
    """Structural similarity of two sets -> (N,), 1 for equal pictures."""
    return similarity(a, b)[0]

def ms_ssim(a, b):
    """Multi-scale SSIM (Wang et al. 2003) of two sets, sides from 32 -> (N,): means over pixels and
    channels, then the product over five scales. Cost grows as N*H*W*(H+W)."""
    scores = []
    for one, other in zip(*(v.split(32) for v in pair(a, b, 32))):         # float64 for a few
        one, other, product = one.double(), other.double(), 1.0
        for level, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            whole, contrast = similarity(one, other)
            product = product * (whole if level == 4 else contrast).clamp_min(0) ** weight
            one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
        scores.append(product)
    return torch.cat(scores)

def ms_ssim_diversity(images):
    """Mean MS-SSIM of the pairs (0, 1), (2, 3), ...: near 1 where the generator has collapsed."""
    return float(ms_ssim(images[:len(images) // 2 * 2:2], images[1::2]).mean())


# Frechet Inception Distance (Heusel et al. 2017): two Gaussians in the features of a classifier
def feature_statistics(features):
    """(N, D) -> mean (D,) and covariance (D, D), the sum over n-1; float64. ValueError if N < 2."""
    features = np.asarray(features, dtype=np.float64)
    if len(features) < 2:
        raise ValueError(f"a covariance needs two rows or more, not {len(features)}")
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))

def frechet_distance(mean1, cov1, mean2, cov2):
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)) in float64; singular covariances are legal.
    With R = C1^(1/2), C1 C2 has the eigenvalues of the symmetric R C2 R, so the last trace is the
    sum of their roots. Nothing is added to the diagonals. Cost D^3."""
    mean1, cov1, mean2, cov2 = (np.asarray(v, dtype=np.float64) for v in (mean1, cov1, mean2, cov2))
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T  # rounding may leave -1e-17
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov2 @ root), 0)).sum()
    return float(((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * trace)

class ConvNormReLU(nn.Module):
    """Convolution without a bias, batch norm (eps as Inception's), ReLU."""
    def __init__(self, channels, out_channels, kernel, stride=1, padding="same"):
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)

# Inception's blocks are branches, a branch is a list of steps, a step a list of units in parallel.
# A unit is (name as published, channels, kernel[, stride, padding]), or Mixed's pooling (name,).
def chain(name, *units):
    return [[(f"{name}_{i}", *unit)] for i, unit in enumerate(units, 1)]
def mixed_a(pooled):                                           # 35x35
    return ([[("branch1x1", 64, 1)]], chain("branch5x5", (48, 1), (64, 5)),
            chain("branch3x3dbl", (64, 1), (96, 3), (96, 3)),
            [[("average",)], [("branch_pool", pooled, 1)]])
def mixed_c(c, across=(1, 7), down=(7, 1)):                    # 17x17; 7x7 in two one-way steps
    return ([[("branch1x1", 192, 1)]], chain("branch7x7", (c, 1), (c, across), (192, down)),
            chain("branch7x7dbl", (c, 1), (c, down), (c, across), (c, down), (192, across)),
            [[("average",)], [("branch_pool", 192, 1)]])
def mixed_e(pooling):                                          # 8x8; 3x3 in two one-way units
    one, two = ([[(name + "a", 384, (1, 3)), (name + "b", 384, (3, 1))]]
                for name in ("branch3x3_2", "branch3x3dbl_3"))
    return ([[("branch1x1", 320, 1)]], chain("branch3x3", (384, 1)) + one,
            chain("branch3x3dbl", (448, 1), (384, 3)) + two,
            [[(pooling,)], [("branch_pool", 192, 1)]])
MIXED_6A = ([[("branch3x3", 384, 3, 2, 0)]],                   # 35x35 -> 17x17
            chain("branch3x3dbl", (64, 1), (96, 3), (96, 3, 2, 0)), [[("halve",)]])
MIXED_7A = (chain("branch3x3", (192, 1), (320, 3, 2, 0)),      # 17x17 -> 8x8
            chain("branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 0)),
            [[("halve",)]])

class Mixed(nn.Module):
    """One block: branches from the same input, their outputs joined by channels."""
    def __init__(self, channels, branches):
        super().__init__()
        self.branches, self.max, self.halve = branches, nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 2)
        # Padding stays out of the mean, as in TensorFlow and unlike in torchvision's classifier.
        self.average = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        for branch in branches:
            c = channels
            for step in branch:
                units = [unit for unit in step if len(unit) > 1]   # a pooling has no weights
                for name, *sizes in units:
                    self.add_module(name, ConvNormReLU(c, *sizes))
                c = sum(unit[1] for unit in units) or c

    def forward(self, x):
        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = torch.cat([getattr(self, name)(y) for name, *_ in step], dim=1)
            outputs.append(y)
        return torch.cat(outputs, dim=1)

class FIDInception(nn.Module):
    """Inception v3 as published FIDs use it: images -> features (N, 2048). Parameters are named and
    shaped as in FID_WEIGHTS; FID never looks at the 1008 outputs."""
    def __init__(self):
        super().__init__()
        conv = ConvNormReLU
        for name, layer in (
                ("Conv2d_1a_3x3", conv(3, 32, 3, 2, 0)), ("Conv2d_2a_3x3", conv(32, 32, 3, 1, 0)),
                ("Conv2d_2b_3x3", conv(32, 64, 3)), ("pool1", nn.MaxPool2d(3, 2)),
                ("Conv2d_3b_1x1", conv(64, 80, 1)),                        # (N, 80, 73, 73)
                ("Conv2d_4a_3x3", conv(80, 192, 3, 1, 0)), ("pool2", nn.MaxPool2d(3, 2)),
                ("Mixed_5b", Mixed(192, mixed_a(32))), ("Mixed_5c", Mixed(256, mixed_a(64))),
                ("Mixed_5d", Mixed(288, mixed_a(64))), ("Mixed_6a", Mixed(288, MIXED_6A)),
                ("Mixed_6b", Mixed(768, mixed_c(128))), ("Mixed_6c", Mixed(768, mixed_c(160))),
                ("Mixed_6d", Mixed(768, mixed_c(160))), ("Mixed_6e", Mixed(768, mixed_c(192))),
                ("Mixed_7a", Mixed(768, MIXED_7A)), ("Mixed_7b", Mixed(1280, mixed_e("average"))),
                ("Mixed_7c", Mixed(2048, mixed_e("max"))), ("fc", nn.Linear(2048, 1008))):
            self.add_module(name, layer)
        self.eval()                                            # running statistics, always

    def forward(self, images):
        x = F.interpolate(torch.as_tensor(images).float(), (299, 299), mode="bilinear") / 127.5 - 1
        for layer in list(self.children())[:-1]:               # all but fc
            x = layer(x)
        return x.mean((2, 3))                                  # of (N, 2048, 8, 8)

def load_inception(path):
    """FIDInception with the weights of a file; Refusal where they do not fit it name by name."""
    network = FIDInception()
    try:
        # dict(): without torch's note of versions, norms need no num_batches_tracked in the file
        network.load_state_dict(dict(torch.load(path, "cpu", weights_only=True)))
    except Exception:  # torch raises four kinds for damage, and some of its advice is unsafe
        raise Refusal(f"{path}: missing, damaged, or not Inception's; get {FID_URL}") from None
    return network

@torch.no_grad()
def inception_features(network, images):
    """Images -> array (N, 2048); some 6 billion multiplications a picture."""
    device, parts = network.fc.weight.device, torch.as_tensor(images).split(32)
    return torch.cat([network(part.to(device)).cpu() for part in parts]).numpy()

def fid(real, fake, weights):
    """Frechet Inception Distance of two sets; weights: the published file's path. Compare values of
    equal n only. Below 2,049 images the covariances are singular, which is legal."""
    network = load_inception(weights)
    real, fake = (feature_statistics(inception_features(network, v)) for v in (real, fake))
    return frechet_distance(*real, *fake)


# FCN-score (pix2pix Sec. 4.1): does a network that knows real photos find the classes in the fakes?
def confusion_matrix(truth, prediction, classes):
    """Label maps of any one shape -> (K, K) pixel counts, rows the truth, whose 255 is left out.
    Add up over all images first. ValueError for any prediction outside 0..K-1, or another truth."""
    truth, prediction = (torch.as_tensor(v).long().flatten() for v in (truth, prediction))
    counted = truth != 255
    for name, values in (("prediction", prediction), ("truth", truth[counted])):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < classes:
            raise ValueError(f"{name}: classes {values.min()} to {values.max()} of {classes}")
    cells = truth[counted] * classes + prediction[counted]
    return torch.bincount(cells, minlength=classes ** 2).view(classes, classes)

def segmentation_scores(matrix, absent="zero"):
    """(K, K) counts -> {"pixel_accuracy", "class_accuracy", "class_iou"}, each 0..1. In the means a
    class without a true pixel counts as 0 ("zero", pix2pix's published numbers) or not ("skip")."""
    matrix = torch.as_tensor(matrix).double()
    right, true, union = matrix.diag(), matrix.sum(1), matrix.sum(0) + matrix.sum(1) - matrix.diag()
    means = {"zero": len(matrix), "skip": int((true > 0).sum())}[absent]
    return {"pixel_accuracy": float(right.sum() / true.sum()),
            "class_accuracy": float((right / true)[true > 0].sum() / means),
            "class_iou": float((right / union)[true > 0].sum() / means)}

class FCN8s(nn.Module):
    """FCN-8s (Long et al. 2015) on VGG-16: photos (N, 3, H, W) in [-1, 1] -> logits (N, K, H, W).

        13 convolutions:        pool3, 1/8   pool4, 1/16   pool5, 1/32 -> 7x7, 1x1 convolutions
                                  | score      | score       | score
        (N, K, H, W) <---- x8 --- + <--- x2 -- + <--- x2 ----'
    width 64 is VGG-16's. Paper: ImageNet weights, 64*width units on top, transposed convolutions
    that start as bilinear. Here: random weights and so norms, 16*width units, plain bilinear."""
    def __init__(self, classes, width=16):
        super().__init__()
        self.stages, c, top = nn.ModuleList(), 3, 16 * width
        for out, count in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):        # in units of width
            inputs, c = [c] + [out * width] * (count - 1), out * width
            units = [ConvNormReLU(i, c, 3) for i in inputs]
            self.stages.append(nn.Sequential(*units, nn.MaxPool2d(2)))
        self.top = nn.Sequential(ConvNormReLU(c, top, 7), nn.Dropout2d(0.5),
                                 ConvNormReLU(top, top, 1), nn.Dropout2d(0.5))
        self.scores = nn.ModuleList(nn.Conv2d(i, classes, 1) for i in (4 * width, 8 * width, top))

    def forward(self, x):
        size, pools = x.shape[-2:], []
        for stage in self.stages:
            x = stage(x)
            pools.append(x)
        logits = self.scores[2](self.top(x))                   # (N, K, H/32, W/32)
        for score, pool in ((self.scores[1], pools[3]), (self.scores[0], pools[2])):
            logits = F.interpolate(logits, pool.shape[-2:], mode="bilinear") + score(pool)
        return F.interpolate(logits, size, mode="bilinear")    # from 1/8, hence the 8

@torch.random.fork_rng()                                       # torch's own state stays as it was
def train_fcn(photos, label_maps, classes, size, width=16, views=20_000, seed=0):
    """uint8 (N, 3, h, w) and (N, h, w), 255 ignored -> an FCN8s for pictures of size, in eval mode.
    Time grows with views alone: pictures seen, 4 a step, each step cropped and mirrored anew."""
    random, device, steps = torch.Generator().manual_seed(seed), photos.device, -(-views // 4)
    torch.manual_seed(seed)                                    # for first weights and dropout
    judge = FCN8s(classes, width).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2.5e-3, weight_decay=1e-4)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2.5e-3 * (1 + math.cos(math.pi * step / steps)) / 2
        chosen = torch.randint(len(photos), (4,), generator=random).to(device)
        cut, top, left, mirror = torch.rand(4, generator=random).tolist()
        h, w = (round(side * (0.8 + 0.2 * cut)) for side in photos.shape[-2:])
        top, left = round(top * (photos.shape[-2] - h)), round(left * (photos.shape[-1] - w))
        view = (chosen, ..., slice(top, top + h), slice(left, left + w))
        flip = [-1] if mirror < 0.5 else []
        x = F.interpolate(photos[view] / 127.5 - 1, size, mode="bilinear").flip(flip)
        labels = F.interpolate(label_maps[:, None][view].float(), size).flip(flip)  # nearest
        logits = judge(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels[:, 0].long(), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0:
            print(f"  step {step} of {steps}: cross entropy {loss.item():.3f}", flush=True)
    return judge.eval()

@torch.no_grad()
def predict(judge, photos):
    """Photos -> label_map (N, H, W), from each photo and its mirror image together."""
    parts = (v.to(judge.scores[0].weight.device) / 127.5 - 1 for v in photos.split(8))
    return torch.cat([(judge(v) + judge(v.flip(-1)).flip(-1)).argmax(1).cpu() for v in parts])


# Colours (pix2pix Fig. 7) and people (Sec. 4.1 and 4.5)
def lab_histograms(lab):
    """float (N, 3, H, W) -> counts of L (101,), a (256,), b (256,), bins centred on integers."""
    return [torch.histc(torch.as_tensor(lab)[:, i].double(), bins, low - 0.5, low + bins - 0.5)
            for i, (bins, low) in enumerate(((101, 0), (256, -128), (256, -128)))]

def intersections(one, other):
    """Two lists of histograms -> for each, the sum of the minima of its shares in both."""
    return tuple(float(torch.minimum(p / p.sum(), q / q.sum()).sum()) for p, q in zip(one, other))

def lab_histogram_intersection(lab_a, lab_b):
    """float (N, 3, H, W) of data.rgb_to_lab -> (L, a, b) over all pixels, 1 for equal colours."""
    return intersections(lab_histograms(lab_a), lab_histograms(lab_b))

def shapes_right(label_maps, tolerance=1):
    """The share of maps (N, 64, 64) that keep the rules of the Coloured Shapes, SemGAN Sec. 5.0.1.

    Each map is compared with the legal one next to it: disc, square and rectangle (classes 1, 3, 2
    of data.draw_shapes) where they explain most pixels. It is right if each shape shows, up to what
    covers it, and no pixel is wrong but within tolerance of an edge; 0 asks for the exact map. Of
    the real maps 98.3% are right at 0: in the others the disc covers the square.
    """
    masks = F.one_hot(label_maps.long(), 4).permute(0, 3, 1, 2).float()
    legal, ring = torch.zeros_like(label_maps.long()), torch.arange(-10, 11).square()
    disc = (ring[:, None] + ring <= 100).float()
    stamps = {1: disc, 3: torch.ones(10, 10), 2: torch.ones(12, 24)}
    for (shape, stamp), above in zip(stamps.items(), ([], [1], [1, 3])):    # from the top down
        # A place earns 1 for a pixel of its class, and less for one that what lies above may hide.
        score = masks[:, shape] + 0.1 * sum(masks[:, other] for other in above)
        score += F.avg_pool2d(masks[:, shape], 5, 1, 2) / 100          # among equals, the middle
        score = F.conv2d(score[:, None], stamp[None, None])
        place = F.one_hot(score.flatten(1).argmax(1), score[0].numel()).view_as(score).float()
        painted = F.conv_transpose2d(place, stamp[None, None])[:, 0] > 0.5
        legal = torch.where(painted & (legal == 0), shape, legal)
    around = F.one_hot(legal, 4).permute(0, 3, 1, 2).float()
    around = F.avg_pool2d(F.pad(around, [tolerance] * 4, mode="replicate"), 2 * tolerance + 1, 1)
    stray = (label_maps != legal) & (around.amax(1) > 0.999)           # wrong, with no edge near by
    shown = masks.amax((2, 3)).all(1)
    return (shown & ~stray.flatten(1).any(1)).float().mean().item()

def fooling_rate(counts, trials):
    """Fooled trials of each session, of trials each -> the mean rate and its standard error: over
    sessions, as one person's answers are alike, so a single session has none (nan)."""
    rates, n = torch.as_tensor(counts).double() / trials, len(counts)
    return float(rates.mean()), float(rates.std()) / n ** 0.5 if n > 1 else math.nan

def bootstrap_test(counts_a, counts_b, trials, replicates=10_000, seed=0):
    """p that rate A <= rate B, that is, that A fools no more often: the share of replicates, each a
    resampling of sessions (not of trials), in which it holds. counts as in fooling_rate."""
    generator, totals = torch.Generator().manual_seed(seed), []
    for counts in (torch.as_tensor(counts_a).long(), torch.as_tensor(counts_b).long()):
        assert 0 <= counts.min() and counts.max() <= trials, f"{counts.tolist()} of {trials} trials"
        sessions = torch.randint(len(counts), (replicates, len(counts)), generator=generator)
        totals.append(counts[sessions].sum(dim=1))             # integers, so that ties are exact
    return float((totals[0] * len(counts_b) <= totals[1] * len(counts_a)).double().mean())


# The command; its neighbours are imported at the very end, so that this file imports without them
def judge_of(settings, device, train=False):
    """(FCN8s or None, a line about it): the judge kept in datasets/, first trained where asked."""
    source = settings["data"] and str(Path(settings["data"]).resolve())
    name = f"{Path(source or 'drawn-facades').name}-{'x'.join(map(str, settings['size']))}"
    path, classes = Path("datasets") / f"fcn8s-{name}.pt", len(settings["palette"])
    advice = f"train one with --train-fcn {settings['task']}"
    if train:
        print(f"{path}: learns the training photos; 8 minutes on two cores at 128x128", flush=True)
        pairs = (torch.stack([split[i] for i in range(len(split))])        # (N, 6, h, w), x: labels
                 for split in (data.training(settings), data.held_out(settings)))
        (photos, labels), (unseen, truth) = (
            (v[:, 3:], torch.cat([data.label_map_of(settings, w) for w in v.split(32)]).byte())
            for v in pairs)
        judge = train_fcn(photos.to(device), labels.to(device), classes, settings["size"])
        matrix = confusion_matrix(truth, predict(judge, unseen), classes)
        note = (f"trained on {len(photos)} photos; {len(unseen)} real held-out ones score " +
                " / ".join(f"{v:.3f}" for v in segmentation_scores(matrix, "skip").values()))
        data.write_whole(path, {"format": 1, "data": source, "classes": classes, "note": note,
                                "judge": judge.cpu().state_dict()})
    if not path.exists():
        return None, f"FCN-score: no judge at {path}; {advice}"
    content = pix2pix.load_file(path, advice)
    if (content["data"], content["classes"]) != (source, classes):
        raise Refusal(f"{path}: judges {content['data']}, but the run is of {source}; {advice}")
    judge = FCN8s(classes)
    judge.load_state_dict(content["judge"])
    return judge.eval().to(device), f"FCN-score: judge {path}, {content['note']}"

def inception_of(path, device):
    """(FIDInception or None, a line about it). Naming a path consents to a download to it."""
    file, digest = Path(path or f"datasets/{FID_WEIGHTS}"), FID_WEIGHTS[-12:-4]
    if not path and not file.exists():
        return None, (f"FID: no weights at {file}; put {FID_URL} (91 MiB) there, or give "
                      f"--fid-weights PATH, which downloads it to PATH")
    try:
        if not file.exists():
            torch.hub.download_url_to_file(FID_URL, str(file), digest)     # checks, then renames
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, RuntimeError) as error:
        raise Refusal(f"--fid-weights {file}: cannot be had ({error}); get {FID_URL}") from None
    if not found.startswith(digest):
        raise Refusal(f"--fid-weights {file}: its SHA-256 is not {digest}...; get {FID_URL}")
    return load_inception(file).to(device), f"FID: weights {file}"

def score_pix2pix(generator, settings, count, device, network):
    """A run on its held-out pictures, batch by batch, so that memory stays flat -> see score."""
    pictures, palette = data.held_out(settings), settings["palette"]
    n = min(count or len(pictures), len(pictures))
    side = palette and data.look_up(settings["task"]).labels            # "y" is Table 6
    judge, note = judge_of(settings, device) if side == "x" else (None, "")
    near, counts, colours, features = [], [0, 0], [[0] * 3, [0] * 3], [[], []]  # of real, of fake
    batch = settings["batch"] if settings["norm"] == "batch" else 8        # its statistics matter
    for first in range(0, n, batch):
        image = torch.stack([pictures[i] for i in range(first, min(first + batch, n))])
        x, y = data.to_network(settings, image)
        fake = pix2pix.generate(generator, x.to(device), seed=first).cpu()
        both = [data.to_pixels(settings, x, v) for v in (y, fake)]         # uint8 (batch, 3, h, w)
        near.append(torch.stack([(fake - y).abs().mean((1, 2, 3)), psnr(*both), ssim(*both)]))
        for i, rgb in enumerate(both):
            if judge or side == "y":
                found = predict(judge, rgb) if judge else data.nearest_class(rgb, palette)
                truth = data.label_map_of(settings, image)
                counts[i] = counts[i] + confusion_matrix(truth, found, len(palette))
            colours[i] = [a + b for a, b in zip(colours[i], lab_histograms(data.rgb_to_lab(rgb)))]
            features[i].extend(inception_features(network, rgb) if network else [])
    real, scores = {}, dict(zip(("L1", "PSNR", "SSIM"), torch.cat(near, dim=1).mean(1).tolist()))
    for values, matrix in zip((real, scores), counts):
        values.update(segmentation_scores(matrix, "skip") if judge or side == "y" else {})
    scores.update(zip("Lab", intersections(*colours)))
    return {"n": n, "real": real, "scores": scores, "note": note}, features, colours

@torch.no_grad()
def score_semgan(generator, settings, count, device, network):
    """Samples of a run against as many training pictures (2,048, count, or all) -> see score."""
    pictures, palette = data.training(settings), settings["palette"]
    n, random = min(count or 2048, len(pictures)), torch.Generator().manual_seed(0)
    if n < 2:
        raise Refusal("--count 1: MS-SSIM compares pairs of samples; give 2 or more")
    chosen = torch.randperm(len(pictures), generator=random)[:n].tolist()
    truth = torch.stack([pictures[i][0] for i in chosen])                  # (n, h, w)
    latents = torch.randn(n, settings["latent"], generator=random).to(device).split(32)
    parts = [semgan.to_pixels(generator(z).cpu(), palette, settings["head"]) for z in latents]
    found = torch.cat([semgan.nearest_class(part, palette) for part in parts])
    off = sum(len(part) * semgan.out_of_palette(part, palette) for part in parts) / n
    real, fake = semgan.colorize(truth, palette), torch.cat(parts)         # uint8 (n, 3, h, w)
    shares = [v.flatten().bincount(minlength=len(palette)) / v.numel() for v in (truth, found)]
    note = "share of pixels, data / samples: " + ", ".join(
        f"{name} {a:.3f} / {b:.3f}" for (name, _), a, b in zip(palette, *shares))
    scores = {**{f"SWD {side}": value for side, value in swd(real, fake).items()},
              "MS-SSIM": ms_ssim_diversity(fake), "out of palette": off}      # MS-SSIM: n/2 pairs
    if settings["task"] == "shapes" and settings["size"] == [64, 64]:
        scores.update({f"right within {t} px": shapes_right(found, t) for t in (1, 2, 3)})
    features = [inception_features(network, v) if network else [] for v in (real, fake)]
    return {"n": n, "real": {"MS-SSIM": ms_ssim_diversity(real)}, "scores": scores,
            "note": note}, features, None

def table(rows):
    """Rows (name, of, n, {column: value}) -> aligned lines. * marks the best of a column where all
    are "of" the same pictures, as many and of one size; of is None for real pictures."""
    # Runs name columns that real pictures lack, so their order counts: hence from the last row.
    columns = list(dict.fromkeys(column for row in rows[::-1] for column in row[3]))
    runs = [row for row in rows if row[1]]
    alike, lines = len(runs) > 1 and len({row[1] for row in runs}) == 1, [["", "n", *columns]]
    for name, of, n, scores in rows:
        lines.append([name, str(n)])
        for column in columns:
            best = max if column in HIGHER_IS_BETTER else min
            mark = alike and of and scores.get(column) == best(row[3].get(column) for row in runs)
            lines[-1] += [(f"{scores[column]:.3f}" if column in scores else "-") + " *"[bool(mark)]]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(v.rjust(w) for v, w in zip(line, widths)) for line in lines)

def use_pictures(settings, folder):
    """Puts --data's folder, or "drawn", in the place of the pictures a run was trained on."""
    if folder:
        settings["data"], settings["drawn"] = data.locate(settings["task"], folder)

def score(options, device):
    """Scores each run, writes its scores.json, prints the table and what is missing."""
    (network, *notes), rows, colours = inception_of(options.fid_weights, device), [], {}
    for run in options.runs:
        model = pix2pix.load_file(Path(run) / "generator.pt")["settings"].get("model")
        file, measure = (semgan, score_semgan) if model == "semgan" else (pix2pix, score_pix2pix)
        generator, settings = file.load_generator(run)
        use_pictures(settings, options.data)
        row, found, counts = measure(generator.to(device), settings, options.count, device, network)
        if network and row["n"] > 1:                           # a covariance needs two
            real, fake = map(feature_statistics, found)
            row["scores"]["FID"] = frechet_distance(*real, *fake)
        data.write_whole(Path(run) / "scores.json", json.dumps({"format": 1, **row}).encode())
        source = settings["data"] and Path(settings["data"]).resolve()     # by whatever name
        of = (settings["task"], source, *settings["size"], row["n"])
        if of not in [shown[1] for shown in rows]:             # the judge's own score comes first
            rows.append(("real pictures", None, row["n"], row["real"]))
        rows.append((run, of, row["n"], row["scores"]))
        if row["note"] and not any(row["note"] in note for note in notes):   # a judge is said once
            notes.append(f"{run}: {row['note']}")
        colours.update({"real": counts[0], run: counts[1]} if counts else {})
    print(table(rows), *notes, sep="\n")
    if options.figure7 and not colours:
        raise Refusal("--figure7: these runs make no photos; give pix2pix runs")
    if options.figure7:                                        # as pix2pix Fig. 7
        panels = []
        for i, (name, lowest) in enumerate((("L", 0), ("a", -128), ("b", -128))):
            shares = {run: counts[i] / counts[i].sum() for run, counts in colours.items()}
            panels.append((f"log probability of {name}", {
                run: (v.nonzero()[:, 0] + lowest, v[v > 0].log()) for run, v in shares.items()}))
        data.plot_curves(Path(options.figure7), panels, x_label="value")

def figure4(runs, folder, path, count):
    """Writes a sheet as pix2pix Fig. 4: of a few held-out pictures, input | each run's | target."""
    columns = []
    for run in runs:
        generator, settings = pix2pix.load_generator(run)
        use_pictures(settings, folder)
        x, y = data.to_network(settings, data.far_apart(data.held_out(settings), count))
        shown = [data.to_pixels(settings, x, v) for v in (x, pix2pix.generate(generator, x, 0), y)]
        columns = [shown[0], *columns[1:-1], *shown[1:]]       # the last one's target is kept
    titles = ["input", *(Path(run).name for run in runs), "target"]
    data.save_picture(path, data.contact_sheet(list(zip(*columns)), titles))

def study(runs):
    """Prints the fooling rate of each run's sessions and, of two runs, the bootstrap test."""
    fooled, kinds = [], set()
    for run in runs:
        path = Path(run) / "study.jsonl"
        try:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            fooled.append([sum(row["answers"]) for row in rows])
            kinds |= {(row["format"], len(row["answers"])) for row in rows}
            ((_, trials),) = kinds                             # one kind of session, or ValueError
            if trials == 0:
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError):
            raise Refusal(f"{path}: no sessions, or of two kinds; hold some by paint.py") from None
        rate, error = fooling_rate(fooled[-1], trials)
        print(f"{run}: fooled in {rate:.1%} +- {error:.1%} of trials (n = {len(rows)} sessions)")
    if len(runs) == 2:
        print(f"p = {bootstrap_test(*fooled, trials):.4f} that the first fools no more often")

def logged(run, column):
    """A column of a run's log.csv -> [steps, values], of the rows in which it has one."""
    with open(Path(run) / "log.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[column]]
    return [[float(row[name]) for row in rows] for name in ("step", column)]

def curve(runs, column, path):
    """Draws a column of log.csv over the steps, a line a run: SemGAN Fig. 4 and 5 with SWD."""
    series = {}
    for run in runs:
        try:
            series[run] = logged(run, column)
        except (OSError, ValueError, KeyError):
            raise Refusal(f"{run}/log.csv: has no column {column}; see its first line") from None
    data.plot_curves(Path(path), [(column, series)])

def main():
    parser = data.new_parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="the folder of a run; several give one table")
    one = parser.add_mutually_exclusive_group().add_argument
    one("--train-fcn", metavar="TASK", help="first train the FCN-score's judge on a task's photos")
    add("--data", metavar="DIR", help="the pictures, where they are not the run's or in datasets/")
    add("--count", type=data.positive(int), help="pictures (default all; SemGAN 2,048; Fig. 4: 4)")
    add("--fid-weights", metavar="PATH", help=f"{FID_WEIGHTS}, downloaded to PATH if missing")
    add("--figure7", type=data.picture_name, metavar="PNG", help="draw the densities of L, a and b")
    one("--figure4", type=data.picture_name, metavar="PNG", help="a sheet of runs' outputs instead")
    one("--curve", nargs=2, metavar=("COLUMN", "PNG"), help="draw a column of the runs' log.csv")
    one("--study", action="store_true", help="the runs' real-or-fake sessions instead")
    options, device = data.parse_options(parser), data.device_of()
    if not options.runs and not options.train_fcn:
        raise Refusal("RUN: none is named; give a run's folder, such as runs/facades")
    if options.figure4:
        return figure4(options.runs, options.data, options.figure4, options.count or 4)
    if options.curve:
        return curve(options.runs, *options.curve)
    if options.study:
        return study(options.runs)
    if task := options.train_fcn:
        if data.look_up(task).labels != "x":
            raise Refusal(f"--train-fcn {task}: its x is no label map; give facades or cityscapes")
        if options.runs:                                       # the judge of just these pictures
            settings = pix2pix.load_generator(options.runs[0])[1]
            if settings["task"] != task:
                raise Refusal(f"--train-fcn {task}: {options.runs[0]} is of {settings['task']}; "
                              f"name its task, or no run")
            use_pictures(settings, options.data)
        else:
            settings = {"task": task, "one_hot": False, **data.pictures_of(task, options.data),
                        "size": [256, 256] if device.type == "cuda" else [128, 128]}  # as train.py
        print(judge_of(settings, device, train=True)[1])
    if options.runs:
        score(options, device)

if __name__ == "__main__":
    import data
    import pix2pix
    import semgan
    data.run_command(main)
