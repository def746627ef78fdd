"""What do the networks see? Files on disk become batches of numbers here, and numbers pictures.

    files --open_picture--> uint8, resized once --batches--> crop, mirror --to_network--> x, y
    pairs (H, W) RGB        (6, 286, 286), in memory         (N, 6, 256, 256)      float [-1, 1]

    python data.py facades [--data DIR]       fetch and check a task's pictures; write a sheet of
                                              what training will see (x | y)
    python data.py kmeans PHOTOS OUT          label maps from plain photos, by clustering colours
    python data.py edges PHOTOS OUT           edge maps from plain photos

A task is a row of TASKS: what differs between the experiments of pix2pix (arXiv 1611.07004v3,
Sec. 4) and SemGAN (Ghelfi et al., Sec. 5). A folder, with or without train/, val/, test/, holds
    *.jpg                    side-by-side pairs, A left and B right; or plain photos
    A/*.jpg  B/*.jpg         the same names in both; or photos/ and labels/, where labels may be
                             index maps (PNGs whose pixel values are class numbers)
Without val/, a tenth of the training pictures is held out by a hash of their names, the same in
every run; test/ is never trained on. As the authors' code has it, both halves of a pair are
resized to 286 once, cropped to 256 and mirrored at random, alike, whenever they are shown.

The file reads in the order in which a picture travels: tasks, from files to batches, from batches
to the networks and back. That is the idea; what follows makes it safe and comfortable.

To copy it out, take this file alone; it needs torch, numpy and pillow:
    settings = settings_of("pairs", "my/pairs")
    x, y = to_network(settings, held_out(settings)[0][None])               # (1, 3, 256, 256) each
"""
import argparse
import difflib
import http.client
import io
import json
import math
import os
import re
import shutil
import signal
import sys
import tarfile
import time
import urllib.request
import warnings
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter, ImageOps

try:
    import fcntl
except ImportError:                                        # Windows: nothing is locked there
    fcntl = None


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
# Cityscapes' labelIds 0-33 -> the 22 rows above, our choice of the paper's "22 main classes":
# parking and rail track are ground, guard rail is fence, bridge and tunnel are building, polegroup
# is pole, caravan and trailer are truck, the camera's own car and borders are static.
CITYSCAPES_IDS = (19, 19, 19, 19, 19, 20, 21, 0, 1, 21, 21, 2, 3, 4, 4, 2, 2, 5, 5, 6, 7, 8, 9, 10,
                  11, 12, 13, 14, 15, 14, 14, 16, 17, 18)
# The colours of those whose own are not their row's: parking, rail track, guard rail, bridge,
# tunnel, caravan, trailer.
CITYSCAPES_ALSO = [[21, [250, 170, 160]], [21, [230, 150, 140]], [4, [180, 165, 180]],
                   [2, [150, 100, 100]], [2, [150, 120, 90]], [14, [0, 0, 90]], [14, [0, 0, 110]]]
SHAPES = [["background", [0, 0, 0]], ["circle", [0, 0, 255]], ["rectangle", [0, 255, 0]],
          ["square", [255, 0, 0]]]                         # SemGAN Sec. 5.0.1


@dataclass(frozen=True)
class Task:
    """A row of TASKS: what differs between the experiments. Defaults: what most of them share."""
    kind: str = "pairs"        # "pairs", "label maps", or "photos" of which x and y are made
    archive: str = None        # NAME of the published NAME.tar.gz
    counts: dict = None        # its pictures, {"train": ..., "val": ...}
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
    crop: bool = True          # load at 286/256 of the size, crop at random
    mirror: tuple = (-1,)      # at random: -1 left and right, -2 top and bottom


TASKS = {
    "facades": Task("pairs", "facades", {"train": 400, "val": 100}, drawn="facades",
                    direction="BtoA", palette=FACADES, labels="x"),
    "cityscapes": Task("pairs", "cityscapes", {"train": 2975, "val": 500}, direction="BtoA",
                       palette=CITYSCAPES, labels="x"),
    "segmentation": Task("pairs", "cityscapes", {"train": 2975, "val": 500}, palette=CITYSCAPES,
                         labels="y"),                      # photo to labels, Sec. 4.6
    "maps": Task("pairs", "maps", {"train": 1096, "val": 1098}, unpaired_study=True),
    "aerial": Task("pairs", "maps", {"train": 1096, "val": 1098}, direction="BtoA",
                   unpaired_study=True),
    "edges2shoes": Task("pairs", "edges2shoes", {"train": 49825, "val": 200}, sketch=True,
                        epochs=15, batch=4, crop=False, mirror=()),
    "edges2handbags": Task("pairs", "edges2handbags", {"train": 138567, "val": 200}, sketch=True,
                           epochs=15, batch=4, crop=False),
    "day2night": Task("pairs", "night2day", direction="BtoA", epochs=17, batch=4),
    "thermal": Task("pairs", epochs=10, batch=4),
    "colorization": Task("photos", hides="colour", in_channels=1, out_channels=2, epochs=6,
                         batch=4, crop=False),
    "inpainting": Task("photos", hides="centre", epochs=25, batch=4, mirror=()),
    "pairs": Task("pairs"),
    "shapes": Task("label maps", drawn="shapes", palette=SHAPES, crop=False, epochs=None,
                   mirror=(-1, -2)),
    "semantic-facades": Task("label maps", "facades", {"train": 400, "val": 100}, drawn="facades",
                             palette=FACADES, crop=False, epochs=None),
    "semantic-cityscapes": Task("label maps", palette=CITYSCAPES, crop=False, epochs=None),
}


def look_up(name):
    """The row of a task, or a Refusal that offers near names."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 3, 0.4) or TASKS
        raise Refusal(f"--task {name}: no such task; did you mean {' or '.join(near)}?")
    return TASKS[name]


def settings_of(task, folder=None, size=(256, 256), one_hot=False):
    """The settings that this file reads, for pictures in a folder (None: the published ones)."""
    settings = {"task": task, "size": list(size), "one_hot": one_hot}
    settings.update(pictures_of(task, folder))
    return settings


# From files to batches: the first half of the idea

CHANNELS = {"pairs": 6, "photos": 3, "label maps": 1}      # of what is kept of a picture


class Pictures:
    """The pictures of one split: [i] -> uint8 (C, H, W), x above y for pairs; as read_picture says.

    Kept while they fit in memory (gigabytes); else decoded each time they are asked for. Held-out
    ones have settings["size"]; those to train on 286/256 of it, where the task crops.

    names: one of each picture. files: its path, or its two; None where pictures are drawn.
    """

    def __init__(self, settings, memory=4.0, split="train"):
        self.settings = settings
        self.row = TASKS[settings["task"]]
        self.size = settings["size"]
        if split == "train" and self.row.crop:
            self.size = [round(side * 286 / 256) for side in self.size]
        self.files = None
        self.drawings = None                               # the numbers of what is drawn
        self.shapes = None                                 # those of SemGAN Sec. 5.0.1, all drawn
        if self.row.drawn == "shapes":
            self.shapes = torch.from_numpy(draw_shapes())[:, None]       # (2916, 1, 64, 64)
            held = range(9, len(self.shapes), 10)          # every tenth is held out
            rest = [i for i in range(len(self.shapes)) if i not in held]
            self.drawings = held if split == "val" else rest
        elif settings["drawn"]:
            self.drawings = range(400, 440) if split == "val" else range(400)
        else:
            self.files = split_files(settings["data"], split, self.row.kind == "label maps")
        if self.files is None:
            self.names = [str(number) for number in self.drawings]
        else:
            self.names = [paths[0].name for paths in self.files]
        shape = (len(self), CHANNELS[self.row.kind], *self.size)
        self.cache = None
        if math.prod(shape) <= memory * 2 ** 30:           # a byte a value
            self.cache = self.read_all(shape)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return self.read(i) if self.cache is None else self.cache[i]

    def read(self, i):
        """Decodes or draws picture i: uint8 (C, H, W)."""
        if self.files is not None:
            return read_picture(self.settings, self.files[i], self.size)
        number = self.drawings[i]
        if self.shapes is not None:
            return resize(self.shapes[number], self.size, nearest=True)
        return draw_pair(number, self.size, self.row.kind)

    def read_all(self, shape):
        """All pictures, uint8 (N, C, H, W); or a Refusal that names the first five that fail."""
        kept = torch.empty(shape, dtype=torch.uint8)
        places = kept.numpy()                              # the same memory; see to_tensor
        refusals = {}

        def read(i):
            try:
                places[i] = self.read(i).numpy()
            except Refusal as refusal:
                refusals[i] = refusal

        with ThreadPoolExecutor(4) as pool:                # Pillow decodes outside python's lock
            list(pool.map(read, range(len(self))))
        if not refusals:
            return kept
        first, *more = sorted(refusals)
        words = str(refusals[first])
        if more:
            names = ", ".join(self.names[i] for i in more[:4])
            words += f" (and {len(more)} more: {names})"
        raise Refusal(words)

    def batches(self, order):
        """Yields uint8 (n, C, H, W) for each list of indices in order; decodes ahead in threads."""
        ahead = deque()
        with ThreadPoolExecutor(4) as pool:
            for indices in order:
                ahead.append(pool.map(self.__getitem__, indices))
                if len(ahead) > 4:                         # batches in flight
                    yield torch.stack(list(ahead.popleft()))
            for pictures in ahead:
                yield torch.stack(list(pictures))


def training(settings, memory=4.0):
    """The Pictures to train on, at the size of loading."""
    return Pictures(settings, memory, "train")


def held_out(settings, memory=4.0):
    """The Pictures that are never trained on, at the run's size."""
    return Pictures(settings, memory, "val")


def far_apart(pictures, count):
    """At most count of Pictures, as far apart as can be: neighbours may be frames of one film."""
    count = min(count, len(pictures))
    return torch.stack([pictures[i * len(pictures) // count] for i in range(count)])


def epoch_order(count, batch, seed, epoch, rank=0, world=1):
    """The index lists of one rank's batches in one epoch: a function of (seed, epoch) alone. Each
    rank takes its own slice of each global batch of batch * world; no batch is incomplete."""
    rng = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=rng)
    together = batch * world
    whole = order[:count // together * together]
    return whole.view(-1, world, batch)[:, rank].tolist()


def augment(pictures, size, mirror, rng, rank=0, world=1):
    """Random crop and mirror of each picture, both halves alike: (n, C, H, W) -> (n, C, *size).
    mirror: -1 for left and right, -2 for top and bottom. rng, a torch.Generator on the CPU, draws
    for the whole batch of n * world pictures, and each rank takes its own: two processes crop as
    one would."""
    n, _, h, w = pictures.shape
    total = n * world
    mine = slice(rank * n, (rank + 1) * n)
    tops = torch.randint(h - size[0] + 1, (total,), generator=rng)[mine].tolist()
    lefts = torch.randint(w - size[1] + 1, (total,), generator=rng)[mine].tolist()
    crops = []
    for picture, top, left in zip(pictures, tops, lefts):
        crops.append(picture[:, top:top + size[0], left:left + size[1]])
    for dim in mirror:
        turned = (torch.rand(total, generator=rng)[mine] < 0.5).tolist()
        crops = [crop.flip(dim) if turn else crop for crop, turn in zip(crops, turned)]
    return torch.stack(crops)


def read_picture(settings, files, size):
    """What a task keeps of its file or two, uint8 (C, *size): x above y, a photo, a label map.

    A file becomes a Pillow picture, is resized as one, and then becomes numbers, once.
    """
    kind = TASKS[settings["task"]].kind
    if kind == "pairs":
        return read_pair(settings, files, size)
    if kind == "photos":
        photo = open_picture(files[0])                     # not its labels
        return to_tensor(resize_image(photo, size))
    label_map = read_labels(files, settings["palette"])    # uint8 (h, w)
    return to_tensor(resize_image(Image.fromarray(label_map), size, nearest=True))


def read_pair(settings, files, size):
    """Both halves of a pair, resized, x above y: uint8 (6, *size)."""
    palette = settings["palette"]
    path = files[-1]
    numbers = None
    if palette and path.parent.name == "labels":
        numbers = read_label_map(path, palette)
    if len(files) == 1:
        a, b = halves(path, settings["size"])
    else:
        a = open_picture(files[0])
        b = open_picture(path) if numbers is None else paint(numbers, palette)
    if a.size != b.size:
        raise Refusal(f"{files[0]}: is {a.width}x{a.height}, but {path} is {b.width}x{b.height}; "
                      f"both halves of a pair need one size")
    x, y = (b, a) if TASKS[settings["task"]].direction == "BtoA" else (a, b)
    if settings["one_hot"] and numbers is None:
        check_colours(path, to_tensor(x), palette)
    labels = label_side(settings)
    x = resize_image(x, size, nearest=labels == "x")
    y = resize_image(y, size, nearest=labels == "y")
    pair = np.empty((6, *size), np.uint8)
    pair[:3] = to_array(x)
    pair[3:] = to_array(y)
    return torch.from_numpy(pair)


def halves(path, size):
    """The two pictures of a side-by-side file, A and B, as Pillow's, each of size's shape to 2%."""
    pair = open_picture(path)
    w, h = pair.size
    half = w // 2
    error = abs(w / 2 * size[0] - h * size[1])             # 0 where half : h = size[1] : size[0]
    if w % 2 or error > 0.02 * h * size[1]:
        raise Refusal(f"{path}: is {w}x{h}, width x height, but a pair of size {size[0]}x{size[1]} "
                      f"is two pictures of that shape side by side; give single ones in A/ and B/")
    return pair.crop((0, 0, half, h)), pair.crop((half, 0, w, h))


# A folder of pictures, its pairs and its splits

def split_files(folder, split, maps=False):
    """The files of split "train" or "val" below folder: [(A, B), ...] or [(picture,), ...]. test/
    is never looked into."""
    if folder is None:                                     # of a converted generator
        raise Refusal("--data: missing, as the run names no folder of pictures; give one")
    folder = Path(folder)
    if maps and (folder / "gtFine").is_dir():
        folder = folder / "gtFine"
    if not folder.is_dir():
        raise Refusal(f"{folder}: no such folder; give another with --data, or put pictures there")
    if not (folder / "train").is_dir():
        files = hold_out(find_files(folder, maps), split)
    elif not (folder / "val").is_dir():
        files = hold_out(find_files(folder / "train", maps), split)
    else:
        files = find_files(folder / split, maps)
    if not files:
        raise Refusal(f"{folder}: no pictures for {split}; it takes two at least, one of them held "
                      f"out, laid out as `python data.py --help` shows")
    return files


def hold_out(files, split):
    """One split of files: "val" is a tenth, by a hash of the name, the same in every run; at least
    one. "train" is the rest."""
    if not files:
        return []
    hashes = {file: zlib.crc32(os.fsencode(file[0].stem)) for file in files}
    held = {file for file in files if hashes[file] % 10 == 0}
    if not held:
        held = {min(files, key=hashes.get)}
    return [file for file in files if (file in held) == (split == "val")]


def find_files(folder, maps):
    """[(A, B), ...] where folder has A/ and B/ (or photos/ and labels/), else [(picture,), ...];
    where label maps alone are asked for, also Cityscapes' as published."""
    for a, b in (("A", "B"), ("photos", "labels")):
        if (folder / a).is_dir() and (folder / b).is_dir():
            return pair_names(folder / a, folder / b)
    paths = []
    if maps:
        paths = sorted(folder.rglob("*_labelIds.png"))     # gtFine/SPLIT/CITY/*
    return [(path,) for path in paths or list_pictures(folder)]


# From batches to what the networks see, and back: the second half of the idea

def to_network(settings, pictures):
    """A batch of Pictures, uint8 (N, C, H, W) -> x and y, float in [-1, 1], as G and D see them."""
    hides = TASKS[settings["task"]].hides
    rgb = pictures[:, :3]
    y = pictures[:, -3:].float() / 127.5 - 1               # of a photo, y is the photo itself
    if settings["one_hot"]:
        return one_channel_a_class(rgb, settings["palette"]), y
    if hides == "colour":
        lab = rgb_to_lab(pictures)
        x = lab[:, :1] / 50 - 1                            # L, 0..100 -> (N, 1, H, W)
        y = (lab[:, 1:] / 110).clamp(-1, 1)                # a and b, -110..110 -> (N, 2, H, W)
        return x, y
    x = rgb.float() / 127.5 - 1
    if hides == "centre":                                  # the central half is white
        h, w = x.shape[2:]
        x[:, :, h // 4:h - h // 4, w // 4:w - w // 4] = 1
    return x, y


def one_channel_a_class(rgb, palette):
    """Label colours, uint8 (N, 3, H, W) -> float (N, K, H, W): 1 in the channel of a pixel's class,
    else 0; where nothing is known (255) 0 in all."""
    classes = class_or_ignore(rgb, palette)
    return torch.stack([classes == k for k in range(len(palette))], 1).float()


def input_to_network(settings, pictures):
    """What a user's picture becomes: uint8 RGB (N, 3, H, W) -> x float (N, in_channels, H, W)."""
    if TASKS[settings["task"]].sketch:                     # drawn by hand, and maybe larger
        h, w = pictures.shape[2:]
        scale = min(1, max(settings["size"]) / max(h, w))
        size = [round(h * scale) or 1, round(w * scale) or 1]
        pictures = clean_sketch(pictures, size).expand(-1, 3, -1, -1)
    x, _ = to_network(settings, pictures)
    return x


def to_pixels(settings, x, image):
    """Network values to look at: x, or an output or target of that x -> uint8 RGB (N, 3, H, W)."""
    if settings["one_hot"] and image is x:
        return colorize(image.argmax(1).cpu(), settings["palette"])
    if TASKS[settings["task"]].hides == "colour":
        if image is x:
            ab = torch.zeros_like(x).expand(-1, 2, -1, -1)
        else:
            ab = image.clamp(-1, 1) * 110
        lightness = (x + 1) * 50                           # an output gets its own input's L
        return lab_to_rgb(torch.cat([lightness, ab], dim=1).cpu())
    return image.add(1).mul(127.5).round().clamp(0, 255).byte().cpu()


def label_map_of(settings, pictures):
    """The true label map (N, H, W) of pairs, or None; the class "unlabelled" becomes 255."""
    palette = settings["palette"]
    side = TASKS[settings["task"]].labels
    if not palette or not side:
        return None
    colours = pictures[:, :3] if side == "x" else pictures[:, -3:]
    classes = class_or_ignore(colours, palette)
    for k, (name, _) in enumerate(palette):
        if name == "unlabelled":
            classes = classes.masked_fill(classes == k, 255)
    return classes


# Label maps and their colours: what a class number looks like, and what class a colour is

def colour_table(palette):
    """The colour of each number, uint8 (256, 3); of 255 = ignore and all without a class black."""
    table = np.zeros((256, 3), np.uint8)
    table[:len(palette)] = [colour for _, colour in palette]
    return table


def colorize(label_map, palette):
    """Class numbers (..., H, W) -> their colours, uint8 (..., 3, H, W); 255 = ignore is black."""
    colours = colour_table(palette)[np.asarray(label_map)]               # (..., H, W, 3)
    return torch.from_numpy(colours).movedim(-1, -3).contiguous()


def paint(label_map, palette):
    """colorize() of one uint8 numpy array (H, W), as a Pillow picture."""
    return Image.fromarray(colour_table(palette)[label_map])


def class_colours(palette):
    """-> classes (M,), colours (M, 3): the palette's, for Cityscapes also CITYSCAPES_ALSO."""
    rows = list(enumerate(colour for _, colour in palette))
    if palette == CITYSCAPES:
        rows += CITYSCAPES_ALSO
    classes = torch.tensor([k for k, _ in rows])
    colours = torch.tensor([colour for _, colour in rows])
    return classes, colours.float()


def nearest_class(pictures, palette):
    """uint8 (N, 3, H, W) of label colours -> label_map (N, H, W): the nearest colour's class.

    semgan.nearest_class agrees on every palette but Cityscapes', whose files paint some classes in
    further colours, too: a generator never does.
    """
    classes, colours = class_colours(palette)
    classes = classes.to(pictures.device, non_blocking=True)
    colours = colours.to(pictures.device, non_blocking=True)
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
    """Which of "x" and "y" is a label map, or None. Of pairs with a palette.json it is what stands
    in labels/, else x, as kmeans_folder writes it."""
    if settings["task"] != "pairs" or not settings["palette"]:
        return TASKS[settings["task"]].labels
    folder = Path(settings["data"] or "")
    if (folder / "labels").is_dir() or (folder / "train" / "labels").is_dir():
        return "y"
    return "x"


def palette_of(name, folder):
    """The palette of a task's folder: its palette.json, or CamVid's for a street task's labels/."""
    palette = look_up(name).palette
    if folder is None:
        return palette
    file = Path(folder, "palette.json")
    if file.exists():
        return read_palette(file)
    if palette is CITYSCAPES and any(Path(folder).glob("**/labels")):
        return CAMVID
    return palette


def read_palette(file):
    """A palette.json: [[name, [r, g, b]], ...] of 2 to 255 classes; or Refusal."""
    try:
        palette = []
        for name, (r, g, b) in json.loads(file.read_text()):
            bytes([r, g, b])                               # refuses all but integers of 0-255
            palette.append([str(name), [r, g, b]])
        if not 1 < len(palette) < 256:
            raise ValueError
    except (ValueError, TypeError):
        raise Refusal(f"{file}: not a list of [name, [r, g, b]]; mend or remove it") from None
    return palette


def check_colours(path, picture, palette):
    """Refuses uint8 (3, H, W) with a flat patch in a colour far from each class's. What JPEGs smear
    is hardly flat: of 400 facades none has such a patch over 19 off, so 40 is far."""
    h, w = picture.shape[1:]
    if min(h, w) < 3:
        return
    pixels = picture[None].float()                         # (1, 3, H, W)
    _, colours = class_colours(palette)
    distances = torch.cdist(pixels[0].flatten(1).T, colours)             # (H * W, M)
    off = distances.amin(-1).view(h, w)
    # The range of each channel in the 3x3 around a pixel; 99 at the border, where there is none.
    ranges = F.max_pool2d(pixels, 3, 1) + F.max_pool2d(-pixels, 3, 1)
    ranges = F.pad(ranges, (1, 1, 1, 1), value=99)
    flat = ranges[0].amax(0) <= 2
    far = (off > 40) & flat
    if far.any():
        y, x = far.nonzero()[0].tolist()
        colour = tuple(picture[:, y, x].tolist())
        raise Refusal(f"{path}: colour {colour} at x={x}, y={y} is no class's; correct it, or put "
                      f"the classes into a palette.json")


def clean_label_map(image, palette):
    """uint8 RGB (H, W, 3) whose label colours a JPEG has smeared -> label_map uint8 (H, W). Nearest
    colour alone grows seams: halfway from one class's colour to another's lies a third one. So a
    pixel in no solid block of 3x3 takes the nearest in colour of the classes solid nearby."""
    pixels = torch.from_numpy(image).float()
    classes, colours = class_colours(palette)
    squared = torch.stack([(pixels - rgb).square().sum(-1) for rgb in colours], -1)  # (H, W, M)
    label_map = classes[squared.argmin(-1)]
    votes = F.one_hot(label_map, len(palette)).permute(2, 0, 1).float()              # (K, H, W)
    solid = -F.max_pool2d(-votes, 3, 1, 1)                 # 1 where a 3x3 block is one class
    inside = (F.max_pool2d(solid, 3, 1, 1) > 0).any(0)     # of such a block
    nearby = F.max_pool2d(solid, 9, 1, 4) > 0              # of each class, within 4 pixels
    choice = nearby[classes].permute(1, 2, 0)              # (H, W, M)
    others = classes[squared.where(choice, torch.inf).argmin(-1)]
    exact = (squared.amin(-1) == 0).all()                  # no JPEG has been here
    kept = inside | ~nearby.any(0) | exact
    return torch.where(kept, label_map, others).byte().numpy()


# Pictures in, safely: what may stand in a file, and how it becomes 8-bit numbers. Skip it on first
# reading.

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # not EPS: that starts Ghostscript
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
INDEX_MODES = ("1", "L", "P", "I;16")  # Pillow's, of pictures that may hold the numbers of classes
MOST_PIXELS = 50_000_000    # of a picture: 150 MB as RGB
MOST_BYTES = 200_000_000    # of its file


@contextmanager
def opened(path, formats=FORMATS):
    """The picture in a file, its header checked; what fails inside the `with` becomes a Refusal."""
    warnings.filterwarnings("ignore", module="PIL")        # what it warns of is refused or harmless
    try:
        if not Path(path).is_file() or os.path.getsize(path) > MOST_BYTES:  # a pipe would block
            raise OSError(f"no such file, or over {MOST_BYTES:,} bytes")
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MOST_PIXELS:   # before any pixel is decoded
                raise OSError(f"{image.width}x{image.height} is over {MOST_PIXELS:,} pixels")
            # A phone's MPO is a JPEG with a preview behind it: its first frame is the picture.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise OSError("it has several frames or pages")
            yield image
    except MemoryError:
        raise
    except Exception as error:  # Pillow on damage: OSError, SyntaxError, struct.error, KeyError ...
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if why.startswith("cannot identify"):              # b'<!DOCTYPE' is a page named .jpg
            start = Path(path).read_bytes()[:9]
            why = f"not {', '.join(formats)}: it begins with {start}"
        raise Refusal(f"{path}: {why}; mend, replace or remove it") from error


def open_picture(path):
    """Any picture as 8-bit RGB: a Pillow image, turned as EXIF says."""
    with opened(path) as image:
        ImageOps.exif_transpose(image, in_place=True)      # decodes first: half a JPEG opens
        if image.mode in ("I", "F"):
            raise OSError("its 32-bit pixels have no known range")
        if image.mode.startswith("I;16"):
            image = eight_bits(image)
        if image.has_transparency_data:                    # RGBA, LA, a palette with a clear colour
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return image.convert("RGB")


def eight_bits(image):
    """A Pillow picture of 16-bit grey -> of 8-bit grey. Pillow's own way clips it at 255."""
    grey = np.array(image).astype(np.float32)              # (H, W), 0-65535
    clear = image.info.get("transparency", -1)             # one value may mean "clear"
    grey = np.where(grey == clear, 65535, grey)
    return Image.fromarray((grey / 257).round().astype(np.uint8))        # 65535 = 257 * 255


def open_label_map(path, classes):
    """A PNG's values as classes: uint8 (H, W), below `classes` or 255 = ignore; or Refusal."""
    with opened(path, ("PNG",)) as image:                  # a JPEG would have smeared the classes
        if image.mode not in INDEX_MODES:
            raise OSError("it holds colours, not the numbers of classes in grey or in a palette")
        spread = {"L;2": 85, "L;4": 17}.get(image.tile[0][3], 1)  # 2, 4 bits: Pillow fills 0-255
        ImageOps.exif_transpose(image, in_place=True)      # .convert("L") would give brightnesses
        labels = np.array(image).astype(np.uint16) // spread
        places = np.argwhere((labels >= classes) & (labels != 255))
        if len(places):
            y, x = places[0]
            raise OSError(f"class {labels[y, x]} at x={x}, y={y} is not in 0-{classes - 1} or 255")
    return labels.astype(np.uint8)


def read_label_map(path, palette):
    """A picture of class numbers -> label_map uint8 (H, W); None where it holds colours."""
    if path.name.endswith("_labelIds.png"):                # Cityscapes' numbers become ours
        ours = np.full(256, 255, np.uint8)
        ours[:len(CITYSCAPES_IDS)] = CITYSCAPES_IDS
        return ours[open_label_map(path, len(CITYSCAPES_IDS))]
    with opened(path) as image:
        numbered = image.mode in INDEX_MODES
    return open_label_map(path, len(palette)) if numbered else None


def read_labels(files, palette):
    """The label map of a file or two, uint8 (H, W), whether it holds numbers or colours."""
    path = files[-1]
    label_map = read_label_map(path, palette)
    if label_map is not None:
        return label_map
    colours = label_colours(files)
    check_colours(path, to_tensor(colours), palette)
    return clean_label_map(np.array(colours), palette)


def label_colours(files):
    """Labels in colours, a Pillow picture: a file of their own or the right half of a pair."""
    if len(files) == 2:
        return open_picture(files[1])
    return halves(files[0], [1, 1])[1]


def read_input(settings, path, pair=False):
    """A picture to translate, uint8 (3, H, W); of a side-by-side pair, the half that is x."""
    row = TASKS[settings["task"]]
    path = Path(path)
    palette = settings["palette"]
    if pair:
        a, b = halves(path, settings["size"])
        return to_tensor(b if row.direction == "BtoA" else a)
    if row.labels == "x" and path.absolute().parent.name == "labels":    # as read_pair
        label_map = read_label_map(path, palette)
        if label_map is not None:
            return colorize(label_map, palette)
    return to_tensor(open_picture(path))


def pair_names(folder_a, folder_b):
    """[(path in A, path in B), ...] of one name, endings aside; missing partners: Refusal."""
    a = {path.stem: path for path in list_pictures(folder_a)}
    b = {path.stem: path for path in list_pictures(folder_b)}
    missing = []
    for folder, names in (folder_b, a.keys() - b), (folder_a, b.keys() - a):
        if names:
            first = ", ".join(sorted(names)[:5])
            missing.append(f"{folder}: {len(names)} partners missing: {first}")
    if missing:
        raise Refusal(f"{'; '.join(missing)}; both folders need the same names, endings aside")
    return [(a[name], b[name]) for name in sorted(a)]


def list_pictures(folder):
    """The pictures in a folder itself, sorted; no dotfiles, folders or links to nothing."""
    try:
        inside = sorted(Path(folder).iterdir())
        files = [path for path in inside if is_picture(path)]
    except OSError as error:
        raise Refusal(f"{folder}: {error.strerror}; give a folder of pictures") from None
    last = {path.stem: path for path in files}             # a.jpg and a.png: one name, one survives
    for path in files:
        twin = last[path.stem]
        if twin != path:
            raise Refusal(f"{folder}: {path.name} and {twin.name} share a name; keep one")
    return files


def is_picture(path):
    """Whether a name in a folder is that of a picture to use."""
    known = path.suffix.lower() in ENDINGS
    return known and not path.name.startswith(".") and path.is_file()


def to_array(image):
    """A Pillow picture, RGB or grey -> numpy's uint8 (3 or 1, H, W)."""
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def to_tensor(image):
    """A Pillow picture, RGB or grey -> uint8 (3 or 1, H, W). By numpy: torch would start threads of
    its own in each thread that decodes."""
    return torch.from_numpy(to_array(image).copy())


def to_image(picture):
    """uint8 (3 or 1, H, W) -> a Pillow picture."""
    return Image.fromarray(picture.permute(1, 2, 0).squeeze(2).numpy())


def resize_image(image, size, nearest=False):
    """A Pillow picture resized to (height, width): bicubic, or nearest for label maps, which must
    not blend."""
    height, width = size
    if image.size == (width, height):
        return image
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return image.resize((width, height), how)


def resize(picture, size, nearest=False):
    """resize_image() of a tensor, uint8 (C, h, w) -> (C, *size)."""
    if tuple(picture.shape[1:]) == tuple(size):
        return picture
    return to_tensor(resize_image(to_image(picture), size, nearest))


# Colour spaces, for colorization. Skip it on first reading.

RGB_TO_XYZ = torch.tensor([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                           [0.0193339, 0.1191920, 0.9503041]])             # sRGB, D65
WHITE = torch.tensor([0.95047, 1.0, 1.08883]).view(3, 1, 1)


def rgb_to_lab(images):
    """uint8 (N, 3, H, W) -> CIE Lab, float (N, 3, H, W): L 0..100, a and b signed, grey at 0."""
    c = images.float() / 255
    linear = torch.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = RGB_TO_XYZ.to(c.device, non_blocking=True)
    white = WHITE.to(c.device, non_blocking=True)
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


# Edges, and sketches to look like them. Skip it on first reading.

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


def keep_pieces(lines, strong, least):
    """Keeps the connected pieces of bool (N, 1, H, W) with `least` pixels and a strong one."""
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
        kept[places] = len(piece) >= least and bool(strong[places].any())
    return kept


def edges(photos, threshold=12.0):
    """Photos as line drawings: uint8 (N, 3, H, W) -> (N, 1, H, W), lines 0 on 255, 1 pixel wide.
    Canny 1986: smooth, take the gradient (threshold: levels a pixel), keep its ridges, join weak
    ones to strong ones, drop pieces under 5 pixels. The paper's edges are HED's, a network that has
    learned people's outlines of objects; these follow contrast: texture and shadows, too."""
    dy, dx = torch.gradient(smooth(photos), dim=(2, 3))
    slope, channel = torch.hypot(dx, dy).max(1, keepdim=True)            # the strongest channel
    dx = dx.gather(1, channel)
    dy = dy.gather(1, channel)
    n, ne, e, se, s, sw, w, nw = neighbours(slope)
    # The higher of the two neighbours that lie along the gradient: a ridge is at least as high.
    across = torch.where(dx * dy > 0, torch.maximum(se, nw), torch.maximum(ne, sw))
    across = torch.where(dx.abs() > 2.4 * dy.abs(), torch.maximum(e, w), across)  # tan 67.5 degrees
    across = torch.where(dy.abs() > 2.4 * dx.abs(), torch.maximum(n, s), across)
    ridges = (slope >= across) & (slope > 0.4 * threshold)
    lines = keep_pieces(thin(ridges), slope > threshold, 5)
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
    kept = keep_pieces(thin(lines), lines, 5)
    return torch.where(kept, 0, 255).byte()


# k-means: label maps of any photos, by clustering their colours: "Imagine your World". Skip it on
# first reading.

def kmeans_palette(pixels, classes, seed=0):
    """The mean colours of k-means++ clusters, darkest first: (M, 3), 0-255 -> uint8 (classes, 3).
    An empty cluster moves to a pixel that is worst off. Too few colours: Refusal."""
    rng = torch.Generator().manual_seed(seed)
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
    """Arthur & Vassilvitskii 2007: each is a pixel drawn by its squared distance from those before
    it: (M, 3) -> (classes, 3)."""
    centres = pixels[torch.randint(len(pixels), (1,), generator=rng)]
    while len(centres) < classes:
        squared = torch.cdist(pixels, centres).amin(1) ** 2
        chosen = torch.multinomial(squared, 1, generator=rng)
        centres = torch.cat([centres, pixels[chosen]])
    return centres


def kmeans_folder(photos, out, classes=8, seed=0, size=(256, 256)):
    """Photos -> OUT/train and OUT/val (a fifth): label map | photo pairs for `--task pairs`.
    Clusters are those of the whole folder, so that a colour means the same in every picture. Photos
    are cut to the shape of size. palette.json and sheet.png, to judge the labels by, join them."""
    out = Path(out)
    files = list_pictures(photos)
    if not 1 < classes < 100:
        raise Refusal(f"--classes {classes}: out of range; give 2 to 99")
    if len(files) < 2 or (out / "train").exists():
        raise Refusal(f"{photos}: {len(files)} pictures; give at least two, and OUT a new folder")
    rng = torch.Generator().manual_seed(seed)
    sample = sample_pixels(files, 200_000, rng)
    colours = kmeans_palette(sample, classes, seed).tolist()
    palette = [[f"class {number}", colour] for number, colour in enumerate(colours)]
    held = torch.randperm(len(files), generator=rng)[:max(1, len(files) // 5)].tolist()
    tiles = []                                             # of the sheet
    for number, path in enumerate(files):
        pair = label_photo(open_picture(path), palette, size)
        split = "val" if number in held else "train"
        save_picture(out / split / f"{path.stem}.png", pair)
        if number < 12:
            tiles.append(resize(pair, [192, 384]))
    write_whole(out / "palette.json", json.dumps(palette).encode())
    for colour in colours:
        tiles.append(torch.tensor(colour).byte()[:, None, None].expand(3, 192, 384))
    rows = [tiles[i:i + 4] for i in range(0, len(tiles), 4)]
    save_picture(out / "sheet.png", contact_sheet(rows))


def sample_pixels(files, count, rng):
    """Some `count` pixels of all files together: uint8 (M, 3)."""
    sample = []
    for path in files:
        pixels = to_tensor(open_picture(path)).flatten(1).T              # (H * W, 3)
        places = torch.randint(len(pixels), (count // len(files) + 1,), generator=rng)
        sample.append(pixels[places])
    return torch.cat(sample)


def label_photo(image, palette, size):
    """A Pillow photo, cut to the shape of size -> its label map and itself side by side, uint8
    (3, H, 2 * W)."""
    scale = min(image.height / size[0], image.width / size[1], 1024 / max(size))
    height = round(scale * size[0]) or 1
    width = round(scale * size[1]) or 1
    photo = to_tensor(ImageOps.fit(image, (width, height)))
    labels = to_image(nearest_class(photo[None], palette).byte())
    labels = labels.filter(ImageFilter.ModeFilter(5))      # the commonest nearby: no grains
    return torch.cat([colorize(labels, palette), photo], dim=2)


# Drawn facades and shapes, for machines without a network. Skip it on first reading.

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
    """A facade's parts, later ones on top: [(class, left, top, right, bottom), ...], 0 to 1. The
    ranges are judged by eye."""
    left = uniform(-0.1, 0.17)
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


def draw_shapes(seed=0):
    """The Coloured Shapes of SemGAN Sec. 5.0.1: uint8 (2916, 64, 64), classes as SHAPES. Picture 54
    * row + column has its 10x10 red square's top left corner at (row, column). The disc (radius 10)
    and the rectangle (12x24: our choice, the paper gives none) lie wholly inside."""
    rng = torch.Generator().manual_seed(seed)              # of integers: alike on every machine

    def places(low, high):
        return torch.randint(low, high, (54 * 54, 1, 1), generator=rng).numpy()

    centre_y = places(10, 54)
    centre_x = places(10, 54)
    top = places(0, 53)
    left = places(0, 41)
    row, column = np.divmod(np.arange(54 * 54).reshape(-1, 1, 1), 54)
    y, x = np.ogrid[:64, :64]
    rectangle = (top <= y) & (y < top + 12) & (left <= x) & (x < left + 24)
    square = (row <= y) & (y < row + 10) & (column <= x) & (x < column + 10)
    disc = (y - centre_y) ** 2 + (x - centre_x) ** 2 <= 10 ** 2
    shapes = np.select([disc, square, rectangle], [1, 3, 2])             # the first on top
    return shapes.astype(np.uint8)


# Downloads. Skip it on first reading.

SERVER = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/"  # NAME.tar.gz
TIMEOUT = 20  # seconds to connect or to the next byte; after as many, under 1 kB/s is a stall, too


def pictures_of(name, folder=None):
    """What settings say of a task's pictures, found, fetched or drawn: data, drawn, palette."""
    folder, drawn = locate(name, folder)
    return {"data": folder and str(folder), "drawn": drawn, "palette": palette_of(name, folder)}


def locate(name, folder=None):
    """(folder, drawn) of a task: the pictures given, or datasets/, fetched if missing. Facades are
    drawn, (None, True), for --data drawn or where fetching fails, which one loud line says."""
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
        fetch_once(f"{SERVER}{row.archive}.tar.gz", home, row.counts)
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
        inside = [path for path in (temporary / "set").iterdir() if path.is_dir()]
        whole = inside[0] if len(inside) == 1 else temporary / "set"     # published: one folder
        for split, count in (counts or {}).items():
            found = len(list_pictures(whole / split))
            if found != count:
                raise OSError(f"{split} has {found:,} pictures, not {count:,}")
        whole.rename(folder)
    except (OSError, ValueError, http.client.HTTPException, zlib.error, tarfile.TarError) as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise Refusal(f"{url}: {why}; try again, or fetch it by hand and give --data") from error
    finally:
        alarm(0)
        shutil.rmtree(temporary, ignore_errors=True)


def download(url, path):
    """Fetches a .gz file to path, unpacked on the way (zlib checks its sum); OSError or zlib.error.
    It says how far it is. Pictures hardly pack: what unpacks to ten times its size is a bomb."""
    unpack = zlib.decompressobj(wbits=31)
    start = time.monotonic()
    done = 0                                               # bytes
    shown = 0                                              # seconds, when it last said how far
    pause = 0.5 if sys.stdout.isatty() else 10
    alarm(2 * TIMEOUT)                                     # headers, too, can drip for ever
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, open(path, "wb") as file:
        total = response.length or 0                       # 0: the server did not say
        while data := response.read1(1 << 16):             # what is there; read() waits for 64 kB
            alarm(2 * TIMEOUT)
            file.write(unpack.decompress(data))
            done += len(data)
            seconds = time.monotonic() - start
            if seconds > TIMEOUT and done < 1000 * seconds:  # a server can drip for ever
                raise OSError(f"stalled: {done:,} bytes in {seconds:.0f} s")
            if file.tell() > 10 * done + 10_000_000:
                raise OSError("it unpacks to over ten times its size")
            if done == total or seconds > shown + pause:
                shown = seconds
                say_progress(url, done, total, seconds)
    alarm(0)                                               # unpacking may take its time
    if not unpack.eof or done != (total or done):
        raise OSError(f"cut short: {done:,} bytes came, of {total:,}")


def say_progress(url, done, total, seconds):
    """One line, which in a terminal the next one overwrites."""
    remaining = max(total - done, 0) * seconds / done
    overwritten = sys.stdout.isatty() and done != total
    print(f"{url}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB, {remaining:,.0f} s left   ",
          end="\r" if overwritten else "\n", flush=True)


def alarm(seconds):
    """Ends what takes longer, by OSError; 0: no more. Windows has no such clock."""
    def late(*_):
        raise OSError("stalled: its server hardly answers")

    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)


def extract(archive, folder):
    """Unpacks a .tar into folder: files and folders of checked names alone; else OSError.

    By hand: tarfile's filter="data" has let an archive write outside (Python 3.11.7).
    """
    with tarfile.open(archive, "r:") as members:
        for number, member in enumerate(members):
            if number > 500_000 or not is_plain(member):
                raise OSError(f"{member.name!r} is a link, a device, outside or one too many")
            place = Path(folder, member.name)
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(place, "xb") as file:                # x: never over another file
                shutil.copyfileobj(members.extractfile(member), file)


def is_plain(member):
    """Whether an archive's member is a folder or a whole file that stays inside."""
    name = member.name
    outside = name.startswith("/") or ".." in Path(name).parts or "\\" in name or ":" in name
    file = member.isreg() and not member.issparse()
    return (member.isdir() or file) and not outside


# Pictures out: files, sheets, curves. Skip it on first reading.

WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def sources(source, out):
    """[(picture to read, picture to write), ...] for a picture or a folder of them."""
    source = Path(source)
    out = Path(out)
    if source.is_file() and out.is_dir():
        out = out / f"{source.stem}.png"
    if out.exists() and source.exists() and out.samefile(source):
        raise Refusal(f"{out}: is what is to be read; give another place to write to")
    if source.is_file():
        return [(source, out)]
    if out.is_file() or not source.is_dir() or not list_pictures(source):
        raise Refusal(f"{source}: no such file or no pictures in it, or {out} is a file; give a "
                      f"picture and a file, or two folders")
    return [(path, out / f"{path.stem}.png") for path in list_pictures(source)]


def save_picture(path, picture):
    """Writes uint8 (3, H, W) as PNG or JPEG by the name's ending, whole or not at all."""
    path = Path(path)
    kind = WRITTEN.get(path.suffix.lower())
    if kind is None:
        raise Refusal(f"{path}: pictures are written as {' or '.join(WRITTEN)}; choose one")
    buffer = io.BytesIO()
    to_image(picture).save(buffer, kind, quality=95)
    write_whole(path, buffer.getvalue())


def contact_sheet(rows, titles=(), gap=4):
    """Rows of pictures, uint8 (3, h, w), under their titles -> one picture, uint8 (3, H, W)."""
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
        middle = gap // 2 + (c + 0.5) * w
        draw.text((middle, 9), title, "black", anchor="mm", font_size=12)
    return to_tensor(sheet)


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
    low_x = xs.min()
    high_x = max(xs.max(), low_x + 1)
    low_y = min(ys.min(), 0)
    high_y = max(np.quantile(ys, 0.995), 1e-6) * 1.05      # one outlier flattens no curve

    def place(xs, ys):
        across = np.interp(xs, (low_x, high_x), (x0, x1))
        down = np.interp(ys, (low_y, high_y), (y1, y0))
        return list(zip(across, down))

    for x, y in np.linspace((low_x, low_y), (high_x, high_y), 5):
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
        middle = len(layers) // 2
        tops = []
        for i, (channels, side) in enumerate(layers):
            x = 10 + (i + 0.5) * 980 / len(layers)
            y = base - 10 - 16 * np.log2(side)
            half = 2 + 2 * np.log2(channels)
            tops.append((x, y))
            colour = CURVES[2] if skips and i > middle else CURVES[0]
            draw.rectangle([x - half, y, x + half, base], colour)
            draw.text((x, base + 14), f"{channels} x {side}", "black", anchor="mm", font_size=12)
        if skips:
            encoder = tops[1:middle]
            decoder = tops[:middle:-1][1:]                 # from the outside in, as the encoder
            for (x, y), (other, _) in zip(encoder, decoder):
                draw.line([(x, y + 8), (other, y + 8)], CURVES[1], 2)
        draw.text((500, base - 170), title, "black", anchor="mm", font_size=15)
    save_picture(path, to_tensor(image))


# What every command needs: refusals, options, files written whole. Skip it on first reading.

class Refusal(ValueError):
    """Bad input from outside: one line, exit code 2."""


def run_command(main):
    """Calls main() and says faults in one line. Exit 2: refused, 130: Ctrl-C, 1: out of memory."""
    if sys.stdout is None:                                 # after `>&-`
        sys.stdout = open(os.devnull, "w")
    try:
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
            if os.environ.get("LOCAL_RANK", "0") == "0" or dist.is_initialized():
                say_error(refusal)
            sys.exit(2)
        if not is_out_of_memory(error):
            raise
        why = str(error) or "MemoryError"
        say_error(f"memory: not enough ({why}); lower --batch or --size, or give smaller pictures")
        sys.exit(1)


def as_refusal(error):
    """What an error says of the user's input, as a Refusal; None where it is something else."""
    if isinstance(error, OSError):                         # a place that cannot be read or written
        return Refusal(f"{error.filename or 'output'}: {error.strerror or error}; give another "
                       f"place, or mend this one")
    if "InvalidCxxCompiler" in str(error) or "Failed to find C compiler" in str(error):
        return Refusal("--compile: found no C++ compiler; install one, or leave it out")
    if type(error).__name__ == "Refusal":                  # any file's own
        return error
    return None


def is_out_of_memory(error):
    """Whether Python or torch, on a CPU or a GPU, ran out of memory."""
    signs = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def say_error(words):
    """One line on stderr."""
    line = str(words).replace("\n", " ")
    print("error:", line, file=sys.stderr)


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
    if abs(getattr(options, "seed", 0)) > 10 ** 9:
        refuse(f"--seed: {options.seed} is too large; give at most 1000000000")
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
            if 0 < kind(text) < float("inf"):
                return kind(text)
        words = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {words} above 0; give one")

    return convert


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
    """The torch.device of a --device flag; without one, a GPU where there is one. It is then the
    one that torch means by "cuda". Each of several processes on this machine takes its own."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kinds = ["cpu"]
    if processes <= count:                                 # every process says the same
        kinds.append("cuda")
    if processes == 1:
        kinds += [f"cuda:{i}" for i in range(count)]
    if not name:
        name = "cuda" if count else "cpu"
    if name not in kinds:
        raise Refusal(f"--device {name}: not on this machine, or not one for each process; give "
                      f"{' or '.join(kinds)}")
    device = torch.device("cuda", local_rank) if name == "cuda" else torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def tensors_of(content):
    """All tensors in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict):
        yield from tensors_of(list(content.values()))
    elif isinstance(content, (list, tuple)):
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
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if needed and fcntl:                               # Windows opens no folders
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)                 # makes the renaming itself last
            os.close(folder)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):                            # its folder may be none
            temporary.unlink()
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__                      # torch's hides the system's
        why = getattr(error, "strerror", error)
        raise Refusal(f"{path}: could not be written ({why}; it takes {megabytes(content):.1f} MiB)"
                      f"; free some space or give another place, what was there is whole") from None


def megabytes(content):
    """The size of bytes or of all tensors, in MiB."""
    if isinstance(content, bytes):
        size = len(content)
    else:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(content))
    return size / 2 ** 20


def append_line(path, line):
    """Adds a line to a file; where the disk is full, the file stays as it was."""
    before = path.read_bytes() if path.exists() else b""
    write_whole(path, before + f"{line}\n".encode())


# The command, and its two subcommands

def main():
    command = sys.argv[1] if len(sys.argv) > 1 else None
    if command == "kmeans":
        kmeans_command()
    elif command == "edges":
        edges_command()
    else:
        sheet_command()


def command_parser():
    """A parser whose errors name all that data.py does."""
    parser = new_parser(__doc__)
    parser.usage = ("data.py TASK [--data DIR] [--size SIZE] [--out PNG], "
                    "data.py kmeans PHOTOS OUT [--classes 8] [--size SIZE], "
                    "or data.py edges PHOTOS OUT [--size SIZE]")
    return parser


def kmeans_command():
    parser = command_parser()
    parser.add_argument("command", metavar="kmeans")
    parser.add_argument("photos", metavar="PHOTOS")
    parser.add_argument("out", metavar="OUT", help="a new folder")
    parser.add_argument("--classes", type=positive(int), default=8, help="default 8")
    parser.add_argument("--size", type=sides, default=default_size(), help="whose shape is cut")
    options = parse_options(parser)
    kmeans_folder(options.photos, options.out, options.classes, size=options.size)


def edges_command():
    parser = command_parser()
    parser.add_argument("command", metavar="edges")
    parser.add_argument("photos", metavar="PHOTOS", help="a folder, or one picture")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--size", type=sides, default=default_size(), help="of each half")
    options = parse_options(parser)
    if min(options.size) < 2:
        raise Refusal("--size 1: has no edges; give 2 or more")
    for path, out in sources(options.photos, options.out):
        # edges | photo, of the size of training, so that no resizing blurs the lines
        photo = to_tensor(resize_image(open_picture(path), options.size))
        lines = edges(photo[None])[0].expand(3, -1, -1)
        save_picture(out, torch.cat([lines, photo], dim=2))


def sheet_command():
    parser = command_parser()
    parser.add_argument("task", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--data", metavar="DIR", help="a folder of one's own")
    parser.add_argument("--size", type=sides, help="pixels (default: training's, 256 with a GPU, "
                        "else 128; for SemGAN half of that, shapes 64)")
    parser.add_argument("--out", type=picture_name, metavar="PNG",
                        help="default datasets/TASK-sheet.png")
    options = parse_options(parser)
    name = options.task
    size = options.size or default_size(look_up(name))
    task_sheet(name, options.data, size, options.out or f"datasets/{name}-sheet.png")


def default_size(row=Task()):
    """Training's: what --preset means where it is left out."""
    side = 256 if torch.cuda.is_available() else 128
    if row.kind == "label maps":
        side = side // 2
    if row.drawn == "shapes":
        side = 64
    return [side, side]


def task_sheet(name, folder, size, out):
    """Fetches and checks a task's pictures; writes a sheet of what training sees."""
    row = look_up(name)
    settings = settings_of(name, folder, size)
    train = training(settings)
    held = held_out(settings)
    for pictures in (train, held):
        if pictures.cache is None:                         # else each has been read already
            for _ in pictures.batches([i] for i in range(len(pictures))):
                pass
    print(f"{name}: {len(train):,} pictures to train on, {len(held):,} held out, "
          f"from {settings['data'] or 'drawings'}")
    shown = torch.stack([train[i] for i in range(min(4, len(train)))])
    titles = ()
    if row.kind == "label maps":
        rows = [[colorize(label_map[0], settings["palette"])] for label_map in shown]
        if train.files and read_label_map(train.files[0][-1], settings["palette"]) is None:
            titles = ("nearest colour", "cleaned")         # JPEG's seams, and what is left of them
            for files, line in zip(train.files, rows):
                line.insert(0, uncleaned(files, settings["palette"], size))
    else:
        shown = augment(shown, size, row.mirror, torch.Generator().manual_seed(0))
        x, y = to_network(settings, shown)
        rows = list(zip(to_pixels(settings, x, x), to_pixels(settings, x, y)))     # x | y
    save_picture(out, contact_sheet(rows, titles))
    how = "cropped" if row.crop else "resized"
    mirrored = ", mirrored in training" if row.mirror else ""
    print(f"{out}: {how} to {size[0]}x{size[1]}{mirrored}")


def uncleaned(files, palette, size):
    """The colours of a label map by nearest colour alone: uint8 (3, *size)."""
    colours = to_tensor(resize_image(label_colours(files), size, nearest=True))
    return colorize(nearest_class(colours[None], palette)[0], palette)


if __name__ == "__main__":
    run_command(main)
