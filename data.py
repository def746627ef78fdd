"""What do the networks see? Files on disk become batches of numbers here, and numbers pictures.

    files --read_picture--> uint8, resized once --batches--> crop, mirror --to_network--> x, y
    pairs (H, W) RGB        (6, 286, 286), in memory         (N, 6, 256, 256)      float [-1, 1]

    python data.py facades [--data DIR]       fetch and check a task's pictures; write a sheet of
                                              what training will see (x | y)
    python data.py kmeans PHOTOS OUT          label maps from plain photos, by clustering colours
    python data.py edges PHOTOS OUT           edge maps from plain photos
    python data.py film RUN OUT.gif           a run's sample sheets, one after another

A task is a row of TASKS: what differs between the experiments of pix2pix (arXiv 1611.07004v3,
Sec. 4) and SemGAN (Ghelfi et al., Sec. 5). A folder, with or without train/, val/, test/, holds
    *.jpg                    side-by-side pairs, A left and B right; or plain photos
    A/*.jpg  B/*.jpg         the same names in both, also .npy of any number of channels; or
                             photos/ and labels/, where labels may be index maps (class numbers)
Without val/, a tenth of the training pictures is held out by a hash of their names, the same in
every run; test/ is never trained on. As the authors' code has it, both halves of a pair are
resized to 286 once, cropped to 256 and mirrored at random, alike, whenever they are shown.

To copy it out, take this file alone; it needs torch, numpy and pillow:
    settings = settings_of("pairs", "my/pairs")
    pictures = training(settings)
    rng = torch.Generator().manual_seed(0)
    for batch in pictures.batches(epoch_order(len(pictures), batch=1, seed=0, epoch=0)):
        batch = augment(settings, batch, rng)              # (1, 6, 256, 256)
        x, y = to_network(settings, batch)                 # (1, 3, 256, 256) each
"""
import argparse
import difflib
import errno
import functools
import http.client
import io
import itertools
import json
import math
import os
import re
import shutil
import signal
import struct
import sys
import tarfile
import threading
import time
import unicodedata
import urllib.error
import urllib.request
import warnings
import zlib
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

if __name__ == "__main__":
    if sys.version_info < (3, 11):                         # as requirements.txt needs
        print("error: Python: 3.11 or newer is needed; see Set-up in README.md", file=sys.stderr)
        sys.exit(2)

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import (GifImagePlugin, Image, ImageCms, ImageDraw, ImageFilter, ImageOps,
                 TiffImagePlugin)

try:
    import fcntl
except ImportError:                                        # Windows: nothing is locked there
    fcntl = None


# What follows, in the order in which a picture travels; most parts have such a heading.
#
#   Palettes and tasks                 TASKS: what differs between the experiments
#   From files to batches              Pictures, augment
#   From batches to the networks       to_network, to_pixels: with these the idea is told
#   A folder of pictures               its pairs, its splits
#   What a run has otherwise           settings_of, channels_of; --crop
#   Label maps and their colours       colorize, nearest_class; which half is one
#
# Skip the rest on first reading: it makes this safe and comfortable.
#
#   Pictures in, safely                a file -> Stored; several channels, TIFF by hand; photos;
#                                      label_map_in: numbers or colours; the shape of pairs
#   A folder as a whole                survey, what_was_read: found out and said before training
#   A user's picture                   read_input, and the size at which a run knows it
#   Between Pillow and torch           to_tensor, to_image, resize
#   Sequences, colour spaces, edges, k-means, drawn facades and shapes, downloads
#   Pictures out                       save_picture, contact_sheet, plot_curves
#   What every command needs           Refusal, run_command, write_whole; then data.py's command


# Palettes and tasks. A palette is a plain list, as settings.json and the checkpoints keep it: the
# name and the colour of each class, its place in the list the class's number.

FACADES = [  # CMP Facades; colours measured in the published JPEGs
    ["background", [0, 0, 222]], ["facade", [0, 48, 255]], ["window", [0, 128, 255]],
    ["door", [0, 207, 255]], ["cornice", [32, 255, 224]], ["sill", [112, 255, 143]],
    ["balcony", [191, 255, 64]], ["blind", [255, 239, 0]], ["deco", [255, 159, 0]],
    ["molding", [255, 80, 0]], ["pillar", [255, 0, 0]], ["shop", [175, 0, 0]]]
CAMVID = [   # CamVid's 11 classes by index, and 11 = unlabelled
    ["sky", [128, 128, 128]], ["building", [128, 0, 0]], ["pole", [192, 192, 128]],
    ["road", [128, 64, 128]], ["pavement", [60, 40, 222]], ["tree", [128, 128, 0]],
    ["sign", [192, 128, 128]], ["fence", [64, 64, 128]], ["car", [64, 0, 128]],
    ["pedestrian", [64, 64, 0]], ["cyclist", [0, 128, 192]], ["unlabelled", [0, 0, 0]]]
CITYSCAPES = [  # its 19 evaluated classes, then three that stand for the rest
    ["road", [128, 64, 128]], ["sidewalk", [244, 35, 232]], ["building", [70, 70, 70]],
    ["wall", [102, 102, 156]], ["fence", [190, 153, 153]], ["pole", [153, 153, 153]],
    ["traffic light", [250, 170, 30]], ["traffic sign", [220, 220, 0]],
    ["vegetation", [107, 142, 35]], ["terrain", [152, 251, 152]], ["sky", [70, 130, 180]],
    ["person", [220, 20, 60]], ["rider", [255, 0, 0]], ["car", [0, 0, 142]], ["truck", [0, 0, 70]],
    ["bus", [0, 60, 100]], ["train", [0, 80, 100]], ["motorcycle", [0, 0, 230]],
    ["bicycle", [119, 11, 32]], ["static", [0, 0, 0]], ["dynamic", [111, 74, 0]],
    ["ground", [81, 0, 81]]]
SHAPES = [["background", [0, 0, 0]], ["circle", [0, 0, 255]], ["rectangle", [0, 255, 0]],
          ["square", [255, 0, 0]]]                         # SemGAN Sec. 5.0.1


@dataclass(frozen=True)
class Task:
    """A row of TASKS: what differs between the experiments. Defaults: what most of them share."""
    kind: str = "pairs"        # "pairs", "label maps", or "photos" of which x and y are made
    archive: str = None        # NAME of the published NAME.tar.gz
    drawn: str = None          # what data.py can draw instead: "facades"; always: "shapes"
    direction: str = "AtoB"    # x is A, the left half; else "BtoA"
    palette: list = None       # of its label maps
    labels: str = None         # the half that is a label map, "x" or "y"
    hides: str = None          # what x lacks of the photo y: its "colour" or its "centre"
    sketch: bool = False       # x is a line drawing, and a user's own is cleaned first
    unpaired_study: bool = False  # Sec. 4.1 shows real and fake of different inputs, as for maps
    in_channels: int = 3
    out_channels: int = 3
    epochs: int = 200
    batch: int = 1
    jitter: bool = True        # load at 286/256 of the size, crop at random
    mirror: tuple = (-1,)      # at random: -1 left and right, -2 top and bottom


# Epochs, batch, jitter and mirror: the supplement's and the authors' code's; those of thermal,
# inpainting and edges2handbags as believed. SHAPES' mirror is ours.
TASKS = {
    "facades": Task("pairs", "facades", drawn="facades", direction="BtoA", palette=FACADES,
                    labels="x"),
    "cityscapes": Task("pairs", "cityscapes", direction="BtoA", palette=CITYSCAPES, labels="x"),
    "segmentation": Task("pairs", "cityscapes", palette=CITYSCAPES, labels="y"),  # Sec. 4.6
    "maps": Task("pairs", "maps", unpaired_study=True),
    "aerial": Task("pairs", "maps", direction="BtoA", unpaired_study=True),
    "edges2shoes": Task("pairs", "edges2shoes", sketch=True, epochs=15, batch=4, jitter=False,
                        mirror=()),
    "edges2handbags": Task("pairs", "edges2handbags", sketch=True, epochs=15, batch=4,
                           jitter=False),
    "day2night": Task("pairs", "night2day", direction="BtoA", epochs=17, batch=4),
    "thermal": Task("pairs", epochs=10, batch=4),
    "colorization": Task("photos", hides="colour", in_channels=1, out_channels=2, epochs=6,
                         batch=4, jitter=False),
    "inpainting": Task("photos", hides="centre", epochs=25, batch=4, mirror=()),
    "pairs": Task("pairs"),
    "shapes": Task("label maps", drawn="shapes", palette=SHAPES, jitter=False, epochs=None,
                   mirror=(-1, -2)),
    "semantic-facades": Task("label maps", "facades", drawn="facades", palette=FACADES,
                             jitter=False, epochs=None),
    "semantic-cityscapes": Task("label maps", palette=CITYSCAPES, jitter=False, epochs=None),
}


def look_up(name):
    """The row of a task, or a Refusal that offers near names."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 3, 0.4) or TASKS
        raise Refusal(f"--task {name}: no such task; did you mean {' or '.join(near)}?")
    return TASKS[name]


# From files to batches: the first half of the idea

class Pictures:
    """The pictures of one split: [i] -> uint8 (C, H, W), x's channels and then y's for pairs; see
    read_picture. settings: a dict, such as settings_of gives. names: one of each picture. files:
    its path, or its two; None where pictures are drawn.

    Kept while they fit in memory (gigabytes), else decoded whenever they are asked for. Held-out
    ones have settings["size"]; those to train on 286/256 of it, where the task jitters. With --crop
    none is resized: those to train on stay whole, held-out ones are cut from the middle."""

    def __init__(self, settings, memory=4.0, split="train"):
        self.settings = settings
        row = TASKS[settings["task"]]
        self.size = settings["size"]
        if split == "train" and row.jitter:                # 286: the authors' code; no reason given
            self.size = [round(side * 286 / 256) for side in self.size]
        self.whole = bool(settings.get("crop")) and split == "train"
        self.files = None
        if settings["drawn"] or row.drawn == "shapes":
            self.numbers = drawn_numbers(row, split)
            self.names = [str(number) for number in self.numbers]
        else:
            self.files = split_files(settings["data"], split, row.kind == "label maps")
            self.names = [paths[0].name for paths in self.files]
        shape = (len(self), channels_kept(settings), *self.size)         # a byte a value
        bytes_kept = whole_bytes(settings, self.files) if self.whole else math.prod(shape)
        fits = bytes_kept <= memory * 2 ** 30
        self.cache = self.read_all(shape) if fits else None

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return self.read(i) if self.cache is None else self.cache[i]

    def read(self, i):
        """Decodes or draws picture i: uint8 (C, H, W)."""
        if self.files is None:
            return drawn_picture(self.settings, self.numbers[i], self.size)
        if not self.settings.get("crop"):
            return read_picture(self.settings, self.files[i], self.size)
        picture = read_picture(self.settings, self.files[i], None)
        refuse_small(self.files[i][0], picture, self.settings["size"])
        return picture if self.whole else middle(picture, self.size)

    def read_all(self, shape):
        """uint8 (N, C, H, W), or N whole ones in a list; a Refusal names five that fail."""
        if self.whole:
            kept = [None] * len(self)
            places = kept
        else:
            kept = torch.empty(shape, dtype=torch.uint8)
            places = kept.numpy()                          # a view: writing into it fills kept
        refusals = {}

        def read(i):
            try:
                places[i] = self.read(i)
            except Refusal as refusal:
                refusals[i] = refusal

        in_threads(read, range(len(self)))
        if not refusals:
            return kept
        first, *more = sorted(refusals)
        names = ", ".join(self.names[i] for i in more[:4])
        others = f" (and {len(more)} more: {names})" if more else ""
        raise Refusal(f"{refusals[first]}{others}")

    def batches(self, order):
        """Yields a batch for each list of indices in order; decodes ahead in threads."""
        ahead = deque()
        with ThreadPoolExecutor(4) as pool:
            for indices in order:
                ahead.append(pool.map(self.__getitem__, indices))
                if len(ahead) > 4:                         # batches in flight
                    yield self.together(ahead.popleft())
            for pictures in ahead:
                yield self.together(pictures)

    def together(self, pictures):
        """Some of the pictures as a batch: uint8 (n, C, H, W), or n whole ones in a list."""
        return list(pictures) if self.whole else torch.stack(list(pictures))


def training(settings, memory=4.0):
    """The Pictures to train on, at the size of loading."""
    return Pictures(settings, memory, "train")


def held_out(settings, memory=4.0):
    """The Pictures that are never trained on, at the run's size."""
    return Pictures(settings, memory, "val")


def contents_of(pictures):
    """A check sum, as text, by which a run that goes on knows that the files of Pictures are what
    they were: of all their sizes, and of the bytes of 127 at most. None where they are drawn."""
    if pictures.files is None:
        return None
    paths = [path for files in pictures.files for path in files]
    sizes = [path.stat().st_size for path in paths]
    some = paths[::max(1, len(paths) // 64)]
    sums = in_threads(lambda path: zlib.crc32(path.read_bytes()), some)
    return f"{zlib.crc32(np.array([*sizes, *sums]).tobytes()):08x}"


def far_apart(pictures, count):
    """At most count of Pictures, evenly spread: neighbours may be frames of one film."""
    count = min(count, len(pictures))
    return torch.stack([pictures[i * len(pictures) // count] for i in range(count)])


def epoch_order(count, batch, seed, epoch, rank=0, world=1):
    """The index lists of one rank's batches in one epoch: a function of (seed, epoch) alone. Each
    rank takes its own slice of each global batch; no batch is incomplete."""
    rng = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=rng)
    together = batch * world
    complete = order[:count // together * together]
    return complete.view(-1, world, batch)[:, rank].tolist()


def augment(settings, pictures, rng, rank=0, world=1):
    """Random crop and mirror of each picture, both halves alike: uint8 (n, C, H, W), or a list of
    whole pictures (--crop), -> (n, C, *size). rng draws on the CPU for the whole batch of n * world
    pictures, and each rank takes its own: two processes crop as one would."""
    height, width = settings["size"]
    n = len(pictures)
    total = n * world
    mine = slice(rank * n, (rank + 1) * n)
    if isinstance(pictures, list):
        shares = torch.rand(2, total, generator=rng)[:, mine]
        tops, lefts = whole_places(pictures, settings["size"], shares)
    else:
        h, w = pictures.shape[2:]
        tops = torch.randint(h - height + 1, (total,), generator=rng)[mine].tolist()
        lefts = torch.randint(w - width + 1, (total,), generator=rng)[mine].tolist()
    crops = [picture[:, top:top + height, left:left + width]
             for picture, top, left in zip(pictures, tops, lefts)]
    for dim in mirror_of(settings):
        turned = (torch.rand(total, generator=rng)[mine] < 0.5).tolist()
        crops = [crop.flip(dim) if turn else crop for crop, turn in zip(crops, turned)]
    return torch.stack(crops)


def read_picture(settings, files, size):
    """One picture of its file or two, uint8 (C, *size): of pairs x, then y; a photo's RGB; or a
    label map's classes, of one channel. size None: its own."""
    kind = TASKS[settings["task"]].kind
    if kind == "pairs":
        return read_pair(settings, files, size)
    if kind == "photos":
        stored = read_stored(files[0])                     # not its labels
        refuse_numbers(stored, "this task takes photos; give some")
        photo = photo_of(stored, scales_of(settings)[0])
        return to_tensor(resize_image(photo, size))
    label_map = read_labels(files, settings["palette"])    # uint8 (h, w)
    return to_tensor(resize_image(Image.fromarray(label_map), size, nearest=True))


def read_pair(settings, files, size):
    """Both halves, resized, x and then y: uint8 (6, *size), or as many as channels_kept."""
    palette = settings["palette"]
    labels = label_side(settings)
    parts = {}
    for name, stored, scale in zip(halves_named(settings), stored_pair(settings, files),
                                   scales_of(settings)):
        if name == labels:
            picture = label_picture(stored, palette)       # in its classes' colours
            parts[name] = to_array(resize_image(picture, size, nearest=True))
        else:
            if not labels:
                refuse_numbers(stored, numbers_help(settings))  # of classes that nobody has named
            parts[name] = levels_in(stored, scale, channels_of(settings, name), size)
    if sketched(settings):
        parts["x"] = on_light_paper(parts["x"])
    return torch.from_numpy(np.concatenate([parts["x"], parts["y"]]))


def on_light_paper(drawing):
    """A drawing, uint8 (C, H, W), in dark lines on light paper, as clean_sketch makes them."""
    return 255 - drawing if is_on_dark(drawing) else drawing    # OpenCV's Canny draws on black


def is_on_dark(drawing):
    """By its margins, (C, H, W): the rest may be inked in."""
    _, h, w = drawing.shape
    rows, columns = h // 16 + 1, w // 16 + 1
    sides = [drawing[:, :rows], drawing[:, -rows:], drawing[:, :, :columns],
             drawing[:, :, -columns:]]
    return np.median(np.concatenate([side.reshape(-1) for side in sides])) < 128


# From batches to the networks, and back: the second half of the idea

def to_network(settings, pictures):
    """A batch of Pictures, uint8 (N, C, H, W) -> x and y, float in [-1, 1], as G and D see them."""
    hides = TASKS[settings["task"]].hides
    if hides == "colour":                                  # of a photo
        lab = rgb_to_lab(pictures)
        x = lab[:, :1] / 50 - 1                            # L, 0..100 -> (N, 1, H, W)
        y = (lab[:, 1:] / 110).clamp(-1, 1)                # a and b, -110..110 -> (N, 2, H, W)
        return x, y
    # Of a pair the channels are x's, then y's; of a photo both are the whole of it.
    x_levels = pictures[:, :channels_of(settings, "x")]
    y_levels = pictures[:, -channels_of(settings, "y"):]
    y = y_levels.float() / 127.5 - 1
    if settings["one_hot"]:
        return one_channel_a_class(x_levels, settings["palette"]), y
    x = x_levels.float() / 127.5 - 1
    if hides == "centre":                                  # the central half is white
        h, w = x.shape[2:]
        x[:, :, h // 4:h - h // 4, w // 4:w - w // 4] = 1
    return x, y


def one_channel_a_class(rgb, palette):
    """Label colours, uint8 (N, 3, H, W) -> float (N, K, H, W): 1 in the class's channel, else 0."""
    classes = class_or_ignore(rgb, palette)                # of 255 all channels are 0
    return torch.stack([classes == k for k in range(len(palette))], 1).float()


def input_to_network(settings, pictures):
    """What a user's picture becomes: uint8 RGB (N, 3, H, W) -> x float (N, in_channels, H, W).
    Where x has not 3 channels, pictures have as many; RGB becomes grey where x has one."""
    wanted = channels_of(settings, "x")
    if wanted == 1 and pictures.shape[1] == 3:             # painted in colours
        pictures = torch.stack([to_tensor(to_image(rgb).convert("L")) for rgb in pictures])
    if sketched(settings):                                 # drawn by hand, and maybe larger
        h, w = pictures.shape[2:]
        factor = min(1, max(settings["size"]) / max(h, w))
        size = [round(h * factor) or 1, round(w * factor) or 1]
        pictures = clean_sketch(pictures, size).expand(-1, 3, -1, -1)
    x, _ = to_network(settings, pictures)
    return x


def to_pixels(settings, x, image):
    """Network values to look at: x, or an output or target of it -> uint8 RGB (N, 3, H, W)."""
    if settings["one_hot"] and image is x:
        return colorize(image.argmax(1).cpu(), settings["palette"])
    if TASKS[settings["task"]].hides == "colour":
        if image is x:
            ab = torch.zeros_like(x).expand(-1, 2, -1, -1)
        else:
            ab = image.clamp(-1, 1) * 110
        lightness = (x + 1) * 50                           # an output gets its own input's L
        return lab_to_rgb(torch.cat([lightness, ab], dim=1).cpu())
    return first_three(to_levels(image))


def to_levels(image):
    """Network values in [-1, 1] -> uint8, 0-255, on the CPU."""
    return image.add(1).mul(127.5).round().clamp(0, 255).byte().cpu()


def first_three(pictures):
    """uint8 (N, C, H, W) to look at, (N, 3, H, W): of one or two channels the first, as grey."""
    if pictures.shape[1] < 3:
        return pictures[:, :1].repeat(1, 3, 1, 1)
    return pictures[:, :3]


def label_map_of(settings, pictures):
    """The true label map (N, H, W) of pairs, or None; the class "unlabelled" becomes 255."""
    if not TASKS[settings["task"]].labels:                 # what a palette.json names is no truth
        return None
    colours = pictures[:, :3] if label_side(settings) == "x" else pictures[:, -3:]
    classes = class_or_ignore(colours, settings["palette"])
    for k, (name, _) in enumerate(settings["palette"]):
        if name == "unlabelled":
            classes = classes.masked_fill(classes == k, 255)
    return classes


# A folder of pictures, its pairs and its splits

VALIDATION = ("val", "valid", "validation")                # names of one split


def split_files(folder, split, maps=False):
    """The files of split "train" or "val": [(A, B), ...] or [(picture,), ...]; never of test/."""
    if folder is None:                                     # of a converted generator
        raise Refusal("--data: missing, as the run names no folder of pictures; give one")
    folder = Path(folder)
    if maps and (folder / "gtFine").is_dir():
        folder = folder / "gtFine"
    if not folder.is_dir():
        raise Refusal(f"{folder}: no such folder; give another with --data, or put pictures there")
    train = folder / "train"
    home = train if train.is_dir() else folder
    held = [folder / name for name in VALIDATION if (folder / name).is_dir()]
    if held and home == train:
        files = find_files(held[0] if split == "val" else train, maps)
    else:
        files = hold_out(find_files(home, maps), split)
    if not files:
        folders = sorted(path.name for path in home.glob("[!.]*") if path.is_dir())
        hint = ""
        if folders:
            hint = (f" (folders inside, such as {folders[0]}/, are not looked into: pictures lie "
                    f"in the folder itself or its train/, halves of pairs in A/ and B/ there)")
        raise Refusal(f"{folder}: no pictures for {split}{hint}; it takes two at least, one of "
                      f"them held out, laid out as `python data.py --help` shows")
    return files


def hold_out(files, split):
    """One split of files: "val" is a tenth, by a hash of the name, and at least one."""
    if not files:
        return []
    hashes = {file: zlib.crc32(os.fsencode(file[0].stem)) for file in files}
    held = {file for file in files if hashes[file] % 10 == 0}
    if not held:
        held = {min(files, key=hashes.get)}
    if split == "val":
        return [file for file in files if file in held]
    return [file for file in files if file not in held]


def find_files(folder, maps):
    """[(A, B), ...] where folder has A/ and B/ (or photos/ and labels/), else [(picture,), ...];
    maps: label maps alone are asked for, so also Cityscapes' as published."""
    for a, b in (("A", "B"), ("photos", "labels")):
        if (folder / a).is_dir() and (folder / b).is_dir():
            return pair_names(folder / a, folder / b)
    paths = find_ids(folder) if maps else []
    if not paths:
        paths = list_pictures(folder)
        refuse_maps_beside_photos(paths)
    return [(path,) for path in paths]


def refuse_maps_beside_photos(paths):
    """Refuses a folder in which each photo has a second picture beside it, its label map or
    drawing, as X.jpg and X_mask.png: no file is a pair, and not each is a photo."""
    by_name = {plain_stem(path): path for path in paths}
    couples = {}                                           # by what the second name has more
    for path in paths:
        name, _, more = plain_stem(path).rpartition("_")
        if name in by_name:
            couples.setdefault(more, []).append((by_name[name], path))
    most = max(couples.values(), key=len, default=[])
    if 4 * len(most) <= len(paths):                        # half of the files, or fewer
        return
    if all(has_few_colours(second) and not has_few_colours(photo) for photo, second in most[:3]):
        photo, second = most[0]
        raise Refusal(f"{photo.parent}: holds {photo.name} and {second.name}, and others like "
                      f"them; give each kind a folder of its own: of pairs photos/ and labels/, or "
                      f"A/ and B/, where partners have the same name, endings aside")


def has_few_colours(path):
    """Whether a picture has at most 256 colours, as label maps have; False: it cannot be read."""
    with suppress(Refusal), opened(path) as image:
        return image.convert("RGB").getcolors(256) is not None
    return False


def find_ids(folder):
    """Cityscapes' _labelIds at any depth, such as gtFine/SPLIT/CITY/*, but those below test/."""
    inside = [path for path in sorted(folder.rglob("*_label*Ids.*"))
              if "test" not in path.relative_to(folder).parts and is_picture(path, ENDINGS)]
    paths = [path for path in inside if holds_ids(path)]
    others = [path for path in inside if path.stem.endswith("_labelTrainIds")]
    if others and not paths:
        raise Refusal(f"{others[0]}: holds trainIds; give Cityscapes' own _labelIds.png")
    return paths


def pair_names(folder_a, folder_b):
    """[(path in A, path in B), ...] of one name, endings aside; missing partners: Refusal."""
    a = {plain_stem(path): path for path in list_pictures(folder_a)}
    b = {plain_stem(path): path for path in list_pictures(folder_b)}
    missing = []
    for folder, names in (folder_b, a.keys() - b), (folder_a, b.keys() - a):
        if names:
            words = f"{folder}: {len(names)} partners missing: " + ", ".join(sorted(names)[:5])
            unread = {path.suffix for path in folder.iterdir() if plain_stem(path) in names
                      and path.is_file() and not is_picture(path, [*ENDINGS, ""])}
            if unread:                                     # a phone's .heic, say
                where = " beside pictures" if ".npy" in unread else ""
                words += f" (there as {', '.join(sorted(unread))}, which is not read{where})"
            missing.append(words)
    if missing:
        raise Refusal(f"{'; '.join(missing)}; both folders need the same names, endings aside")
    return [(a[name], b[name]) for name in sorted(a)]


def plain_stem(path):
    """A file's name without its ending, in NFC: Macs may store é as e and a mark."""
    return unicodedata.normalize("NFC", path.stem)


def list_pictures(folder):
    """The pictures in a folder itself, sorted; no dotfiles, folders or links to nothing. Beside
    others, files of NumPy are mostly something else, and do not count."""
    try:
        inside = sorted(Path(folder).iterdir())
        files = [path for path in inside if is_picture(path, ENDINGS)]
        if not files:
            files = [path for path in inside if is_picture(path, [".npy"])]
    except OSError as error:
        raise Refusal(f"{folder}: {error.strerror}; give a folder of pictures") from None
    last = {plain_stem(path): path for path in files}      # a.jpg and a.png: one name, one survives
    for path in files:
        twin = last[plain_stem(path)]
        if twin != path:
            raise Refusal(f"{folder}: {path.name} and {twin.name} share a name; keep one, or give "
                          f"each kind a folder of its own (of pairs photos/ and labels/, or A/ and "
                          f"B/)")
    return files


def holds_ids(path):
    """Whether a file has the name of Cityscapes' own numbers: CITY_..._gtFine_labelIds.png."""
    return path.stem.endswith("_labelIds")


def is_picture(path, endings):
    """Whether a name in a folder is that of a picture to use."""
    known = path.suffix.lower() in endings
    return known and not path.name.startswith(".") and path.is_file()


# What a run has otherwise than its task: which half is x, mirroring, cropping, channels. A run from
# before there were such settings has what its task says.

PAIR_KEYS = ("direction", "mirror", "crop", "in_channels", "out_channels")
MOST_CHANNELS = 32          # of x or y: a side of an array that is at most so long is its channels


def add_pair_flags(add):
    """The flags of train.py and of `data.py TASK`; their names are those of the settings."""
    add("--direction", choices=["AtoB", "BtoA"],
        help="x is A, the left half, or B (default: the task's)")
    add("--no-mirror", action="store_const", const=[], dest="mirror",
        help="never mirror: for text, plans, and normal maps, whose red is x")
    add("--crop", action="store_true",
        help="pictures keep their scale: training cuts --size out of them at random, held-out ones "
             "are cut in the middle")
    add("--in-channels", type=positive(int),
        help="of x, from .npy, TIFF or PNG: 1 for depth, 4 for red, green, blue and another "
             "(default 3)")
    add("--out-channels", type=positive(int),
        help="of y (default 3)")


def refuse_pair_flags(task, flags):
    """Refuses those of the flags, {name: value}, that a task cannot have."""
    row = TASKS[task]
    if flags.get("crop") and row.kind == "label maps":
        raise Refusal("--crop: SemGAN learns whole label maps; leave it out")
    settings = {"task": task, "palette": None, **flags}
    for key, side in (("direction", None), ("in_channels", "x"), ("out_channels", "y")):
        flag = f"--{key.replace('_', '-')}"
        value = flags.get(key)
        if value is None:
            continue
        if row.kind != "pairs":
            raise Refusal(f"{flag}: {task} makes what it learns of one picture, no pair; leave it "
                          f"out")
        seen = None
        if side and side == label_side(settings):
            seen = "a label map, seen in 3 channels of colours"
        elif side == "x" and sketched(settings):
            seen = "a drawing, seen in 3 channels"
        if seen and value != 3:
            raise Refusal(f"{flag} {value}: the {side} of {task} is {seen}; leave it out")
        if side and value > MOST_CHANNELS:
            raise Refusal(f"{flag} {value}: too many; give at most {MOST_CHANNELS}")


def settings_of(task, folder=None, size=(256, 256), one_hot=False):
    """The settings that this file reads, for pictures in a folder (None: the published ones): task,
    size [h, w], one_hot, and those of pictures_of. A run may also have those in PAIR_KEYS."""
    pictures = pictures_of(task, folder)
    return {"task": task, "size": list(size), "one_hot": one_hot, **pictures}


def pictures_of(name, folder=None, scale=None, choices=None):
    """What settings say of a task's pictures, found, fetched or drawn: data, drawn, palette,
    labels, reading, range (scale: [low, high], one for all deep values; else found over the
    folder). choices: of add_pair_flags, what is not the task's."""
    choices = choices or {}
    if scale is not None and not -math.inf < scale[0] < scale[1] < math.inf:
        raise Refusal(f"--range {scale[0]:g} {scale[1]:g}: is no range; give two numbers, the "
                      f"lower first")
    folder, drawn = locate(name, folder)
    settings = {"data": folder and str(folder), "drawn": drawn,
                "palette": palette_of(name, folder), "range": None, "labels": None,
                "reading": None}
    if name == "pairs" and settings["palette"]:
        settings["labels"] = half_of_labels(folder)
    if folder is not None:
        run = {"task": name, "one_hot": False, **choices, **settings}
        settings["range"] = survey(run, scale)
        settings["reading"] = reading_of_training(run)
        return settings
    if scale is not None:
        raise Refusal("--range: drawn pictures have 8 bits a value; leave it out")
    channels = [choices.get("in_channels", 3), choices.get("out_channels", 3)]
    if choices.get("crop") or channels != [3, 3]:
        raise Refusal("--crop, --in-channels, --out-channels: drawn pictures are drawn at --size, "
                      "in 3 channels; leave them out, or give --data DIR")
    return settings


def direction_of(settings):
    """"AtoB": x is A, the left half; or "BtoA"."""
    return settings.get("direction") or TASKS[settings["task"]].direction


def halves_named(settings):
    """What A and B are: ["x", "y"] or ["y", "x"]."""
    return ["y", "x"] if direction_of(settings) == "BtoA" else ["x", "y"]


def half_of(settings, side):
    """Which half of a pair "x" or "y" is: 0, A, the left one; or 1."""
    return halves_named(settings).index(side)


def mirror_of(settings):
    """What is mirrored at random: -1 left and right, -2 top and bottom."""
    mirror = settings.get("mirror")
    return TASKS[settings["task"]].mirror if mirror is None else mirror


def sketched(settings):
    """Whether x is a line drawing, and not, by --direction, the photo."""
    row = TASKS[settings["task"]]
    return row.sketch and direction_of(settings) == row.direction


def channels_of(settings, side):
    """How many channels of "x" or "y" Pictures keeps: 3, RGB, or a run of pairs' --in-channels and
    --out-channels. Of one-hot x its colours are kept; a photo, of which both are made, once."""
    if TASKS[settings["task"]].kind != "pairs" or (side == "x" and settings["one_hot"]):
        return 3
    key = "in_channels" if side == "x" else "out_channels"
    return settings.get(key, 3)


def channels_kept(settings):
    """Of what is kept of a picture, x and y together: the C of Pictures."""
    kind = TASKS[settings["task"]].kind
    if kind == "pairs":
        return channels_of(settings, "x") + channels_of(settings, "y")
    return 3 if kind == "photos" else 1                    # a label map's numbers


# --crop: pictures that are kept whole, at their own scale. Skip it on first reading.

def refuse_small(path, picture, size):
    """Refuses a picture, uint8 (C, h, w), out of which size cannot be cut."""
    h, w = picture.shape[1:]
    height, width = size
    if h < height or w < width:
        raise Refusal(f"{path}: is {w}x{h}, width x height, too small to cut {width}x{height} "
                      f"out of it; give a smaller --size, or leave --crop out")


def whole_bytes(settings, files):
    """What whole pictures take when they are decoded, by their headers."""
    headers = in_threads(header_of, [paths[0] for paths in files])
    total = sum(pixels for pixels, _ in headers) * channels_kept(settings)
    side_by_side = TASKS[settings["task"]].kind == "pairs" and len(files[0]) == 1
    return total / 2 if side_by_side else total            # x and y are in its area already


def whole_places(pictures, size, shares):
    """Where whole pictures are cut: shares (2, n), from 0 to below 1, of the places that a crop's
    top and left may have in each -> tops and lefts, lists of n."""
    tops = []
    lefts = []
    for picture, (down, across) in zip(pictures, shares.T.tolist()):
        h, w = picture.shape[1:]
        tops.append(int(down * (h - size[0] + 1)))         # rand is below 1, if only by 2 ** -24
        lefts.append(int(across * (w - size[1] + 1)))
    return tops, lefts


def middle(picture, size):
    """The middle of (C, h, w): (C, *size)."""
    top = (picture.shape[1] - size[0]) // 2
    left = (picture.shape[2] - size[1]) // 2
    return picture[:, top:top + size[0], left:left + size[1]]


# Label maps and their colours: what a class number looks like, and what class a colour is

# Cityscapes' labelIds 0-33 -> the 22 rows of CITYSCAPES, our choice of the paper's "22 main
# classes": parking and rail track are ground, guard rail is fence, bridge and tunnel are building,
# polegroup is pole, caravan and trailer are truck, the camera's own car and borders are static.
CITYSCAPES_IDS = (19, 19, 19, 19, 19, 20, 21, 0, 1, 21, 21, 2, 3, 4, 4, 2, 2, 5, 5, 6, 7, 8, 9, 10,
                  11, 12, 13, 14, 15, 14, 14, 16, 17, 18)
# The colours of those whose own are not their row's: parking, rail track, guard rail, bridge,
# tunnel, caravan, trailer.
CITYSCAPES_ALSO = {(250, 170, 160): 21, (230, 150, 140): 21, (180, 165, 180): 4,
                   (150, 100, 100): 2, (150, 120, 90): 2, (0, 0, 90): 14, (0, 0, 110): 14}


def colorize(label_map, palette):
    """Class numbers (..., H, W) -> their colours, uint8 (..., 3, H, W); 255 = ignore is black."""
    table = np.zeros((256, 3), np.uint8)
    table[:len(palette)] = [colour for _, colour in palette]
    colours = np.moveaxis(table[np.asarray(label_map)], -1, -3)
    return torch.from_numpy(np.ascontiguousarray(colours))


def known_colours(palette):
    """{(r, g, b): class}: a palette's, and of Cityscapes those that its files have, too."""
    classes = {tuple(colour): k for k, (_, colour) in enumerate(palette)}
    if palette == CITYSCAPES:
        classes.update(CITYSCAPES_ALSO)
    return classes


def class_colours(palette):
    """known_colours as tensors: classes (M,), colours float (M, 3)."""
    known = known_colours(palette)
    return torch.tensor(list(known.values())), torch.tensor(list(known)).float()


def nearest_class(pictures, palette):
    """uint8 (N, 3, H, W) of label colours -> label_map (N, H, W): the nearest colour's class.

    semgan.nearest_class agrees on every palette but Cityscapes', whose files paint some classes in
    further colours, too: a generator never does.
    """
    classes, colours = class_colours(palette)
    classes = on_device(classes, pictures.device)
    colours = on_device(colours, pictures.device)
    pixels = pictures.permute(0, 2, 3, 1).float()          # (N, H, W, 3)
    distances = torch.cdist(pixels.flatten(1, 2), colours)               # (N, H * W, M)
    return classes[distances.argmin(-1).view(pixels.shape[:3])]


def class_or_ignore(pictures, palette):
    """nearest_class, but 255 where colorize() painted that black, and no class is black."""
    classes = nearest_class(pictures, palette)
    if [0, 0, 0] in [colour for _, colour in palette]:
        return classes
    black = (pictures == 0).all(1)
    return classes.masked_fill(black, 255)


def label_side(settings):
    """Which of "x" and "y" is a label map, or None. Of pairs with a palette.json it is the half
    that settings["labels"] names; else the task's row says it, of its own direction."""
    if settings["task"] == "pairs" and settings["palette"]:
        half = settings.get("labels") or half_of_labels(settings["data"])    # older runs lack it
        return halves_named(settings)["AB".index(half)]
    row = TASKS[settings["task"]]
    if row.labels and direction_of(settings) != row.direction:
        return "y" if row.labels == "x" else "x"
    return row.labels


def half_of_labels(folder):
    """Which half of pairs with a palette.json is a label map: "B", in labels/; else "A"."""
    folder = Path(folder or "")
    apart = (folder / "labels").is_dir() or (folder / "train" / "labels").is_dir()
    return "B" if apart else "A"                           # "A": as kmeans_folder writes it


def palette_of(name, folder):
    """The palette of a task's folder: its palette.json; the task's own; or CamVid's, where a street
    task's labels/ have not the names of Cityscapes' files."""
    palette = look_up(name).palette
    if folder is None:
        return palette
    file = Path(folder, "palette.json")
    if file.exists():
        return read_palette(file)
    if palette is not CITYSCAPES:
        return palette
    maps = list(Path(folder).glob("**/labels/**/*.*"))
    of_cityscapes = any("_labelIds" in path.name for path in maps)
    return CAMVID if maps and not of_cityscapes else palette


def read_palette(file):
    """A palette.json: [[name, [r, g, b]], ...] of 2 to 255 classes; or Refusal."""
    rows = None
    with suppress(ValueError):
        rows = json.loads(file.read_bytes())               # a byte-order mark is fine
    if not isinstance(rows, list) or not 1 < len(rows) < 256:
        raise Refusal(f"{file}: not a list of 2 to 255 classes, [[\"road\", [128, 64, 128]], ...]; "
                      f"mend or remove it")
    palette = []
    names = {}                                             # by colour
    for row in rows:
        try:
            name, (r, g, b) = row
            bytes([r, g, b])                               # refuses all but integers of 0-255
        except (ValueError, TypeError):
            raise Refusal(f"{file}: {json.dumps(row)} is not [name, [r, g, b]], of 0 to 255; mend "
                          f"it") from None
        first = names.setdefault((r, g, b), name)
        if first is not name:
            raise Refusal(f"{file}: {name} has the colour of {first}, {[r, g, b]}; give it another")
        palette.append([str(name), [r, g, b]])
    return palette


def clean_label_map(image, palette):
    """uint8 RGB (H, W, 3) whose label colours a JPEG has smeared -> label_map uint8 (H, W). Halfway
    from one class's colour to another's may lie a third one: nearest colour alone grows seams. So a
    pixel takes the nearest in colour of the classes that fill a block of 3x3 nearby, unless it is
    within 20 levels of its own class's colour, or twice as near to that as to theirs."""
    pixels = torch.from_numpy(image).float()
    classes, colours = class_colours(palette)
    squared = torch.stack([(pixels - rgb).square().sum(-1) for rgb in colours], -1)  # (H, W, M)
    own_squared, own_colour = squared.min(-1)
    label_map = classes[own_colour]
    is_class = label_map[..., None] == torch.arange(len(palette))        # (H, W, K)
    solid = ~within(~is_class, 1)                          # True where a 3x3 block is one class
    nearby = within(solid, 4)                              # of each class, within 4 pixels
    choice = nearby[..., classes]                          # (H, W, M)
    other_squared, other_colour = squared.where(choice, torch.inf).min(-1)
    others = classes[other_colour]
    # What is sure is on no seam, and kept: a pole, say, which is too thin to fill a 3x3 block.
    sure = (own_squared <= NEAR ** 2) | (2 ** 2 * own_squared <= other_squared)
    kept = sure | ~nearby.any(-1)
    return torch.where(kept, label_map, others).byte().numpy()


def within(mask, reach):
    """bool (H, W, K) -> where one within reach pixels, also diagonally, is True. Five times as
    fast, on a CPU, as max pooling."""
    h, w = mask.shape[:2]
    padded = F.pad(mask, (0, 0, reach, reach, reach, reach))
    shifts = range(2 * reach + 1)
    in_columns = functools.reduce(torch.logical_or, [padded[i:i + h] for i in shifts])
    return functools.reduce(torch.logical_or, [in_columns[:, i:i + w] for i in shifts])


# Pictures in, safely. Skip all from here on first reading. What a file says is taken, or refused by
# name:
#
#   which files    all still pictures that Pillow decodes itself; a line counts what is not used
#   which way up   as the orientation tag says; a pair with one half turned alone is refused
#   which shape    both halves of a pair fit the size to 2%; other pictures are squashed, aloud
#   which colours  as sRGB shows them; alpha is opacity where it is mostly 0 and 255, not all 0
#   which range    values of more than 8 bits: one scale a folder, kept in settings["range"]
#   which class    numbers or class colours, by what the file holds: see label_map_in

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "DIB", "PCX",
           "QOI", "SGI", "TGA")                            # not EPS: that starts Ghostscript
ENDINGS = (".png .apng .jpg .jpeg .jpe .jfif .mpo .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm "
           ".pnm .pfm .jp2 .j2k .j2c .jpc .jpf .jpx .avif .pcx .qoi .sgi .rgb .tga").split()
LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")  # formats that may change a value a little
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")                 # ways of packing a TIFF that may
MOST_PIXELS = 50_000_000    # of a picture: 150 MB as RGB
MOST_BYTES = 200_000_000    # of its file
MOST_DECODED = 6 * MOST_PIXELS                             # bytes, of what is read by hand
TAGS = {  # by their names in TIFF 6.0 (a JPEG's EXIF has them, too): number, what none means
    "NewSubfileType": (254, 0), "SubfileType": (255, 0), "ImageWidth": (256, None),
    "ImageLength": (257, None), "BitsPerSample": (258, (1,)), "Compression": (259, 1),
    "PhotometricInterpretation": (262, 1), "FillOrder": (266, 1), "StripOffsets": (273, None),
    "Orientation": (274, 1), "SamplesPerPixel": (277, 1), "RowsPerStrip": (278, None),
    "StripByteCounts": (279, None), "PlanarConfiguration": (284, 1), "Predictor": (317, 1),
    "TileWidth": (322, None), "TileLength": (323, None), "TileOffsets": (324, None),
    "TileByteCounts": (325, None), "ExtraSamples": (338, ()), "SampleFormat": (339, (1,)),
    "Software": (305, ""), "ICCProfile": (34675, None), "GDAL_NODATA": (42113, "")}
SAMPLE_FORMATS = {1: "uint", 2: "int", 3: "float"}
DROP_HELP = ("drop it, as by `magick IN -alpha off OUT` or `gdal_translate -b 1 -b 2 -b 3 IN OUT` "
             "(of two bands: -b 1 alone), or train on all bands with --in-channels or "
             "--out-channels")
MOST_NUMBERS = 40           # more than sets number classes (Cityscapes 34); few photos are so dark
PALETTE_HELP = 'say what they mean in a palette.json: [["road", [128, 64, 128]], ...]'


def numbers_help(settings):
    """What to do with numbers of classes, where a task without label maps meets them."""
    return PALETTE_HELP if settings["task"] == "pairs" else f"give --task pairs, and {PALETTE_HELP}"


@dataclass
class Stored:
    """A file's picture: upright, but otherwise as it is stored, in any of Pillow's modes.

    bands: its values, (H, W, C) of any kind of number, where they have more than 8 bits, or where
    other than 3 channels are wanted; the image may then be a blank of that size."""
    path: Path
    image: Image.Image
    bands: np.ndarray = None
    step: float = 1            # from one number to the next: Pillow spreads those of 1, 2, 4 bits
    #                            over 0-255, a PGM's up to 255 or 65535; here 12 bits become 16
    lossy: bool = False
    turn: int = 1              # the orientation tag: 1 = none
    inverted: bool = False     # a TIFF's 0 is white, and read as 255
    software: str = ""         # that wrote a TIFF, if it says so
    half: int = None           # of a side-by-side file: 0, its left half, or 1
    learned: dict = None       # of a map to translate: the run's settings["reading"]


@contextmanager
def refusing(path):
    """What fails inside the `with` becomes a Refusal that names the file."""
    warnings.filterwarnings("ignore", module="PIL")        # what it warns of is refused or harmless
    try:
        yield
    except (MemoryError, Refusal):
        raise
    except Exception as error:  # Pillow on damage: OSError, SyntaxError, struct.error, KeyError ...
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if why.startswith("cannot identify"):
            why = what_it_is(path)
        if ";" not in why:
            why += "; mend, replace or remove it"
        raise Refusal(f"{path}: {why}") from error


@contextmanager
def opened(path, page=None):
    """The picture in a file, its header checked. What fails inside the `with`: see refusing. page:
    of several; None: there may be one only."""
    with refusing(path):
        check_file(path)
        # Not by its path: Pillow then maps plain TIFFs into memory with their sides swapped.
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
            pages = pages_of(image) if page is None else [page]
            if len(pages) != 1:
                raise OSError("it has several frames or pages")
            image.seek(pages[0])
            check_area(image.width, image.height)
            yield image


def check_file(path):
    """Refuses what is no file, or too large a one."""
    if Path(path).is_dir():
        raise OSError("is a folder; give a picture")
    if not Path(path).is_file():                           # a pipe would block
        raise OSError("no such file")
    if os.path.getsize(path) > MOST_BYTES:
        raise OSError(f"over {MOST_BYTES:,} bytes; shrink it, or cut it into parts")


def check_area(width, height):
    """Refuses pictures of too many pixels, before any is decoded."""
    if width * height > MOST_PIXELS:
        raise OSError(f"{width}x{height} is over {MOST_PIXELS:,} pixels; shrink it to 4,000 pixels "
                      f"a side, or cut it into parts")


def pages_of(image, most=64):
    """The numbers of an opened file's frames, or of a TIFF's pages: see tiff_pages."""
    if image.format == "MPO":                              # a phone's JPEG, a preview behind it
        return [0]
    if image.format != "TIFF":
        return range(getattr(image, "n_frames", 1))
    image.fp.seek(0)
    return list(tiff_pages(image.fp, most=most))


def tag(tags, name):
    """One of a TIFF's tags, as Pillow has read them, by its name in TAGS."""
    number, otherwise = TAGS[name]
    return tags.get(number, otherwise)


def what_it_is(path):
    """Why Pillow cannot open a file, as far as its first bytes tell."""
    with suppress(Exception):                              # a TIFF may be damaged, too
        tags = tiff_page(path)
        bits = tag(tags, "BitsPerSample")
        kind = SAMPLE_FORMATS.get(tag(tags, "SampleFormat")[0], "uint")
        advice = "write it with 8 or 16 bits a value, or as 32-bit float"
        if tag(tags, "Compression") not in KNOWN_COMPRESSIONS:
            advice = "write it packed by deflate or LZW, or not packed"
        elif len(bits) == 3:
            advice = "write it as grey or RGB"
        elif len(bits) > 1:
            advice = ("keep three bands, or one of a label map, as by `gdal_translate -b 1 IN "
                      "OUT`, or train on all with --in-channels or --out-channels")
        return (f"a TIFF of {len(bits)} x {bits[0]}-bit {kind} samples, which Pillow does not "
                f"read; {advice}")
    with open(path, "rb") as file:
        start = file.read(12)
    if not start:
        return "empty: a copy or a download of it may have broken off"
    # <!DOCTYPE is a page, ftypheic a phone's photo, whatever it is called.
    return f"not {', '.join(FORMATS)}: it begins with {start}"


def read_stored(path, channels=3, page=None):
    """A file, decoded once, as a run of so many channels takes it. 3 takes any picture, which
    photo_of makes RGB; for other numbers .bands holds just so many channels. page: see opened."""
    with refusing(path):
        check_file(path)
        if is_numpy(path):
            mapped = numpy_map(path)
            values = np.array(mapped, mapped.dtype.newbyteorder("="), order="C")
            stored = stored_array(path, values)
        elif is_tiff(path) and read_by_hand(path, channels, page):
            stored = stored_tiff(path, channels, page)
        else:
            stored = decoded(path, page, channels)
        if channels != 3:
            stored = replace(stored, bands=bands_of(stored))
        if stored.bands is None:
            return stored
        bands = stored.bands.shape[2]
        grey = channels == 3 and bands == 1
        if bands != channels and not grey:
            raise OSError(f"has {bands} channels, and {channels} are wanted; write it so (a label "
                          f"map: one, of class numbers), or train with other --in-channels or "
                          f"--out-channels")
    return stored


def decoded(path, page, channels):
    """What Pillow reads, turned upright."""
    with opened(path, page) as image:
        tags = getattr(image, "tag_v2", {})                # a TIFF's
        refuse_what_is_dropped(path, image, tags)
        raw = raw_mode(image)
        white = white_of(image)
        lossy = is_lossy(path, image)
        deep_grey = is_deep_grey(image)
        deep_rgb = ";16" in raw and not deep_grey
        turn = tag(image.getexif(), "Orientation")
        ImageOps.exif_transpose(image, in_place=True)
        image.load()                                       # half a JPEG opens
        if image.mode == "La":       # alpha that is multiplied in; Pillow converts it to LA alone
            image = image.convert("LA")
        bands = None
        if deep_grey:
            bands = deep_grey_values(image, raw, tags)
        elif deep_rgb:
            bands = np.asarray(image) * np.uint16(256) + low_bytes(path, raw)
            if channels == 3:                              # its alpha stays in the image
                bands = bands[..., :3]
        bits = raw.rstrip("IR").rstrip(";")                # I: inverted; R: the bits reversed
        step = {"1": 255, "L;2": 85, "L;4": 17}.get(bits, 1)
        if white:
            step = (65535 if deep_grey else 255) / white
        inverted = tag(tags, "PhotometricInterpretation") == 0
        software = str(tag(tags, "Software"))
    return Stored(Path(path), image, bands, step, lossy, turn, inverted, software)


def refuse_what_is_dropped(path, image, tags):
    """Refuses an opened file of which Pillow would drop bands or bits."""
    raw = raw_mode(image)
    if ";16" in raw and not is_deep_grey(image) and not raw.startswith(("RGB;16", "RGBA;16")):
        raise OSError(f"16-bit {raw}; write it as 16-bit grey or RGB, without alpha")
    extra = {"RGB": "fourth", "L": "second"}.get(image.mode)
    if extra and tag(tags, "SamplesPerPixel") > len(image.getbands()):
        raise OSError(f"it has a {extra} band, of no known meaning; {DROP_HELP}")
    if image.format in ("BMP", "DIB") and image.mode == "1" and bits_of_bmp(path) > 1:
        raise OSError("a BMP of black and white in more than 1 bit, which Pillow scrambles; write "
                      "it as PNG")
    if bits_cut_off(path, image):
        raise OSError("more than 8 bits a value, of which Pillow keeps 8 in this kind of file; "
                      "write it as a 16-bit PNG or TIFF, or with 8 bits")


def bits_of_bmp(path):
    """How many bits a BMP's pixels have, by its header."""
    with open(path, "rb") as file:
        header = file.read(30)
    if header[:2] == b"BM":                                # a DIB has not these 14 bytes
        header = header[14:]
    place = 10 if header[0] == 12 else 14                  # 12: the short one of OS/2
    return int.from_bytes(header[place:place + 2], "little")


def bits_cut_off(path, image):
    """Whether a PPM or JPEG 2000 file of colours, or an SGI, has more than 8 bits a value."""
    if image.format == "SGI":
        return image.tile[0].codec_name == "SGI16" or image.tile[0].args[-1] == 2
    if image.mode in ("L", "I", "F", "I;16"):
        return False
    if image.format == "PPM":
        return (white_of(image) or 255) > 255
    if image.format == "JPEG2000":
        with open(path, "rb") as file:
            content = file.read(100_000)
        head = content.find(b"\xff\x4f\xff\x51")           # its codestream's first two marks
        bits = content[head + 42:head + 43]                # the first channel's, less one
        return head >= 0 and bits > b"" and bits[0] & 127 > 7
    return False


def is_deep_grey(image):
    """Whether an opened file is grey, of more than 8 bits."""
    return image.mode[0] in "IF"


def deep_grey_values(image, raw, tags):
    """The values of a picture that is_deep_grey: (H, W, 1)."""
    values = np.array(image)[..., None]
    check_deep(values, tags)
    if raw == "I;12":
        return values << 4 | values >> 8                   # 4095 becomes 65535
    if image.format == "PPM" and image.mode == "I":
        return values.astype(np.uint16)                    # 65535 is its white
    return values


def check_deep(values, tags):
    """Refuses values (H, W, C) that stand for none."""
    bad = ~np.isfinite(values)
    advice = "fill such places first"
    nodata = nodata_of(tags)
    if nodata is not None and not bad.any():
        bad = values == nodata
        advice += ", or take the mark off, as by `gdal_edit.py -unsetnodata FILE`"
    if bad.any():
        y, x, band = np.argwhere(bad)[0]
        raise OSError(f"no data ({values[y, x, band]}) at x={x}, y={y}; {advice}")


def nodata_of(tags):
    """The value by which GDAL marks what is none, or None."""
    with suppress(ValueError):
        return float(str(tag(tags, "GDAL_NODATA")).strip(" \0"))
    return None


def low_bytes(path, raw):
    """The low bytes of a PNG's 16-bit RGB. Pillow keeps the high ones: told that the bytes lie in
    the other order, it takes the low ones for them."""
    with opened(path) as image:
        image.tile = [image.tile[0]._replace(args=raw.replace("16B", "16L"))]
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(image)


def raw_mode(image):
    """Pillow's name for how a file holds its values, such as "RGB;16B"."""
    if not image.tile:
        return image.mode
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, (tuple, list)) else arguments)


def white_of(image):
    """The white of a PGM or PPM, as its header says, or of 12 bits; None where it is as usual."""
    if raw_mode(image) == "I;12":
        return 4095
    grey_or_rgb = image.format == "PPM" and image.mode != "1"             # a PBM tells no white
    if grey_or_rgb and image.tile[0].codec_name.startswith("ppm"):
        return image.tile[0].args[-1]
    return None


def is_lossy(path, image):
    """Whether a file may have changed a value a little, when it was written."""
    if image.format == "TIFF":
        return image.info.get("compression") in LOSSY_TIFF
    if image.format != "WEBP":
        return image.format in LOSSY
    with open(path, "rb") as file:
        file.seek(12)                                      # behind "RIFF", a size and "WEBP"
        head = file.read(8)                                # of a part: its name, its size
        while len(head) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"VP8 ":                            # "VP8L" is the lossless kind
                return True
            file.seek(size + size % 2, os.SEEK_CUR)
            head = file.read(8)
    return False


# Pictures of several channels: .npy, TIFF, and PNG with all four of its channels

def bands_of(stored):
    """The channels of what Pillow has decoded, (H, W, C): grey is one, alpha one more."""
    if stored.bands is not None:
        return stored.bands
    image = stored.image
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise OSError(f"is a picture of mode {image.mode}; write it as grey, RGB or .npy")
    return np.atleast_3d(np.asarray(image))


def stored_array(path, values, tags=None):
    """Values (H, W, C) -> Stored: uint8 of one channel or three as a picture, else .bands."""
    height, width, channels = values.shape
    if values.dtype == np.uint8 and channels in (1, 3):
        return Stored(Path(path), from_array(values))
    if values.dtype != np.uint8:                           # measured: its folder tells the range
        check_deep(values, tags or {})
    return Stored(Path(path), Image.new("L", (width, height)), values)   # a blank picture


def is_numpy(path):
    return Path(path).suffix.lower() == ".npy"


def numpy_map(path):
    """A .npy, mapped into memory and not yet read -> (H, W, C). (H, W) is one channel; of (C, H, W)
    and (H, W, C), C is the side of at most MOST_CHANNELS. Objects, whose reading would run code,
    are refused."""
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except Exception:                                      # numpy's own advice is to allow objects
        raise OSError("no whole NumPy file of numbers; write one array by numpy.save") from None
    if values.dtype.kind not in "uif" or values.dtype.itemsize > 8:
        raise OSError(f"its values are {values.dtype}; write uint8, 0 to 255, or measured values "
                      f"as uint16, other integers or floats")
    shape = "x".join(map(str, values.shape))
    if values.ndim == 2:
        values = values[..., None]
    few = [side <= MOST_CHANNELS for side in values.shape]
    if values.ndim != 3 or few[1] or few[0] == few[2]:
        raise OSError(f"its shape {shape} tells no channels; write (H, W), (H, W, C) or (C, H, W), "
                      f"C at most {MOST_CHANNELS}, H and W larger")
    if few[0]:
        values = values.transpose(1, 2, 0)
    check_area(values.shape[1], values.shape[0])
    return values


# TIFF by hand: Pillow opens few kinds of more than 8 bits, and of some that it opens it swaps or
# loses bytes. It still does the unpacking: each strip or tile is given to it as a grey picture.

# none, LZW, deflate, PackBits, deflate's old number, LZMA, zstd
KNOWN_COMPRESSIONS = (1, 5, 8, 32773, 32946, 34925, 50000)
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def is_tiff(path):
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # +: BigTIFF


def read_by_hand(path, channels, page):
    """Whether a TIFF is to be read here: if other than 1 or 3 channels are wanted, or if Pillow
    lacks or misreads it. That is most of more than 8 bits, three bands that are not called RGB, and
    what has strips or tiles left out, as by GDAL's SPARSE_OK: Pillow shows the file's first bytes
    there."""
    if channels not in (1, 3):
        return True
    with open(path, "rb") as file:
        pages = list(tiff_pages(file, page).values())
    if len(pages) > 1:
        raise OSError("it has several frames or pages")
    if not pages:
        return False
    tags = pages[0]
    photometric = tag(tags, "PhotometricInterpretation")
    sparse = 0 in (tag(tags, "TileByteCounts") or tag(tags, "StripByteCounts") or ())
    three_bands = tag(tags, "SamplesPerPixel") == 3 and photometric == 1
    deep = is_deep(tags) and tag(tags, "BitsPerSample") != (12,)   # 12 Pillow reads rightly
    known = photometric in (0, 1, 2) and tag(tags, "Compression") in KNOWN_COMPRESSIONS
    if sparse and not known:
        raise OSError("strips or tiles of it are left out; write it whole, as by `gdal_translate "
                      "-co SPARSE_OK=FALSE IN OUT`")
    return known and (deep or three_bands or sparse)


def is_deep(tags):
    """Whether a page's values are signed, or may have more than 8 bits."""
    return max(tag(tags, "BitsPerSample")) > 8 or tag(tags, "SampleFormat")[0] != 1


def stored_tiff(path, channels, page):
    """A TIFF read by hand -> Stored; alpha is kept apart where 3 channels are wanted."""
    values, tags = tiff_values(path, page)
    turn = tag(tags, "Orientation")
    values = upright(values, turn)
    bands = values.shape[2]
    extra = tag(tags, "ExtraSamples")
    called_alpha = extra[-1:] == (2,)
    unnamed = bands == 4 and extra == ()                   # as OpenCV writes alpha
    unsigned = values.dtype.kind == "u"
    has_alpha = channels == 3 and bands in (2, 4) and unsigned and (called_alpha or unnamed)
    colours = values[..., :-1] if has_alpha else values
    stored = replace(stored_array(path, colours, tags), turn=turn)
    if has_alpha:
        alpha = values[..., -1] >> 8 * (values.itemsize - 1)             # its highest 8 bits
        stored.image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    if tag(tags, "ICCProfile"):
        stored.image.info["icc_profile"] = tag(tags, "ICCProfile")
    return stored


def upright(values, turn):
    """(H, W, C), turned as an orientation tag of 1 to 8 says."""
    if turn in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        values = values[:, ::-1]
    if turn in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def tiff_values(path, page=None):
    """The bands of a TIFF -> (H, W, C), its tags. Several pages of one size are bands, too."""
    content = Path(path).read_bytes()
    try:
        pages = list(tiff_pages(io.BytesIO(content), page).values())
        sizes = [math.prod(page_shape(tags)) * tiff_dtype(content, tags).itemsize for tags in pages]
        if sum(sizes) > MOST_DECODED:
            raise OSError(f"it unpacks to over {MOST_DECODED:,} bytes; cut it into parts")
        values = np.concatenate([page_values(content, tags) for tags in pages], axis=2)
    except (MemoryError, OSError):
        raise
    except Exception:                                      # what Pillow and numpy raise on damage
        raise OSError("a damaged TIFF, or pages of several sizes") from None
    return values, pages[0]


def tiff_page(path):
    """The tags of a TIFF's first full page."""
    with open(path, "rb") as file:
        return list(tiff_pages(file).values())[0]


def tiff_pages(file, page=None, most=64):
    """{number: tags} of an opened TIFF's pages among the first `most`, but overviews and masks.
    page: of this one alone."""
    head = file.read(16)                                   # BigTIFF: offsets of 64 bits
    if head[:4] == b"MM\0+":                               # Pillow takes it for a plain TIFF
        raise OSError("a BigTIFF of high bytes first is not read; save it as .npy, (H, W, C)")
    if head[2] != 43:
        head = head[:8]
    offset = TiffImagePlugin.ImageFileDirectory_v2(head).next
    pages = {}
    ends = {0}                                             # of the chain: 0, or where it has been
    for number in range(most if page is None else page + 1):
        if offset in ends:
            break
        ends.add(offset)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(offset)
        tags.load(file)
        offset = tags.next
        reduced_or_mask = tag(tags, "NewSubfileType") & 5  # 1: reduced, 4: a mask
        full = not reduced_or_mask and tag(tags, "SubfileType") != 2
        if number == page or (page is None and full):
            pages[number] = tags
    return pages


def page_shape(tags):
    """(height, width, bands) of a page."""
    height, width = tag(tags, "ImageLength"), tag(tags, "ImageWidth")
    check_area(width, height)
    return height, width, tag(tags, "SamplesPerPixel")


def page_values(content, tags):
    """One page of a TIFF -> (H, W, bands), put together from its strips or tiles."""
    dtype = tiff_dtype(content, tags)
    height, width, bands = page_shape(tags)
    values = np.empty((height, width, bands), dtype.newbyteorder("="))
    planes = [values]
    if tag(tags, "PlanarConfiguration") == 2:              # one band after another
        planes = [values[..., band:band + 1] for band in range(bands)]
    high = tag(tags, "TileLength") or min(tag(tags, "RowsPerStrip") or height, height)
    wide = tag(tags, "TileWidth") or width
    starts = tag(tags, "TileOffsets") or tag(tags, "StripOffsets")
    sizes = tag(tags, "TileByteCounts") or tag(tags, "StripByteCounts")
    sizes = sizes or [len(content)] * len(starts)          # old files tell none
    count = len(planes) * math.ceil(height / high) * math.ceil(width / wide)
    if count != len(starts) or count != len(sizes):
        raise OSError(f"a damaged TIFF: it should have {count} strips or tiles")
    corners = itertools.product(planes, range(0, height, high), range(0, width, wide))
    for (plane, top, left), start, size in zip(corners, starts, sizes):
        part = plane[top:top + high, left:left + wide]
        if size == 0:                                      # left out: all of it is one value
            part[:] = fill_of(tags, dtype)
            continue
        rows = high if tag(tags, "TileLength") else len(part)    # the last strip is shorter
        shape = (rows, wide, plane.shape[2])
        block = content[start:start + size]
        if tag(tags, "FillOrder") == 2:                    # a byte's bits run the other way
            block = block.translate(REVERSED)
        block = unpacked(block, tags, shape, dtype)
        part[:] = block[:len(part), :part.shape[1]]        # the last tiles reach over the edge
    return values


def fill_of(tags, dtype):
    """What a strip or tile that is left out holds: GDAL's mark of no data, if it fits, else 0."""
    nodata = nodata_of(tags) or 0
    if dtype.kind == "f" or np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max:
        return nodata
    return 0


def tiff_dtype(content, tags):
    """The kind of number in a page, or OSError where it is none of those read here."""
    bits = set(tag(tags, "BitsPerSample"))
    formats = set(tag(tags, "SampleFormat"))
    photometric = tag(tags, "PhotometricInterpretation")
    compression = tag(tags, "Compression")
    if photometric == 0:
        raise OSError("a MinIsWhite TIFF, in which 0 is white; invert it")
    of_one_kind = len(bits) == len(formats) == 1
    numbers = bits <= {8, 16, 32, 64} and formats <= set(SAMPLE_FORMATS)
    known = photometric in (1, 2) and compression in KNOWN_COMPRESSIONS
    if not (of_one_kind and numbers and known):
        raise OSError(f"a TIFF of BitsPerSample {sorted(bits)}, SampleFormat {sorted(formats)}, "
                      f"PhotometricInterpretation {photometric}, Compression {compression}, which "
                      f"is not read; save it as .npy, (H, W, C)")
    order = "<" if content[:2] == b"II" else ">"
    return np.dtype(f"{SAMPLE_FORMATS[formats.pop()]}{bits.pop()}").newbyteorder(order)


def unpacked(block, tags, shape, dtype):
    """A strip or tile of a TIFF -> its values, of shape (rows, columns, bands)."""
    rows, columns, bands = shape
    width = columns * bands * dtype.itemsize               # bytes of a row
    if rows * width > MOST_DECODED:
        raise OSError(f"a tile of it has over {MOST_DECODED:,} bytes; write smaller ones")
    compression = tag(tags, "Compression")
    if compression in (8, 32946):                            # eight times as fast as by Pillow
        stream = zlib.decompressobj()
        block = stream.decompress(block, rows * width + 1)  # 1 more: so its check sum is read, too
        if len(block) <= rows * width and not stream.eof:
            raise OSError("a damaged TIFF: a strip or tile of it ends early")
    elif compression != 1:
        strip = io.BytesIO(one_strip(block, compression, rows, width))
        with Image.open(strip, formats=["TIFF"]) as image:
            block = image.tobytes()
    pixels = np.frombuffer(block, np.uint8, rows * width)
    predictor = tag(tags, "Predictor")
    if predictor == 3:                                     # differences of bytes, the highest first
        pixels = pixels.reshape(rows, -1, bands).cumsum(1, dtype=np.uint8)
        pixels = pixels.reshape(rows, dtype.itemsize, -1).transpose(0, 2, 1)
        return pixels.copy().view(dtype.newbyteorder(">")).reshape(shape)
    if predictor == 2:                                     # differences of neighbours, as integers
        whole = np.dtype(f"u{dtype.itemsize}")
        steps = pixels.view(whole.newbyteorder(dtype.byteorder)).reshape(shape)
        return steps.cumsum(1, dtype=whole).view(dtype.newbyteorder("="))
    return pixels.view(dtype).reshape(shape)


def one_strip(block, compression, height, width):
    """A packed strip as a grey 8-bit TIFF of its own, of width bytes a row."""
    tags = {"ImageWidth": width, "ImageLength": height, "BitsPerSample": 8,
            "Compression": compression, "PhotometricInterpretation": 1, "StripOffsets": 122,
            "SamplesPerPixel": 1, "RowsPerStrip": height, "StripByteCounts": len(block)}
    entries = [struct.pack("<HHII", TAGS[name][0], 4, 1, value) for name, value in tags.items()]
    head = struct.pack("<4sIH", b"II*\0", 8, len(tags))
    return head + b"".join(entries) + bytes(4) + block     # 122 bytes come before the block


# Photos: ranges, alpha, profiles

def open_picture(path, scale=None):
    """Any picture as 8-bit RGB: a Pillow image, turned as its tag says. scale: see to_8_bits."""
    return photo_of(read_stored(path), scale)


def photo_of(stored, scale):
    """Stored -> a Pillow RGB picture, as a browser shows it."""
    with refusing(stored.path):
        profile = stored.image.info.get("icc_profile")
        image = stored.image if stored.bands is None else to_8_bits(stored, scale)
        if image.has_transparency_data:                    # RGBA, LA, a palette with a clear colour
            image = on_white(image)
        if profile:
            image = in_srgb(image, profile)
        return image if image.mode == "RGB" else image.convert("RGB")


def to_8_bits(stored, scale):
    """Deep values -> 8-bit grey or RGB: scale's low is 0, its high 255. None: all of 16 bits."""
    levels = scaled(stored.bands, scale)                   # (H, W, 1 or 3)
    clear = stored.image.info.get("transparency")          # one value may mean "clear"
    if clear is not None and not isinstance(clear, bytes):
        hidden = stored.bands == np.asarray(clear, stored.bands.dtype)
        levels[hidden.all(-1)] = 255
    image = from_array(levels)
    if stored.image.mode in ("LA", "RGBA"):
        image.putalpha(stored.image.getchannel("A"))
    return image


def scaled(values, scale):
    """Measured values, (H, W, C) -> uint8: scale's low is 0, its high 255; each may be a number, or
    one for each channel. None: all of 16 bits."""
    if scale is None and (values.dtype.kind, values.itemsize) != ("u", 2):
        raise OSError(f"its values, {values.min():g} to {values.max():g}, have no known range; "
                      f"train on such pictures, or write it with 8 or 16 bits")
    low, high = scale or (0, 65535)
    exact = np.float32 if values.itemsize == 2 else np.float64           # holds all such values
    spread = np.maximum(np.subtract(high, low, dtype=np.float64), 1e-30)   # 0 of one value alone
    levels = (values.astype(exact) - np.asarray(low, exact)) * np.asarray(255 / spread, exact)
    return levels.round().clip(0, 255).astype(np.uint8)


def levels_in(stored, scale, channels, size=None):
    """Stored -> uint8 (channels, *size); size None: its own."""
    if channels == 3:
        return to_array(resize_image(photo_of(stored, scale), size))
    with refusing(stored.path):
        levels = stored.bands
        if levels.dtype != np.uint8:
            levels = scaled(levels, scale)
        planes = [Image.fromarray(plane) for plane in levels.transpose(2, 0, 1)]
        return np.stack([np.asarray(resize_image(plane, size)) for plane in planes])


def on_white(image):
    """What a picture with alpha looks like on a white page."""
    rgba = image.convert("RGBA")
    counts = rgba.getchannel("A").histogram()
    nothing_seen = counts[0] == sum(counts)
    if nothing_seen and any(low < high for low, high in rgba.convert("RGB").getextrema()):
        raise OSError(f"its fourth channel, alpha, is 0 everywhere, so nothing of it would be seen;"
                      f" {DROP_HELP}")
    if counts[0] + counts[255] < sum(counts) / 2:
        raise OSError(f"its fourth channel, alpha, is no opacity, as it is not mostly 0 and 255; "
                      f"{DROP_HELP}")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), rgba)


def in_srgb(image, profile):
    """A picture of another colour space, as its profile says, in sRGB."""
    mode = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(profile[16:20])
    if mode == "L":
        red, green, blue = image.convert("RGB").split()
        if red == green == blue:                           # on_white has made it RGB
            image = red
    if mode == "RGB" and image.mode not in ("CMYK", "LAB"):
        image = image.convert("RGB")
    transform = to_srgb(profile, image.mode) if image.mode == mode else None
    return image if transform is None else ImageCms.applyTransform(image, transform)


@functools.lru_cache(16)
def to_srgb(profile, mode):
    """LittleCMS's transform; None where it changes hardly anything, or the profile is broken."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
        # All 216 colours of levels 0, 51, ... 255, as a picture of 12x18.
        probe = np.indices((6, 6, 6), np.uint8).reshape(3, 12, 18).transpose(1, 2, 0) * 51
        changed = ImageCms.applyTransform(Image.fromarray(probe).convert(mode), transform)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        print(f"a colour profile is of no use ({error}): taken as sRGB", file=sys.stderr)
        return None
    same = mode == "RGB" and np.abs(np.asarray(changed) - probe.astype(int)).max() <= 2
    return None if same else transform


def find_scale(paths, channels=3, scale=None, advice="", numbers_advice=PALETTE_HELP):
    """[lowest, highest] value of deep pictures, one scale for all of them; None of 8-bit ones. Of
    several channels, but for RGB's 3, both are lists: each channel has a scale of its own. scale:
    that of deep ones, where it is known. advice: what else can be done where some have 8 bits,
    others more; numbers_advice: where they hold numbers of classes."""
    if scale:
        return scale if any(is_deep_file(path) for path in paths) else None
    ends = in_threads(lambda path: extremes(path, channels, numbers_advice), paths)
    deep = {path: pair for path, pair in zip(paths, ends) if pair}
    of_8_bits = [path for path, pair in zip(paths, ends) if pair == ()]
    if not deep:
        return None
    if of_8_bits:
        raise Refusal(f"{of_8_bits[0]}: has 8 bits a value, {next(iter(deep))} has more; give all "
                      f"of one kind{advice}")
    lows, highs = zip(*deep.values())
    return [np.min(lows, axis=0).tolist(), np.max(highs, axis=0).tolist()]


def extremes(path, channels, numbers_advice):
    """(lowest, highest) of deep values, see find_scale; () of 8 bits; None: cannot be read."""
    if channels == 3 and is_deep_file(path) is False:
        return ()
    try:
        stored = read_stored(path, channels)
    except (OSError, Refusal):                             # it is refused where it is read
        return None
    values = deep_values(stored)
    if values is None:
        return ()
    refuse_numbers(stored, numbers_advice)
    sides = None if channels in (1, 3) else (0, 1)
    lowest, highest = values.min(sides), values.max(sides)
    return lowest.astype(float).tolist(), highest.astype(float).tolist()


def deep_values(stored):
    """A picture's values of more than 8 bits, or None."""
    values = stored.bands
    return None if values is None or values.dtype == np.uint8 else values


def header_of(path):
    """What a file's header tells, which spares decoding it: (pixels, whether some value may have
    more than 8 bits); (0, None) of what is refused where it is decoded."""
    with suppress(Refusal), refusing(path):
        if is_numpy(path):
            values = numpy_map(path)
            height, width, _ = values.shape
            return height * width, values.dtype != np.uint8
        if is_tiff(path):
            tags = tiff_page(path)
            height, width, _ = page_shape(tags)
            return height * width, is_deep(tags)
        with opened(path) as image:
            deep = is_deep_grey(image) or ";16" in raw_mode(image)
            return image.width * image.height, deep
    return 0, None


def is_deep_file(path):
    """Whether some value may have more than 8 bits; None: it cannot be read."""
    with suppress(OSError), open(path, "rb") as file:
        if file.read(2) == b"\xff\xd8":                    # JPEG: there may be tens of thousands
            return False
    return header_of(path)[1]


def refuse_numbers(stored, advice=PALETTE_HELP):
    """Refuses, in place of a picture, what looks like numbers of classes: nearly black, but for
    what is ignored (255, or -1). Where it is in RGB, or partly ignored, most pixels must also equal
    their neighbours, as in few night photos."""
    values = possible_numbers(stored)
    if values is None or values.dtype.kind == "f":
        return
    ignored = (values == 255) | (values == -1)
    if ignored.mean() > 0.5:                               # dark lines on white, it may be
        return
    numbers = values[~ignored]
    if numbers.min() < 0 or not 0 < numbers.max() < MOST_NUMBERS:
        return
    # As numbers usually are: measured, grey or rows of a palette, and none ignored.
    plain = stored.bands is not None or stored.image.mode in ("L", "P")
    alike = (values[:, 1:] == values[:, :-1]).sum() > 0.5 * values.size
    numbered = alike or (plain and not ignored.any())
    if numbered and not (is_shaded(numbers, values) and is_among_brighter(stored)):
        raise Refusal(f"{stored.path}: holds whole numbers up to {numbers.max()}, as of classes; "
                      f"{advice}")


def is_shaded(numbers, values):
    """Whether values mostly rise by single steps, over 16 levels or more, as only depth does."""
    values = values.astype(int)
    down = np.abs(np.diff(values, axis=0))
    right = np.abs(np.diff(values, axis=1))
    steps = np.concatenate([down.reshape(-1), right.reshape(-1)])
    single = (steps == 1).sum()
    return len(np.unique(numbers)) > 15 and single > 0.8 * (steps > 0).sum()   # both: our choice


ANSWERS = {}                         # see asked_of_neighbours
LOOKING_AROUND = threading.Lock()    # else each thread would read the same neighbours


def asked_of_neighbours(question, stored, channels, *details):
    """What question(pictures, *details) says of the neighbouring_pictures() of a file. It is asked
    once, unless the folder changes. None: a page or a frame has no such neighbours."""
    if not stored.path.is_file():
        return None
    folder = stored.path.parent
    beside = (folder, stored.path.suffix, stored.half, channels)
    key = (question, folder.stat().st_mtime_ns, beside, repr(details))
    with LOOKING_AROUND:
        if key not in ANSWERS:
            ANSWERS[key] = question(neighbouring_pictures(*beside), *details)
        return ANSWERS[key]


def is_among_brighter(stored):
    """Whether a picture is the dark one of a folder of such, as a frame of depth may be."""
    if stored.image.mode == "P":
        return False
    channels = 3 if stored.bands is None else stored.bands.shape[2]
    return asked_of_neighbours(any_is_brighter, stored, channels, stored.image.mode)


def any_is_brighter(pictures, mode):
    """Whether any picture of this mode has too many or too high values for numbers."""
    for stored in pictures:
        if stored.image.mode != mode or stored.lossy:
            continue
        values = possible_numbers(stored)
        if values is None or ((values >= MOST_NUMBERS) & (values != 255)).any():
            return True
    return False


def neighbouring_pictures(folder, ending, half, channels=3):
    """Yields some of a folder's pictures of one ending, evenly spread, Stored, or one half of each:
    they tell what a picture holds that does not tell it by itself. Of large ones fewer."""
    try:
        files = sorted(path for path in folder.iterdir() if is_picture(path, [ending.lower()]))
    except OSError:                                        # a folder that may not be listed
        return
    every = math.ceil(len(files) / 30) or 1
    pixels = 0
    for path in files[::every]:
        try:
            stored = read_stored(path, channels)
        except Refusal:                                    # said where it is read
            continue
        yield stored if half is None else halves(stored)[half]
        pixels += stored.image.width * stored.image.height
        if pixels > MOST_PIXELS:
            return


def possible_numbers(stored):
    """What may be numbers, (H, W) or (H, W, C): measured values; rows of a palette that tells
    nothing; the levels of what is all grey, or red alone (green or blue cells under a microscope
    may be as dark). None of any other, and of what may have been smeared."""
    image = stored.image
    if stored.lossy:
        return None
    if stored.bands is not None:
        return stored.bands if stored.bands.shape[2] in (1, 3) else None
    if image.mode not in ("L", "LA", "P", "RGB", "RGBA"):
        return None
    if image.mode == "P":
        with refusing(stored.path):
            check_rows(image, bytes_used(image))
        if tells_nothing(image):
            return np.asarray(image)
        image = image.convert("RGBA")
    alpha = image.mode in ("LA", "RGBA")
    counts = np.reshape(image.histogram(), (-1, 256))      # how often each level is there
    if alpha:
        counts = counts[:-1]
    if counts[:, MOST_NUMBERS:255].any():                  # no numbers: most pictures end here
        return None
    if alpha and image.getextrema()[-1][0] < 255:          # what is clear there is white
        return None
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
    if (green == blue).all() and ((green == red) | (green == 0)).all():
        return red
    return None


# Label maps: numbers or colours. The values that a file uses may mean classes by their numbers, by
# their colours or by their rows in a palette: a reading must fit all of them.

NEAR = 20    # from a class's colour, in levels: as smearing leaves most pixels
FAR = 40     # no smearing makes flat patches so far off
FLAT = 2     # levels: 3x3 pixels that range over no more are one flat patch
OFF = 5      # of what is flat in smeared maps a twentieth is farther off, in other sets' two thirds


def open_label_map(path, palette):
    """A file's classes, uint8 (H, W), 255 = ignore; None: see label_map_in."""
    return label_map_in(read_stored(path), palette)[0]


def label_map_in(stored, palette):
    """The one reading of a label map -> (classes uint8 (H, W) or None, how they were read).

    by number: grey levels below the number of classes, or 255 = ignore. So are palette files read
        whose colours are all such greys, and RGB files that are grey, or use one channel only.
    by colour: all colours used are just those of classes.
    by row: palette files that show neither, or one colour for all rows: the row is the number, and
        all files of a folder must agree.
    None, by nearest colour: colours that a JPEG or a resizing has smeared.
    """
    with refusing(stored.path):
        if "_labelTrainIds" in stored.path.name:
            raise OSError("holds Cityscapes' trainIds; give its _labelIds.png")
        if holds_ids(stored.path):
            return cityscapes_ids(stored), "by number"
        image = label_image(stored)
        # A GIF that is all black may show a class: where its folder's others are read by colour.
        if tells_nothing(image) and reading_of_others(stored, palette)["usual"] == "colour":
            image = image.convert("RGB")
        used = None                                        # of over 256 colours, or smeared ones
        if stored.lossy and stored.bands is None:
            refuse_smeared_numbers(image, len(palette))
        else:
            used = values_used(stored, image, palette)
        if used:
            classes, how = choose_reading(stored, used, palette)
            if classes:
                return used.classes_at(classes), how
        picture = to_tensor(image.convert("RGB"))
        refuse_foreign(picture, used, palette)
        if not stored.lossy:
            refuse_all_black(picture, palette)
        return None, "by nearest colour"


def cityscapes_ids(stored):
    """A _labelIds.png: Cityscapes' numbers become the rows of our palette."""
    greys = [[str(k), [k, k, k]] for k in range(len(CITYSCAPES_IDS))]
    used = values_used(stored, label_image(stored), greys)
    numbers = [one.number for one in used.meanings] if used else [None]
    if 255 in numbers:
        raise OSError("255 is none of Cityscapes' labelIds, but of its trainIds; give its own")
    if None in numbers:
        raise OSError("holds colours, not Cityscapes' labelIds; write the ids as 8-bit grey")
    refuse_unknown(used, numbers, greys)
    ids = used.classes_at(numbers)
    if (ids < 7).mean() > 0.5:                             # 0-6 are the camera's car, borders ...
        raise OSError("over half of it is none of Cityscapes' classes by its labelIds; are these "
                      "trainIds, or another set's numbers?")
    return np.array(CITYSCAPES_IDS, np.uint8)[ids]


def label_image(stored):
    """A label map's picture without its alpha. Of more than 8 bits: its values where all are below
    256, else their high bytes."""
    image = stored.image
    values = stored.bands
    if image.has_transparency_data:
        if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
            raise OSError("a label map with a transparent background; fill it with a class's "
                          "colour or number")
        plain = {"LA": "L", "PA": "P", "RGBA": "RGB", "RGBa": "RGB"}.get(image.mode, image.mode)
        image = image.convert(plain)
    if values is None:
        return image
    highest = float(values.max())                          # 65535 is beyond half floats
    if values.min() < 0 or highest > 65535 or (values % 1).any():
        raise OSError(f"holds values of {values.min():g} to {values.max():g}, which number no "
                      f"classes; write whole numbers from 0, and 255 for what to ignore")
    if holds_only_numbers(stored):
        return image
    if values.max() > 255:
        values = values // 256
    return from_array(values.astype(np.uint8))


def shown_colours(stored):
    """label_image() as a viewer shows it, a Pillow RGB picture."""
    return label_image(stored).convert("RGB")


def holds_only_numbers(stored):
    """Whether one channel of measured values can only be class numbers: of another step than 1, or
    over 255. Not 0, 257 ... 65535, which are grey levels up to white."""
    values = stored.bands
    if values is None or values.shape[2] > 1:
        return False
    up_to_white = float(values.max()) == 65535 and (values % 257 == 0).all()
    return stored.step != 1 or (values.max() > 255 and not up_to_white)


@dataclass
class Meaning:
    """What one of the values that a label map uses may mean."""
    value: int              # a grey level, a row of a palette, or r << 16 | g << 8 | b
    colour: tuple           # (r, g, b); None where the file does not tell it
    number: int             # as a class number; None: it cannot be one
    by_colour: int = None   # the class that has its colour, or None


@dataclass
class Used:
    """The values that a label map uses."""
    mode: str            # Pillow's, of the picture that holds them
    values: np.ndarray   # (H, W)
    meanings: list       # a Meaning for each that is there, rising

    def classes_at(self, classes):
        """The class of each Meaning, put where its value is: uint8 (H, W)."""
        table = np.zeros(self.meanings[-1].value + 1, np.uint8)          # 16 MB at most, for RGB
        table[[one.value for one in self.meanings]] = classes
        return table[self.values]


def values_used(stored, image, palette):
    """The Used of a label map whose label_image() is image; None of over 256 colours."""
    if holds_only_numbers(stored):
        values = stored.bands[..., 0].astype(np.int32)
        levels = np.unique(values).tolist()
        meanings = [Meaning(level, None, round(level / stored.step)) for level in levels]
    elif image.mode in ("1", "L"):
        grey = image.convert("L")
        values = np.asarray(grey)
        meanings = meanings_of_levels(bytes_used(grey), stored.step, len(palette))
    elif image.mode == "P":
        values = np.asarray(image)
        meanings = meanings_of_rows(image, bytes_used(image))
    else:
        rgb = image.convert("RGB")
        counts = rgb.getcolors(256)
        if counts is None:
            return None
        red, green, blue = np.moveaxis(np.array(rgb).astype(np.int32), 2, 0)
        values = red << 16 | green << 8 | blue
        meanings = meanings_of_colours(sorted(colour for _, colour in counts))
    classes = known_colours(palette)
    for one in meanings:
        one.by_colour = classes.get(one.colour)
    return Used(image.mode, values, meanings)


def bytes_used(image):
    """The levels of grey, or rows of a palette, that a Pillow picture uses, rising."""
    return np.flatnonzero(image.histogram()).tolist()


def meanings_of_colours(colours):
    """The Meaning of some colours. Where a single channel is used its levels are numbers:
    simulators write them in red, which BGR makes blue."""
    channels_used = [channel for channel in zip(*colours) if any(channel)]
    meanings = []
    for r, g, b in colours:
        number = max(r, g, b) if len(channels_used) == 1 else grey_level((r, g, b))
        meanings.append(Meaning(r << 16 | g << 8 | b, (r, g, b), number))
    return meanings


def meanings_of_levels(levels, step, count):
    """The Meaning of some levels of grey. Those of 1, 2 or 4 bits are numbers; but an optimiser
    puts 0, 17 and 255, too, into 4 bits, as 0, 1 and 15. Where both may be classes, and there are
    more than bits can number, the file is refused."""
    numbers = [round(level / step) for level in levels]
    number_of_levels = 255 // step + 1                     # steps of 17, 85, 255: 16, 4, 2
    may_be_packed = step in (17, 85, 255) and count > number_of_levels
    if may_be_packed and numbers != levels and are_classes(levels, count):
        raise OSError(f"has fewer than 8 bits a value: classes {numbers}, or {levels}, which an "
                      f"optimiser has packed? It does not say; write what is meant with 8 bits")
    return [Meaning(k, (k, k, k), number) for k, number in zip(levels, numbers)]


def meanings_of_rows(image, rows):
    """The Meaning of some of the rows of a palette picture."""
    if tells_nothing(image):
        return [Meaning(row, None, row) for row in rows]
    check_rows(image, rows)
    colours = palette_rows(image)
    # Many palettes are filled up to 256 rows with black. Row 255 then tells no colour, if black is
    # a row before, too; but where it is the only black row at the end, that may be on purpose.
    last = max([row for row, colour in enumerate(colours) if any(colour)], default=0)
    if len(colours) == 256 and last < 254 and (0, 0, 0) in colours[:last]:
        del colours[255]
    meanings = []
    for row in rows:
        if row < len(colours):
            meanings.append(Meaning(row, colours[row], grey_level(colours[row])))
        else:                                              # 255
            meanings.append(Meaning(row, None, row))
    return meanings


def palette_rows(image):
    """The colours of a palette picture's rows, [(r, g, b), ...]."""
    return [tuple(row) for row in np.reshape(image.getpalette("RGB"), (-1, 3)).tolist()]


def check_rows(image, rows):
    """Refuses a palette picture that uses rows which are not there: a PNG of up to 16 rows has so
    lost the higher bits of its numbers. Beyond more rows, 255 may be for pixels to ignore."""
    count = len(palette_rows(image))
    missing = [row for row in rows if row >= count]
    if missing and (missing != [255] or count <= 16):
        raise OSError(f"row {missing[0]} of its palette is used, but there are {count}: numbers "
                      f"may have been lost as it was written; write it as 8-bit grey")


def tells_nothing(image):
    """Whether all rows of a palette picture have one colour, as where a program has set none, or
    has written TIFF's 16 bits as 8: the rows are then numbers."""
    if image.mode != "P":
        return False
    rows = palette_rows(image)
    return len(rows) > 1 and len(set(rows)) == 1


def grey_level(colour):
    """k of a grey (k, k, k), else None."""
    r, g, b = colour
    return r if r == g == b else None


def choose_reading(stored, used, palette):
    """-> (the class of each Meaning, how: see label_map_in); (None, None) where no reading fits;
    OSError where two do that differ, as of a map that is all black, and nothing tells."""
    fitting = fitting_readings(used, palette)
    how = reading_by_others(stored, used, fitting, palette) or preferred(used, fitting, palette)
    if how is None:
        return None, None
    words = f"by {how}"
    if how == "colour" and 255 in fitting[how]:            # which no colour means by itself
        words += ", row 255 to ignore"
    if how != "colour" and used.mode == "P":
        words += ", from palette files"
    refuse_inverted(stored, how)
    if how == "row":
        refuse_other_rows(stored, used)
    return fitting[how], words


def fitting_readings(used, palette):
    """-> {"colour": the class of each Meaning, "number": ..., "row": ...}: those of these readings
    that give each a class. See refuse_unclear_rows."""
    readings = {"colour": [one.by_colour for one in used.meanings],
                "number": [one.number for one in used.meanings]}
    if used.mode == "P":
        readings["row"] = [one.value for one in used.meanings]
        last = used.meanings[-1]
        # A border, such as VOC's, may be in any colour; but white may be a mask's class 1.
        if last.value == 255 and last.by_colour is None and last.colour != (255, 255, 255):
            readings["colour"][-1] = 255
    count = len(palette)
    fitting = {how: classes for how, classes in readings.items() if are_classes(classes, count)}
    refuse_unclear_rows(used.meanings, fitting)
    return fitting


def are_classes(numbers, count):
    """Whether each is the number of one of so many classes, or 255, to ignore."""
    return all(number is not None and (number < count or number == 255) for number in numbers)


def differ(fitting):
    """Whether fitting_readings give other classes than each other."""
    readings = list(fitting.values())
    return any(classes != readings[0] for classes in readings[1:])


def reading_by_others(stored, used, fitting, palette):
    """Which of the fitting_readings of a file other maps tell: by number, where one of them that is
    surely by number holds 255, to ignore, and so does this; else as most are read. None: they tell
    nothing, or need not, as all readings agree, or two values or more tell enough."""
    numbers = fitting.get("number", [])
    mask = is_mask(numbers, palette)
    if not differ(fitting) and not mask:
        return None
    others = reading_of_others(stored, palette)
    usual = others["usual"]
    if others["ignores"] and 255 in numbers:
        return "number"
    if mask and "colour" not in fitting:                   # numbers alone do not say what 255 is
        return None
    tells_enough = len(used.meanings) > 1 and "colour" in fitting
    if tells_enough or usual not in fitting:
        return None
    return usual


def reading_of_others(stored, palette):
    """usual_reading() of the label maps beside a file. A map to translate that lies alone, or among
    others that tell nothing, is read as the run's own were in training."""
    nothing = {"maps": 0, "usual": None, "ignores": False, "rows": []}
    beside = asked_of_neighbours(usual_reading, stored, 3, palette) or nothing
    learned = stored.learned
    if learned is None:
        return beside
    if beside["maps"] < 2 or not beside["usual"]:          # one may be the file itself
        return learned
    if beside["usual"] == learned["usual"]:
        return {**beside, "ignores": beside["ignores"] or learned["ignores"]}
    return beside


def usual_reading(pictures, palette):
    """How label maps are read, as settings["reading"] keeps it: "maps", how many tell; "usual", how
    most are, "colour", "number" or "row", or None; "ignores", whether one of them that can only be
    read by number holds 255; "rows", of those read by row [[row, its colour], ...]."""
    votes = Counter()
    ignores = False
    rows = {}
    for stored in pictures:
        with suppress(Refusal), refusing(stored.path):     # what is unclear has no vote
            used = values_used(stored, label_image(stored), palette)
            if stored.lossy or used is None or not any(one.colour for one in used.meanings):
                continue                                   # such as of what tells_nothing
            fitting = fitting_readings(used, palette)
            if len(used.meanings) == 1 and differ(fitting):
                continue
            how = preferred(used, fitting, palette)
            votes[how] += 1
            if how == "row":
                rows.update((one.value, one.colour) for one in used.meanings if one.colour)
            if list(fitting) == ["number"] and 255 in fitting["number"]:
                ignores = True
    del votes[None]                                        # of pictures that no reading fits
    enough = 2 / 3 * votes.total()                         # our choice: two annotators may differ
    usual = [how for how, count in votes.items() if count > enough]
    return {"maps": votes.total(), "usual": usual[0] if usual else None, "ignores": ignores,
            "rows": [[row, list(colour)] for row, colour in sorted(rows.items())]}


def is_mask(numbers, palette):
    """Whether class numbers are 255 and perhaps 0, of two classes: 255 may be 1, or to ignore."""
    return len(palette) == 2 and 255 in numbers and 1 not in numbers


def preferred(used, fitting, palette):
    """Which of the fitting_readings is meant: "colour", "number" or "row"; None: no one."""
    colour = fitting.get("colour")
    number = fitting.get("number")
    row = fitting.get("row")
    if row and not colour and not all_told(used.meanings):
        return "row"                                       # some show no colour that could tell
    if not colour and not number:
        return "row" if row and not shows_smeared_colours(used.meanings, palette) else None
    if not colour:
        if is_mask(number, palette):
            raise OSError("a mask of 0 and 255: is 255 class 1, or 'ignore'? No class is white; "
                          f"write 0 and 1, or {PALETTE_HELP}")
        return "number"
    if not number or colour == number:
        return "colour"
    # White is a class's colour, or a colour is no grey: that they are numbers, too, is chance.
    colours = [one.colour for one in used.meanings]
    coloured = used.mode == "RGB" and any(grey_level(rgb) is None for rgb in colours)
    if 255 in number or row == colour or coloured:
        return "colour"
    if used.mode == "L" or row == number:
        return "number"
    raise OSError(f"colours {colours} are classes {colour} by colour, {number} by number; "
                  f"write class numbers as 8-bit grey, or colours of other classes, too")


def all_told(meanings):
    """Whether a file tells the colours of all the rows of its palette that it uses."""
    return all(one.colour is not None for one in meanings)


def are_few(meanings):
    """Whether all values may be numbers, and of so few classes as sets have."""
    numbers = [one.number for one in meanings if one.number != 255]
    return None not in numbers and max(numbers) < MOST_NUMBERS


def shows_smeared_colours(meanings, palette):
    """Whether a palette's colours are all near a class's, and no numbers."""
    if are_few(meanings) or not all_told(meanings):
        return False
    colours = torch.tensor([one.colour for one in meanings])
    return max(distances_of(colours, palette)) <= NEAR


def refuse_unclear_rows(meanings, fitting):
    """Refuses rows of a palette that may be classes, where their colours speak against it: see
    refuse_rows_apart; or two rows are shown in one colour, as if they were one class."""
    if list(fitting) == ["row"]:
        refuse_rows_apart(meanings)
    if "row" not in fitting or not differ(fitting) or not all_told(meanings):
        return
    first = {}                                             # row by colour
    for one in meanings:
        row = first.setdefault(one.colour, one.value)
        if row != one.value:
            raise OSError(f"rows {row} and {one.value} of its palette are both shown as "
                          f"{one.colour}: one class, or two? Give each class a colour of its own")


def refuse_rows_apart(meanings):
    """Refuses rows of which some are shown in classes' colours, one of them of another class than
    its row's. Row 0 is black in most palettes, and so tells nothing."""
    for one in meanings:
        black = one.value == 0 and one.colour == (0, 0, 0)
        if one.by_colour not in (None, one.value) and one.value != 255 and not black:
            raise OSError(f"row {one.value} of its palette is shown in the colour of class "
                          f"{one.by_colour}, {one.colour}, but other rows in colours of no class: "
                          f"which tells? If its rows are the classes, write it as 8-bit grey; else "
                          f"{PALETTE_HELP}")


def refuse_other_rows(stored, used):
    """Refuses a map to translate, read by row, that shows a row in another colour than the maps of
    the run's training did: its rows may number other classes. 255, to ignore, may be in any."""
    for row, colour in (stored.learned or {"rows": []})["rows"]:
        for one in used.meanings:
            if one.value == row != 255 and one.colour not in (None, tuple(colour)):
                raise OSError(f"number {row} is shown as {one.colour}, but was {tuple(colour)} in "
                              f"the run's training: an optimiser may have renumbered it; give the "
                              f"file from before it")


def refuse_inverted(stored, how):
    """Refuses numbers that may be those stored or those shown; and tifffile's masks, whose True is
    shown as black: other programs mean what is shown."""
    mask = stored.image.mode == "1" and stored.software.startswith("tifffile")
    if stored.inverted and (mask or how == "number"):
        raise OSError("a MinIsWhite TIFF, which shows 0 as white: are its numbers those that are "
                      "stored, or shown? It does not say; write them as PNG")


# What no reading fits: smeared colours, another set's map, or a photo

def refuse_foreign(picture, used, palette):
    """Refuses a picture, uint8 (3, H, W), of which not all values are classes', unless smearing
    explains that."""
    place = place_of_no_class(picture, palette)
    if used:
        meant = meant_reading(used, palette)
        if meant == "number":
            refuse_unknown(used, [one.number for one in used.meanings], palette)
        if meant == "row" and place:
            refuse_unknown(used, [one.value for one in used.meanings], palette)
        place = place_of_outline(used, palette) or place
    if place:
        y, x = place
        raise OSError(f"colour {tuple(picture[:, y, x].tolist())} at x={x}, y={y} is no class's; "
                      f"correct it, or {PALETTE_HELP}")


def meant_reading(used, palette):
    """What a map that no reading fits was probably meant to hold: "number", "row" or "colour"."""
    if used.mode == "P" and shows_smeared_colours(used.meanings, palette):
        return "colour"
    # Grey levels are numbers, but where all classes are grey: a resizing then blends them, too.
    all_grey = all(grey_level(colour) is not None for colour in known_colours(palette))
    grey = used.mode in ("1", "L") and not all_grey
    told = any(one.colour for one in used.meanings)
    if grey or not told or are_few(used.meanings):
        return "number"
    return "row" if used.mode == "P" else "colour"


def refuse_unknown(used, numbers, palette):
    """Refuses a map by the first of its numbers, one a Meaning, that is no class's; says where."""
    for one, number in zip(used.meanings, numbers):
        if not are_classes([number], len(palette)):
            y, x = np.argwhere(used.values == one.value)[0]
            raise OSError(f"class {number} at x={x}, y={y} is not in 0-{len(palette) - 1} or 255, "
                          f"and not all colours are classes'; correct it, or {PALETTE_HELP}")


def place_of_outline(used, palette):
    """(y, x) of an outline, or None: one or two colours, of 1% of the pixels or more, beside
    classes' and between no two of these, so that no resizing has made them."""
    others = [one for one in used.meanings if one.colour and one.by_colour is None]
    if len(others) > 2 or len(others) == len(used.meanings):
        return None
    known = np.array(list(known_colours(palette)), float)  # (M, 3)
    to_other = known - known[:, None]                      # (M, M, 3)
    squared = np.maximum((to_other ** 2).sum(2), 1)
    for one in others:
        from_first = one.colour - known[:, None]           # (M, 1, 3)
        along = ((from_first * to_other).sum(2) / squared).clip(0, 1)    # share of the way
        off = np.linalg.norm(from_first - along[..., None] * to_other, axis=2)
        places = used.values == one.value
        if off.min() > FAR and places.mean() >= 0.01:
            return tuple(np.argwhere(places)[0].tolist())
    return None


def place_of_no_class(picture, palette):
    """(y, x) of a colour of uint8 (3, H, W) that neither a JPEG nor a resizing has made of classes'
    colours, or None. Both smear, and what is smeared is hardly ever flat: so flat patches tell."""
    contrast = ranges(picture.numpy(), 1)                  # (H, W), levels
    off = distances_of(picture.flatten(1).T, palette).reshape(contrast.shape)
    flat = contrast <= FLAT
    blurred = not flat.any() and to_image(picture).getcolors(256) is None
    if looks_like_a_photo(contrast, off, blurred):
        return divmod(int(off.argmax()), off.shape[1])     # what is farthest off
    if blurred:
        return None
    places = np.argwhere(pixels_of_no_class(picture, off, flat))
    return tuple(places[0].tolist()) if len(places) else None


def pixels_of_no_class(picture, off, flat):
    """Which pixels are surely no class's, bool (H, W): see place_of_no_class. off: distances_of();
    flat: where a flat patch has its middle.

    Where most of what is flat is OFF, it is another set's map; else one patch that is FAR off is
    enough. Tried: of 400 facades none has a flat patch over 19 off. OFF was tried on maps as JPEG,
    TIFF and a GIF's 256 colours.
    """
    has_patches = flat.any()
    judged = flat if has_patches else np.ones_like(flat)   # of dots each pixel, by itself
    # Flat patches may be smeared pixels of a JPEG, each enlarged to a patch (tried: up to 4x4) that
    # tells nothing: then only patches of 9x9 pixels tell.
    near = off[judged]
    smeared = ((near > 0) & (near <= FAR)).mean() > 0.01
    if smeared and (near.max() > FAR or (near > OFF).mean() > 0.5):
        larger = judged & (ranges(picture.numpy(), 4) <= FLAT)
        has_patches = larger.any()
        if has_patches:
            judged = larger
    least = FAR if has_patches else math.inf
    if (off[judged] > OFF).mean() > 0.5:
        least = OFF
    return judged & (off > least)


def looks_like_a_photo(contrast, off, blurred):
    """Whether a picture is a photo, in which no one patch need be far from a palette's colours.
    contrast: see ranges(); off: see distances_of(); (H, W) both. blurred: nothing in it is flat.

    Photos are busy, though by greyish palettes no patch is far off: 3x3 pixels range over 15 to 51,
    as the median, where under .3 of all pixels are near a class's colour. Of maps with so few near
    they mostly range over less, blurred (of ten blurred by 5 pixels two over more: refused), or
    over 92 and more, small and in a JPEG. Tried on 35 photos, as they are and at 128x128, by six
    palettes: of 420 readings 3 take one for a map (without this, 43). With nothing flat, the median
    distance from the nearest class tells, too: of 30 photos it is 115 or more, of maps blurred by 8
    pixels, or enlarged from 24 pixels, at most 102."""
    busy = 14 < np.median(contrast) < 70
    if busy and (off <= NEAR).mean() < 0.3:
        return True
    return blurred and np.median(off) > 110


def distances_of(colours, palette):
    """How far colours, uint8 (M, 3), are from the nearest class's: (M,)."""
    known = class_colours(palette)[1]
    parts = colours.split(1 << 20)                         # 50 million, times 22 classes, is much
    return torch.cat([torch.cdist(known, part.float()).amin(0) for part in parts]).numpy()


def ranges(pixels, step):
    """uint8 (3, H, W) -> (H, W): how far the 3x3 pixels around each, `step` apart, are from one
    colour: the widest range of a channel."""
    h, w = pixels.shape[1:]
    padded = np.pad(pixels, ((0, 0), (step, step), (step, step)), "edge")
    starts = (0, step, 2 * step)
    shifted = [padded[:, y:y + h, x:x + w] for y in starts for x in starts]
    # Two by two: all nine together would be copied, 150 MB each of the largest pictures.
    highest = functools.reduce(np.maximum, shifted)
    lowest = functools.reduce(np.minimum, shifted)
    return (highest - lowest).max(0)


def refuse_smeared_numbers(image, count):
    """Refuses what a format has changed a little, and is nearly black and grey: numbers of so many
    classes, no longer exact. A JPEG moves them by up to some 10 levels, and their grey by 3."""
    few = np.asarray(image.convert("RGB"))[::8, ::8].astype(int)         # a sample will do
    if few.max() < count + 10 and np.ptp(few, axis=2).max() < 4:
        raise OSError(f"nearly black, up to {few.max()}, in a format that may lose a little: "
                      f"numbers of classes? Write them as PNG")


def refuse_all_black(picture, palette):
    """Refuses uint8 (3, H, W) that is nearly black and would all be one class: numbers in two
    channels, or a channel a class of 0 and 1."""
    if not 0 < picture.max() < MOST_NUMBERS:
        return
    counts = to_image(picture).getcolors(MOST_NUMBERS ** 3)              # all that there can be
    colours = torch.tensor([colour for _, colour in counts]).byte().T    # (3, M)
    if len(nearest_class(colours[None, :, None], palette).unique()) == 1:
        raise OSError(f"nearly black, up to {picture.max()}: numbers of classes? Write them as "
                      f"grey PNG, one number a pixel")


# Label maps as pictures and as classes; beside photos; a folder of them

def label_picture(stored, palette):
    """A label map as Pillow RGB in its classes' colours, however stored; smeared ones stay."""
    label_map, how = label_map_in(stored, palette)
    if label_map is None or how == "by colour":
        return shown_colours(stored)
    return to_image(colorize(label_map, palette))


def read_labels(files, palette):
    """The label map of a file or two, uint8 (H, W), whether it holds numbers or colours."""
    stored = label_part(files, palette)
    label_map = label_map_in(stored, palette)[0]
    if label_map is not None:
        return label_map
    return clean_label_map(np.array(shown_colours(stored)), palette)


def label_part(files, palette):
    """The label map among a task's files: the last, or of a side-by-side pair its half."""
    stored = read_stored(files[-1])
    alone = len(files) == 2 or holds_ids(stored.path)
    if alone or not is_two_halves(stored, [1, 1]):         # published pairs are two squares
        return stored
    return label_half(stored, palette) or stored


def label_half(stored, palette):
    """The half of a picture beside which the other is a photo; None: it is, or may be, one wide
    label map. Where neither half can be read, but the right one, as pairs are published, has more
    of the classes' colours, it is that half: what is wrong in it will be said."""
    left, right = halves(stored)
    if labels_and_photo(right, left, palette):
        return right
    if labels_and_photo(left, right, palette):
        by_row = how_read(left, palette).startswith("by row")
        return None if by_row else left                    # a photo of few colours has rows, too
    if how_read(left, palette) or how_read(right, palette) or has_mistakes(left, palette):
        return None
    return right if share_of_classes(right, palette) > share_of_classes(left, palette) else None


def has_mistakes(stored, palette):
    """Whether all colours, or numbers, that a picture uses are classes', but for one to three and
    fewer than these. In a photo many are none's."""
    if stored.lossy:                                       # it has changed them all
        return False
    used = None
    with suppress(Refusal), refusing(stored.path):
        used = values_used(stored, label_image(stored), palette)
    if used is None:                                       # refused, or over 256 colours
        return False
    by_colour = [one.by_colour is not None for one in used.meanings]
    by_number = [are_classes([one.number], len(palette)) for one in used.meanings]
    for known in (by_colour, by_number):
        mistakes = known.count(False)
        if 0 < mistakes <= 3 and mistakes < known.count(True):
            return True
    return False


def how_read(stored, palette):
    """How a label map is read, such as "by number" (see label_map_in); "": it is refused."""
    try:
        return label_map_in(stored, palette)[1]
    except Refusal:
        return ""


def is_exact(how):
    """Whether numbers or colours of classes were read (see how_read), and none smeared."""
    return how not in ("", "by nearest colour")


def labels_and_photo(labels, photo, palette):
    """Whether of two pictures the first is a label map, perhaps smeared, and the second none, not
    even one with a few mistakes.

    Tried, as JPEGs: of 400 published facades the maps have at least .34 of their pixels near a
    class's colour, the photos none; of 40 streets the maps have at least .75, the photos at most
    .33 or, at a third of their light, .69. None of these photos passes for a label map; a white one
    may, or one in the colours that kmeans has found in it.
    """
    how = how_read(photo, palette)
    if is_exact(how) or has_mistakes(photo, palette):
        return False
    smeared = how != ""                                    # a smeared map, or a photo
    share = share_of_classes(photo, palette)
    how_of_labels = how_read(labels, palette)
    if is_exact(how_of_labels):
        return not smeared or share <= 0.9                 # photos have at most .69
    least = 0.2 if how_of_labels else 0.3                  # two halves of a map differ by less
    return not smeared and share_of_classes(labels, palette) - share > least


def share_of_classes(stored, palette):
    """The share of pixels NEAR a class's colour; 0 of what cannot be shown in colours."""
    with suppress(Refusal), refusing(stored.path):
        few = to_tensor(shown_colours(stored))[:, ::4, ::4]              # a sample will do
        return (distances_of(few.flatten(1).T, palette) <= NEAR).mean()
    return 0.0


def agree_on_rows(paths, palette, advice="put these colours into palette.json"):
    """Refuses palette files of one folder that number the same colours differently, where the rows
    are the numbers, or of which some are read by row and others not."""
    files = []
    palettes = set()
    for path in paths:
        with suppress(Refusal), opened(path) as image:     # what fails is refused where it is read
            if image.mode == "P":
                files.append(path)
                palettes.add(bytes(image.getpalette("RGB")))
    if len(palettes) > 1:                                  # in most folders it is one
        refuse_renumbered(files, palette, advice)


def refuse_renumbered(files, palette, advice):
    """Refuses palette files that show one row in two colours, or of which some are read by row,
    others by the greys of numbers."""
    first_shown = {}                                       # row -> its colour, and a file with it
    by_grey = None                                         # a file
    readings = in_threads(lambda path: reading_of(path, palette), files)
    for path, (how, meanings) in zip(files, readings):
        if how.startswith("by number") and any(one.number != one.value for one in meanings):
            by_grey = by_grey or path
        rows = [one for one in meanings if one.colour and how.startswith("by row")]
        for one in rows:
            colour, file = first_shown.setdefault(one.value, (one.colour, path))
            if colour != one.colour:
                raise Refusal(f"{path}: number {one.value} is shown as {one.colour}, but in {file} "
                              f"as {colour}; an optimiser has renumbered them: give the files from "
                              f"before it, or {advice}")
    if by_grey and first_shown:
        _, by_row = next(iter(first_shown.values()))
        raise Refusal(f"{by_grey}: all its colours are greys of class numbers, but in {by_row} the "
                      f"rows of the palette are the numbers; write all as 8-bit grey, or {advice}")


def reading_of(path, palette):
    """How a palette file is read, and its Meanings; "" and [] of what label_map_in refuses."""
    try:
        stored = read_stored(path)
        how = label_map_in(stored, palette)[1]
    except Refusal:
        return "", []
    return how, values_used(stored, label_image(stored), palette).meanings


# Pairs: which way up, which shape

def has_shape(width, height, size):
    """Whether width x height pixels have the shape of size, [height, width], to 2%; None: any."""
    return size is None or abs(width * size[0] - height * size[1]) <= 0.02 * height * size[1]


def is_two_halves(stored, size):
    """Whether a picture may be two halves side by side, each of the shape of size."""
    width, height = stored.image.size
    return width % 2 == 0 and has_shape(width / 2, height, size)


def shape_of_pairs(settings):
    """The [height, width] whose shape each half of a pair must have; None: any."""
    return None if settings.get("crop") else settings.get("size")        # a sheet has no size yet


def stored_pair(settings, files):
    """Both halves of a pair, A and B, each Stored, of its channels and of shape_of_pairs."""
    size = shape_of_pairs(settings)
    channels = [channels_of(settings, name) for name in halves_named(settings)]
    if len(files) == 1:
        if channels[0] != channels[1]:
            raise Refusal(f"{files[0]}: halves side by side have one number of channels, but "
                          f"{channels} are wanted; put them into A/ and B/")
        stored = read_stored(files[0], channels[0])
        check_shape(stored, size, side_by_side=True)
        return halves(stored)
    a, b = [read_stored(path, count) for path, count in zip(files, channels)]
    check_turned(a, b)
    if a.image.size != b.image.size:
        raise Refusal(f"{a.path}: is {a.image.width}x{a.image.height}, but {b.path} is "
                      f"{b.image.width}x{b.image.height}; both halves of a pair need one size")
    check_shape(a, size)
    return [a, b]


def halves(stored):
    """The left and the right half of a side-by-side file."""
    w, h = stored.image.size
    parts = []
    for half, left in enumerate((0, w // 2)):
        image = stored.image.crop((left, 0, left + w // 2, h))
        bands = stored.bands
        if bands is not None:
            bands = bands[:, left:left + w // 2]
        parts.append(replace(stored, image=image, bands=bands, half=half))
    return parts


def check_turned(a, b):
    """Refuses a pair of which a camera's tag turns one half: labels were often drawn on the picture
    as it lies. Where the sides differ, their order tells."""
    if a.turn == b.turn:
        return
    turned, other = (a, b) if a.turn > 1 else (b, a)
    same = a.image.size == b.image.size
    if not (same and a.image.width != a.image.height and turned.turn > 4):
        raise Refusal(f"{turned.path}: its orientation tag (EXIF) turns it, but {other.path} has "
                      f"not the same; turn both upright, or take the tag out of both")


def check_shape(stored, size, side_by_side=False, advice=None):
    """Refuses half of a pair, or both side by side, of another shape than size: see has_shape.
    advice: in place of a --size, where the size is a run's."""
    w, h = stored.image.size
    width = w / 2 if side_by_side else w
    if width % 1:                                          # half a pixel
        how = advice or "cut it, or put single pictures into A/ and B/"
        raise Refusal(f"{stored.path}: is {w} pixels wide, and so no two halves; {how}")
    if has_shape(width, h, size):
        return
    what = "a pair side by side" if side_by_side else "a picture"
    if advice is None:
        fit = fitting_size(h, width, min(size))
        advice = "cut it"
        if fit:
            advice = f"give --size {fit[0]}x{fit[1]}, or --crop where shapes are mixed"
        if side_by_side:
            advice += ", or put single pictures into A/ and B/"
    raise Refusal(f"{stored.path}: is {w}x{h}, width x height, but {what} of height x width "
                  f"{size[0]}x{size[1]} has another shape; {advice}")


def fitting_size(height, width, side):
    """The [height, width] in multiples of 64, as the U-Net wants them, that has a picture's shape
    to 2% and its smaller side next to `side`; None of very long ones."""
    multiples = range(64, 1025, 64)
    all_sizes = itertools.product(multiples, multiples)
    sizes = [[h, w] for h, w in all_sizes if has_shape(width, height, [h, w])]
    return min(sizes, key=lambda size: abs(math.log(min(size) / side)), default=None)


# A folder as a whole: what is found out before training, and said

def survey(settings, scale):
    """The scales of a folder's deep pictures, one for A and B each, or None of 8-bit ones; scale:
    one that is given for both, or None. Refuses palette files that disagree."""
    kind = TASKS[settings["task"]].kind
    folder = settings["data"]
    maps = kind == "label maps"
    files = split_files(folder, "train", maps) + split_files(folder, "val", maps)
    scales = [None, None]                                  # of A, of B
    if maps:
        paths = [paths[-1] for paths in files]
        if holds_ids(paths[0]):
            check_ids(paths[:8])                           # a few: trainIds show in the first
        agree_on_rows(paths, settings["palette"])
    elif kind == "photos":
        photos = [paths[0] for paths in files]             # not the labels beside them
        scales = [scale_in(photos, settings, "x", scale)] * 2    # x and y are made of one photo
    else:
        scales = survey_pairs(files, settings, scale)
    if scale and not any(scales):
        raise Refusal(f"--range: no picture in {folder} has values of more than 8 bits; leave it "
                      f"out")
    return scales if any(scales) else None


def survey_pairs(files, settings, scale):
    """-> the scales of A and B; refuses label maps in the wrong half, or not numbered alike."""
    labels = label_side(settings)
    if labels and channels_of(settings, labels) != 3:
        raise Refusal(f"{settings['data']}: with its palette.json, {labels} is a label map, seen "
                      f"in 3 channels of colours; leave the number of its channels out")
    if labels:
        refuse_other_half(settings, files[0])
    if len(files[0]) == 1:                                 # side by side: both halves have one
        paths = [paths[0] for paths in files]
        return [scale_in(paths, settings, halves_named(settings)[0], scale)] * 2
    scales = []
    for side, paths in zip(halves_named(settings), zip(*files)):  # the files of A, then those of B
        if side == labels:
            agree_on_rows(paths, settings["palette"])
            scales.append(None)
        else:
            scales.append(scale_in(paths, settings, side, scale))
    return scales


def scale_in(paths, settings, side, scale):
    """find_scale() of the files of "x" or "y"."""
    channels = channels_of(settings, side)
    if channels != 3:
        refuse_ones(paths, channels)
    advice = ", or a scale for the latter: --range 0 65535"
    return find_scale(paths, channels, scale, advice, numbers_help(settings))


def refuse_ones(paths, channels):
    """Refuses 8-bit files with a channel of 0 and 1 alone, such as a mask or one-hot classes, which
    is black to a network. A few files, 8 at most, tell."""
    highest = []
    for path in paths[::len(paths) // 8 + 1]:
        with suppress(OSError, Refusal):                   # it is refused where it is read
            bands = read_stored(path, channels).bands
            if bands is not None and bands.dtype == np.uint8:
                highest.append(bands.max((0, 1)))
    ones = np.flatnonzero(np.max(highest or [[0]], 0) == 1)
    if len(ones):
        raise Refusal(f"{paths[0]} and others: channel {ones[0]}, from 0 up, holds 0 and 1 alone, "
                      f"of 255; write 255 for 1, or write floats")


def refuse_other_half(settings, files):
    """Refuses pairs of which not the half that should be the label map is one, but the other."""
    half = half_of(settings, label_side(settings))
    palette = settings["palette"]
    try:
        parts = stored_pair(settings, files)
    except Refusal:                                        # said where they are read
        return
    if not labels_and_photo(parts[1 - half], parts[half], palette):
        return
    where = ("the left half", "the right half")[half]
    if len(files) == 2:
        where = f"in {files[half].parent.name}/"
    raise Refusal(f"{parts[half].path}: the label map of a pair should be {where}, but it is the "
                  f"other half; put label maps into labels/ and photos into photos/")


def check_ids(paths):
    """Refuses _labelIds.png without a number over 18, where trainIds end: sky and cars follow."""
    highest = max(read_stored(path).image.convert("L").getextrema()[1] for path in paths)
    if highest < 19:
        raise Refusal(f"{paths[0]}: no number over {highest} here or in the next files: these are "
                      f"no labelIds of Cityscapes, but trainIds or another set's; give its own")


def scales_of(settings):
    """The scales of A and B; an older run's settings have none."""
    return settings.get("range") or [None, None]


def scale_of(settings, side):
    """The scale of "x" or "y"."""
    return scales_of(settings)[half_of(settings, side)]


def what_was_read(settings, pictures, held):
    """Lines to print: how the files of a run's Pictures are read, and what else lies there."""
    if pictures.files is None:
        return []
    row = TASKS[settings["task"]]
    files = pictures.files[0]
    words = "read as " + row.kind
    if row.kind == "pairs" and len(files) == 1:
        words += ", side by side"
    elif row.kind == "pairs":
        words += f", {files[0].parent.name}/ and {files[1].parent.name}/"
    elif row.kind == "photos" and len(files) == 2:
        words += f" of {files[0].parent.name}/ alone, not of {files[1].parent.name}/"
    how = how_labels_are_read(settings, files)
    lines = [f"{words}, labels {how}" if how else words]
    lines += ignored_words(settings, pictures.files)
    for name, scale in zip("AB", scales_of(settings)):
        if scale:
            lines.append(f"{scale_words(scale, name)} (another: --range LOW HIGH)")
    lines += sketch_words(settings, files)
    lines += squashed_words(settings, files)
    lines += unused_words(settings["data"], pictures, held)
    return lines


def ignored_words(settings, files):
    """A line where one of the first label maps of pairs says "ignore", and black, as which that is
    seen, is a class's colour."""
    black = [name for name, rgb in settings["palette"] or [] if rgb == [0, 0, 0]]
    if not black or not label_side(settings):
        return
    for paths in files[:8]:
        stored = stored_labels(settings, paths)
        classes, _ = label_map_in(stored, settings["palette"])
        if classes is not None and (classes == 255).any():
            yield (f"255, to ignore, is seen as {black[0]}, as both are black, such as in "
                   f"{stored.path}")
            return


def scale_words(scale, pictures):
    """What is done with pictures of more than 8 bits a value."""
    what = "one scale for each channel of" if np.ndim(scale) > 1 else "one scale for all of"
    return f"{what} {pictures}: {ends_of(scale)} become 0 to 255"


def ends_of(scale):
    """A scale in words: "0 to 9", or of several channels "0 to 9, -1 to 1"."""
    lows, highs = np.atleast_1d(scale[0]), np.atleast_1d(scale[1])
    return ", ".join(f"{low:g} to {high:g}" for low, high in zip(lows, highs))


def reading_of_training(settings):
    """usual_reading() of the label maps to train on; None where there are none."""
    maps = TASKS[settings["task"]].kind == "label maps"
    files = split_files(settings["data"], "train", maps)
    labels = stored_labels(settings, files[0])
    return None if labels is None else reading_of_others(labels, settings["palette"])


def how_labels_are_read(settings, files):
    """How the label map among a task's files is read, such as "by number"; None: there is none."""
    labels = stored_labels(settings, files)
    if labels is None:
        return None
    return label_map_in(labels, settings["palette"])[1]


def stored_labels(settings, files):
    """The label map among a task's files, Stored; None where there is none."""
    if TASKS[settings["task"]].kind == "label maps":
        return label_part(files, settings["palette"])
    side = label_side(settings)
    if side is None:
        return None
    return stored_pair(settings, files)[half_of(settings, side)]


def sketch_words(settings, files):
    """A line where the first drawing is one of light lines on dark."""
    if not sketched(settings):
        return
    drawing = stored_pair(settings, files)[half_of(settings, "x")]
    levels = levels_in(drawing, scale_of(settings, "x"), channels_of(settings, "x"))
    if is_on_dark(levels):
        yield "drawings in light lines on dark become dark ones on light, as a user's own do"


def squashed_words(settings, files):
    """A line where photos or label maps change their shape; pairs that would are refused."""
    kind = TASKS[settings["task"]].kind
    if kind == "pairs" or settings.get("crop"):
        return
    palette = settings["palette"]
    stored = read_stored(files[0]) if kind == "photos" else label_part(files, palette)
    w, h = stored.image.size
    size = settings["size"]
    fit = fitting_size(h, w, min(size))
    advice = ""
    if kind == "photos" and fit:
        advice = f"; --size {fit[0]}x{fit[1]} keeps their shape"
    if not has_shape(w, h, size):
        yield (f"pictures of other shapes are squashed to height x width {size[0]}x{size[1]}, such "
               f"as one of {h}x{w}{advice}")


def unused_words(folder, *splits):
    """A line such as "5 files not used: 3 .heic, 2 broken links, folders more/", or none."""
    folder = Path(folder)
    used = {path for pictures in splits for paths in pictures.files for path in paths}
    homes = {home for path in used for home in path.parents}
    inside = sorted(home for home in homes if folder in (home, *home.parents))
    expected = {folder / "palette.json", *used, *homes}
    counts = Counter()
    folders = []
    for path in itertools.chain.from_iterable(sorted(home.iterdir()) for home in inside):
        if path in expected or path.name in ("test", "sheet.png") or path.name.startswith("."):
            continue
        if path.is_dir():
            folders.append(f"{path.relative_to(folder)}/")
        elif path.is_symlink() and not path.exists():
            counts["broken links"] += 1
        else:
            counts[path.suffix.lower() or "without an ending"] += 1
    parts = [f"{count} {kind}" for kind, count in sorted(counts.items())]
    if folders:
        parts.append("folders " + ", ".join(folders[:9]))
    if parts:
        yield f"{counted(counts.total(), 'file')} not used: {', '.join(parts)}"


# A user's picture, and the size at which a run knows it

def input_words(settings, path):
    """How a picture to translate is read, in a word or two. path: as read_input's."""
    if label_side(settings) == "x":
        stored = replace(stored_of(path), learned=settings.get("reading"))
        with offering_no_palette():
            return f"label map, {label_map_in(stored, settings['palette'])[1]}"
    if sketched(settings):
        return "drawing, in lines on paper"
    scale = scale_of(settings, "x")
    values = deep_values(stored_of(path, channels_of(settings, "x")))
    if values is None and scale:
        return f"picture of 8 bits, as it is (in training {ends_of(scale)} became 0 to 255)"
    if values is None:
        return "picture"
    scale = scale or [0, 65535]
    return f"picture, {ends_of(scale)} as 0 to 255{other_unit_words(values, scale)}"


def other_unit_words(values, scale):
    """Words to add where deep values, (H, W, C), become black or white: they lie all at the ends of
    a scale or beyond them, as millimetres do where a run learned metres; or, the other way round,
    all that differs between them is less than a level. Else none."""
    low, high = np.array(scale)
    its_own = f", but its own, {values.min():g} to {values.max():g},"
    inside = (values > low) & (values < high)
    beyond = (values < low) | (values > high)
    if beyond.any() and not inside.any():
        return f"{its_own} lie outside: in another unit?"
    spread = np.ptp(values.astype(float), (0, 1))          # of int8 it may be beyond int8
    if spread.any() and (255 * spread < high - low).all():
        return f"{its_own} differ by less than one of 255 levels: flat, or in another unit?"
    return ""


def pair_in_other_units(settings, files):
    """Lines where a half of a pair holds deep values that a run's scale turns black, white or flat:
    see other_unit_words."""
    if TASKS[settings["task"]].kind != "pairs":
        return
    for stored, scale in zip(stored_pair(settings, files), scales_of(settings)):
        values = deep_values(stored)
        if scale is None or values is None:
            continue
        words = other_unit_words(values, scale)
        if words:
            yield f"{stored.path}: {ends_of(scale)} become 0 to 255{words}"


def read_input(settings, path, pair=False):
    """A picture to translate, uint8 (C, H, W), read as in training; of a side-by-side pair, the
    half that is x. path: of a file, or a frame of frames_of()."""
    channels = channels_of(settings, "x")
    stored = replace(stored_of(path, channels), learned=settings.get("reading"))
    if pair:
        size = shape_of_pairs(settings)
        check_shape(stored, size, side_by_side=True, advice="leave --pair out, or cut it")
        stored = halves(stored)[half_of(settings, "x")]
    if label_side(settings) == "x":
        if not pair:
            refuse_a_whole_pair(settings, stored)
        with offering_no_palette():
            return to_tensor(label_picture(stored, settings["palette"]))
    frame = isinstance(path, Stored)                       # a film may fade to black
    if TASKS[settings["task"]].kind == "pairs" and not settings["palette"] and not frame:
        refuse_numbers(stored, "this run takes pictures; give one in the colours that it learned")
    return torch.from_numpy(levels_in(stored, scale_of(settings, "x"), channels).copy())


LEARNED_HELP = "give maps of the classes that this run learned, in their colours"


@contextmanager
def offering_no_palette():
    """A map to translate is refused without PALETTE_HELP: a run has its own palette."""
    try:
        yield
    except Refusal as refusal:
        raise Refusal(str(refusal).replace(PALETTE_HELP, LEARNED_HELP)) from None


def refuse_a_whole_pair(settings, stored):
    """Refuses what may be a whole pair, half of it a label map: by nearest colour its photo would
    be labels, too, and nobody would be told."""
    palette = settings["palette"]
    halves_fit = is_two_halves(stored, shape_of_pairs(settings))
    if not halves_fit or is_exact(how_read(stored, palette)):
        return
    left, right = halves(stored)
    for side, photo, labels in (("left", left, right), ("right", right, left)):
        if labels_and_photo(labels, photo, palette):
            raise Refusal(f"{stored.path}: its {side} half is no label map; give one without it")


def stored_of(path, channels=3):
    """A file's picture of so many channels; or path itself, where it is one already, of a film."""
    if not isinstance(path, Stored):
        return read_stored(path, channels)
    if channels != 3:
        raise Refusal(f"{path.path}: a film has 3 channels, and this run takes {channels}; give "
                      f"single pictures")
    return path


def known_size(settings, size):
    """The [h, w] at which a run knows what a picture of size [h, w] shows.

    To a run of 128x128, into which training squeezes each picture, one of 256x256 shows everything
    twice as large as ever. So one of that shape (to 2%) is known at just that size, another at the
    smallest that covers it; and at its own where the run keeps to a scale, or is of sketches, which
    input_to_network itself shrinks."""
    height, width = settings["size"]
    h, w = size
    if keeps_scale(settings) or sketched(settings):
        return [h, w]
    if has_shape(w, h, [height, width]):
        return [height, width]
    factor = max(height / h, width / w)
    return [max(round(h * factor), 1), max(round(w * factor), 1)]


def keeps_scale(settings):
    """Whether a run sees larger pictures as more of the same: maps, as many metres a pixel at any
    size, and what --crop has shown at its own scale."""
    return TASKS[settings["task"]].archive == "maps" or bool(settings.get("crop"))


def at_known_size(settings, pictures):
    """uint8 (N, C, H, W) at the size that a run knows; label maps do not blend."""
    labels = label_side(settings) == "x"
    size = known_size(settings, pictures.shape[2:])
    return torch.stack([resize(picture, size, nearest=labels) for picture in pictures])


def enlarged(settings, fake, size):
    """What G made at_known_size(), (N, C, h, w) in [-1, 1], at its picture's own size."""
    if label_side(settings) == "y":                        # label maps must not blend
        return F.interpolate(fake, size, mode="nearest-exact")
    return F.interpolate(fake, size, mode="bicubic", antialias=True).clamp(-1, 1)


# Between Pillow and torch

def to_array(image):
    """A Pillow picture, RGB or grey -> numpy's uint8 (3 or 1, H, W)."""
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def to_tensor(image):
    """A Pillow picture, RGB or grey -> uint8 (3 or 1, H, W)."""
    return torch.from_numpy(to_array(image).copy())        # torch would copy in threads of its own


def to_image(picture):
    """uint8 (3 or 1, H, W) -> a Pillow picture."""
    return from_array(picture.permute(1, 2, 0).numpy())


def from_array(values):
    """numpy's uint8 (H, W, 3 or 1) -> a Pillow picture."""
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def resize_image(image, size, nearest=False):
    """A Pillow picture of size (height, width), None: as it is; bicubic, or nearest for labels."""
    if size is None or image.size == (size[1], size[0]):
        return image
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return image.resize((size[1], size[0]), how)


def resize(picture, size, nearest=False):
    """resize_image() of a tensor, uint8 (C, h, w) -> (C, *size)."""
    if tuple(picture.shape[1:]) == tuple(size):
        return picture
    # Others than RGB each for itself: Pillow takes a second or fourth channel for opacity.
    parts = [picture] if len(picture) == 3 else picture.split(1)
    return torch.cat([to_tensor(resize_image(to_image(part), size, nearest)) for part in parts])


# Sequences: an animated GIF, a TIFF of several pages

MOST_FRAMES = 100_000
SEQUENCES = {"GIF": (".gif",), "TIFF": (".tif", ".tiff")}


def frame_count(path):
    """How many pictures a GIF or a TIFF holds; 1 of every other file or folder, readable or not."""
    with suppress(Refusal), opened(path, page=0) as image:
        if image.format in SEQUENCES:
            return len(pages_of(image, MOST_FRAMES))
    return 1


def frames_of(path):
    """Yields the pictures of a GIF or a TIFF, Stored; image.info has a GIF's "duration" and "loop".

    Of a GIF Pillow gives the first frame in palette colours, the others in RGB. Here all are in
    RGB: rows of palettes mean nothing where every frame may number its colours anew."""
    with opened(path, page=0) as image:
        for number, page in enumerate(pages_of(image, MOST_FRAMES), 1):
            if image.format == "TIFF":
                name = Path(f"{path}, page {number}")
                yield replace(read_stored(path, page=page), path=name)
                continue
            name = Path(f"{path}, frame {number}")
            with refusing(name):
                image.seek(page)
                mode = "RGBA" if image.has_transparency_data else "RGB"
                yield Stored(name, image.convert(mode))


def sequence_out(source, out, count):
    """The file to write for a GIF or a TIFF of count pictures: of the same kind, or a Refusal."""
    with opened(source, page=0) as image:
        endings = SEQUENCES[image.format]
    [(_, out)] = sources(source, out, endings[0])
    if out.suffix.lower() not in endings:
        raise Refusal(f"{out}: {source} holds {count} pictures; give a name ending in "
                      f"{' or '.join(endings)}, or a folder that is there")
    return out


def frame_content(out, frame, picture):
    """What sequence_bytes() wants of uint8 (3, H, W), made of a frame of frames_of()."""
    if out.suffix.lower() == ".gif":
        info = frame.image.info
        return picture.shape[1:], gif_frame(picture, info.get("duration")), info.get("loop")
    return picture


def sequence_bytes(out, contents):
    """The frame_content() of all frames -> a file's bytes, a GIF's or a TIFF's by its name."""
    if out.suffix.lower() == ".gif":
        size, _, loop = contents[0]
        return join_gif([part for _, part, _ in contents], size, loop)
    first, *others = [to_image(picture) for picture in contents]
    file = io.BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=others, compression="tiff_lzw")
    return file.getvalue()


def gif_frame(picture, duration):
    """uint8 (3, H, W), shown for duration in ms (None: not said) -> its part of a GIF."""
    image = to_image(picture).quantize(256)                # no dither, whose dots would flicker
    options = {}
    if duration is not None:                               # disposal 1: else Pillow leaves out a 0
        options = {"duration": duration, "disposal": 1}
    parts = GifImagePlugin.getdata(image, include_color_table=True, **options)
    return b"".join(parts)


def join_gif(frames, size, loop):
    """gif_frame()s of size [h, w] -> a GIF, played `loop` times more, 0: for ever, None: once.
    Pillow joins them, too, but leaves out each frame that equals the one before it."""
    height, width = size
    head = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x70, 0, 0)
    if loop is not None:
        head += struct.pack("<3s11sBBHB", b"!\xff\x0b", b"NETSCAPE2.0", 3, 1, loop, 0)
    return head + b"".join(frames) + b";"


# Colour spaces, for colorization

RGB_TO_XYZ = torch.tensor([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                           [0.0193339, 0.1191920, 0.9503041]])             # sRGB, D65
WHITE = torch.tensor([0.95047, 1.0, 1.08883]).view(3, 1, 1)


def rgb_to_lab(images):
    """uint8 (N, 3, H, W) -> CIE Lab, float (N, 3, H, W): L 0..100, a and b signed, grey at 0."""
    c = images.float() / 255
    linear = torch.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = on_device(RGB_TO_XYZ, c.device)
    white = on_device(WHITE, c.device)
    xyz = torch.einsum("ij,njhw->nihw", to_xyz, linear) / white
    root = xyz.clamp_min(1e-9) ** (1 / 3)                  # CIE 15: a cube root, and near 0 a line
    x, y, z = torch.where(xyz > 216 / 24389, root, (24389 / 27 * xyz + 16) / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lab_to_rgb(lab):
    """The inverse of rgb_to_lab; what sRGB cannot show is clipped."""
    y = (lab[:, 0] + 16) / 116
    f = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], 1)
    xyz = torch.where(f > 6 / 29, f ** 3, (116 * f - 16) * 27 / 24389) * WHITE.to(lab.device)
    to_rgb = RGB_TO_XYZ.inverse().to(lab.device)
    linear = torch.einsum("ij,njhw->nihw", to_rgb, xyz).clamp(1e-9, 1)
    c = torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return (c * 255).round().byte()


# Edges, and sketches to look like them

RING = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))  # clockwise from the north


def neighbours(pixels):
    """The 8 neighbours of each pixel, clockwise from the north: (N, 1, H, W) -> (8, N, 1, H, W)."""
    h, w = pixels.shape[2:]
    padded = F.pad(pixels, (1, 1, 1, 1))
    return torch.stack([padded[..., y:y + h, x:x + w] for y, x in RING])


def thin(lines):
    """Zhang & Suen 1984: peels bool (N, 1, H, W) to 1-pixel lines, then cuts their stairs."""
    while True:
        before = lines
        for south_east in (True, False):                   # from two corners in turn
            ring = neighbours(lines)
            n, e, s, w = ring[::2]
            count = ring.sum(0)
            starts = (~ring & ring.roll(-1, 0)).sum(0)     # of lines that leave the pixel
            outer = ~(e & s & (n | w)) if south_east else ~(n & w & (e | s))
            peel = (count >= 2) & (count <= 6) & (starts == 1) & outer
            lines = lines & ~peel
        if torch.equal(lines, before):
            break
    for turn in (0, 2, 4, 6):                              # a step's corner: its ends still touch
        n, ne, e, _, s, sw, w, _ = neighbours(lines).roll(-turn, 0)
        corner = n & e & ~(ne | s | sw | w)
        lines = lines & ~corner
    return lines


def keep_pieces(lines, strong):
    """Keeps the connected pieces of bool (N, 1, H, W) with 5 pixels and a strong one."""
    todo = {tuple(place) for place in lines.nonzero().tolist()}
    kept = torch.zeros_like(lines)
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    while todo:
        piece = [todo.pop()]
        for n, c, y, x in piece:                           # it grows while it is walked through
            near = todo & {(n, c, y + i, x + j) for i, j in steps}
            todo -= near
            piece += near
        places = torch.tensor(piece).unbind(1)
        kept[places] = len(piece) >= 5 and bool(strong[places].any())
    return kept


def edges(photos):
    """Photos as line drawings: uint8 (N, 3, H, W) -> (N, 1, H, W), lines 0 on 255, 1 pixel wide.
    Canny 1986: smooth, take the gradient, keep its ridges, join weak ones to strong ones, drop
    pieces under 5 pixels. The paper's edges are HED's, a network that has learned people's outlines
    of objects; these follow contrast: texture and shadows, too."""
    dy, dx = torch.gradient(smooth(photos), dim=(2, 3))
    slope, channel = torch.hypot(dx, dy).max(1, keepdim=True)            # the strongest channel
    dx = dx.gather(1, channel)
    dy = dy.gather(1, channel)
    n, ne, e, se, s, sw, w, nw = neighbours(slope)
    # The higher of the two neighbours that lie along the gradient: a ridge is at least as high.
    across = torch.where(dx * dy > 0, torch.maximum(se, nw), torch.maximum(ne, sw))
    across = torch.where(dx.abs() > 2.4 * dy.abs(), torch.maximum(e, w), across)  # tan 67.5 degrees
    across = torch.where(dy.abs() > 2.4 * dx.abs(), torch.maximum(n, s), across)
    strong = 12.0                                          # levels a pixel
    ridges = (slope >= across) & (slope > 0.4 * strong)
    lines = keep_pieces(thin(ridges), slope > strong)
    return torch.where(lines, 0, 255).byte()


def smooth(photos):
    """Gaussian blur, sigma 4/3 pixels: uint8 (N, 3, H, W) -> float (N, 3, H, W)."""
    bell = torch.exp(-torch.linspace(-3, 3, 9, device=photos.device) ** 2 / 2)
    bell = (bell / bell.sum()).expand(3, 1, 1, -1)         # along a row; then along a column
    padded = F.pad(photos.float(), (4, 4, 4, 4), mode="replicate")       # a border is no edge
    rows = F.conv2d(padded, bell, groups=3)
    return F.conv2d(rows, bell.transpose(2, 3), groups=3)


def clean_sketch(image, size):
    """A drawing in any colours -> lines as edges() makes them: uint8 (N, 3, H, W) -> (N, 1, *size).
    Ink is what differs from the paper round about by a third of the most that anything does. Thick
    or large drawings shrink to size, (height, width), without losing a line."""
    small = F.interpolate(image.float(), (128, 128)).unfold(2, 32, 32).unfold(3, 32, 32)
    paper = small.flatten(4).median(-1).values             # (N, 3, 4, 4): light falls off on photos
    paper = F.interpolate(paper, image.shape[2:], mode="bilinear")
    ink = (image.float() - paper).abs().amax(1, keepdim=True)
    least = (ink.amax((2, 3), keepdim=True) / 3).clamp(min=25)           # paper's grain is no ink
    lines = (ink > least).float()
    lines = F.adaptive_max_pool2d(lines, size) > 0
    kept = keep_pieces(thin(lines), lines)
    return torch.where(kept, 0, 255).byte()


# k-means: label maps of any photos, by clustering their colours: "Imagine your World"

def kmeans_palette(pixels, classes):
    """The mean colours of k-means++ clusters, darkest first: (M, 3), 0-255 -> uint8 (classes, 3).
    An empty cluster moves to a pixel that is worst off. Too few colours: Refusal."""
    rng = torch.Generator().manual_seed(0)
    pixels = pixels.float()
    colours = len(pixels.unique(dim=0))
    if colours < classes:
        raise Refusal(f"--classes {classes}: only {colours} colours are there; give fewer")
    centres = first_centres(pixels, classes, rng)
    for _ in range(50):                                    # it mostly settles within these
        distance, nearest = torch.cdist(pixels, centres).min(1)
        groups = [nearest == k for k in range(classes)]
        centres = torch.stack([pixels[group].mean(0) for group in groups])
        empty = centres.isnan().any(1)
        worst = distance.topk(int(empty.sum())).indices
        centres[empty] = pixels[worst]
    darkest_first = centres.sum(1).argsort()
    return centres[darkest_first].round().byte()


def first_centres(pixels, classes, rng):
    """k-means++ (Arthur & Vassilvitskii 2007), (M, 3) -> (classes, 3): each next centre is drawn
    with the square of its distance from the nearest before it."""
    centres = pixels[torch.randint(len(pixels), (1,), generator=rng)]
    while len(centres) < classes:
        squared = torch.cdist(pixels, centres).amin(1) ** 2
        chosen = torch.multinomial(squared, 1, generator=rng)
        centres = torch.cat([centres, pixels[chosen]])
    return centres


def kmeans_folder(photos, out, classes, size=(256, 256)):
    """Photos, cut to the shape of size -> OUT/train and OUT/val (a fifth): label map | photo pairs
    for `--task pairs`, with palette.json and sheet.png, to judge the labels by. Clusters are those
    of the whole folder: a colour means the same in every picture."""
    out = Path(out)
    files = list_pictures(photos)
    if not 1 < classes < 100:
        raise Refusal(f"--classes {classes}: out of range; give 2 to 99")
    if len(files) < 2:
        raise Refusal(f"{photos}: {counted(len(files), 'picture')}; give at least two")
    for name in ("train", "val", "palette.json", "sheet.png"):           # what will be written
        if (out / name).exists():
            raise Refusal(f"{out / name}: is there already; give OUT a new folder")
    rng = torch.Generator().manual_seed(0)
    scale = find_scale(files)
    if scale:
        print(scale_words(scale, photos))
    sample = sample_pixels(files, rng, scale)
    colours = kmeans_palette(sample, classes).tolist()
    palette = [[f"class {number}", colour] for number, colour in enumerate(colours)]
    held = torch.randperm(len(files), generator=rng)[:max(1, len(files) // 5)].tolist()
    tiles = []                                             # of the sheet
    for number, path in enumerate(files):
        pair = kmeans_pair(open_picture(path, scale), palette, size)
        split = "val" if number in held else "train"
        save_picture(out / split / f"{path.stem}.png", pair)
        if number < 12:
            tiles.append(resize(pair, [192, 384]))
    write_whole(out / "palette.json", json.dumps(palette).encode())
    for colour in colours:
        tiles.append(torch.tensor(colour).byte()[:, None, None].expand(3, 192, 384))
    rows = [tiles[i:i + 4] for i in range(0, len(tiles), 4)]
    save_picture(out / "sheet.png", contact_sheet(rows))


def sample_pixels(files, rng, scale):
    """Some pixels of all files together: uint8 (M, 3), M over 200,000."""
    count = 200_000 // len(files) + 1
    sample = []
    for path in files:
        pixels = to_tensor(open_picture(path, scale)).flatten(1).T             # (H * W, 3)
        places = torch.randint(len(pixels), (count,), generator=rng)
        sample.append(pixels[places])
    return torch.cat(sample)


def kmeans_pair(image, palette, size):
    """A Pillow photo, cut to the shape of size -> label map | photo, uint8 (3, H, 2 * W)."""
    factor = min(image.height / size[0], image.width / size[1], 1024 / max(size))
    height = round(factor * size[0]) or 1
    width = round(factor * size[1]) or 1
    photo = to_tensor(ImageOps.fit(image, (width, height)))
    labels = to_image(nearest_class(photo[None], palette).byte())
    labels = labels.filter(ImageFilter.ModeFilter(5))      # the commonest nearby: no grains
    return torch.cat([colorize(labels, palette), photo], dim=2)


# Drawn facades and shapes, for machines without a network

WALLS = ((196, 172, 118), (172, 164, 150), (150, 88, 68), (200, 186, 162), (150, 164, 140))
# What drawn windows have around them: how often, then (left, top, right, bottom) in the window's
# widths and heights from its top left corner; chosen so that class shares come near the real ones.
ORNAMENTS = (
    ("cornice", 0.6, (-0.25, -0.27, 1.25, 0)), ("deco", 0.4, (-0.1, -0.47, 1.1, -0.27)),
    ("sill", 0.9, (-0.25, 1, 1.25, 1.24)), ("balcony", 0.55, (-0.3, 0.6, 1.3, 1.2)),
    ("blind", 0.12, (-0.36, 0, 0, 1)), ("blind", 0.12, (1, 0, 1.36, 1)),
    ("pillar", 0.15, (-0.45, -0.3, -0.25, 1.3)), ("pillar", 0.15, (1.25, -0.3, 1.45, 1.3)))


def draw_facade(index, seed=0, size=286):
    """Draws a facade -> photo uint8 (3, size, size), label map uint8 (size, size): rows of FACADES.
    Sums and products of torch's uniform numbers alone: the same on every machine."""
    rng = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2 ** 32)
    draws = iter(torch.rand(4000, generator=rng, dtype=torch.float64).tolist())

    def uniform(low, high):
        return low + (high - low) * next(draws)

    names = [name for name, _ in FACADES]
    wall = np.array(WALLS[int(uniform(0, len(WALLS)))]).reshape(3, 1, 1) * uniform(0.75, 1.1)
    tones = {name: wall * uniform(0.6, 1.4) for name in names}
    tones["facade"] = wall
    tones["background"] = 0 * wall + uniform(60, 130)      # the street
    joints = (4, 12, size)[int(uniform(0, 3))]             # of bricks, ashlar or plaster
    labels = np.zeros((size, size), np.uint8)
    photo = np.array([150, 180, 215]).reshape(3, 1, 1) * np.linspace(0.8, 1.2, size)[:, None]
    photo = photo.repeat(size, 2)                          # the sky
    for name, *box in plan_facade(uniform):
        left, top, right, bottom = (min(max(int(side * size), 0), size) for side in box)
        labels[top:bottom, left:right] = names.index(name)
        part = photo[:, top:bottom, left:right]
        part[:] = tones[name] * np.linspace(1.15, 0.85, bottom - top)[:, None]  # lit from above
        if name == "facade":
            part[:, ::joints] *= 0.8
        elif name in ("window", "door", "shop"):
            draw_panes(part, tones[name], uniform)
        elif name in ("balcony", "blind"):                 # bars
            part[:, :, ::3] *= 0.5
        else:                                              # ledges throw a shadow
            photo[:, bottom:bottom + 2, left:right] *= 0.6
    photo += torch.randint(-14, 15, (3, size, size), generator=rng).numpy()
    return torch.from_numpy(photo.clip(0, 255).astype(np.uint8)), torch.from_numpy(labels)


def draw_panes(part, tone, uniform):
    """Glass, curtains and a cross of bars, into a part of the photo, float (3, h, w)."""
    h, w = part.shape[1:]
    pane = part[:, 2:-1, 1:-1]
    glass = uniform(20, 160) * np.linspace(1.3, 0.7, pane.shape[1])      # less sky further down
    pane[:] = glass[:, None]
    drawn = int(h * uniform(-0.5, 0.7))
    pleats = int(uniform(1, 4))
    pane[:, :drawn, ::pleats] += uniform(20, 90)
    part[:, :, w // 2:w // 2 + 1] = tone
    part[:, h // 3:h // 3 + 1] = tone


def plan_facade(uniform):
    """A facade's parts, later ones on top: [(class, left, top, right, bottom), ...], 0 to 1."""
    left = uniform(-0.1, 0.17)                             # these ranges are judged by eye
    right = uniform(0.83, 1.1)
    top = uniform(0.05, 0.22)
    bottom = uniform(0.91, 1.02)
    storeys = int(uniform(2, 5.5))
    eaves = uniform(0.03, 0.08)
    height = (bottom - top - eaves) / (storeys + 1.3)      # of a storey; the ground floor is higher
    columns = round((right - left) / height / uniform(0.5, 1.1)) + 1
    pitch = (right - left) / columns                       # from one column to the next
    door = int(uniform(0, 1.2 * columns))                  # its column, or none
    w = uniform(0.36, 0.56) * pitch
    h = uniform(0.48, 0.6) * height
    parapet = uniform(0.24, 0.3) * height                  # from a storey's top to its windows
    ornaments = [row for row in ORNAMENTS if uniform(0, 1) < row[1]]
    shops = uniform(0, 1) < 0.65
    below = ("shop", 0.08, 0) if shops else ("window", 0.22, 0.4)        # on the ground floor
    parts = [("background", 0, 0.9, 1, 1), ("facade", left, top, right, bottom),
             ("molding", left, top, right, top + eaves)]
    for column in range(columns):
        start = left + pitch * column
        for row in range(storeys):
            x = start + (pitch - w) / 2
            y = top + eaves + row * height + parapet
            parts.append(("window", x, y, x + w, y + h))
            for name, _, (a, b, c, d) in ornaments:
                if name != "balcony" or column % 2:        # at every other window
                    parts.append((name, x + a * w, y + b * h, x + c * w, y + d * h))
        name, gap, lintel = ("door", 0.22, 0) if column == door else below
        parts.append((name, start + pitch * gap, bottom - height,
                      start + pitch * (1 - gap), bottom - lintel * height))
    for row in range(1, storeys + 1):
        y = top + eaves + row * height
        ledge = uniform(0, 0.09) * height
        parts.append(("molding", left, y - ledge, right, y + ledge))
    return parts


def draw_pair(index, size, kind):
    """The drawn facade of an index: x above y, uint8 (6, *size), or its label map (1, *size)."""
    photo, labels = draw_facade(index, size=max(size))
    if kind == "label maps":
        return resize(labels[None], size, nearest=True)
    colours = colorize(labels, FACADES)
    return torch.cat([resize(colours, size, nearest=True), resize(photo, size)])


def drawn_numbers(row, split):
    """The numbers of the drawings that a task trains on, or holds out: of shapes a tenth."""
    if row.drawn == "facades":
        return range(400, 440) if split == "val" else range(400)
    count = len(draw_shapes())                             # drawn here, before threads ask for them
    held = range(9, count, 10)
    return held if split == "val" else [i for i in range(count) if i not in held]


def drawn_picture(settings, number, size):
    """The drawing of a number, as a run's task and --direction have it: uint8 (C, *size)."""
    row = TASKS[settings["task"]]
    if row.drawn == "shapes":
        return resize(torch.from_numpy(draw_shapes()[number])[None], size, nearest=True)
    picture = draw_pair(number, size, row.kind)
    if direction_of(settings) != row.direction:
        return picture.roll(3, 0)                          # the photo above its label map
    return picture


@functools.cache                                           # they are drawn all at once
def draw_shapes(seed=0):
    """The Coloured Shapes of SemGAN Sec. 5.0.1: uint8 (2916, 64, 64), classes as SHAPES. Picture 54
    * row + column has its 10x10 red square's top left corner at (row, column). The disc (radius 10)
    and the rectangle (12x24: our choice, the paper gives none) lie wholly inside."""
    rng = torch.Generator().manual_seed(seed)              # of integers: alike on every machine

    def drawn(low, high):
        return torch.randint(low, high, (54 * 54, 1, 1), generator=rng).numpy()

    centre_y = drawn(10, 54)
    centre_x = drawn(10, 54)
    top = drawn(0, 53)
    left = drawn(0, 41)
    row, column = np.divmod(np.arange(54 * 54).reshape(-1, 1, 1), 54)
    y, x = np.ogrid[:64, :64]
    rectangle = (top <= y) & (y < top + 12) & (left <= x) & (x < left + 24)
    square = (row <= y) & (y < row + 10) & (column <= x) & (x < column + 10)
    disc = (y - centre_y) ** 2 + (x - centre_x) ** 2 <= 10 ** 2
    shapes = np.select([disc, square, rectangle], [1, 3, 2])             # the first on top
    return shapes.astype(np.uint8)


# Downloads

SERVER = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/"  # NAME.tar.gz
COUNTS = {  # of the pictures in NAME
    "facades": {"train": 400, "val": 100}, "cityscapes": {"train": 2975, "val": 500},
    "maps": {"train": 1096, "val": 1098}, "edges2shoes": {"train": 49825, "val": 200},
    "edges2handbags": {"train": 138567, "val": 200}}
TIMEOUT = 20  # seconds to connect or to the next byte; after as many, under 1 kB/s is a stall, too


def locate(name, folder=None):
    """(folder, drawn) of a task: the pictures given, or datasets/, fetched if missing. (None,
    True): facades, by --data drawn or where fetching fails."""
    row = look_up(name)
    if str(folder) == "drawn" and row.drawn == "facades":
        return None, True
    if row.drawn == "shapes":
        if folder is not None:
            raise Refusal("--data: the Coloured Shapes are drawn, not read; leave it out")
        return None, False
    if folder is not None:
        return Path(folder), False
    if row.archive is None:
        raise Refusal(f"--task {name}: has no published archive; give its folder with --data DIR")
    home = Path("datasets", row.archive)
    try:
        fetch_once(f"{SERVER}{row.archive}.tar.gz", home, COUNTS.get(row.archive))
    except (OSError, Refusal) as error:
        if row.drawn != "facades":
            raise
        print(f"{error}\n*** DRAWN FACADES: these pictures are drawn by data.py, not photographed. "
              f"For the real ones give --data DIR, or try again with a network. ***", flush=True)
        return None, True
    return home, False


def fetch_once(url, home, counts):
    """fetch(), unless it is there. torchrun's processes come at once: one of them fetches."""
    if home.is_dir():
        return
    home.parent.mkdir(exist_ok=True)
    with open(home.parent / ".lock", "w") as handle:
        if fcntl:
            with where_supported(home.parent, "locks"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        if not home.is_dir():
            fetch(url, home, counts)


def fetch(url, folder, counts=None):
    """Fetches a .tar.gz and unpacks it as folder, which appears only whole, as counts says."""
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)       # left by a run that was killed
        (temporary / "set").mkdir(parents=True)
        download(url, temporary / "tar")
        extract(temporary / "tar", temporary / "set")
        folders = [path for path in (temporary / "set").iterdir() if path.is_dir()]
        whole = folders[0] if len(folders) == 1 else temporary / "set"   # published: one folder
        for split, count in (counts or {}).items():
            inside = len(list_pictures(whole / split))
            if inside != count:
                raise OSError(f"{split} has {inside:,} pictures, not {count:,}")
        whole.rename(folder)
    except (OSError, ValueError, http.client.HTTPException, zlib.error, tarfile.TarError) as error:
        why = str(error).split("\n")[0] or type(error).__name__
        if isinstance(error, urllib.error.HTTPError):
            error.close()                                  # it holds the reply's socket
        raise Refusal(f"{url}: {why}; try again, or fetch it by hand and give --data") from error
    finally:
        alarm(0)
        shutil.rmtree(temporary, ignore_errors=True)


def download(url, path):
    """Fetches a .gz file to path, unpacked, its sum checked; OSError or zlib.error."""
    unpack = zlib.decompressobj(wbits=31)
    packed = 0                                             # bytes
    alarm(2 * TIMEOUT)                                     # headers, too, can drip for ever
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, open(path, "wb") as file:
        for block in received(url, response):
            file.write(unpack.decompress(block))
            packed += len(block)
            if file.tell() > 10 * packed + 10_000_000:     # a bomb: pictures hardly pack
                raise OSError("it unpacks to over ten times its size")
    alarm(0)                                               # unpacking may take its time
    if not unpack.eof:
        raise OSError(f"cut short: {packed:,} bytes came, and no end of the .gz")


def download_rest(url, partial):
    """Fetches url to a file of which a part may be there; OSError where that fails.

    The file has the date that the server gave, so as to ask for the rest "if it is still of this
    date", else for all. The last byte is asked for once more: servers refuse an empty rest.
    """
    request = urllib.request.Request(url)
    kept = 0                                               # bytes
    if partial.exists():
        kept = max(partial.stat().st_size - 1, 0)
        request.add_header("Range", f"bytes={kept}-")
        request.add_header("If-Range", formatdate(partial.stat().st_mtime, usegmt=True))
    alarm(2 * TIMEOUT)                                     # headers, too, can drip for ever
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != 206:                     # "partial content"
                kept = 0
            write_rest(url, response, partial, kept)
    except urllib.error.HTTPError as error:
        error.close()                                      # it holds the reply's socket
        raise
    except http.client.HTTPException as error:
        raise OSError(str(error)) from None
    finally:
        alarm(0)


def write_rest(url, response, partial, kept):
    """Writes a reply behind the first `kept` bytes of a file, which takes on the server's date."""
    stamp = None
    with suppress(TypeError, ValueError):                  # no date, or none that can be read
        stamp = parsedate_to_datetime(response.headers.get("Last-Modified")).timestamp()
    with open(partial, "r+b" if kept else "wb", buffering=0) as file:
        file.seek(kept)
        file.truncate()
        for block in received(url, response):
            file.write(block)
            if stamp is not None:                          # after each: a kill may come at any time
                os.utime(partial, (stamp, stamp))


def received(url, response):
    """Yields a reply in blocks and says how far it is. OSError where it stalls or ends early."""
    total = response.length or 0                           # bytes to come; 0: it did not say
    start = time.monotonic()
    done = 0
    shown = 0                                              # seconds, when it last said how far
    pause = 0.5 if sys.stdout.isatty() else 10
    for block in iter(lambda: response.read1(1 << 16), b""):     # read() would wait for 64 kB
        alarm(2 * TIMEOUT)
        yield block
        done += len(block)
        seconds = time.monotonic() - start
        if seconds > TIMEOUT and done < 1000 * seconds:    # it can drip for ever
            raise OSError(f"stalled: {done:,} bytes in {seconds:.0f} s")
        if done == total or seconds > shown + pause:
            shown = seconds
            say_progress(url, done, total, seconds)
    if done == 0 or (total and done != total):
        raise OSError(f"cut short: {done:,} bytes came, of {total:,}")


def say_progress(url, done, total, seconds):
    """One line, which in a terminal the next one overwrites. total: 0, where it is not told."""
    words = f"{done / 1e6:,.1f} MB"
    if total:
        remaining = max(total - done, 0) * seconds / done
        words = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB, {remaining:,.0f} s left"
    overwritten = sys.stdout.isatty() and done != total
    print(f"{url}: {words}   ", end="\r" if overwritten else "\n", flush=True)


def alarm(seconds):
    """Ends what takes longer, by OSError; 0: no more. Windows has no such clock."""
    def late(*_):
        raise OSError("stalled: its server hardly answers")

    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)


def extract(archive, folder):
    """Unpacks a .tar into folder: files and folders of checked names alone; else OSError. By hand:
    tarfile's filter="data" has let an archive write outside (Python 3.11.7)."""
    with tarfile.open(archive, "r:") as members:
        for number, member in enumerate(members):
            name = member.name
            outside = name.startswith("/") or ".." in Path(name).parts or set(name) & set("\\:")
            plain = member.isdir() or (member.isreg() and not member.issparse())
            if number > 500_000 or outside or not plain:
                raise OSError(f"{name!r} is a link, a device, outside or one too many")
            path = Path(folder, name)
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:                 # x: never over another file
                shutil.copyfileobj(members.extractfile(member), file)


# Pictures out: files, sheets, curves

WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}


def output_ending(settings):
    """Of outputs that the user has not named: what holds all channels of y."""
    return ".png" if channels_of(settings, "y") in (1, 3) else ".npy"


def sources(source, out, ending=".png"):
    """[(picture to read, picture to write), ...] for a picture or a folder of them."""
    source = Path(source)
    out = Path(out)
    refuse_other_half_of_pairs(source, out)
    if source.is_file() and out.is_dir():
        own_folder = out.samefile(source.parent)
        out = out / f"{source.stem}{ending}"
        if own_folder and out.exists() and not out.samefile(source):
            raise Refusal(f"{out}: is there already, beside what is to be read; give the name of "
                          f"a file to write")
    if out.exists() and source.exists() and out.samefile(source):
        raise Refusal(f"{out}: is what is to be read; give another place to write to")
    if source.is_file():
        return [(source, out)]
    if out.is_file() or not source.is_dir() or not list_pictures(source):
        raise Refusal(f"{source}: no such file or no pictures in it, or {out} is a file; give a "
                      f"picture and a file, or two folders")
    if out.suffix.lower() in (*WRITTEN, ".npy", ".gif") and not out.exists():
        raise Refusal(f"{out}: is a file's name, but {source} is a folder; give a folder to write "
                      f"to")
    return [(path, out / f"{path.stem}{ending}") for path in list_pictures(source)]


def refuse_other_half_of_pairs(source, out):
    """Refuses to write into the folder with the other halves of the pictures to read: A/ and B/."""
    folder = source if source.is_dir() else source.parent
    for place in (Path.absolute, Path.resolve):            # links may have other names
        names = {place(folder).name, place(out).name}
        side_by_side = place(folder).parent == place(out).parent
        if side_by_side and names in ({"A", "B"}, {"photos", "labels"}) and out.is_dir():
            raise Refusal(f"{out}: holds the other halves of the pairs in {folder}; give another "
                          f"folder to write to")


@contextmanager
def counting_written(count):
    """Yields a list, to which the `with` adds each picture that it has written; a Refusal inside
    says how many of count these are, as a folder is then half done."""
    written = []
    try:
        yield written
    except ValueError as error:
        refusal = as_refusal(error)
        if count == 1 or refusal is None:
            raise
        raise Refusal(f"{refusal} ({len(written)} of {count} were written, {count - len(written)} "
                      f"are left; when this is mended, the same command writes all)") from error


def check_name(path):
    """Refuses the name of a picture to write whose ending says no kind of file."""
    if Path(path).suffix.lower() not in WRITTEN:
        raise Refusal(f"{path}: pictures are written as {' or '.join(WRITTEN)}; choose one")


def save_picture(path, picture):
    """Writes uint8 (C, H, W), by the name's ending, whole or not at all: one channel as grey, four
    as TIFF alone, where the fourth is no opacity."""
    check_name(path)
    kind = WRITTEN[Path(path).suffix.lower()]
    channels = len(picture)
    if channels not in (1, 3) and (channels, kind) != (4, "TIFF"):
        raise Refusal(f"{path}: {kind} holds no {channels} channels; give a name ending in .npy")
    image = to_image(picture)
    if channels == 4:                                      # X, as A would say that it is opacity
        image = Image.frombytes("RGBX", image.size, image.tobytes())
    buffer = io.BytesIO()
    # PNG's level 3 in place of 6: half the time, for files a few percent larger.
    image.save(buffer, kind, quality=95, compress_level=3)
    write_whole(path, buffer.getvalue())


def save_output(settings, path, x, fake):
    """Writes what G made of x, both (1, C, H, W): a .npy holds the values of y as training read
    them, uint8 or else measured ones; other files 0-255, all channels of y."""
    if is_numpy(path):
        buffer = io.BytesIO()
        np.save(buffer, output_values(settings, x, fake))
        write_whole(path, buffer.getvalue())
    else:
        save_picture(path, output_levels(settings, x, fake))


def written_words(settings, outs):
    """A line where measured values of y become 0 to 255 of their scale in pictures; or None."""
    scale = scale_of(settings, "y")
    measured = scale and TASKS[settings["task"]].hides != "colour"
    if not measured or all(is_numpy(out) for out in outs):
        return None
    return (f"what was {ends_of(scale)} in training is written as 0 to 255 (for the values "
            f"themselves write to a name ending in .npy, or of a folder add --npy)")


def output_levels(settings, x, fake):
    """-> uint8 (C, H, W), 0-255."""
    if channels_of(settings, "y") == 3:
        return to_pixels(settings, x, fake)[0]
    return to_levels(fake)[0]


def output_values(settings, x, fake):
    """-> (H, W, C), or (H, W) of one channel: uint8, 0-255, or float32 on the scale of y."""
    scale = scale_of(settings, "y")
    if scale and TASKS[settings["task"]].hides != "colour":   # of which G makes a and b, of Lab
        shares = (fake[0].cpu().permute(1, 2, 0).double().numpy() + 1) / 2
        low, high = np.array(scale)
        values = (low + shares * (high - low)).astype(np.float32)
    else:
        values = output_levels(settings, x, fake).permute(1, 2, 0).numpy()
    return values.squeeze(2) if values.shape[2] == 1 else values


def contact_sheet(rows, titles=()):
    """Rows of pictures, uint8 (3, h, w), under their titles -> one picture, uint8 (3, H, W)."""
    gap = 4                                                # pixels
    pictures = [picture for row in rows for picture in row]
    h = max(picture.shape[1] for picture in pictures) + gap
    w = max(picture.shape[2] for picture in pictures) + gap
    top = 20 if titles else gap
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * w + gap, len(rows) * h + top), "white")
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            sheet.paste(to_image(picture), (gap + c * w, top + r * h))
    draw = ImageDraw.Draw(sheet)
    for c, title in enumerate(titles):
        centre = gap // 2 + (c + 0.5) * w
        draw.text((centre, 9), title, "black", anchor="mm", font_size=12)
    return to_tensor(sheet)


def film(run, out, largest=300_000):
    """A run's sample sheets, one after another -> an animated GIF of at most `largest` bytes.

    Where all would be too much, frames are left out, then made smaller: most is learned early, so
    those that stay are spaced by the logarithm of their steps. The last one stays longer."""
    folder = Path(run) / "samples"
    sheets = [path for path in folder.glob("*.png") if path.stem.isdecimal()]
    sheets.sort(key=lambda path: int(path.stem))
    if not folder.is_dir():
        raise Refusal(f"{folder}: no such folder; give a run's, such as runs/facades")
    if len(sheets) < 2:
        raise Refusal(f"{folder}: sample sheets: {len(sheets)}, and a film needs two; train "
                      f"longer, with more --epochs")
    for width in (960, 720, 540, 400, 300):                # pixels
        for count in (32, 16, 8):
            chosen = spread_by_logarithm(sheets, count)
            frames = [film_frame(path, width) for path in chosen]
            content = animated(frames)
            if len(content) <= largest:
                write_whole(out, content)
                return len(frames), len(content)
    raise Refusal(f"{folder}: 8 frames of 300 pixels are {len(content):,} bytes; allow more by "
                  f"--largest")


def spread_by_logarithm(sheets, count):
    """At most count sheets, first and last included, evenly by their steps' logarithm."""
    steps = np.log([int(path.stem) + 1 for path in sheets])
    wanted = np.linspace(steps[0], steps[-1], count)
    nearest = {int(np.abs(steps - at).argmin()) for at in wanted}
    return [sheets[i] for i in sorted(nearest)]


def film_frame(path, width):
    """A sample sheet, at most width pixels wide, above a line with its step: Pillow's RGB."""
    sheet = open_picture(path)
    width = min(width, sheet.width)
    height = round(sheet.height * width / sheet.width)
    frame = Image.new("RGB", (width, height + 20), "white")
    frame.paste(sheet.resize((width, height), Image.Resampling.BICUBIC))
    words = f"step {int(path.stem):,}"
    ImageDraw.Draw(frame).text((width / 2, height + 10), words, "black", anchor="mm", font_size=12)
    return frame


def animated(frames):
    """Pillow RGB pictures of one size -> the bytes of a GIF of 8 seconds that repeats for ever."""
    # One palette for all, the last frame's (the first is grey), so that what stands still keeps its
    # bytes; without dithering, whose dots would move.
    palette = frames[-1].quantize(128)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    pause = round(8 / len(frames) * 100) * 10              # GIF counts in hundredths of a second
    pauses = [pause] * (len(frames) - 1) + [2_000]         # milliseconds
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0)
    return content.getvalue()


CURVES = ((31, 111, 180), (209, 73, 91), (46, 139, 87), (138, 95, 191), (217, 142, 4), (85, 85, 85))


def plot_curves(path, panels, x_label="step"):
    """Draws one panel for each (title, {name: (xs, ys)}) under another: axes, legend, curves. A
    pale line is the data, a strong one its running mean over a twentieth of the points."""
    image = Image.new("RGB", (900, 300 * len(panels)), "white")
    draw = ImageDraw.Draw(image)
    for row, (title, series) in enumerate(panels):
        box = (70, row * 300 + 34, 880, row * 300 + 260)   # of the axes, in pixels
        series = {k: np.array(v, dtype=float) for k, v in series.items() if len(v[0]) > 1}
        place = draw_axes(draw, box, series.values())
        x0, y0, x1, y1 = box
        draw.text((x0, y0 - 17), title, "black", anchor="lm", font_size=15)
        draw.text(((x0 + x1) / 2, y1 + 28), x_label, "black", anchor="mm", font_size=12)
        end = x1                                           # the legend grows from the right
        coloured = list(zip(series.items(), CURVES * len(series)))
        for (name, (xs, ys)), rgb in reversed(coloured):
            draw_curve(draw, place, xs, ys, rgb)
            end -= draw.textlength(name, font_size=12) + 30
            draw.line([(end, y0 - 17), (end + 18, y0 - 17)], rgb, 3)
            draw.text((end + 22, y0 - 17), name, "black", anchor="lm", font_size=12)
        draw.line([(x0, y0), (x0, y1), (x1, y1)], "black")
    save_picture(path, to_tensor(image))


def draw_axes(draw, box, curves):
    """Grid and numbers of one panel, around all curves -> place(xs, ys): where values lie."""
    x0, y0, x1, y1 = box
    points = np.hstack([*curves] or [np.zeros((2, 1))])
    xs, ys = np.nan_to_num(points, posinf=0, neginf=0)
    ends_x = xs.min(), max(xs.max(), xs.min() + 1)
    ends_y = min(ys.min(), 0), max(np.quantile(ys, 0.995), 1e-6) * 1.05  # one outlier is cut off

    def place(xs, ys):
        return list(zip(np.interp(xs, ends_x, (x0, x1)), np.interp(ys, ends_y, (y1, y0))))

    for x, y in zip(np.linspace(*ends_x, 5), np.linspace(*ends_y, 5)):
        [(across, down)] = place([x], [y])
        number = f"{y:.3g}" if abs(y) > 1e-5 else "0"
        draw.line([(x0, down), (x1, down)], "#e4e4e4")
        draw.text((x0 - 6, down), number, "black", anchor="rm", font_size=12)
        draw.text((across, y1 + 12), f"{x:,.0f}", "black", anchor="mm", font_size=12)
    return place


def draw_curve(draw, place, xs, ys, rgb):
    """The data, pale, and over it their running mean."""
    pale = tuple(191 + value // 4 for value in rgb)
    draw.line(place(xs, ys), pale)
    window = max(1, len(ys) // 20)
    padded = np.pad(ys, ((window - 1) // 2, window // 2), mode="edge")
    mean = np.convolve(padded, np.ones(window) / window, "valid")
    draw.line(place(xs, mean), rgb, 2)


def draw_networks(path, networks):
    """Draws networks, [(title, [(channels, side), ...], skips), ...], under another: a box for each
    layer's output, its height log2(side), its width log2(channels); lines for the skips."""
    image = Image.new("RGB", (1000, 220 * len(networks)), "white")
    draw = ImageDraw.Draw(image)
    for row, (title, layers, skips) in enumerate(networks):
        base = 220 * row + 190
        innermost = len(layers) // 2
        tops = []
        for i, (channels, side) in enumerate(layers):
            x = 10 + (i + 0.5) * 980 / len(layers)
            y = base - 10 - 16 * np.log2(side)
            half = 2 + 2 * np.log2(channels)
            tops.append((x, y))
            colour = CURVES[2] if skips and i > innermost else CURVES[0]
            draw.rectangle([x - half, y, x + half, base], colour)
            draw.text((x, base + 14), f"{channels} x {side}", "black", anchor="mm", font_size=12)
        if skips:
            encoder = tops[1:innermost]
            decoder = list(reversed(tops[innermost + 1:-1]))   # from the outside in, as encoder
            for (x, y), (other, _) in zip(encoder, decoder):
                draw.line([(x, y + 8), (other, y + 8)], CURVES[1], 2)
        draw.text((500, base - 170), title, "black", anchor="mm", font_size=15)
    save_picture(path, to_tensor(image))


# What every command needs: refusals, options, files written whole

class Refusal(ValueError):
    """Bad input from outside: one line, exit code 2."""


def run_command(main):
    """Calls main() and says faults in one line. Exit 2: refused, 130: Ctrl-C, 1: out of memory."""
    if sys.stdout is None:                                 # after `>&-`
        sys.stdout = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):                # names that are not UTF-8 end no work
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")
    try:
        check_torch()
        main()
        sys.stdout.flush()                                 # a closed pipe shows here, not at exit
    except KeyboardInterrupt:
        sys.exit(130)                                      # 128 + SIGINT, as shells count
    except BrokenPipeError:                                # `| head` has seen enough: leave quietly
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)                                      # 128 + SIGPIPE
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        refusal = as_refusal(error)
        if refusal is not None:
            # What torchrun's processes refuse before they have met, each machine's first one says.
            if os.environ.get("LOCAL_RANK", "0") == "0" or joined():
                say_error(refusal)
            sys.exit(2)
        why = str(error) or "MemoryError"
        signs = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
        if not isinstance(error, MemoryError) and not any(sign in why for sign in signs):
            raise
        say_error(f"memory: not enough ({why}); lower --batch or --size, or give smaller pictures")
        sys.exit(1)


def check_torch():
    """Refuses a torch older than the oldest one that this code was tried on."""
    release = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if release < (2, 5):
        raise Refusal(f"torch {torch.__version__}: 2.5 or newer is needed; pip install -r "
                      f"requirements.txt")


def joined():
    """Whether this is one of several processes that have met."""
    return dist.is_available() and dist.is_initialized()   # some builds of torch have none


def as_refusal(error):
    """What an error says of the user's input, as a Refusal; None where it is something else."""
    if isinstance(error, FileNotFoundError):
        return Refusal(f"{error.filename}: no such file or folder; give one that is there")
    if isinstance(error, OSError):                         # a place that cannot be read or written
        return Refusal(f"{error.filename or 'output'}: {error.strerror or error}; give another "
                       f"place, or mend this one")
    if str(error).startswith("Symlink loop from "):       # of Path.resolve(), before Python 3.13
        name = str(error).removeprefix("Symlink loop from ").strip("'")
        return Refusal(f"{name}: is a link that leads back to itself; give another name")
    if "InvalidCxxCompiler" in str(error) or "Failed to find C compiler" in str(error):
        return Refusal("--compile: found no C++ compiler; install one, or leave it out")
    if type(error).__name__ == "Refusal":                  # any file's own
        return error
    return None


def say_error(words):
    """One line on stderr."""
    print("error:", str(words).replace("\n", " "), file=sys.stderr)


def new_parser(docstring):
    """A command's argparse parser; its --help begins with the file's docstring, with examples."""
    return argparse.ArgumentParser(description=docstring, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def parse_options(parser):
    """parser.parse_args(), its errors as one-line refusals, with near names for an unknown flag."""
    def refuse(message):
        message = re.sub(r"^argument (\S+?)(/\S+)?: ", r"\1: ", message)
        if ";" not in message:
            how = f"usage: {parser.usage}" if parser.usage else f"see `python {parser.prog} --help`"
            message += f"; {how}"
        raise Refusal(message)

    parser.error = refuse
    options, unknown = parser.parse_known_args()
    seed = getattr(options, "seed", 0)
    if abs(seed) > 10 ** 9:
        refuse(f"--seed: {seed} is out of range; give -1000000000 to 1000000000")
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], flags, 3, 0.5)
        guess = f" (is it {' or '.join(near)}?)" if near else ""
        refuse(f"{unknown[0]}: no such option{guess}")
    return options


def positive(kind):
    """An argparse type: an int or float above 0 (NaN is not)."""
    def convert(text):
        with suppress(ValueError):
            if 0 < kind(text) < math.inf:
                return kind(text)
        words = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {words} above 0; give one")

    return convert


def below_one(text):
    """An argparse type: a number from 0 up to, but not, 1."""
    with suppress(ValueError):
        if 0 <= float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up to, but not, 1; give one")


def sides(text):
    """An argparse type: "256" or "256x512", height x width -> [height, width]."""
    text = text.lower()
    if not re.fullmatch(r"0*[1-9]\d{0,4}(x0*[1-9]\d{0,4})?", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give 256, or height x width 256x512")
    numbers = text.split("x")
    return [int(numbers[0]), int(numbers[-1])]


def picture_name(text):
    """An argparse type: the name of a picture to write, refused before hours of work, not after."""
    if Path(text).suffix.lower() not in WRITTEN:
        raise argparse.ArgumentTypeError(f"{text!r}: give a name ending in {' or '.join(WRITTEN)}")
    return text


def device_of(name=None, local_rank=0, processes=1):
    """The torch.device of a --device flag; without one the first of "cuda" (NVIDIA's GPU), "mps"
    (Apple's) and "cpu" that is there. Several processes on this machine share none: each takes the
    GPU of its local_rank, and torch then means that one by "cuda"."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kinds = ["cpu"]
    if processes == 1 and torch.backends.mps.is_available():
        kinds.append("mps")
    if processes <= count:
        kinds.append("cuda")
    if processes == 1:
        kinds += [f"cuda:{i}" for i in range(count)]
    if not name and count:
        name = "cuda"                                      # refused below where there are too few
    elif not name:
        name = "mps" if "mps" in kinds else "cpu"
    if name not in kinds:
        raise Refusal(f"--device {name}: not on this machine, or not one for each process; give "
                      f"{' or '.join(kinds)}")
    device = torch.device("cuda", local_rank) if name == "cuda" else torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def in_threads(function, items):
    """[function(item), ...]: side by side, as Pillow decodes outside python's lock."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(function, items))


def on_device(tensor, device):
    """A tensor on the device, without a wait for the copy; but for Apple's GPU, which may read it
    when its memory is another's already (torch 2.5 to 2.13, pytorch issues 139550, 189690)."""
    return tensor.to(device, non_blocking=device.type != "mps")


def tensors_of(content):
    """All tensors in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        yield content
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        for part in content:
            yield from tensors_of(part)


def write_whole(path, content):
    """Writes bytes, or by torch.save a dict, whole or not at all: to another name, then renamed.
    What a run cannot go on without is forced to disk before it takes the old one's place."""
    path = Path(path)
    needed = path.suffix in (".pt", ".json")
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:  # an opened file: a full disk is then a clean OSError
            if isinstance(content, bytes):
                file.write(content)
            else:
                torch.save(content, file)
            if needed:
                file.flush()
                with where_supported(path.parent, "fsync"):
                    os.fsync(file.fileno())
        put_in_place(temporary, path)
        if needed and fcntl:                               # Windows opens no folders
            folder = os.open(path.parent, os.O_RDONLY)
            with where_supported(path.parent, "fsync"):
                os.fsync(folder)             # makes the renaming itself last
            os.close(folder)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):                            # its folder may be none
            temporary.unlink()
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__                      # torch's hides the system's
        why = getattr(error, "strerror", error)
        raise Refusal(f"{path}: could not be written ({why}; it takes {megabytes(content):.1f} MiB)"
                      f"; free some space or give another place, what was there is whole") from None


def put_in_place(temporary, path):
    """os.replace(). On Windows, which alone has no fcntl, it fails while another program (a virus
    scanner, a spreadsheet) holds the old file: it is tried again for two seconds."""
    tries = 0 if fcntl else 20                             # before the last
    for _ in range(tries):
        with suppress(PermissionError):
            return os.replace(temporary, path)
        time.sleep(0.1)
    return os.replace(temporary, path)                     # its error, if any, is the caller's


@contextmanager
def where_supported(folder, what):
    """Lets pass that a file system lacks locks or fsync, as some of networks do, with a warning."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK):
            raise
        warn_once(f"warning: {folder}: its file system has no {what}; going on without")


@functools.lru_cache(None)
def warn_once(words):
    print(words, file=sys.stderr)


def counted(number, thing):
    """A number and what it is of: "1 epoch", "2,000 epochs"."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def megabytes(content):
    """The size of bytes or of all tensors, in MiB."""
    if isinstance(content, bytes):
        return len(content) / 2 ** 20
    return sum(tensor.nbytes for tensor in tensors_of(content)) / 2 ** 20


def append_line(path, line):
    """Adds a line to a file; where the disk is full, the file stays as it was."""
    before = path.read_bytes() if path.exists() else b""
    write_whole(path, before + f"{line}\n".encode())


# The command, and its three subcommands

def main():
    subcommands = {"kmeans": kmeans_command, "edges": edges_command, "film": film_command}
    first = sys.argv[1] if len(sys.argv) > 1 else None
    command = subcommands.get(first, sheet_command)        # else it is a task
    command()


def command_parser(command, meaning=None):
    """A parser whose errors name all that data.py does."""
    parser = new_parser(__doc__)
    parser.add_argument("command", metavar=command, help=meaning)
    parser.usage = ("data.py TASK [--data DIR] [--size SIZE] [--range LOW HIGH] [--out PNG] "
                    "[--direction BtoA] [--no-mirror] [--crop] [--in-channels N] "
                    "[--out-channels N], "
                    "data.py kmeans PHOTOS OUT [--classes 8] [--size SIZE], "
                    "data.py edges PHOTOS OUT [--size SIZE], "
                    "or data.py film RUN OUT.gif [--largest BYTES]")
    return parser


def kmeans_command():
    parser = command_parser("kmeans")
    parser.add_argument("photos", metavar="PHOTOS")
    parser.add_argument("out", metavar="OUT", help="a new folder")
    parser.add_argument("--classes", type=positive(int), default=8, help="default 8")
    parser.add_argument("--size", type=sides, default=default_size(), help="whose shape is cut")
    options = parse_options(parser)
    kmeans_folder(options.photos, options.out, options.classes, options.size)


def edges_command():
    parser = command_parser("edges")
    parser.add_argument("photos", metavar="PHOTOS", help="a folder, or one picture")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--size", type=sides, default=default_size(), help="of each half")
    options = parse_options(parser)
    if min(options.size) < 2:
        raise Refusal("--size 1: has no edges; give 2 or more")
    pictures = sources(options.photos, options.out)
    scale = find_scale([path for path, _ in pictures])
    if scale:
        print(scale_words(scale, options.photos))
    with counting_written(len(pictures)) as written:
        for path, out in pictures:
            # edges | photo, of the size of training, so that no resizing blurs the lines
            photo = to_tensor(resize_image(open_picture(path, scale), options.size))
            lines = edges(photo[None])[0].expand(3, -1, -1)
            save_picture(out, torch.cat([lines, photo], dim=2))
            written.append(out)


def film_command():
    parser = command_parser("film")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("out", metavar="OUT.gif")
    parser.add_argument("--largest", type=positive(int), default=300_000, help="bytes (default "
                        "300,000): of longer films frames are left out, then they are made smaller")
    options = parse_options(parser)
    if Path(options.out).suffix.lower() != ".gif":
        raise Refusal(f"{options.out}: a film is a GIF; give a name that ends in .gif")
    count, size = film(options.run, options.out, options.largest)
    print(f"{options.out}: {count} frames, {size:,} bytes")


def sheet_command():
    parser = command_parser("TASK", ", ".join(TASKS))
    parser.add_argument("--data", metavar="DIR", help="a folder of one's own")
    parser.add_argument("--size", type=sides, help="pixels (default: the pictures' shape, with a "
                        "smaller side of 256 with a GPU, else 128; for SemGAN half of that, shapes "
                        "64)")
    parser.add_argument("--range", nargs=2, type=float, metavar=("LOW", "HIGH"),
                        help="what is black and white of values of more than 8 bits (default: the "
                        "folder's extremes)")
    parser.add_argument("--out", type=picture_name, metavar="PNG",
                        help="default datasets/TASK-sheet.png")
    add_pair_flags(parser.add_argument)
    options = parse_options(parser)
    name = options.command
    out = options.out or f"datasets/{name}-sheet.png"
    flags = vars(options)
    choices = {key: flags[key] for key in PAIR_KEYS if flags[key] is not None}
    task_sheet(name, options.data, options.size, out, options.range, choices)


def default_size(row=Task()):
    """Training's: what --preset means where it is left out."""
    if row.drawn == "shapes":
        return [64, 64]
    side = 256 if torch.cuda.is_available() else 128
    if row.kind == "label maps":
        side = side // 2
    return [side, side]


def own_size(name, pictures, size):
    """A size with the shape of a folder's first picture, and as large as `size` or so."""
    row = look_up(name)
    if pictures["data"] is None or row.kind == "label maps":     # SemGAN's are squares
        return size
    files = split_files(pictures["data"], "train")[0]
    w, h = read_stored(files[0], channels_of(pictures, halves_named(pictures)[0])).image.size
    if row.kind == "pairs" and len(files) == 1:
        w = w / 2
    return fitting_size(h, w, size[0]) or size


def task_sheet(name, folder, size, out, scale=None, choices=None):
    """Fetches and checks a task's pictures; writes a sheet of what training sees."""
    row = look_up(name)
    choices = choices or {}
    refuse_pair_flags(name, choices)
    settings = {"task": name, "one_hot": False, **choices}
    settings.update(pictures_of(name, folder, scale, choices))
    if size is None:
        size = default_size(row)
        if not settings.get("crop"):
            size = own_size(name, settings, size)
    settings["size"] = size
    train = training(settings)
    held = held_out(settings)
    for pictures in (train, held):
        if pictures.cache is None:                         # else each has been read already
            for _ in pictures.batches([i] for i in range(len(pictures))):
                pass
    print(f"{name}: {counted(len(train), 'picture')} to train on, {len(held):,} held out, "
          f"from {settings['data'] or 'drawings'}")
    for line in what_was_read(settings, train, held):
        print(line)
    save_picture(out, sheet_of(settings, train))
    how = "cropped" if row.jitter or train.whole else "resized"
    mirrored = ", mirrored in training" if mirror_of(settings) else ""
    print(f"{out}: {how} to {size[0]}x{size[1]}{mirrored}")


def sheet_of(settings, train):
    """The first four pictures to train on: x | y, or label maps, before them what was smeared."""
    shown = train.together([train[i] for i in range(min(4, len(train)))])
    if TASKS[settings["task"]].kind != "label maps":
        rng = torch.Generator().manual_seed(0)
        x, y = to_network(settings, augment(settings, shown, rng))
        return contact_sheet(list(zip(to_pixels(settings, x, x), to_pixels(settings, x, y))))
    palette = settings["palette"]
    rows = [[colorize(label_map[0], palette)] for label_map in shown]
    how = how_labels_are_read(settings, train.files[0]) if train.files else None
    if how != "by nearest colour":
        return contact_sheet(rows)
    for files, line in zip(train.files, rows):             # by nearest colour alone | cleaned
        picture = shown_colours(label_part(files, palette))
        colours = to_tensor(resize_image(picture, settings["size"], nearest=True))
        line.insert(0, colorize(nearest_class(colours[None], palette)[0], palette))
    return contact_sheet(rows, ("nearest colour", "cleaned"))


if __name__ == "__main__":
    run_command(main)
