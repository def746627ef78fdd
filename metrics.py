"""How good is it? The measures of the pix2pix and SemGAN papers, and the command that prints them.

    generated pictures --+--> Laplacian pyramid -> 7x7 patches -> sorted projections    SWD
                         +--> local means and variances at five scales                 MS-SSIM
    real pictures -------+--> FCN-8s, trained on real photos -> confusion matrix       FCN-score
                         +--> histograms of L, a and b                                 Figure 7
                         +--> Inception, 2048 features -> two Gaussians                FID

    python metrics.py runs/a runs/b                   a row a run, the best of each column marked *
    python metrics.py runs/a --epochs                 a row for each generator that --keep kept
    python metrics.py REAL FAKE                       two folders of pictures, without a run
    python metrics.py --train-fcn facades             the FCN-score's judge, trained once and kept
    python metrics.py runs/facades --figure7 out.png  log-probability of L, a and b, as a picture
    python metrics.py runs/a runs/b --figure4 s.png   input | a's and b's output | target, a sheet
    python metrics.py runs/a runs/b --curve SWD c.png any column of log.csv over the steps
    python metrics.py runs/a runs/b --study           the real-or-fake sessions that paint.py kept

pix2pix (arXiv 1611.07004v3) Sec. 4.1: FCN-score, study; Fig. 7: colours. SemGAN (Ghelfi et al.)
Sec. 4: SWD, FID, MS-SSIM. pix2pix runs are scored on held-out pictures, SemGAN's against training
pictures, as in its App. B. No number without its n: where runs differ in n, size, data or target,
none is marked, and FID at small n is far too high. To copy it out, take this file alone; it needs
torch and numpy. Images are (N, 3, H, W), 0-255, throughout.
"""
import csv
import hashlib
import json
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    if sys.version_info < (3, 11):                         # as requirements.txt needs
        print("error: Python: 3.11 or newer is needed; see Set-up in README.md", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")    # see train.py
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Refusal(ValueError):  # Also in data.py, repeated so that this file copies alone.
    """Bad input from outside: one line, exit code 2."""


# Sliced Wasserstein distance (Karras et al. 2017): do patches look alike, scale by scale?

def swd(real, fake, seed=0, patches=128, repeats=4, directions=128):
    """Two sets of equal N (published: 16,384) -> 1000 * distance, {side: ..., "average": ...}.

    The levels halve from the full size to 16. 128 patches a picture and 4 times 128 directions are
    the published setting. Time grows as N*patches*repeats*directions, memory as N*patches (2 kB).
    Each set is cut at places of its own, as published: a set against itself scores not 0 but the
    noise of that draw, below which no difference shows. Equal places would make pictures that are
    pairs look up to four times closer than their sets are.
    """
    real = torch.as_tensor(real)
    fake = torch.as_tensor(fake)
    check_sets(real, fake, smallest=16)
    rng = torch.Generator().manual_seed(seed)
    side = min(real.shape[-2:])
    levels = int(math.log2(side / 16)) + 1                 # 64, 32, 16: three
    scores = {}
    for level in range(levels):
        a = level_descriptors(real, level, levels, patches, rng)         # (N*patches, 147)
        b = level_descriptors(fake, level, levels, patches, rng)
        distance = 0
        for _ in range(repeats):
            lines = torch.randn(147, directions, generator=rng)
            distance += sliced_wasserstein(a, b, F.normalize(lines, dim=0))
        scores[side // 2 ** level] = 1000 * distance / repeats
    return {**scores, "average": sum(scores.values()) / len(scores)}


def level_descriptors(images, level, levels, count, rng):
    """(N, 3, H, W) -> (N*count, 147): normalized patches from one level of their pyramids."""
    patches = []
    for part in images.split(64):                          # so that only patches stay in memory
        band = laplacian_pyramid(part, levels)[level]
        patches.append(patch_descriptors(band, count, rng))
    return normalize_descriptors(torch.cat(patches))


def laplacian_pyramid(images, levels):
    """(N, 3, H, W) -> levels float tensors, finest first, the last one the low-pass. Each plus the
    next one's upsampling gives the images again. Cost grows as N*H*W*(H+W)."""
    taps = torch.tensor([1., 4., 6., 4., 1.]) / 16         # in both directions: ^2 / 256
    images = torch.as_tensor(images).float()
    pyramid = []
    for _ in range(levels - 1):
        rows = filter_matrix(images.shape[2], taps, mirror=True)         # (H, H)
        columns = filter_matrix(images.shape[3], taps, mirror=True)      # (W, W)
        low = rows[::2] @ images @ columns[::2].T          # blurred, each second pixel kept
        # Up again: with zeros between pixels only every second column of the filter counts, and 4
        # times as much makes up for them.
        smooth = 4 * (rows[:, ::2] @ low @ columns[:, ::2].T)
        pyramid.append(images - smooth)
        images = low
    return pyramid + [images]


def patch_descriptors(level, count, rng):
    """(N, 3, h, w) -> (N*count, 3, 7, 7): patches around centres drawn evenly from [3, side-4]."""
    n, _, h, w = level.shape
    row = torch.randint(h - 6, (n, count), generator=rng)  # of the patch's corner: centre - 3
    column = torch.randint(w - 6, (n, count), generator=rng)
    windows = level.unfold(2, 7, 1).unfold(3, 7, 1)        # (N, 3, h-6, w-6, 7, 7), not yet copied
    picture = torch.arange(n)[:, None]
    return windows[picture, :, row, column].flatten(0, 1)


def normalize_descriptors(descriptors):
    """(M, 3, 7, 7) -> (M, 147): each colour to mean 0, std 1 over its set; sums are in float64."""
    over = (0, 2, 3)                                       # all but the colour
    mean = descriptors.mean(over, keepdim=True, dtype=torch.float64).float()
    centred = descriptors - mean
    variance = centred.square().mean(over, keepdim=True, dtype=torch.float64)
    std = variance.sqrt().float().clamp_min(1e-8)          # a set of one colour has none
    return centred.div_(std).flatten(1)


def sliced_wasserstein(a, b, directions):
    """Mean 1-D Wasserstein distance over directions (147, K) of unit length; a, b (M, 147), else
    ValueError. On a line the best transport joins smallest to smallest and so on: the mean absolute
    difference of the sorted projections. Cost K*M*(147 + log M)."""
    a = torch.as_tensor(a)
    b = torch.as_tensor(b)
    directions = torch.as_tensor(directions)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} descriptors: compare equal numbers of images")
    total = 0.0
    for part in directions.split(32, dim=1):               # a few at a time, to spare memory
        with ThreadPoolExecutor(2) as pool:
            sorted_a, sorted_b = pool.map(sorted_projections, (a, b), (part, part))
        distances = np.abs(sorted_a - sorted_b).mean(axis=1, dtype=np.float64)   # (32,)
        total += distances.sum()
    return float(total / directions.shape[1])


def sorted_projections(descriptors, directions):
    """(M, 147), (147, K) -> array (K, M), each row sorted: by numpy, thrice as fast as torch."""
    return np.sort((directions.T @ descriptors.T).numpy(), axis=1)


def check_sets(a, b, smallest=1):
    """ValueError unless two tensors are images of one shape, as many, with sides from smallest."""
    images = a.ndim == 4 and a.shape[1] == 3 and len(a) > 0
    if a.shape != b.shape or not images or min(a.shape[2:]) < smallest:
        raise ValueError(f"{[*a.shape]}, {[*b.shape]}: not one (N, 3, H, W) from {smallest} pixels")


def filter_matrix(size, taps, mirror=False):
    """A 1-D filter as a matrix (out, size): rows @ image @ columns.T filters both directions, on a
    CPU ten times as fast as convolving. mirror: reflected border, out = size; else size - k + 1."""
    k = len(taps)
    shifted = torch.eye(size, dtype=taps.dtype)
    if mirror:
        shifted = F.pad(shifted[None], (k // 2, k // 2), mode="reflect")[0]
    return (shifted.unfold(1, k, 1) @ taps).T


# PSNR, SSIM and MS-SSIM: two pictures side by side

def psnr(a, b):
    """Peak signal-to-noise ratio in dB of two sets -> (N,); inf for equal pictures."""
    a = torch.as_tensor(a).double()
    b = torch.as_tensor(b).double()
    check_sets(a, b)
    squared_error = (a - b).square().mean((1, 2, 3))
    return 10 * torch.log10(255 ** 2 / squared_error)


def ssim(a, b):
    """Structural similarity of two sets -> (N,), 1 for equal pictures."""
    return similarity(a, b)[0]


def similarity(a, b):
    """Two sets -> SSIM and its contrast-structure factor, means over pixels and channels, (N,).

    Wang et al. 2004: Gaussian window of 11, sigma 1.5, K = 0.01 and 0.03; in a smaller picture the
    window shrinks to it, and sigma in proportion. In float64, as variances are differences.
    """
    a = torch.as_tensor(a).double()
    b = torch.as_tensor(b).double()
    check_sets(a, b)
    window = min(11, *a.shape[2:])
    taps = gaussian(window, sigma=1.5 * window / 11)
    rows = filter_matrix(a.shape[2], taps)
    columns = filter_matrix(a.shape[3], taps)

    def local_mean(image):
        return rows @ image @ columns.T

    mean_a = local_mean(a)
    mean_b = local_mean(b)
    covariance = local_mean(a * b) - mean_a * mean_b
    variances = local_mean(a * a) - mean_a ** 2 + local_mean(b * b) - mean_b ** 2
    c1 = (0.01 * 255) ** 2                                 # both keep dark, flat windows finite
    c2 = (0.03 * 255) ** 2
    contrast = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a ** 2 + mean_b ** 2 + c1)
    return (contrast * luminance).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def gaussian(count, sigma):
    """A bell of count taps, float64, of sum 1."""
    offsets = torch.arange(count).double() - (count - 1) / 2
    bell = torch.exp(-offsets ** 2 / (2 * sigma ** 2))
    return bell / bell.sum()


MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of five scales, as people judged them


def ms_ssim(a, b):
    """Multi-scale SSIM (Wang et al. 2003) of two sets, sides from 32 -> (N,): means over pixels and
    channels, then the product over five scales. Cost grows as N*H*W*(H+W)."""
    a = torch.as_tensor(a)
    b = torch.as_tensor(b)
    check_sets(a, b, smallest=32)
    scores = []
    for part_a, part_b in zip(a.split(32), b.split(32)):   # float64 for a few at a time
        scores.append(product_over_scales(part_a.double(), part_b.double()))
    return torch.cat(scores)


def product_over_scales(a, b):
    """Two sets -> (N,): the contrast of four scales, the SSIM of the fifth, each to its power."""
    product = 1.0
    for weight in MS_SSIM_WEIGHTS[:-1]:
        contrast = similarity(a, b)[1]
        product = product * contrast.clamp_min(0) ** weight
        a = F.avg_pool2d(a, 2)
        b = F.avg_pool2d(b, 2)
    whole = similarity(a, b)[0]
    return product * whole.clamp_min(0) ** MS_SSIM_WEIGHTS[-1]


def ms_ssim_diversity(images):
    """Mean MS-SSIM of the pairs (0, 1), (2, 3), ...: near 1 where the generator has collapsed."""
    even = len(images) // 2 * 2                            # an odd last one has no partner
    return float(ms_ssim(images[:even:2], images[1:even:2]).mean())


# FCN-score (pix2pix Sec. 4.1): does a network that knows real photos find the classes in the fakes?

def confusion_matrix(truth, prediction, classes):
    """Label maps of any one shape -> (K, K) pixel counts, rows the truth, whose 255 is left out.
    Add up over all images first. ValueError for any prediction outside 0..K-1, or another truth."""
    truth = torch.as_tensor(truth).long().flatten()
    prediction = torch.as_tensor(prediction).long().flatten()
    counted = truth != 255
    check_classes("prediction", prediction, classes)
    check_classes("truth", truth[counted], classes)
    cells = truth[counted] * classes + prediction[counted]
    return torch.bincount(cells, minlength=classes ** 2).view(classes, classes)


def check_classes(name, values, classes):
    """ValueError unless all values are classes 0..K-1."""
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < classes:
        raise ValueError(f"{name}: classes {values.min()} to {values.max()} of {classes}")


def segmentation_scores(matrix, absent="zero"):
    """(K, K) counts -> {"pixel_accuracy", "class_accuracy", "class_iou"}, each 0..1.

    absent: what a class without a true pixel counts in the means. "zero": 0, as in pix2pix's
    published numbers. "skip": nothing, as in FCN's own evaluation (Long et al. 2015), for it has no
    accuracy; but its IoU has a value, 0, where it is predicted all the same.
    """
    assert absent in ("zero", "skip"), f"absent: {absent!r}"
    matrix = torch.as_tensor(matrix).double()
    right = matrix.diag()                                  # (K,) each
    true = matrix.sum(1)
    union = matrix.sum(0) + true - right
    accuracy = right / true                                # nan: nowhere true
    iou = right / union                                    # nan: neither true nor predicted
    if absent == "zero":
        accuracy = accuracy.nan_to_num(0)
        iou = iou.nan_to_num(0)
    return {"pixel_accuracy": float(right.sum() / true.sum()),
            "class_accuracy": float(accuracy.nanmean()),
            "class_iou": float(iou.nanmean())}


class ConvNormReLU(nn.Module):
    """Convolution without a bias, batch norm (eps as Inception's), ReLU."""

    def __init__(self, channels, out_channels, kernel, stride=1, padding="same"):
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


# (channels in widths, number of 3x3 convolutions) of each stage
VGG16 = [(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)]


class FCN8s(nn.Module):
    """FCN-8s (Long et al. 2015) on VGG-16: photos (N, 3, H, W) in [-1, 1] -> logits (N, K, H, W).

        13 convolutions:        pool3, 1/8   pool4, 1/16   pool5, 1/32 -> 7x7, 1x1 convolutions
                                  | score      | score       | score
        (N, K, H, W) <---- x8 --- + <--- x2 -- + <--- x2 ----'
    width 64 is VGG-16's. Paper: ImageNet weights, 64*width units on top, transposed convolutions
    that start as bilinear. Here: random weights, and norms for their sake, 16*width units, plain
    bilinear.
    """

    def __init__(self, classes, width=16):
        super().__init__()
        self.stages = nn.ModuleList()
        channels = 3
        for multiple, count in VGG16:
            layers = []
            for _ in range(count):
                layers.append(ConvNormReLU(channels, multiple * width, 3))
                channels = multiple * width
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        top = 16 * width
        self.top = nn.Sequential(ConvNormReLU(channels, top, 7), nn.Dropout2d(0.5),
                                 ConvNormReLU(top, top, 1), nn.Dropout2d(0.5))
        self.scores = nn.ModuleList([nn.Conv2d(4 * width, classes, 1),   # of pool3
                                     nn.Conv2d(8 * width, classes, 1),   # of pool4
                                     nn.Conv2d(top, classes, 1)])

    def forward(self, x):                                  # (N, 3, H, W)
        size = x.shape[-2:]
        pools = []
        for stage in self.stages:
            x = stage(x)
            pools.append(x)                                # 1/2, 1/4, 1/8, 1/16, 1/32
        logits = self.scores[2](self.top(x))               # (N, K, H/32, W/32)
        logits = F.interpolate(logits, pools[3].shape[-2:], mode="bilinear")
        logits = logits + self.scores[1](pools[3])         # (N, K, H/16, W/16)
        logits = F.interpolate(logits, pools[2].shape[-2:], mode="bilinear")
        logits = logits + self.scores[0](pools[2])         # (N, K, H/8, W/8), hence the 8
        return F.interpolate(logits, size, mode="bilinear")


VIEWS_A_STEP = 4


@torch.random.fork_rng()                                   # torch's own state stays as it was
def train_fcn(photos, label_maps, classes, size, width=16, views=20_000, seed=0):
    """uint8 (N, 3, h, w) and (N, h, w), 255 ignored -> an FCN8s for pictures of size, in eval mode.
    Time grows with views alone: pictures seen, 4 a step, each step cropped and mirrored anew. Rate,
    decay and views are our choice: Long et al. fine-tune a network that can see already."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)                                # for first weights and dropout
    layout = torch.contiguous_format if photos.is_mps else torch.channels_last  # see pix2pix.py
    judge = FCN8s(classes, width).to(photos.device, memory_format=layout)
    rate = 2.5e-3                                          # at first
    optimizer = torch.optim.AdamW(judge.parameters(), lr=rate, weight_decay=1e-4)
    steps = math.ceil(views / VIEWS_A_STEP)
    for step in range(steps):
        factor = (1 + math.cos(math.pi * step / steps)) / 2              # from 1 to 0
        optimizer.param_groups[0]["lr"] = rate * factor
        x, labels = random_view(photos, label_maps, size, rng)
        logits = judge(x.contiguous(memory_format=layout))
        loss = F.cross_entropy(logits, labels, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0:
            print(f"  step {step} of {steps}: cross entropy {loss.item():.3f}", flush=True)
    return judge.eval()


def random_view(photos, label_maps, size, rng):
    """Four photos and their label maps, cut and mirrored alike: float (4, 3, *size) in [-1, 1] and
    int64 (4, *size). A cut keeps 80 to 100% of each side; our choice, as facades vary in scale."""
    chosen = torch.randint(len(photos), (VIEWS_A_STEP,), generator=rng).to(photos.device)
    scale, down, across, mirror = torch.rand(4, generator=rng).tolist()
    height, width = photos.shape[-2:]
    h = round(height * (0.8 + 0.2 * scale))
    w = round(width * (0.8 + 0.2 * scale))
    row = round(down * (height - h))
    column = round(across * (width - w))
    x = photos[chosen, :, row:row + h, column:column + w] / 127.5 - 1
    labels = label_maps[chosen, row:row + h, column:column + w]
    x = F.interpolate(x, size, mode="bilinear")
    labels = F.interpolate(labels[:, None].float(), size, mode="nearest-exact")[:, 0].long()
    if mirror < 0.5:
        x = x.flip(-1)
        labels = labels.flip(-1)
    return x, labels


@torch.no_grad()
def predict(judge, photos):
    """Photos -> label_map (N, H, W), from each photo and its mirror image together."""
    device = judge.scores[0].weight.device
    label_maps = []
    for part in photos.split(8):
        x = part.to(device) / 127.5 - 1
        mirrored = judge(x.flip(-1)).flip(-1)              # of the mirror image, mirrored back
        logits = judge(x) + mirrored                       # (8, K, H, W)
        label_maps.append(logits.argmax(1).cpu())
    return torch.cat(label_maps)


# Colours (pix2pix Fig. 7)

LAB_BINS = {"L": (101, 0), "a": (256, -128), "b": (256, -128)}  # count, the first one's centre


def lab_histogram_intersection(lab_a, lab_b):
    """float (N, 3, H, W) of data.rgb_to_lab -> (L, a, b) over all pixels, 1 for equal colours."""
    return intersections(lab_histograms(lab_a), lab_histograms(lab_b))


def lab_histograms(lab):
    """float (N, 3, H, W) -> counts of L (101,), a (256,), b (256,), bins centred on integers."""
    lab = torch.as_tensor(lab)
    histograms = []
    for channel, (bins, first) in enumerate(LAB_BINS.values()):
        values = lab[:, channel].double()
        histograms.append(torch.histc(values, bins, first - 0.5, first + bins - 0.5))
    return histograms


def intersections(histograms_a, histograms_b):
    """Two lists of histograms -> for each, the sum of the minima of its shares in both."""
    sums = []
    for a, b in zip(histograms_a, histograms_b):
        shared = torch.minimum(a / a.sum(), b / b.sum())
        sums.append(float(shared.sum()))
    return tuple(sums)


# The study (pix2pix Sec. 4.1 and 4.5): do people take the fakes for real?

def fooling_rate(counts, trials):
    """Fooled trials of each session, of trials each -> the mean rate and its standard error: over
    sessions, as one person's answers are alike, so a single session has none (nan)."""
    rates = torch.as_tensor(counts).double() / trials
    if len(rates) < 2:
        return float(rates.mean()), math.nan
    return float(rates.mean()), float(rates.std()) / len(rates) ** 0.5


def bootstrap_test(counts_a, counts_b, trials, replicates=10_000, seed=0):
    """p that rate A <= rate B, that is, that A fools no more often: the share of replicates, each a
    resampling of sessions (not of trials), in which it holds. counts as in fooling_rate."""
    rng = torch.Generator().manual_seed(seed)
    totals_a = resampled_totals(counts_a, trials, replicates, rng)
    totals_b = resampled_totals(counts_b, trials, replicates, rng)
    # Rates by cross-multiplied integers, so that ties are exact.
    holds = totals_a * len(counts_b) <= totals_b * len(counts_a)
    return float(holds.double().mean())


def resampled_totals(counts, trials, replicates, rng):
    """(replicates,): each the sum of as many sessions, drawn with replacement."""
    counts = torch.as_tensor(counts).long()
    assert 0 <= counts.min() and counts.max() <= trials, f"{counts.tolist()} of {trials} trials"
    sessions = torch.randint(len(counts), (replicates, len(counts)), generator=rng)
    return counts[sessions].sum(dim=1)


# Frechet Inception Distance (Heusel et al. 2017): two Gaussians in the features of a classifier

FID_WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"  # the last part begins its SHA-256
FID_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FID_WEIGHTS}"


def fid(real, fake, weights):
    """Frechet Inception Distance of two sets; weights: the published file's path. Compare values of
    equal n only. Below 2,049 images the covariances are singular, which is legal."""
    network = load_inception(weights)
    return feature_distance(inception_features(network, real), inception_features(network, fake))


def feature_distance(real, fake):
    """Features (N, D) of two sets -> the Frechet distance of their Gaussians."""
    return frechet_distance(*feature_statistics(real), *feature_statistics(fake))


def feature_statistics(features):
    """(N, D) -> mean (D,) and covariance (D, D), the sum over n-1; float64. ValueError if N < 2."""
    features = np.asarray(features, dtype=np.float64)
    if len(features) < 2:
        raise ValueError(f"a covariance needs two rows or more, not {len(features)}")
    covariance = np.atleast_2d(np.cov(features, rowvar=False))
    return features.mean(axis=0), covariance


def frechet_distance(mean1, cov1, mean2, cov2):
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)) in float64; singular covariances are legal.
    With R = C1^(1/2), C1 C2 has the eigenvalues of the symmetric R C2 R, so the last trace is the
    sum of their roots. Nothing is added to the diagonals. Cost D^3."""
    mean1 = np.asarray(mean1, dtype=np.float64)
    mean2 = np.asarray(mean2, dtype=np.float64)
    cov1 = np.asarray(cov1, dtype=np.float64)
    cov2 = np.asarray(cov2, dtype=np.float64)
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T  # rounding may leave -1e-17
    eigenvalues = np.linalg.eigvalsh(root @ cov2 @ root)
    trace = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    distance = ((mean1 - mean2) ** 2).sum()
    return float(distance + np.trace(cov1) + np.trace(cov2) - 2 * trace)


@torch.no_grad()
def inception_features(network, images):
    """Images -> array (N, 2048); some 6 billion multiplications a picture."""
    device = network.fc.weight.device
    parts = torch.as_tensor(images).split(32)
    return torch.cat([network(part.to(device)).cpu() for part in parts]).numpy()


def load_inception(path):
    """FIDInception with the weights of a file; Refusal where they do not fit it name by name."""
    network = FIDInception()
    try:
        weights = torch.load(path, "cpu", weights_only=True)
        # dict(): without torch's note of versions, norms need no num_batches_tracked in the file
        network.load_state_dict(dict(weights))
    except Exception:  # torch raises four kinds for damage, and some of its advice is unsafe
        raise Refusal(f"{path}: missing, damaged, or not Inception's; get {FID_URL}") from None
    return network


# The Coloured Shapes (SemGAN Sec. 5.0.1): does a map keep their rules?

def shapes_right(label_maps, tolerance=1):
    """The share of maps (N, 64, 64) that keep the rules of the Coloured Shapes, SemGAN Sec. 5.0.1.

    Each map is compared with the one by the rules that explains it best: disc, square and rectangle
    (classes 1, 3, 2 of data.draw_shapes) where they explain most pixels. It is right if each shape
    shows, up to what covers it, and no pixel is wrong but within tolerance of an edge; 0 asks for
    the exact map. Of the real maps 98.3% are right at 0: in the others the disc covers the square.
    """
    masks = F.one_hot(label_maps.long(), 4).permute(0, 3, 1, 2).float()  # (N, 4, 64, 64)
    ruled = map_by_the_rules(masks)
    side = 2 * tolerance + 1
    shares = F.one_hot(ruled, 4).permute(0, 3, 1, 2).float()
    shares = F.pad(shares, [tolerance] * 4, mode="replicate")
    shares = F.avg_pool2d(shares, side, 1)                 # of the classes, round each pixel
    far_from_edges = shares.amax(1) > 0.999                # one class alone, but for rounding
    wrong = (label_maps != ruled) & far_from_edges
    all_shown = masks.amax((2, 3)).all(1)                  # (N,)
    right = all_shown & ~wrong.flatten(1).any(1)
    return right.float().mean().item()


def map_by_the_rules(masks):
    """Masks (N, 4, 64, 64) of classes -> label_map (N, 64, 64): the three shapes, each where it
    explains most pixels, placed from the top one down."""
    squares = torch.arange(-10, 11).square()               # sizes as in data.draw_shapes
    disc = (squares[:, None] + squares <= 10 ** 2).float()
    stamps = [(1, disc, []), (3, torch.ones(10, 10), [1]), (2, torch.ones(12, 24), [1, 3])]
    ruled = torch.zeros_like(masks[:, 0], dtype=torch.int64)
    for shape, stamp, above in stamps:                     # above: what may cover it
        covered = fit_stamp(stamp, masks[:, shape], [masks[:, other] for other in above])
        ruled = torch.where(covered & (ruled == 0), shape, ruled)
    return ruled


def fit_stamp(stamp, mask, above):
    """The pixels, bool (N, 64, 64), that a stamp (h, w) covers where it explains most of mask."""
    # A place earns 1 for a pixel of its class, and less for one that what lies above may hide.
    score = mask + 0.1 * sum(above)
    score = score + F.avg_pool2d(mask, 5, 1, 2) / 100      # among equals, the middle
    score = F.conv2d(score[:, None], stamp[None, None])    # (N, 1, 65-h, 65-w): of each corner
    best = F.one_hot(score.flatten(1).argmax(1), score[0].numel())
    best = best.view_as(score).float()
    return F.conv_transpose2d(best, stamp[None, None])[:, 0] > 0.5


# FID's network. Skip all from here on first reading.

class FIDInception(nn.Module):
    """Inception v3 as published FIDs use it: images -> features (N, 2048). Parameters are named and
    shaped as in FID_WEIGHTS; FID never looks at the 1008 outputs."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNormReLU(3, 32, 3, stride=2, padding=0)   # (N, 32, 149, 149)
        self.Conv2d_2a_3x3 = ConvNormReLU(32, 32, 3, padding=0)            # (N, 32, 147, 147)
        self.Conv2d_2b_3x3 = ConvNormReLU(32, 64, 3)
        self.pool1 = nn.MaxPool2d(3, 2)                                    # (N, 64, 73, 73)
        self.Conv2d_3b_1x1 = ConvNormReLU(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormReLU(80, 192, 3, padding=0)           # (N, 192, 71, 71)
        self.pool2 = nn.MaxPool2d(3, 2)                                    # (N, 192, 35, 35)
        self.Mixed_5b = Mixed(192, mixed_5(pooled=32))
        self.Mixed_5c = Mixed(256, mixed_5(pooled=64))
        self.Mixed_5d = Mixed(288, mixed_5(pooled=64))                     # (N, 288, 35, 35)
        self.Mixed_6a = Mixed(288, MIXED_6A)
        self.Mixed_6b = Mixed(768, mixed_6(128))
        self.Mixed_6c = Mixed(768, mixed_6(160))
        self.Mixed_6d = Mixed(768, mixed_6(160))
        self.Mixed_6e = Mixed(768, mixed_6(192))                           # (N, 768, 17, 17)
        self.Mixed_7a = Mixed(768, MIXED_7A)
        self.Mixed_7b = Mixed(1280, mixed_7("average"))
        self.Mixed_7c = Mixed(2048, mixed_7("max"))                        # (N, 2048, 8, 8)
        self.fc = nn.Linear(2048, 1008)
        self.eval()                                        # running statistics, always

    def forward(self, images):                             # (N, 3, H, W), 0-255
        images = torch.as_tensor(images).float()
        x = F.interpolate(images, (299, 299), mode="bilinear") / 127.5 - 1
        for layer in list(self.children())[:-1]:           # all but fc, in the order above
            x = layer(x)
        return x.mean((2, 3))


# A block is branches, a branch is steps one after another, each (name as published, channels,
# kernel[, stride, padding]), or one of Mixed's poolings (name,), or a list of steps in parallel.
def mixed_5(pooled):                                       # 35x35
    return [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
        [("average",), ("branch_pool", pooled, 1)]]


MIXED_6A = [                                               # 35x35 -> 17x17
    [("branch3x3", 384, 3, 2, 0)],
    [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2, 0)],
    [("halve",)]]


def mixed_6(channels):                                     # 17x17; 7x7 in two one-way steps
    return [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", channels, 1),
         ("branch7x7_2", channels, (1, 7)),
         ("branch7x7_3", 192, (7, 1))],
        [("branch7x7dbl_1", channels, 1),
         ("branch7x7dbl_2", channels, (7, 1)),
         ("branch7x7dbl_3", channels, (1, 7)),
         ("branch7x7dbl_4", channels, (7, 1)),
         ("branch7x7dbl_5", 192, (1, 7))],
        [("average",), ("branch_pool", 192, 1)]]


MIXED_7A = [                                               # 17x17 -> 8x8
    [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2, 0)],
    [("branch7x7x3_1", 192, 1),
     ("branch7x7x3_2", 192, (1, 7)),
     ("branch7x7x3_3", 192, (7, 1)),
     ("branch7x7x3_4", 192, 3, 2, 0)],
    [("halve",)]]


def mixed_7(pooling):                                      # 8x8; 3x3 in two one-way units
    return [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1),
         [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
        [("branch3x3dbl_1", 448, 1),
         ("branch3x3dbl_2", 384, 3),
         [("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))]],
        [(pooling,), ("branch_pool", 192, 1)]]


class Mixed(nn.Module):
    """One block: branches from the same input, their outputs joined by channels."""

    def __init__(self, channels, branches):
        super().__init__()
        # Padding stays out of the mean, as in TensorFlow and unlike in torchvision's classifier.
        self.average = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.max = nn.MaxPool2d(3, 1, 1)
        self.halve = nn.MaxPool2d(3, 2)
        self.branches = branches
        for branch in branches:
            inputs = channels
            for step in branch:
                inputs = self.add_step(step, inputs)

    def add_step(self, step, channels):
        """Makes a step's convolutions, attributes of the published names; returns its channels."""
        if isinstance(step, list):
            return sum(self.add_step(unit, channels) for unit in step)
        name = step[0]
        sizes = step[1:]
        if not sizes:                                      # a pooling: it has no weights
            return channels
        self.add_module(name, ConvNormReLU(channels, *sizes))
        return sizes[0]

    def run_step(self, step, x):
        """The output of a step's convolution or pooling, or of several side by side."""
        if isinstance(step, list):
            return torch.cat([self.run_step(unit, x) for unit in step], dim=1)
        return getattr(self, step[0])(x)

    def forward(self, x):
        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = self.run_step(step, y)
            outputs.append(y)
        return torch.cat(outputs, dim=1)


# The command: scores of runs. The files beside this one are imported in the functions that need
# them, so that it copies alone.

@dataclass
class Row:
    """A line of the table."""
    name: str
    scored_on: tuple | None                                # which pictures; None: real ones' row
    n: int                                                 # how many
    scores: dict                                           # {column: value}


def score(options, device):
    """Scores each run, writes its scores.json, prints the table and what is missing."""
    import data
    network, note = inception_of(options.fid_weights, device)
    notes = [note]
    rows = []
    colours = {}                                           # of runs on photos: their histograms
    runs = options.runs
    if options.epochs:
        runs = kept_generators(*runs)
    for run in runs:
        result, scored_on, histograms = score_run(run, options, device, network)
        if Path(run).is_dir():                             # not one generator of several
            content = json.dumps({"format": 1, **result}).encode()
            data.write_whole(Path(run) / "scores.json", content)
        n = result["n"]
        if scored_on not in [row.scored_on for row in rows]:     # the real ones' scores come first
            rows.append(Row("real pictures", None, n, result["real"]))
            if histograms:
                name = f"real, of {run}" if colours else "real pictures"
                colours[name] = histograms[0]
        if histograms:
            colours[run] = histograms[1]
        rows.append(Row(run, scored_on, n, result["scores"]))
        note = result["note"]
        if note and not any(note in line for line in notes):             # a judge is said once
            notes.append(f"{run}: {note}")
    if options.epochs:
        notes = best_by_column(rows) + notes
    print(table(rows), *notes, sep="\n")
    if options.figure7:
        figure7(colours, options.figure7)


def kept_generators(run):
    """The files of a run, by epoch, that train.py --keep left, as text; then the run itself, where
    it was trained on since the last of them."""
    import pix2pix
    kept = {}
    for path in Path(run).glob("generator-*.pt"):
        number = path.stem.removeprefix("generator-")
        if number.isdigit():
            kept[int(number)] = path
    if not kept:
        raise Refusal(f"--epochs: {run} keeps no generator-EPOCH.pt; train with --keep N")
    files = [kept[epoch] for epoch in sorted(kept)]
    last = Path(run) / "generator.pt"
    steps = [pix2pix.load_file(path)["settings"].get("steps") for path in (files[-1], last)]
    names = [str(path) for path in files]
    if steps[0] != steps[1]:
        names.append(str(run))
    return names


def best_by_column(rows):
    """Lines that say which row of a table is the best, and by which columns; of equal ones the
    first. None is where not all are of the same pictures."""
    runs = [row for row in rows if row.scored_on]
    if len({row.scored_on for row in runs}) > 1:            # they were moved while it trained
        return ["no best is named: not all were scored on the same pictures; give --data"]
    best_columns = {}                                      # {row's name: columns}
    for column in runs[0].scores:
        for row in runs:
            if is_best(column, row, runs):
                best_columns.setdefault(row.name, []).append(column)
                break
    return [f"best by {', '.join(columns)}: {name}"
            for name, columns in sorted(best_columns.items())]


def score_run(run, options, device, network):
    """-> what scores.json holds, {"n", "real": {column: value}, "scores": {column: value}, "note"};
    what names the pictures it was scored on; (real, fake) histograms of L, a and b, None of label
    maps."""
    import pix2pix
    import semgan
    path = Path(run)
    if path.is_dir():
        path = path / "generator.pt"
    content = pix2pix.load_file(path)
    if content["settings"].get("model") == "semgan":
        generator, settings = semgan.load_generator(run)
        measure = score_semgan
    else:
        generator, settings = pix2pix.load_generator(run)
        measure = score_pix2pix
    use_pictures(settings, options.data)
    result, features, histograms = measure(generator.to(device), settings, options.count, network)
    if network and result["n"] > 1:                        # a covariance needs two
        result["scores"]["FID"] = feature_distance(*features)
    scored_on = (*targets_of(settings), *settings["size"], result["n"])
    return result, scored_on, histograms


def targets_of(settings):
    """What tells one run's targets from another's, but for their size and number. Only runs of
    equal ones compare, by scores or side by side."""
    import data
    source = settings["task"]                              # which draws its own
    if settings["data"]:
        source = Path(settings["data"]).resolve()          # by whatever name it was given
    task = data.TASKS[settings["task"]]
    return (source, task.kind, task.hides, data.direction_of(settings), bool(settings.get("crop")),
            data.channels_of(settings, "y"), str(data.scale_of(settings, "y")))


def check_palette(path, palette):
    """Refuses a palette.json, if there is one, of other colours than those that a run learned."""
    import data
    if not path.is_file():
        return
    colours = [colour for _, colour in palette]
    if [colour for _, colour in data.read_palette(path)] != colours:
        raise Refusal(f"{path}: has other classes than the run learned, or in other colours; give "
                      f"pictures of the run's own")


def use_pictures(settings, folder):
    """Puts --data's folder, or "drawn", in the place of the pictures a run was trained on. Where
    its label maps are the other half than the run's were, the halves change places."""
    import data
    if not folder:
        return
    known = settings.get("labels") or Path(settings["data"] or "").is_dir()
    before = data.label_side(settings)
    settings["data"], settings["drawn"] = data.locate(settings["task"], folder)
    if settings["palette"] and settings["data"]:
        check_palette(Path(settings["data"], "palette.json"), settings["palette"])
    if settings["task"] != "pairs" or not settings["palette"]:
        return
    settings["labels"] = data.half_of_labels(settings["data"])
    if known and data.label_side(settings) != before:      # else the new folder is as the old was
        turned = {"AtoB": "BtoA", "BtoA": "AtoB"}
        settings["direction"] = turned[data.direction_of(settings)]
        settings["range"] = data.scales_of(settings)[::-1]


@dataclass
class Tally:
    """What is counted of the real pictures, and of the fakes, batch by batch."""
    matrix: torch.Tensor | int = 0                         # (K, K), see confusion_matrix
    colours: list = field(default_factory=lambda: [0, 0, 0])  # histograms of L, a and b
    features: list = field(default_factory=list)           # Inception's, (2048,) each

    def add(self, rgb, network):
        """The colours and, with Inception's network, the features of uint8 (N, 3, h, w)."""
        import data
        histograms = lab_histograms(data.rgb_to_lab(rgb))
        self.colours = [total + part for total, part in zip(self.colours, histograms)]
        if network:
            self.features.extend(inception_features(network, rgb))


def say_what_is_read(settings, pictures):
    """Prints how many pictures a run is scored by, and how their files are read."""
    import data
    lines = data.what_was_read(settings, pictures, pictures)
    if lines:                                              # none where they are drawn
        print(f"{len(pictures):,} pictures, {lines[0]}")
        for line in data.pair_in_other_units(settings, pictures.files[0]):
            print(line)


def score_pix2pix(generator, settings, count, network):
    """A run on its held-out pictures, batch by batch, so that memory stays flat: see score_run."""
    import data
    import pix2pix
    device = next(generator.parameters()).device
    pictures = data.held_out(settings)
    n = min(count or len(pictures), len(pictures))
    say_what_is_read(settings, pictures)
    read_classes, note = class_reader(settings, device)
    note = "; ".join(filter(None, [channels_note(settings), note]))
    real = Tally()
    fake = Tally()
    distances = []
    batch = 8
    if settings["norm"] == "batch":                        # whose statistics matter
        batch = settings["batch"]
    for first in range(0, n, batch):
        image = torch.stack([pictures[i] for i in range(first, min(first + batch, n))])
        x, y = data.to_network(settings, image)
        output = pix2pix.generate(generator, x.to(device), seed=first).cpu()
        real_rgb = data.to_pixels(settings, x, y)          # uint8 (batch, 3, h, w)
        fake_rgb = data.to_pixels(settings, x, output)
        l1 = (output - y).abs().mean((1, 2, 3))
        distances.append(torch.stack([l1, psnr(real_rgb, fake_rgb), ssim(real_rgb, fake_rgb)]))
        real.add(real_rgb, network)
        fake.add(fake_rgb, network)
        if read_classes:
            truth = data.label_map_of(settings, image)
            classes = len(settings["palette"])
            real.matrix = real.matrix + confusion_matrix(truth, read_classes(real_rgb), classes)
            fake.matrix = fake.matrix + confusion_matrix(truth, read_classes(fake_rgb), classes)
    means = torch.cat(distances, dim=1).mean(1).tolist()
    scores = dict(zip(("L1", "PSNR", "SSIM"), means))
    real_scores = {}
    if read_classes:                                       # what the judge makes of the real ones
        real_scores = segmentation_scores(real.matrix, "skip")
        scores.update(segmentation_scores(fake.matrix, "skip"))
    scores.update(zip(LAB_BINS, intersections(real.colours, fake.colours)))  # L, a and b
    result = {"n": n, "real": real_scores, "scores": scores, "note": note}
    return result, (real.features, fake.features), (real.colours, fake.colours)


def channels_note(settings):
    """What the columns are of, where y has other than three channels; else nothing."""
    import data
    count = data.channels_of(settings, "y")
    if count == 3:
        return ""
    if count == 1:
        return "PSNR and the colours are of y's one channel as grey"
    shown = "the first three" if count > 3 else "the first, as grey"
    return f"L1 is of y's {count} channels, the other columns are of {shown}"


def class_reader(settings, device):
    """-> (what tells the classes in pictures, (N, 3, H, W) -> label_map, or None; a line on it)."""
    import data
    palette = settings["palette"]
    side = None
    if palette and data.look_up(settings["task"]).labels:
        side = data.label_side(settings)
    if side == "x":                                        # photos from labels: FCN-score
        judge, note = judge_of(settings, device)
        if judge is None:
            return None, note
        return lambda pictures: predict(judge, pictures), note
    if side == "y":                                        # labels from photos: pix2pix Table 6
        return lambda pictures: data.nearest_class(pictures, palette), ""
    return None, ""


@torch.no_grad()
def score_semgan(generator, settings, count, network):
    """Samples of a run against as many training pictures (2,048, count, or all): see score_run."""
    import data
    import semgan
    palette = settings["palette"]
    pictures = data.training(settings)
    n = min(count or 2048, len(pictures))
    if n < 2:
        raise Refusal("--count 1: MS-SSIM compares pairs of samples; give 2 or more")
    say_what_is_read(settings, pictures)
    rng = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(pictures), generator=rng)[:n].tolist()
    truth = torch.stack([pictures[i][0] for i in chosen])  # (n, h, w)
    real = semgan.colorize(truth, palette)                 # uint8 (n, 3, h, w)
    fake = sample_maps(generator, settings, n, rng)
    label_maps = []
    off = 0                                                # n times the share out of the palette
    for part in fake.split(32):
        label_maps.append(semgan.nearest_class(part, palette))
        off += len(part) * semgan.out_of_palette(part, palette)
    label_maps = torch.cat(label_maps)
    scores = swd_columns(real, fake)
    scores["MS-SSIM"] = ms_ssim_diversity(fake)            # n/2 pairs
    scores["out of palette"] = off / n
    if settings["task"] == "shapes" and settings["size"] == [64, 64]:
        for pixels in (1, 2, 3):
            scores[f"right within {pixels} px"] = shapes_right(label_maps, pixels)
    features = None
    if network:
        features = (inception_features(network, real), inception_features(network, fake))
    real_scores = swd_columns(real, real)
    real_scores["MS-SSIM"] = ms_ssim_diversity(real)
    note = f"{SWD_NOISE}; {class_shares(truth, label_maps, palette)}"
    result = {"n": n, "real": real_scores, "scores": scores, "note": note}
    return result, features, None


def swd_columns(real, fake):
    """swd(), under its columns' names: {"SWD 64": ..., "SWD average": ...}."""
    return {f"SWD {side}": value for side, value in swd(real, fake).items()}


SWD_NOISE = "SWD of real pictures is its noise: the set against itself"


def sample_maps(generator, settings, count, rng):
    """What a SemGAN run makes of noise: uint8 (count, 3, h, w)."""
    import semgan
    device = next(generator.parameters()).device
    z = torch.randn(count, settings["latent"], generator=rng).to(device)
    return semgan.pictures_from(generator, z, settings).cpu()


def class_shares(truth, label_maps, palette):
    """In words: the share of each class among the pixels that have one (255 has none), in the data
    and in the samples."""
    shares = []
    for maps in (truth, label_maps):
        known = maps != 255
        classes = maps[known]
        shares.append(classes.bincount(minlength=len(palette)) / len(classes))
    words = [f"{name} {a:.3f} / {b:.3f}" for (name, _), a, b in zip(palette, *shares)]
    return "share of pixels, data / samples: " + ", ".join(words)


HIGHER_IS_BETTER = ("PSNR", "SSIM", "pixel_accuracy", "class_accuracy", "class_iou", "L", "a", "b",
                    "right within 1 px", "right within 2 px", "right within 3 px")


def table(rows):
    """Rows -> aligned lines. * marks the best of a column, where all runs are scored on the same
    pictures, as many and of one size."""
    columns = {}
    for row in reversed(rows):    # from the last, a run: real pictures lack columns that runs have
        columns.update(row.scores)                         # its keys alone count, in their order
    runs = [row for row in rows if row.scored_on]
    comparable = len(runs) > 1 and len({row.scored_on for row in runs}) == 1
    lines = [["", "n", *columns]]
    for row in rows:
        cells = [row.name, str(row.n)]
        for column in columns:
            cell = "-"
            if column in row.scores:
                cell = f"{row.scores[column]:.3f}"
            marked = comparable and row.scored_on and is_best(column, row, runs)
            cells.append(cell + ("*" if marked else " "))
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = []
    for line in lines:
        padded.append("  ".join(cell.rjust(width) for cell, width in zip(line, widths)))
    return "\n".join(padded)


def is_best(column, row, runs):
    """Whether a row holds the best value of a column among the rows of runs."""
    values = [run.scores.get(column) for run in runs]
    best = max(values) if column in HIGHER_IS_BETTER else min(values)
    return row.scores.get(column) == best


# The command: two folders of pictures, without a run

def are_folders(names):
    """Whether these are two folders, and no runs. Refusal of a folder and what is neither."""
    if len(names) != 2:
        return False
    folders = [Path(name) for name in names]
    runs = [folder for folder in folders if is_runs(folder)]
    if not runs:
        for folder, other in zip(folders, reversed(folders)):
            if folder.is_dir() and not other.is_dir() and other.suffix != ".pt":
                raise Refusal(f"{other}: no such folder; give two folders of pictures, or runs")
    return all(folder.is_dir() for folder in folders) and not runs


def is_runs(folder):
    """Whether a folder is a run's, of which there may be no generator.pt yet."""
    return any(folder.glob("*.pt")) or (folder / "settings.json").exists()


def check_runs(names):
    """Refuses what is no run before the first is scored, which may take minutes."""
    import data
    for name in names:
        path = Path(name)
        if path.is_dir() and not is_runs(path) and data.list_pictures(path):
            raise Refusal(f"{name}: holds pictures, but no run's generator.pt; give two folders of "
                          f"pictures, as in `python metrics.py REAL FAKE`, or runs")
        if not path.exists():
            raise Refusal(f"{name}: no such file or folder; give a run, such as runs/facades, or "
                          f"two folders of pictures")


def score_folders(options, device):
    """Scores the pictures of a second folder by those of a first, REAL; prints the table, and what
    was scored and what was not."""
    if options.data:
        raise Refusal("--data: the two folders hold the pictures; leave it out")
    real_folder, fake_folder = options.runs
    network, fid_note = inception_of(options.fid_weights, device)
    real, fake, pairs, omitted = read_folders(real_folder, fake_folder, options.count)
    n = len(real)
    scores, real_scores, histograms = set_scores(real, fake, network)
    rows = [Row("real pictures", None, n, real_scores),
            Row(f"{fake_folder}, a set", None, n, scores)]
    columns = dict.fromkeys(column.split(" ")[0] for column in scores)   # SWD 64, SWD 32: SWD
    scored = f"scored, as sets of {n}: {', '.join(columns)}"
    if pairs:
        by_pair = pair_scores(real[:pairs], fake[:pairs])
        rows.append(Row(f"{fake_folder}, pairs", None, pairs, by_pair))
        scored += f"; as {pairs} pairs of one name: {', '.join(by_pair)}"
    else:
        omitted.insert(0, "L1, PSNR, SSIM (no name is in both)")
    for column, need in SET_NEEDS.items():
        if column not in columns:
            omitted.append(f"{column} ({need})")
    notes = [f"{scored}; not scored: {', '.join(omitted)}, classes (a run knows them)", fid_note]
    if "SWD" in columns:
        notes.insert(1, SWD_NOISE)
    print(table(rows), *notes, sep="\n")
    if options.figure7:
        figure7(dict(zip(("real pictures", fake_folder), histograms)), options.figure7)


SET_NEEDS = {"SWD": "needs sides from 16 pixels",
             "MS-SSIM": "needs two pictures, sides from 32 pixels",
             "FID": "needs weights, and two pictures"}


def read_folders(real_folder, fake_folder, count=None):
    """-> real, fake, uint8 (n, 3, H, W) each; how many of the first are pairs, of one name, endings
    aside; words about pictures left out. n is the smaller folder's number, or count; which ones are
    taken is drawn by lot, pairs first. Refusal where sizes differ: nothing is resized."""
    files = [named_pictures(folder) for folder in (real_folder, fake_folder)]
    n = min(map(len, files))
    if count:
        n = min(n, count)
    rng = torch.Generator().manual_seed(0)
    shared = shuffled(files[0].keys() & files[1].keys(), rng)
    chosen = []
    omitted = []
    for folder, paths in zip((real_folder, fake_folder), files):
        others = shuffled(paths.keys() - set(shared), rng)
        chosen += [paths[name] for name in (shared + others)[:n]]
        if len(paths) > n:
            omitted.append(f"{len(paths) - n} of {folder} (each set has {n})")
    pictures = read_pictures(chosen, say_scale(chosen))
    pairs = min(n, len(shared))
    if 0 < pairs < n:
        omitted.append(f"{n - pairs} as pairs (their names are in one folder alone)")
    return pictures[:n], pictures[n:], pairs, omitted


def named_pictures(folder):
    """{name without its ending: path} of a folder's pictures."""
    import data
    paths = data.list_pictures(folder)
    if not paths:
        raise Refusal(f"{folder}: holds no picture, and no run's generator.pt; give a folder of "
                      f"pictures, or a run")
    return {data.plain_stem(path): path for path in paths}


def shuffled(names, rng):
    """A set of names, in an order that rng draws."""
    names = sorted(names)
    return [names[i] for i in torch.randperm(len(names), generator=rng).tolist()]


NUMBERS_ADVICE = "write them in the classes' colours"


def say_scale(paths):
    """The one scale of pictures of more than 8 bits, which it prints; None of 8-bit ones. Refusal
    of some of each: a set's shades would be another's."""
    import data
    scale = data.find_scale(paths, numbers_advice=NUMBERS_ADVICE)
    if scale:
        print(data.scale_words(scale, "both folders"))
    return scale


def read_pictures(paths, scale=None):
    """The pictures of files, uint8 (N, 3, H, W); Refusal where one has another size."""
    import data

    def read(path):
        stored = data.read_stored(path)
        data.refuse_numbers(stored, NUMBERS_ADVICE)
        return data.to_tensor(data.photo_of(stored, scale))
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(read, paths))
    sizes = [f"{picture.shape[2]}x{picture.shape[1]}" for picture in pictures]
    for path, size in zip(paths, sizes):
        if size != sizes[0]:
            raise Refusal(f"{path}: {size} pixels, but {paths[0]} has {sizes[0]}; give pictures of "
                          f"one size")
    return torch.stack(pictures)


def pair_scores(real, fake):
    """uint8 (N, 3, H, W) each -> {"L1" in units of -1..1, "PSNR", "SSIM"}, means over pairs."""
    parts = []
    for a, b in zip(real.split(8), fake.split(8)):         # a few at a time, to spare memory
        l1 = (a.double() - b.double()).abs().mean((1, 2, 3)) / 127.5
        parts.append(torch.stack([l1, psnr(a, b), ssim(a, b)]))
    means = torch.cat(parts, dim=1).mean(1).tolist()
    return dict(zip(("L1", "PSNR", "SSIM"), means))


def set_scores(real, fake, network):
    """uint8 (N, 3, H, W) each -> {column: value} of fake, and of real by itself; histograms of L, a
    and b of both. Columns need what SET_NEEDS says."""
    scores = {}
    real_scores = {}
    n = len(real)
    side = min(real.shape[2:])
    if side >= 16:
        scores.update(swd_columns(real, fake))
        real_scores.update(swd_columns(real, real))
    if side >= 32 and n > 1:
        scores["MS-SSIM"] = ms_ssim_diversity(fake)
        real_scores["MS-SSIM"] = ms_ssim_diversity(real)
    tallies = [Tally(), Tally()]
    for tally, pictures in zip(tallies, (real, fake)):
        for part in pictures.split(32):
            tally.add(part, network)
    scores.update(zip(LAB_BINS, intersections(tallies[0].colours, tallies[1].colours)))
    if network and n > 1:
        scores["FID"] = feature_distance(tallies[0].features, tallies[1].features)
    return scores, real_scores, [tally.colours for tally in tallies]


# The FCN-score's judge, and Inception's weights: where they are kept

def judge_path(settings):
    """datasets/fcn8s-NAME-HxW.pt: a judge for each set of photos and size, squeezed or cut."""
    name = "drawn-facades"
    if settings["data"]:
        name = Path(settings["data"]).resolve().name
    size = "x".join(map(str, settings["size"]))
    if settings.get("crop"):                               # it saw the photos at their own scale
        size += "-crop"
    return Path("datasets") / f"fcn8s-{name}-{size}.pt"


def judge_source(settings):
    """The folder of the photos that a judge learns, whole, as text; None where they are drawn."""
    if settings["data"]:
        return str(Path(settings["data"]).resolve())
    return None


def train_judge(settings, device):
    """Trains a judge on the training photos, scores the held-out ones by it, writes judge_path."""
    import data
    path = judge_path(settings)
    classes = len(settings["palette"])
    print(f"{path}: learns the training photos; 8 minutes on two cores at 128x128", flush=True)
    pairs = all_of(data.training(settings))                # uint8 (N, 6, h, w): label map, photo
    held_out = all_of(data.held_out(settings))
    photos = data.first_three(pairs[:, 3:]).to(device)
    labels = label_maps_of(settings, pairs).to(device)
    judge = train_fcn(photos, labels, classes, settings["size"])
    prediction = predict(judge, data.first_three(held_out[:, 3:]))
    matrix = confusion_matrix(label_maps_of(settings, held_out), prediction, classes)
    scores = segmentation_scores(matrix, "skip").values()
    note = (f"trained on {len(pairs)} photos; {len(held_out)} real held-out ones score " +
            " / ".join(f"{value:.3f}" for value in scores))
    data.write_whole(path, {"format": 1, "data": judge_source(settings), "classes": classes,
                            "names": [name for name, _ in settings["palette"]], "note": note,
                            "judge": judge.cpu().state_dict()})


def all_of(pictures):
    """Each of data.Pictures, of whole ones the middle: uint8 (N, C, h, w)."""
    import data
    size = pictures.settings["size"]
    every = [pictures[i] for i in range(len(pictures))]
    if pictures.whole:
        every = [data.middle(picture, size) for picture in every]
    return torch.stack(every)


def label_maps_of(settings, pairs):
    """uint8 (N, 6, h, w) -> label_map uint8 (N, h, w): a few at a time, to spare memory."""
    import data
    return torch.cat([data.label_map_of(settings, part) for part in pairs.split(32)]).byte()


def judge_of(settings, device):
    """(FCN8s or None, a line about it): the judge kept in datasets/ for a run's pictures."""
    import pix2pix
    path = judge_path(settings)
    classes = len(settings["palette"])
    advice = f"add --train-fcn {settings['task']} to this command"
    if not path.exists():
        return None, f"FCN-score: no judge at {path}; {advice}"
    content = pix2pix.load_file(path, advice)
    source = judge_source(settings)
    if (content["data"], content["classes"]) != (source, classes):
        raise Refusal(f"{path}: judges {content['data']}, but the run is of {source}; {advice}")
    names = [name for name, _ in settings["palette"]]
    if content.get("names", names) != names:               # an older judge's file has none
        raise Refusal(f"{path}: knows other classes than the run, or in another order; {advice}")
    judge = FCN8s(classes)
    judge.load_state_dict(content["judge"])
    return judge.eval().to(device), f"FCN-score: judge {path}, {content['note']}"


def inception_of(path, device):
    """(FIDInception or None, a line about it). Naming a path consents to a download to it."""
    file = Path(path or f"datasets/{FID_WEIGHTS}")
    digest = FID_WEIGHTS[-12:-4]
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


# The command: figures and the study's sessions

def figure7(colours, path):
    """Draws {name: histograms of L, a and b} as pix2pix Fig. 7: log-probabilities, a panel each."""
    import data
    if not colours:
        raise Refusal("--figure7: these runs make no photos; give pix2pix runs")
    panels = []
    for channel, (axis, (_, lowest)) in enumerate(LAB_BINS.items()):
        curves = {}
        for name, histograms in colours.items():
            share = histograms[channel] / histograms[channel].sum()
            occurs = share > 0                             # elsewhere the logarithm is infinite
            values = occurs.nonzero()[:, 0] + lowest
            curves[name] = (values, share[occurs].log())
        panels.append((f"log probability of {axis}", curves))
    data.plot_curves(Path(path), panels, x_label="value")


def figure4(runs, folder, path, count):
    """Writes a sheet as pix2pix Fig. 4: of a few held-out pictures, input | each run's | target."""
    import data
    import pix2pix
    outputs = []
    targets = []
    for run in runs:
        generator, settings = pix2pix.load_generator(run)
        use_pictures(settings, folder)
        targets.append(targets_of(settings))
        if targets[-1] != targets[0]:
            raise Refusal(f"--figure4: {run} has other targets than {runs[0]}: its pictures, "
                          f"direction, --crop, channels or scale differ; give runs alike in these")
        pictures = data.far_apart(data.held_out(settings), count)
        x, y = data.to_network(settings, pictures)
        fake = pix2pix.generate(generator, x, seed=0)
        outputs.append(data.to_pixels(settings, x, fake))
    inputs = data.to_pixels(settings, x, x)                # as the last run sees them
    real = data.to_pixels(settings, x, y)
    rows = list(zip(inputs, *outputs, real))
    titles = ["input", *(Path(run).name for run in runs), "target"]
    data.save_picture(path, data.contact_sheet(rows, titles))


def study(runs):
    """Prints the fooling rate of each run's sessions and, of two runs, the bootstrap test."""
    fooled = []
    kinds = set()
    for run in runs:
        path = Path(run) / "study.jsonl"
        try:
            sessions = [json.loads(line) for line in path.read_text().splitlines()]
            counts = [sum(session["answers"]) for session in sessions]
            kinds |= {(session["format"], len(session["answers"])) for session in sessions}
            trials = max(count for _, count in kinds)
            if len(kinds) > 1 or trials == 0:              # of two formats or lengths, or empty
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError):
            raise Refusal(f"{path}: no sessions, or of two kinds; hold some by paint.py") from None
        fooled.append(counts)
        rate, error = fooling_rate(counts, trials)
        print(f"{run}: fooled in {rate:.1%} +- {error:.1%} of trials (n = {len(counts)} sessions)")
    if len(runs) == 2:
        p = bootstrap_test(*fooled, trials)
        print(f"p = {p:.4f} that the first fools no more often")


def logged(run, column):
    """A column of a run's log.csv -> [steps, values], of the rows in which it has one."""
    with open(Path(run) / "log.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[column]]
    steps = [float(row["step"]) for row in rows]
    values = [float(row[column]) for row in rows]
    return [steps, values]


def curve(runs, column, path):
    """Draws a column of log.csv over the steps, a line a run: SemGAN Fig. 4 and 5 with SWD."""
    import data
    series = {}
    for run in runs:
        log = Path(run) / "log.csv"
        if not log.exists():
            raise Refusal(f"{log}: no such file; give the folder of a run that has one")
        try:
            series[run] = logged(run, column)
        except (OSError, ValueError, KeyError):
            raise Refusal(f"{log}: has no column {column}; see its first line") from None
    data.plot_curves(Path(path), [(column, series)])


def new_parser():
    """The flags of `python metrics.py`; at most one of five says what is done instead, or first."""
    import data
    parser = data.new_parser(__doc__)
    add = parser.add_argument
    add_one_of = parser.add_mutually_exclusive_group().add_argument
    add("runs", nargs="*", metavar="RUN", help="the folder of a run, or its generator.pt; several "
        "give one table. Or two folders of pictures, real and generated: those of one name are "
        "pairs")
    add_one_of("--train-fcn", metavar="TASK",
               help="first train the FCN-score's judge on a task's photos")
    add("--data", metavar="DIR", help="the pictures, where they are not the run's or in datasets/")
    add("--count", type=data.positive(int), help="pictures (default all; SemGAN 2,048; Fig. 4: 4)")
    add("--device", help="cpu, cuda or mps (default: a GPU where there is one)")
    add("--fid-weights", metavar="PATH", help=f"{FID_WEIGHTS}, downloaded to PATH if missing")
    add("--figure7", type=data.picture_name, metavar="PNG", help="draw the densities of L, a and b")
    add_one_of("--figure4", type=data.picture_name, metavar="PNG",
               help="a sheet of runs' outputs instead")
    add_one_of("--curve", nargs=2, metavar=("COLUMN", "PNG"),
               help="draw a column of the runs' log.csv")
    add_one_of("--study", action="store_true",
               help="the runs' real-or-fake sessions instead")
    add_one_of("--epochs", action="store_true",
               help="each generator that a run's --keep N kept, not just the last, and which is "
                    "the best by each column")
    return parser


def judge_settings(options, device):
    """What --train-fcn's judge is for: the first run's pictures, or the task's own."""
    import data
    import pix2pix
    task = options.train_fcn
    if data.look_up(task).labels != "x":
        raise Refusal(f"--train-fcn {task}: its x is no label map; give facades or cityscapes")
    if options.runs:                                       # the judge of just these pictures
        _, settings = pix2pix.load_generator(options.runs[0])
        if settings["task"] != task:
            raise Refusal(f"--train-fcn {task}: {options.runs[0]} is of {settings['task']}; "
                          f"name its task, or no run")
        use_pictures(settings, options.data)
        if data.label_side(settings) != "x":
            raise Refusal(f"--train-fcn {task}: {options.runs[0]} is of --direction "
                          f"{settings['direction']}, whose x is no label map; name another run")
        return settings
    side = 256 if device.type == "cuda" else 128           # as train.py
    pictures = data.pictures_of(task, options.data)
    return {"task": task, "one_hot": False, **pictures, "size": [side, side]}


def main():
    import data  # only the command needs its neighbours
    options = data.parse_options(new_parser())
    device = data.device_of(options.device)
    if not options.runs and not options.train_fcn:
        raise Refusal("RUN: none is named; give a run's folder, such as runs/facades")
    if options.epochs and len(options.runs) > 1:
        raise Refusal(f"--epochs: of {len(options.runs)} runs; give one")
    logs_alone = options.study or options.curve            # these read no generator
    if not logs_alone and not are_folders(options.runs):
        check_runs(options.runs)
    if options.figure4:
        figure4(options.runs, options.data, options.figure4, options.count or 4)
        return
    if options.curve:
        curve(options.runs, *options.curve)
        return
    if options.study:
        study(options.runs)
        return
    if options.train_fcn:
        settings = judge_settings(options, device)
        train_judge(settings, device)
        _, note = judge_of(settings, device)
        print(note)
    if are_folders(options.runs):
        score_folders(options, device)
    elif options.runs:
        score(options, device)


if __name__ == "__main__":
    from data import run_command
    run_command(main)
