"""What do the networks see? Files on disk become batches of numbers here, and numbers pictures again.

    files --open_picture--> uint8, resized once --batches--> crop, mirror --to_network--> x, y
    pairs (H, W) RGB        (6, 286, 286), in memory         (N, 6, 256, 256)      float [-1, 1]

    python data.py facades [--data DIR]       fetch and check a task's pictures; write a sheet of
                                              exactly what training will see (x | y)
    python data.py kmeans PHOTOS OUT          label maps from plain photos, by clustering colours
    python data.py edges PHOTOS OUT           edge maps from plain photos

A task is a row of TASKS: what differs between the experiments of pix2pix (arXiv 1611.07004v3, Sec. 4)
and SemGAN (Ghelfi et al., Sec. 5). A folder of pictures is laid out in one of these ways, with or
without train/, val/ and test/ above:
    *.jpg                    side-by-side pairs, A left and B right; or plain photos
    A/*.jpg  B/*.jpg         the same names in both; photos/ and labels/ likewise, where labels may be
                             index maps (PNGs whose pixel values are class numbers)
Without val/, a tenth of the training pictures is held out by a hash of their names, the same tenth
in every run; pictures in test/ are never trained on. Both halves of a pair are decoded and resized
once and stay uint8 in memory while they fit; crops and mirrors happen on the batch, the same for
both halves. Sec. 3.3 and the authors' code: resize to 286, random crop to 256, random mirror.

To copy it out, take this file alone; it needs torch, numpy and pillow:
    settings = {"task": "pairs", "data": "my/pairs", "size": [256, 256], "one_hot": False, "palette": None}
    x, y = to_network(settings, torch.stack([held_out(settings)[0]]))       # (1, 3, 256, 256) each
"""
import argparse
import difflib
import gzip
import hashlib
import http.client
import itertools
import json
import os
import re
import shutil
import sys
import tarfile
import time
import urllib.request
import warnings
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps
from torch.utils.data import Dataset


class Refusal(ValueError):
    """Bad input from outside: one line, exit code 2."""


def run_command(main):
    """Calls main() and says faults in one line. Exit 2: refused, 130: Ctrl-C, 1: out of memory."""
    try:
        main()
        sys.stdout.flush()                               # a closed pipe shows here, not at exit
    except KeyboardInterrupt:
        sys.exit(130)                                    # 128 + SIGINT, as shells count
    except BrokenPipeError:                              # `| head` has seen enough: leave quietly
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)                                    # 128 + SIGPIPE
    except (ValueError, RuntimeError, MemoryError) as error:
        refused = type(error).__name__ == "Refusal"      # of any file: each that copies has its own
        if not (refused or isinstance(error, MemoryError) or "memory" in str(error)):  # torch's
            raise
        text = error if refused else f"out of memory: {error}; give a smaller --batch or --size"
        print("error:", " ".join(str(text).split("\n")), file=sys.stderr)
        sys.exit(2 if refused else 1)


def parse_options(parser):
    """parser.parse_args(), its errors as one-line refusals, with near names for an unknown flag."""
    def refuse(message):
        raise Refusal(re.sub(r"^argument (\S+?)(/\S+)?: ", r"\1: ", message) +
                      ("" if ";" in message else f"; see `python {parser.prog} --help`"))
    parser.error = refuse
    options, unknown = parser.parse_known_args()
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], flags, 3, 0.5)
        raise Refusal(f"{unknown[0]}: no such option; " + (f"did you mean {' or '.join(near)}?" if near
                      else f"see `python {parser.prog} --help`"))
    return options


def positive(kind):
    """An argparse type: an int or float above 0 (NaN is not)."""
    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            words = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {words} above 0; give one")
        return value
    return convert


def size(text):
    """An argparse type: "256" or "256x512", height x width -> [height, width]."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; give 256, or 256x512 (height x width)")
    return [int(sides[0]), int(sides[-1])]


def device_of(name=None, local_rank=0):
    """The torch.device of a --device flag; without one, a GPU where there is one."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda") or (name != "cpu" and not torch.cuda.is_available()):
        raise Refusal(f"--device {name}: not on this machine; give "
                      f"{'cpu or cuda' if torch.cuda.is_available() else 'cpu'}")
    return torch.device("cuda", local_rank) if name == "cuda" else torch.device(name)


def write_whole(path, content):
    """Writes bytes to a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def append_line(path, line):
    """Appends a line to a file; where the disk is full, the file stays as it was."""
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            data = f"{line}\n".encode()
            if file.write(data) < len(data):
                raise OSError(28, os.strerror(28))
        except OSError as error:
            file.truncate(before)
            raise Refusal(f"{path}: could not be written ({error.strerror}); free some space and give "
                          f"the same command again") from None


FACADES = (  # CMP Facades; colours measured in the published JPEGs, names in the order of CMP's classes
    ("background", (0, 0, 222)), ("facade", (0, 48, 255)), ("window", (0, 128, 255)),
    ("door", (0, 207, 255)), ("cornice", (32, 255, 224)), ("sill", (112, 255, 143)),
    ("balcony", (191, 255, 64)), ("blind", (255, 239, 0)), ("deco", (255, 159, 0)),
    ("molding", (255, 80, 0)), ("pillar", (255, 0, 0)), ("shop", (175, 0, 0)))
CAMVID = (   # CamVid's 11 classes by index, and 11 = unlabelled
    ("sky", (128, 128, 128)), ("building", (128, 0, 0)), ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)), ("pavement", (60, 40, 222)), ("tree", (128, 128, 0)),
    ("sign", (192, 128, 128)), ("fence", (64, 64, 128)), ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)), ("cyclist", (0, 128, 192)), ("unlabelled", (0, 0, 0)))
CITYSCAPES = (  # its 19 evaluated classes, then three that stand for the rest
    ("road", (128, 64, 128)), ("sidewalk", (244, 35, 232)), ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)), ("fence", (190, 153, 153)), ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)), ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)), ("terrain", (152, 251, 152)), ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)), ("rider", (255, 0, 0)), ("car", (0, 0, 142)), ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)), ("train", (0, 80, 100)), ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)), ("static", (0, 0, 0)), ("dynamic", (111, 74, 0)),
    ("ground", (81, 0, 81)))
# Cityscapes' labelIds 0-33 -> the 22 rows above, our choice of the paper's unnamed "22 main classes":
# parking and rail track are ground, guard rail is fence, bridge and tunnel are building, polegroup
# is pole, caravan and trailer are truck, the camera's own car and borders are static.
CITYSCAPES_IDS = (19, 19, 19, 19, 19, 20, 21, 0, 1, 21, 21, 2, 3, 4, 4, 2, 2, 5, 5, 6, 7, 8, 9, 10,
                  11, 12, 13, 14, 15, 14, 14, 16, 17, 18)
SHAPES = (("background", (0, 0, 0)), ("circle", (0, 0, 255)), ("rectangle", (0, 255, 0)),
          ("square", (255, 0, 0)))                         # SemGAN Sec. 5.0.1

SERVER = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/"  # NAME.tar.gz


def task(kind="pairs", **differences):
    """A row of TASKS. The defaults are what most of pix2pix's tasks share."""
    return {"kind": kind, "archive": None, "counts": None, "direction": "AtoB", "palette": None,
            "labels": None, "in_channels": 3, "out_channels": 3, "epochs": 200, "batch": 1,
            "crop": True, "mirror": True, **differences}


# kind      pairs: two pictures; photos: one, from which x and y are made; label maps: SemGAN
# archive   the published file's name; counts: its pictures per split
# direction of an archive's pairs, A left and B right: which half is x
# labels    the half that is a label map ("x" or "y"), so that resizing invents no colours
# epochs, batch, crop (load at 286/256 of the size), mirror: the paper's settings, Sec. 3.3 and 4
TASKS = {
    "facades": task(archive="facades", counts={"train": 400, "val": 100, "test": 106},
                    direction="BtoA", palette=FACADES, labels="x"),
    "cityscapes": task(archive="cityscapes", counts={"train": 2975, "val": 500}, direction="BtoA",
                       palette=CITYSCAPES, labels="x"),
    "segmentation": task(archive="cityscapes", counts={"train": 2975, "val": 500},
                         palette=CITYSCAPES, labels="y"),  # photo to labels, Sec. 4.6
    "maps": task(archive="maps", counts={"train": 1096, "val": 1098}),              # photo to map
    "aerial": task(archive="maps", counts={"train": 1096, "val": 1098}, direction="BtoA"),
    "edges2shoes": task(archive="edges2shoes", counts={"train": 49825, "val": 200}, epochs=15,
                        batch=4, crop=False, mirror=False),
    "edges2handbags": task(archive="edges2handbags", counts={"train": 138567, "val": 200},
                           epochs=15, batch=4, crop=False),
    "day2night": task(archive="night2day", direction="BtoA", epochs=17, batch=4),
    "thermal": task(epochs=10, batch=4),
    "colorization": task("photos", in_channels=1, out_channels=2, epochs=6, batch=4, crop=False),
    "inpainting": task("photos", epochs=25, batch=4, mirror=False),
    "pairs": task(),
    "shapes": task("label maps", palette=SHAPES, crop=False, mirror=False, epochs=None),
    "semantic-facades": task("label maps", archive="facades", palette=FACADES, crop=False, epochs=None,
                             counts={"train": 400, "val": 100, "test": 106}),
    "semantic-cityscapes": task("label maps", palette=CITYSCAPES, crop=False, epochs=None),
}


def look_up(name):
    """The row of a task, or a Refusal that offers near names."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, 3, 0.4)
    raise Refusal(f"--task {name}: no such task; " +
                  (f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(TASKS)}"))


FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # not EPS: that starts Ghostscript
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
MOST_PIXELS, MOST_BYTES = 50_000_000, 200_000_000  # of a picture (150 MB as RGB), of its file


@contextmanager
def opened(path, formats=FORMATS):
    """The picture in a file, its header checked; what fails inside the `with` becomes a Refusal."""
    warnings.filterwarnings("ignore", module="PIL")      # what it warns of is refused or harmless
    try:
        if not Path(path).is_file() or os.path.getsize(path) > MOST_BYTES:  # a pipe would block
            raise OSError(f"no such file, or over {MOST_BYTES:,} bytes")
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MOST_PIXELS:  # before any pixel is decoded
                raise OSError(f"{image.width}x{image.height} is over {MOST_PIXELS:,} pixels")
            # A phone's MPO is a JPEG with a preview behind it: its first frame is the picture.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise OSError("it has several frames or pages")
            yield image
    except Exception as error:  # Pillow on damage: OSError, SyntaxError, struct.error, KeyError ...
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if why.startswith("cannot identify"):            # b'<!DOCTYPE' is a page named .jpg
            why = f"not {', '.join(formats)}: it begins with {Path(path).read_bytes()[:9]}"
        raise Refusal(f"{path}: {why}; mend, replace or remove it") from error


def open_picture(path, channels=3):
    """Any picture as 8-bit RGB (channels=3) or grey (1): a Pillow image, turned as EXIF says.

    Alpha is laid on white. 16-bit grey is scaled, 65535 to 255, where Pillow would clip it. CMYK
    goes without its colour profile. Damage, animations and 32-bit pixels raise Refusal.
    """
    with opened(path) as image:
        ImageOps.exif_transpose(image, in_place=True)    # decodes first: open() passes half a JPEG
        if image.mode in ("I", "F"):
            raise OSError("its 32-bit pixels have no known range")
        if image.mode.startswith("I;16"):
            grey = np.array(image).astype(np.float32)    # (H, W), 0-65535
            grey[grey == image.info.get("transparency", -1)] = 65535  # one value may mean "clear"
            image = Image.fromarray((grey / 257).round().astype(np.uint8))  # 65535 = 257 * 255
        if image.has_transparency_data:                  # RGBA, LA, a palette with a clear colour
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return image.convert("L" if channels == 1 else "RGB")


def open_label_map(path, classes):
    """A PNG's values as classes: uint8 (H, W), below `classes` or 255 = ignore; or Refusal."""
    with opened(path, ("PNG",)) as image:                # a JPEG would have smeared the classes
        if image.mode not in ("1", "L", "P", "I;16"):
            raise OSError("it holds colours, not the numbers of classes in grey or in a palette")
        spread = {"L;2": 85, "L;4": 17}.get(image.tile[0][3], 1)  # 2, 4 bits: Pillow fills 0-255
        ImageOps.exif_transpose(image, in_place=True)
        # Not .convert("L"): that makes of a palette's index the brightness of its colour.
        labels = np.array(image).astype(np.uint16) // spread
        for y, x in np.argwhere((labels >= classes) & (labels != 255))[:1]:
            raise OSError(f"class {labels[y, x]} at x={x}, y={y} is not in 0-{classes - 1} or 255")
    return labels.astype(np.uint8)


def list_pictures(folder):
    """The pictures in a folder itself, sorted; no dotfiles, folders or links to nothing."""
    try:
        files = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in ENDINGS
                       and not p.name.startswith(".") and p.is_file())
    except OSError as error:
        raise Refusal(f"{folder}: {error.strerror}; give a folder of pictures") from None
    twins = {p.stem: p for p in files}                   # a.jpg and a.png: one name, one survives
    for path in (p for p in files if twins[p.stem] != p):
        raise Refusal(f"{folder}: {path.name} and {twins[path.stem].name} share a name; keep one")
    return files


def pair_names(folder_a, folder_b):
    """[(path in A, path in B), ...] of one name, endings aside; missing partners: Refusal."""
    a, b = ({path.stem: path for path in list_pictures(f)} for f in (folder_a, folder_b))
    lacks = [(folder_b, sorted(a.keys() - b)), (folder_a, sorted(b.keys() - a))]
    if any(names for _, names in lacks):
        text = [f"{folder}: {len(names)} partners missing: {', '.join(names[:5])}"
                for folder, names in lacks if names]     # the first five and the count
        raise Refusal(f"{'; '.join(text)}; both folders need the same names, endings aside")
    return [(a[name], b[name]) for name in sorted(a)]


def held_out_name(path):
    """The rule for folders without val/: a tenth, by a hash of the name, the same in every run."""
    return zlib.crc32(Path(path).stem.encode()) % 10 == 0


def split_files(folder, split, find):
    """The files of split "train" or "val" below folder; find(folder) lists those of one folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise Refusal(f"{folder}: no such folder; give the folder of the pictures with --data")
    inner = {name: folder / name for name in ("train", "val") if (folder / name).is_dir()}
    if len(inner) == 2:
        files = find(inner[split])
    else:  # test/ is never looked into
        files = find(inner.get("train", folder))
        chosen = {f for f in files if held_out_name(f[0])}
        chosen = chosen or set(sorted(files, key=lambda f: zlib.crc32(f[0].stem.encode()))[:1])
        files = [f for f in files if (f in chosen) == (split == "val")]
    if not files:
        raise Refusal(f"{folder}: no pictures for {split}; it takes at least two, one to train on "
                      f"and one held out, laid out as `python data.py --help` shows")
    return files


def find_files(folder):
    """[(A, B), ...] where folder has A/ and B/ (or photos/ and labels/), else [(picture,), ...]."""
    for a, b in (("A", "B"), ("photos", "labels")):
        if (folder / a).is_dir() and (folder / b).is_dir():
            return pair_names(folder / a, folder / b)
    ids = sorted(folder.rglob("*_labelIds.png"))           # Cityscapes: gtFine/SPLIT/CITY/*
    return [(path,) for path in ids or list_pictures(folder)]


def resize(picture, size, nearest=False):
    """uint8 (C, h, w) -> (C, *size): bicubic, or nearest for label maps, which must not blend."""
    if tuple(picture.shape[1:]) == tuple(size):
        return picture
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return to_tensor(to_image(picture).resize((size[1], size[0]), how))


def to_tensor(image):
    """A Pillow picture, RGB or grey -> uint8 (3 or 1, H, W)."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1).contiguous()


def to_image(picture):
    """uint8 (3 or 1, H, W) -> a Pillow picture."""
    pixels = picture.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def halves(path, size):
    """The two pictures of a side-by-side file, A and B: uint8 (3, H, W) each."""
    pair = to_tensor(open_picture(path))
    h, w = pair.shape[1:]
    if w % 2 or abs(w / 2 * size[0] - h * size[1]) > 0.02 * h * size[1]:
        raise Refusal(f"{path}: is {w}x{h} (width x height), but a pair for size {size[0]}x{size[1]} is two "
                      f"pictures of that shape side by side; give single pictures as folders A/ and B/")
    return pair[:, :, :w // 2], pair[:, :, w // 2:]


def is_index_map(path):
    """Whether a label picture holds class numbers rather than colours."""
    with opened(path) as image:
        return image.mode in ("L", "P", "1", "I;16")


def read_pair(settings, row, files, size):
    """x and y of one pair -> uint8 (6, *size)."""
    nearest = {"x": (True, False), "y": (False, True)}.get(row["labels"], (False, False))
    if len(files) == 1:
        a, b = halves(files[0], settings["size"])
    else:
        a = to_tensor(open_picture(files[0]))
        if row["labels"] and files[1].parent.name == "labels" and is_index_map(files[1]):
            palette = settings["palette"] or row["palette"]
            b = colorize(open_label_map(files[1], len(palette)), palette)
        else:
            b = to_tensor(open_picture(files[1]))
        if a.shape != b.shape:
            raise Refusal(f"{files[0]}: is {a.shape[2]}x{a.shape[1]}, but {files[1]} is "
                          f"{b.shape[2]}x{b.shape[1]}; both halves of a pair need one size")
    x, y = (b, a) if row["direction"] == "BtoA" else (a, b)
    return torch.cat([resize(x, size, nearest[0]), resize(y, size, nearest[1])])


def read_label_map(settings, row, files, size):
    """One label map for SemGAN -> uint8 (1, *size) of class numbers."""
    palette = settings["palette"] or row["palette"]
    path = files[-1]
    if path.name.endswith("_labelIds.png"):
        labels = np.array(CITYSCAPES_IDS, np.uint8)[open_label_map(path, len(CITYSCAPES_IDS))]
    elif is_index_map(path):
        labels = open_label_map(path, len(palette))
    elif len(files) == 2:                                  # a folder B/ of label colours
        labels = clean_label_map(np.array(open_picture(path)), palette)
    else:                                                  # the right half of a facades pair
        labels = clean_label_map(halves(path, [1, 1])[1].permute(1, 2, 0).numpy(), palette)
    return resize(torch.from_numpy(labels)[None], size, nearest=True)


def colorize(label_map, palette):
    """Class numbers (H, W) -> their colours, uint8 (3, H, W)."""
    colours = np.array([colour for _, colour in palette], np.uint8)
    return torch.from_numpy(colours[np.asarray(label_map)]).permute(2, 0, 1).contiguous()


def nearest_class(pictures, palette):
    """uint8 (N, 3, H, W) of label colours -> label_map (N, H, W): the class of the nearest colour."""
    colours = torch.tensor([colour for _, colour in palette], device=pictures.device).float()
    pixels = pictures.float().permute(0, 2, 3, 1)                         # (N, H, W, 3)
    return torch.cdist(pixels.reshape(len(pictures), -1, 3), colours).argmin(-1).view(
        pixels.shape[:3])


class Pictures(Dataset):
    """The pictures of one split: [i] -> uint8 (C, H, W), x above y for pairs; see the kinds above.

    Decoded once and kept while they fit in memory (gigabytes); else decoded each time they are
    asked for. Held-out pictures have settings["size"]; those to train on the load size, 286/256 of
    it, where the task crops. Raises Refusal where a file cannot be read.
    """

    def __init__(self, settings, split, memory=4.0):
        self.settings, self.row = settings, TASKS[settings["task"]]
        crop = split == "train" and self.row["crop"]
        self.size = [round(side * 286 / 256) if crop else side for side in settings["size"]]
        if settings["task"] == "shapes":
            maps = torch.from_numpy(draw_shapes())         # (2916, 64, 64); a tenth held out
            mine = [i for i in range(len(maps)) if (i % 10 == 9) == (split == "val")]
            self.files, self.cache = [(f"shape {i}",) for i in mine], maps[mine][:, None]
            self.cache = torch.stack([resize(m, self.size, nearest=True) for m in self.cache])
            return
        if settings["drawn"]:
            self.files = [(i,) for i in (range(400) if split == "train" else range(400, 440))]
        else:
            self.files = split_files(settings["data"], split, find_files)
        first = self.read(0)
        self.cache = None
        if len(self.files) * first.numel() <= memory * 2 ** 30:
            with ThreadPoolExecutor() as pool:             # Pillow decodes outside python's lock
                self.cache = torch.stack(list(pool.map(self.read, range(len(self.files)))))

    def read(self, i):
        if self.settings["drawn"]:
            return draw_pair(*self.files[i], self.size, self.row["kind"])
        files = [Path(f) for f in self.files[i]]
        if self.row["kind"] == "photos":
            return resize(to_tensor(open_picture(files[0])), self.size)
        read = read_pair if self.row["kind"] == "pairs" else read_label_map
        return read(self.settings, self.row, files, self.size)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        return self.read(i) if self.cache is None else self.cache[i]

    def batches(self, order, workers=4):
        """Yields uint8 (n, C, H, W) for each list of indices in order; decodes ahead in threads."""
        if self.cache is not None:
            yield from (self.cache[torch.as_tensor(indices)] for indices in order)
            return
        order, ahead = iter(order), deque()
        with ThreadPoolExecutor(workers) as pool:
            for indices in itertools.chain(order, [None] * 4):            # four batches in flight
                if indices is not None:
                    ahead.append([pool.submit(self.read, int(i)) for i in indices])
                if ahead and (indices is None or len(ahead) > 4):
                    yield torch.stack([future.result() for future in ahead.popleft()])


def training(settings, memory=4.0):
    """The pictures to train on, at the load size."""
    return Pictures(settings, "train", memory)


def held_out(settings, memory=4.0):
    """The pictures never trained on, at the run's size."""
    return Pictures(settings, "val", memory)


def epoch_order(count, batch, seed, epoch, rank=0, world=1):
    """The index lists of one rank's batches in one epoch: a function of (seed, epoch) alone.

    Every rank shuffles alike and takes its own slice of each global batch of batch * world pictures;
    what does not fill a last batch is left to another epoch's shuffle.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    whole = order[:count // (batch * world) * batch * world].view(-1, world, batch)
    return whole[:, rank].tolist()


def augment(pictures, size, mirror, generator, rank=0, world=1):
    """Random crop to size and random mirror, each picture its own, the same for both halves.

    uint8 (n, C, H, W) -> (n, C, *size). generator, a torch.Generator on the CPU, draws for the whole
    batch of n * world pictures, and each rank takes its own: two processes crop as one would.
    """
    n, _, h, w = pictures.shape
    mine = slice(rank * n, (rank + 1) * n)
    top = torch.randint(h - size[0] + 1, (n * world,), generator=generator)[mine].tolist()
    left = torch.randint(w - size[1] + 1, (n * world,), generator=generator)[mine].tolist()
    flip = (torch.rand(n * world, generator=generator)[mine] < (0.5 if mirror else 0)).tolist()
    crops = [p[:, t:t + size[0], l:l + size[1]] for p, t, l in zip(pictures, top, left)]
    return torch.stack([c.flip(-1) if f else c for c, f in zip(crops, flip)])


RGB_TO_XYZ = torch.tensor([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                           [0.0193339, 0.1191920, 0.9503041]])             # sRGB, D65
WHITE = torch.tensor([0.95047, 1.0, 1.08883]).view(3, 1, 1)


def rgb_to_lab(images):
    """uint8 (N, 3, H, W) -> CIE Lab, float (N, 3, H, W): L 0..100, a and b signed, grey at 0."""
    c = images.float() / 255
    linear = torch.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    xyz = torch.einsum("ij,njhw->nihw", RGB_TO_XYZ.to(c.device), linear) / WHITE.to(c.device)
    f = torch.where(xyz > 216 / 24389, xyz.clamp_min(1e-9) ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def lab_to_rgb(lab):
    """The inverse of rgb_to_lab; colours that sRGB cannot show are clipped to the nearest it can."""
    y = (lab[:, 0] + 16) / 116
    f = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], 1)
    xyz = torch.where(f > 6 / 29, f ** 3, (116 * f - 16) * 27 / 24389) * WHITE.to(lab.device)
    linear = torch.einsum("ij,njhw->nihw", RGB_TO_XYZ.inverse().to(lab.device), xyz).clamp(0, 1)
    c = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return (c * 255).round().clamp(0, 255).byte()


def input_to_network(settings, pictures):
    """What a user's picture becomes: uint8 RGB (N, 3, H, W) -> x float (N, in_channels, H, W)."""
    task = settings["task"]
    if settings["one_hot"]:
        classes = nearest_class(pictures, settings["palette"])
        return F.one_hot(classes, len(settings["palette"])).permute(0, 3, 1, 2).float()
    if task == "colorization":                             # L 0..100 -> [-1, 1], 1 channel
        return rgb_to_lab(pictures)[:, :1] / 50 - 1
    if task == "inpainting":                               # the central half is white, after the crop
        h, w = pictures.shape[2:]
        pictures = pictures.clone()
        pictures[:, :, h // 4:h - h // 4, w // 4:w - w // 4] = 255
    return pictures.float() / 127.5 - 1


def to_network(settings, pictures):
    """A batch of Pictures, uint8 (N, C, H, W) -> x and y, float in [-1, 1], as G and D see them."""
    x = input_to_network(settings, pictures[:, :3])
    if settings["task"] == "colorization":                 # a and b, -110..110, 2 channels
        return x, (rgb_to_lab(pictures)[:, 1:] / 110).clamp(-1, 1)
    return x, pictures[:, -3:].float() / 127.5 - 1         # of a photo, y is the photo itself


def to_pixels(settings, x, image):
    """Network values to look at: x, or an output or target beside its x -> uint8 RGB (N, 3, H, W)."""
    if settings["one_hot"] and image.shape[1] == len(settings["palette"]):
        colours = torch.tensor([c for _, c in settings["palette"]], dtype=torch.uint8)
        return colours[image.argmax(1).cpu()].permute(0, 3, 1, 2).contiguous()
    if settings["task"] == "colorization":
        lightness, ab = (x + 1) * 50, image.clamp(-1, 1) * 110
        return lab_to_rgb(torch.cat([lightness, torch.zeros_like(x.expand(-1, 2, -1, -1))
                                     if image is x else ab], dim=1).cpu())
    return image.add(1).mul(127.5).round().clamp(0, 255).byte().cpu()


def label_map_of(settings, pictures):
    """The true label map (N, H, W) of pairs, or None where the task has none; "unlabelled" is 255."""
    palette, side = settings["palette"], TASKS[settings["task"]]["labels"]
    if not palette or not side:
        return None
    classes = nearest_class(pictures[:, :3] if side == "x" else pictures[:, -3:], palette)
    for index, (name, _) in enumerate(palette):
        if name == "unlabelled":
            classes[classes == index] = 255
    return classes


WALLS = ((196, 172, 118), (172, 164, 150), (150, 88, 68), (200, 186, 162), (164, 144, 114),
         (150, 164, 140), (190, 150, 128), (126, 114, 98), (196, 194, 188), (148, 152, 164))
LEDGES = ("cornice", "sill", "balcony", "molding")  # lit from above, throwing a shadow below
# What drawn windows have around them: how often, then (left, top, right, bottom) in the window's
# widths and heights from its top left corner; chosen so that class shares come near the real ones.
AROUND = (("cornice", 0.6, (-0.25, -0.27, 1.25, 0)), ("deco", 0.4, (-0.1, -0.47, 1.1, -0.27)),
          ("sill", 0.9, (-0.25, 1, 1.25, 1.24)), ("blind", 0.12, (-0.36, 0, 0, 1)),
          ("pillar", 0.15, (-0.45, -0.3, -0.25, 1.3)), ("balcony", 0.55, (-0.3, 0.6, 1.3, 1.2)))


def plan_facade(rand):
    """A facade's parts, later ones on top: [(class, left, top, right, bottom), ...] in picture sides.

    rand(a, b) is a random number between the two; the ranges are judged by eye.
    """
    left, right, top, bottom = rand(-0.1, 0.17), rand(0.83, 1.1), rand(0.05, 0.22), rand(0.91, 1.02)
    storeys, eaves, roof = int(rand(2, 5.5)), rand(0.03, 0.08), max(0, rand(-0.1, 0.1))
    height = (bottom - top - eaves) / (storeys + 1.3)      # of a storey; the ground floor is higher
    columns = round((right - left) / height / rand(0.5, 1.1)) + 1
    pitch, door = (right - left) / columns, int(rand(0, 1.2 * columns))
    parts = [("neighbour", 0, rand(0, 0.6), 0.4, 1), ("neighbour", 0.6, rand(0, 0.6), 1, 1),
             ("street", 0, 0.9, 1, 1), ("roof", left, top - roof, right, top),
             ("facade", left, top, right, bottom), ("molding", left, top, right, top + eaves)]
    for storey in range(storeys):
        if storey == 0 or rand(0, 1) < 0.4:                # neighbouring storeys are mostly alike
            w, h, up = rand(0.36, 0.56) * pitch, rand(0.48, 0.6) * height, rand(0.24, 0.3) * height
            around = [(name, box) for name, rate, box in AROUND if rand(0, 1) < rate]
            every, ledge = int(rand(1, 3.5)), rand(0.02, 0.12) * height   # balconies: every 1st-3rd
        y = top + eaves + storey * height
        for column in range(columns):
            x = left + pitch * (column + 0.5) - w / 2
            parts.append(("window", x, y + up, x + w, y + up + h))
            for name, (a, b, c, d) in around:
                sides = [(a, c), (1 - c, 1 - a)] if name in ("blind", "pillar") else [(a, c)]
                if name != "balcony" or (2 * column + 1 - columns) // 2 % every == 0:
                    parts += [(name, x + l * w, y + up + b * h, x + r * w, y + up + d * h)
                              for l, r in sides]
        if rand(0, 1) < 0.4 or storey == storeys - 1:
            parts.append(("molding", left, y + height - ledge, right, y + height + ledge))
    below = ("shop", 0.08, 0) if rand(0, 1) < 0.65 else ("window", 0.22, 0.4)
    for column in range(columns):                          # the ground floor
        name, gap, up = ("door", 0.22, 0) if column == door else below
        parts.append((name, left + pitch * (column + gap), bottom - height,
                      left + pitch * (column + 1 - gap), bottom - up * height))
    return parts


def paint(name, v, colours, unit, rand):
    """Paints a part into its place v (3, h, w) of the photo, 0-255; unit: a line's width in pixels."""
    h, w = v.shape[1:]
    y, x, brick = np.arange(h)[:, None] // unit, np.arange(w) // unit, colours["brick"]
    lines = {"facade": (y % brick == 0) | (x % (2 * brick) == y // brick % 2 * brick),
             "roof": y % 3 == 0, "neighbour": (y % 20 > 8) & (x % 14 > 7), "blind": y % 2 == 0,
             "balcony": x % 3 == 0, "deco": (y % 2 == 0) & (x % 3 > 0)}
    v[:] = colours[name] * np.where(lines.get(name, False), np.float32(0.75), 1)
    down = np.linspace(1.2, 0.8, h, dtype=np.float32)[:, None]
    if name in LEDGES:
        v *= down
    if name in ("window", "door", "shop"):
        pane = v[:, unit + h // 6 * (name == "shop"):-unit, unit:-unit]        # below a shop's sign
        pane[:] = colours["wood" if name == "door" else "glass"] * rand(0.5, 1.6)
        pane *= down[-pane.shape[1]:] ** 2                 # less sky is reflected further down
        pane[:, :int(h * rand(-0.5, 0.7)), ::int(rand(1, 4))] += rand(20, 90)  # some curtains
        v[:, :, w // 2:w // 2 + unit] = v[:, h // 3:h // 3 + unit] = colours[name]
        v[:, :2 * unit] *= 0.55                            # the shadow of the wall's thickness


def stains(size, cells, generator):
    """(cells + 1)^2 random numbers joined by straight lines -> (size, size) float32, 0 to 1."""
    grid = torch.rand(cells + 1, cells + 1, generator=generator).numpy()
    i, f = np.divmod(np.arange(size, dtype=np.float32) * cells / size, 1)
    above, below = grid[i.astype(int)], grid[i.astype(int) + 1]
    rows = above + (below - above) * f[:, None]            # (size, cells + 1)
    return rows[:, i.astype(int)] * (1 - f) + rows[:, i.astype(int) + 1] * f


def draw_facade(index, seed=0, size=286):
    """Draws a facade -> photo uint8 (3, size, size), label map uint8 (size, size): rows of FACADES.

    Made of sums and products of torch's uniform numbers, so that it is the same on every machine.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2 ** 32)
    draws = iter(torch.rand(4000, generator=generator, dtype=torch.float64).tolist())

    def rand(low, high):
        return low + (high - low) * next(draws)

    def colour(rgb, low=1, high=1):
        return np.array(rgb, np.float32).reshape(-1, 1, 1) * np.float32(rand(low, high))
    wall = colour(WALLS[int(rand(0, len(WALLS)))], 0.75, 1.1)
    trim = wall + (225 - wall) * np.float32(rand(-0.2, 0.5))
    colours = {"neighbour": wall * 0.6, "street": colour(95, 0.6, 1.4), "facade": wall,
               "cornice": trim, "molding": trim, "sill": trim * 0.9, "deco": trim * 0.8,
               "pillar": trim * 1.1, "roof": colour((96, 76, 70), 0.7, 1.4), "door": wall * 0.5,
               "window": colour(230, 0.2, 1), "shop": colour([rand(20, 180) for _ in range(3)]),
               "wood": colour((90, 70, 55)), "glass": colour((66, 72, 78)),
               "blind": colour((90, 110, 90), 0.6, 1.2), "balcony": wall * np.float32(rand(0.4, 0.8)),
               "brick": (4, 12, 9999)[int(rand(0, 3))]}    # bricks, ashlar, plaster: joint to joint
    photo = colour((150, 180, 215)) + stains(size, 5, generator) * colour((90, 65, 35), 0.2, 1.1)
    labels, unit = np.zeros((size, size), np.uint8), max(1, round(size / 256))
    classes = {name: number for number, (name, _) in enumerate(FACADES)}
    for name, *box in plan_facade(rand):
        x0, y0, x1, y1 = (min(max(int(side * size), 0), size) for side in box)
        if x1 > x0 and y1 > y0:
            labels[y0:y1, x0:x1] = classes.get(name, name == "roof")  # a roof is facade, too
            paint(name, photo[:, y0:y1, x0:x1], colours, unit, rand)
            photo[:, y1:y1 + 2 * unit * (name in LEDGES), x0:x1] *= 0.6
    photo = photo * (0.7 + 0.5 * stains(size, 2, generator)) + 30 * stains(size, 24, generator) - 15
    photo += torch.randint(-14, 15, (3, size, size), generator=generator).numpy()
    photo[:, 1:, 1:] = (photo[:, 1:, 1:] * 2 + photo[:, :-1, 1:] + photo[:, 1:, :-1]) / 4  # blurred
    return torch.from_numpy(photo.clip(0, 255).astype(np.uint8)), torch.from_numpy(labels)


SHAPES_SIZE, SQUARE, RADIUS = 64, 10, 10   # pixels, SemGAN Sec. 5.0.1
RECTANGLE = (12, 24)                       # height, width: our choice, the paper gives none


def draw_shapes(seed=0):
    """The Coloured Shapes of SemGAN Sec. 5.0.1: uint8 (2916, 64, 64), classes as SHAPES_PALETTE.

    Picture 54 * row + column has its red square's top left corner at (row, column): one picture for
    each of the 54x54 places where a 10x10 square fits 64x64. Disc and rectangle are placed by seed,
    whole pixels and wholly inside. Painted in the order rectangle, square, disc: so only the disc can
    cover the square, and the rectangle, wider than the disc's 21 pixels, can never vanish.
    """
    count = (SHAPES_SIZE - SQUARE) ** 2
    generator = torch.Generator().manual_seed(seed)        # integers: the same on every machine

    def places(low, high):                                 # (2916, 1, 1), low <= value < high
        return torch.randint(low, high, (count, 1, 1), generator=generator).numpy()

    centre_y, centre_x = places(RADIUS, SHAPES_SIZE - RADIUS), places(RADIUS, SHAPES_SIZE - RADIUS)
    height, width = RECTANGLE
    rect_y, rect_x = places(0, SHAPES_SIZE - height + 1), places(0, SHAPES_SIZE - width + 1)
    square_y, square_x = np.divmod(np.arange(count).reshape(-1, 1, 1), SHAPES_SIZE - SQUARE)
    y, x = np.ogrid[:SHAPES_SIZE, :SHAPES_SIZE]

    def box(top, left, h, w):                              # bool (2916, 64, 64)
        return (y >= top) & (y < top + h) & (x >= left) & (x < left + w)

    label_maps = np.zeros((count, SHAPES_SIZE, SHAPES_SIZE), np.uint8)
    label_maps[box(rect_y, rect_x, height, width)] = 2
    label_maps[box(square_y, square_x, SQUARE, SQUARE)] = 3
    label_maps[(y - centre_y) ** 2 + (x - centre_x) ** 2 <= RADIUS ** 2] = 1
    return label_maps


def clean_label_map(image, palette, reach=4):
    """uint8 RGB (H, W, 3) whose label colours a JPEG has smeared -> label_map uint8 (H, W).

    Nearest colour alone grows seams: halfway from one class's colour to another's lies a third one.
    So (1) a pixel that is a mixture of its two sides, up to reach pixels apart in all, takes the
    class of the nearer side. A real thin object survives: it stands out from both sides. And (2) what
    stays thin and far from its colour takes the nearest class among those solid nearby.
    """
    colours = np.array([rgb for _, rgb in palette], np.float32)                    # (K, 3)
    squared = ((image[:, :, None] - colours) ** 2).sum(-1)                         # (H, W, K)
    label_map, steepest = squared.argmin(-1), np.float32(60 ** 2)  # lesser steps are JPEG's noise
    if not squared.min(-1).any():
        return label_map.astype(np.uint8)                  # nothing is smeared
    sides = np.pad(np.dstack([image, label_map]).astype(np.float32),
                   ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    (h, w), centre = label_map.shape, image.astype(np.float32)
    for i, j in [(i, j) for i in range(1, reach + 1) for j in range(1, reach + 2 - i)]:
        for y, x in ((0, 1), (1, 0)):                      # i pixels to one side, j to the other
            a = sides[reach - i * y:, reach - i * x:][:h, :w]
            b = sides[reach + j * y:, reach + j * x:][:h, :w]
            step, rise = b[..., :3] - a[..., :3], centre - a[..., :3]
            span = (step ** 2).sum(-1)
            share = (rise * step).sum(-1) / np.maximum(span, 1)    # 0: a's colour, 1: b's
            mixed = (abs(share - 0.5) < 0.6) & ((rise ** 2).sum(-1) < (share ** 2 + 0.16) * span)
            mixed &= span > steepest                       # of all such pairs, the greatest contrast
            steepest = np.where(mixed, span, steepest)
            label_map = np.where(mixed, np.where(share < 0.5, a[..., 3], b[..., 3]), label_map)
    label_map = label_map.astype(np.int64)
    votes = torch.from_numpy(np.eye(len(palette), dtype=np.float32)[label_map]).permute(2, 0, 1)
    solid = -F.max_pool2d(-votes, 3, 1, 1)                 # 1 where a 3x3 block is one class
    part, near = (F.max_pool2d(solid, size, 1, size // 2).permute(1, 2, 0).numpy() > 0
                  for size in (5, 13))                     # of such a block's fringe; in its region
    far = np.take_along_axis((squared > 60 ** 2) & ~part, label_map[..., None], -1)[..., 0]
    return np.where(far & near.any(-1), np.where(near, squared, np.inf).argmin(-1),
                    label_map).astype(np.uint8)


TIMEOUT = 20  # seconds to connect or to the next byte; after as many, under 1 kB/s is a stall, too


def copy(response, file, name, total):
    """Copies a response of total bytes (0: unknown) to a file, saying how far -> its SHA-256."""
    done, shown, start, digest = 0, 0, time.monotonic(), hashlib.sha256()
    while data := response.read1(1 << 16):                 # what is there; read() waits for 64 kB
        file.write(data)
        digest.update(data)
        done, seconds = done + len(data), time.monotonic() - start
        if seconds > TIMEOUT and done < 1000 * seconds:    # a server can drip for ever
            raise OSError(f"stalled: {done:,} bytes in {seconds:.0f} s")
        # In place on a terminal, twice a second; elsewhere a line every 10 s and the last one.
        if done == total or seconds > shown + (0.5 if sys.stdout.isatty() else 10):
            shown, speed = seconds, done / max(seconds, 1e-3)
            left = f" of {total / 1e6:,.1f}, {(total - done) / speed:,.0f} s left" if total else ""
            print(f"{name}: {speed / 1e6:.1f} MB/s, MB: {done / 1e6:,.1f}{left}   ", flush=True,
                  end="\r" if sys.stdout.isatty() and done != total else "\n")
    if total and done != total:
        raise OSError(f"{done:,} bytes came, of {total:,}")
    return digest.hexdigest()


def download(url, path, sha256="", expected_size=None):
    """Fetches url to path, whole and with the SHA-256 expected (or its beginning); or Refusal."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    opener = urllib.request.OpenerDirector()               # none for file:, not even redirected
    for kind in ("Proxy", "HTTP", "HTTPS", "HTTPRedirect", "HTTPDefaultError", "Unknown"):
        opener.add_handler(getattr(urllib.request, f"{kind}Handler")())
    opener.add_handler(urllib.request.HTTPErrorProcessor())  # 404, 500, over 10 redirects
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with opener.open(url, timeout=TIMEOUT) as response, open(temporary, "wb") as file:
            total = response.length or 0
            if expected_size and total and total != expected_size:
                raise OSError(f"it has {total:,} bytes, not {expected_size:,}")
            if not copy(response, file, path.name, expected_size or total).startswith(sha256):
                raise OSError(f"its SHA-256 does not begin with {sha256}")
        os.replace(temporary, path)
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        why = str(error).split("\n")[0] or type(error).__name__
        raise Refusal(f"{url}: {why}; try again, or fetch it by hand") from error
    finally:
        temporary.unlink(missing_ok=True)


class Bounded:
    """Reads a file up to a limit: what grows beyond it while unpacking is a bomb."""

    def __init__(self, file, limit):
        self.file, self.left = file, limit

    def read(self, count):
        data = self.file.read(count)
        self.left -= len(data)
        if self.left < 0:
            raise OSError("it unpacks to over ten times its size")
        return data


def extract(archive, folder):
    """Unpacks a .tar.gz into folder: files and folders of checked names alone; else Refusal.

    By hand: tarfile's filter="data" has let an archive write outside (Python 3.11.7).
    """
    try:
        with gzip.open(archive) as packed:                 # pictures hardly shrink when packed
            stream = Bounded(packed, 10 * os.path.getsize(archive) + 10_000_000)
            members = tarfile.open(fileobj=stream, mode="r|")
            for number, member in enumerate(members):
                parts = PurePosixPath(member.name).parts
                if not (member.isreg() or member.isdir()) or ".." in parts or number > 500_000 or (
                        member.name.startswith("/") or set(member.name) & set("\\:")):
                    raise OSError(f"{member.name!r} is a link, a device, outside or one too many")
                place = Path(folder, *parts)
                (place if member.isdir() else place.parent).mkdir(parents=True, exist_ok=True)
                if member.isreg():
                    with open(place, "xb") as file:        # x: never over another file
                        shutil.copyfileobj(members.extractfile(member), file)
            while stream.read(1 << 16):                    # on to the checksum at the end
                pass
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise Refusal(f"{archive}: {error}; remove it and fetch it again") from error


def fetch(url, folder, counts=None):
    """Fetches a .tar.gz and unpacks it as folder, which appears only whole: counts[split] pictures.

    A failed try leaves nothing behind that a next one trips over. Raises Refusal.
    """
    folder, archive = Path(folder), Path(f"{folder}.tar.gz")
    temporary = folder.with_name(f".{folder.name}.partial")
    if not archive.exists():                               # else: fetched whole, then interrupted
        download(url, archive)
    try:
        shutil.rmtree(temporary, ignore_errors=True)       # left by a run that was killed
        temporary.mkdir()
        extract(archive, temporary)
        inside = [path for path in temporary.iterdir() if path.is_dir()]
        whole = inside[0] if len(inside) == 1 else temporary   # published ones hold one folder
        for split, count in (counts or {}).items():
            if (found := len(list_pictures(whole / split))) != count:
                raise Refusal(f"{url}: holds {found:,} pictures in {split}, not {count:,}; try again")
        whole.rename(folder)
    except Refusal:
        archive.unlink(missing_ok=True)                    # to be fetched anew
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    archive.unlink()


def locate(name, folder=None):
    """(folder, drawn) of a task's pictures: the one given, or datasets/, fetched where it is missing.

    Where fetching fails, facades are drawn instead: (None, True), said on one loud line.
    """
    row = look_up(name)
    if folder is not None or name == "shapes":
        return (Path(folder) if folder is not None else None), False
    if row["archive"] is None:
        raise Refusal(f"--task {name}: has no published archive; give its folder with --data DIR")
    home = Path("datasets") / row["archive"]
    if home.is_dir():
        return home, False
    try:
        fetch(f"{SERVER}{row['archive']}.tar.gz", home, row["counts"])
        return home, False
    except Refusal as error:
        if row["palette"] is not FACADES:
            raise
        print(f"{error}\n*** DRAWN FACADES: these pictures are drawn by data.py, not photographed. For "
              f"the real ones give --data DIR, or try again with a network. ***", flush=True)
        return None, True


def palette_of(name, folder):
    """The palette of a task's folder: its palette.json, or CamVid's for index maps of a street task."""
    row, file = look_up(name), Path(folder or "") / "palette.json"
    if folder is None:
        return row["palette"]
    if file.exists():
        try:
            return tuple((str(n), tuple(map(int, c))) for n, c in json.loads(file.read_text()))
        except (ValueError, TypeError):
            raise Refusal(f"{file}: not a list of [name, [r, g, b]]; mend it, or remove it") from None
    if row["palette"] is CITYSCAPES and any(Path(folder).glob("**/labels")):
        return CAMVID
    return row["palette"]


def draw_pair(index, size, kind):
    """The drawn facade of an index: x above y, uint8 (6, *size), or its label map (1, *size)."""
    photo, labels = draw_facade(index, size=max(size))
    if kind == "label maps":
        return resize(labels[None], size, nearest=True)
    return torch.cat([resize(colorize(labels, FACADES), size, nearest=True), resize(photo, size)])


def sources(source, out):
    """[(picture to read, picture to write), ...] for a picture or a folder of them."""
    source, out = Path(source), Path(out)
    if source.is_dir():
        found = list_pictures(source)
        if not found:
            raise Refusal(f"{source}: no pictures in this folder; give one that has some")
        if out.exists() and not out.is_dir():
            raise Refusal(f"{out}: is a file, but {source} is a folder; give a folder to write to")
        return [(path, out / f"{path.stem}.png") for path in found]
    if not source.exists():
        raise Refusal(f"{source}: no such file; give a picture or a folder of pictures")
    return [(source, out / f"{source.stem}.png" if out.is_dir() else out)]


def read_input(settings, path, pair=False):
    """A picture to translate, uint8 (3, H, W); of a side-by-side pair, the half that is x."""
    if not pair:
        return to_tensor(open_picture(path))
    return halves(path, settings["size"])[TASKS[settings["task"]]["direction"] == "BtoA"]


def save_picture(path, picture):
    """Writes uint8 (3, H, W) as PNG or JPEG by the name's ending, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}.get(path.suffix.lower())
    if kind is None:
        raise Refusal(f"{path}: pictures are written as .png or .jpg; choose one of these endings")
    path.parent.mkdir(parents=True, exist_ok=True)
    to_image(picture).save(temporary, kind, **({"quality": 95} if kind == "JPEG" else {}))
    os.replace(temporary, path)


def font(size):
    return ImageFont.load_default(size)


def contact_sheet(rows, titles=(), gap=4):
    """Rows of pictures, uint8 (3, h, w), under their titles -> one picture, uint8 (3, H, W)."""
    h, w = (max(p.shape[i] for row in rows for p in row) for i in (1, 2))
    top = 20 if titles else gap
    sheet = Image.new("RGB", (max(map(len, rows)) * (w + gap) + gap, len(rows) * (h + gap) + top),
                      "white")
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            sheet.paste(to_image(picture), (gap + c * (w + gap), top + r * (h + gap)))
    draw = ImageDraw.Draw(sheet)
    for c, title in enumerate(titles):
        draw.text((gap + c * (w + gap) + w // 2, 9), title, "black", font(12), anchor="mm")
    return to_tensor(sheet)


COLOURS = ("#1f6fb4", "#d1495b", "#2e8b57", "#8a5fbf", "#d98e04", "#555555")


def plot_curves(path, panels, x_label="step"):
    """Draws one panel for each (title, {name: (xs, ys)}) under another: axes, legend, smoothed lines.

    A pale line is the data, a strong one its running mean over a twentieth of the points.
    """
    width, height, left, bottom = 900, 300, 70, 40
    image = Image.new("RGB", (width, height * len(panels)), "white")
    draw = ImageDraw.Draw(image)
    for row, (title, series) in enumerate(panels):
        x0, y0, x1, y1 = left, row * height + 34, width - 20, (row + 1) * height - bottom
        series = {k: np.array(v, dtype=float) for k, v in series.items() if len(v[0]) > 1}
        points = np.concatenate([s for s in series.values()], axis=1) if series else np.ones((2, 1))
        finite = points[:, np.isfinite(points).all(0)] if points.size else np.ones((2, 1))
        (xa, ya), (xb, yb) = finite.min(1), np.quantile(finite, 0.995, axis=1)
        xb, yb = max(finite[0].max(), xa + 1), max(yb, ya + 1e-6)
        ya, yb = (0.0 if 0 < ya < yb / 2 else ya), yb + 0.05 * (yb - ya)

        def place(xs, ys):
            return list(zip(x0 + (xs - xa) / (xb - xa) * (x1 - x0),
                            y1 - (np.clip(ys, ya, yb) - ya) / (yb - ya) * (y1 - y0)))
        for tick in np.linspace(0, 1, 5):
            y, x = y1 - tick * (y1 - y0), x0 + tick * (x1 - x0)
            draw.line([(x0, y), (x1, y)], "#e4e4e4")
            draw.text((x0 - 6, y), f"{ya + tick * (yb - ya):.3g}", "#444444", font(12), anchor="rm")
            draw.text((x, y1 + 12), f"{xa + tick * (xb - xa):,.0f}", "#444444", font(12), anchor="mm")
        draw.line([(x0, y0), (x0, y1), (x1, y1)], "black")
        draw.text((x0, y0 - 17), title, "black", font(15), anchor="lm")
        draw.text(((x0 + x1) / 2, y1 + 28), x_label, "black", font(12), anchor="mm")
        at = x1
        for (name, (xs, ys)), colour in list(zip(series.items(), COLOURS))[::-1]:
            window = max(1, len(ys) // 20)
            sums = np.cumsum(np.pad(ys, (window, 0), mode="edge"))
            draw.line(place(xs, ys), ImageColor.getrgb(colour) if window == 1 else
                      tuple((c + 3 * 255) // 4 for c in ImageColor.getrgb(colour)))
            draw.line(place(xs, (sums[window:] - sums[:-window]) / window), colour, 2)
            at -= draw.textlength(name, font(13)) + 30
            draw.line([(at, y0 - 17), (at + 18, y0 - 17)], colour, 3)
            draw.text((at + 22, y0 - 17), name, "black", font(13), anchor="lm")
    save_picture(path, to_tensor(image))


def main():
    parser = argparse.ArgumentParser(
        description="Fetches and checks a task's pictures; writes a sheet of what training sees.",
        allow_abbrev=False)
    parser.add_argument("task", help=f"{', '.join(TASKS)}")
    parser.add_argument("--data", metavar="DIR", help="a folder of one's own")
    parser.add_argument("--size", type=size, default=[256, 256], help="pixels (default 256)")
    parser.add_argument("--out", metavar="PNG", help="the sheet (default datasets/TASK-sheet.png)")
    options = parse_options(parser)
    folder, drawn = locate(options.task, options.data)
    row = look_up(options.task)
    palette = palette_of(options.task, folder) if folder else row["palette"]
    settings = {"task": options.task, "data": folder, "drawn": drawn, "size": options.size,
                "palette": palette, "one_hot": False}
    train, held = training(settings), held_out(settings)
    print(f"{options.task}: {len(train):,} pictures to train on, {len(held):,} held out, "
          f"from {folder or 'drawings'}")
    shown = torch.stack([train[i] for i in range(min(8, len(train)))])
    shown = augment(shown, options.size, row["mirror"], torch.Generator().manual_seed(0))
    if row["kind"] == "label maps":
        seen = [colorize(p[0], palette) for p in shown]
    else:
        x, y = to_network(settings, shown)
        seen = [p for pair in zip(to_pixels(settings, x, x), to_pixels(settings, x, y)) for p in pair]
    out = Path(options.out or f"datasets/{options.task}-sheet.png")
    save_picture(out, contact_sheet([seen[i:i + 4] for i in range(0, len(seen), 4)]))
    print(f"training sees {out}: cropped to {'x'.join(map(str, options.size))}"
          f"{', mirrored at random' if row['mirror'] else ''}")


if __name__ == "__main__":
    run_command(main)
