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

To copy it out, take this file alone; it needs torch, numpy and pillow:
    settings = {"task": "pairs", "data": "my/pairs", "size": [256, 256], "one_hot": False,
                "palette": None, "drawn": False}
    x, y = to_network(settings, torch.stack([held_out(settings)[0]]))       # (1, 3, 256, 256) each
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
from functools import partial
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


# What every command needs: refusals, options, files written whole. Skip it on first reading.

class Refusal(ValueError):
    """Bad input from outside: one line, exit code 2."""


def run_command(main):
    """Calls main() and says faults in one line. Exit 2: refused, 130: Ctrl-C, 1: out of memory."""
    sys.stdout = sys.stdout or open(os.devnull, "w")       # None after `>&-`
    try:
        main()
        sys.stdout.flush()                                 # a closed pipe shows here, not at exit
    except KeyboardInterrupt:
        sys.exit(130)                                      # 128 + SIGINT, as shells count
    except BrokenPipeError:                                # `| head` has seen enough: leave quietly
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)                                      # 128 + SIGPIPE
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, OSError):                     # a place that cannot be read or written
            error = Refusal(f"{error.filename or 'output'}: {error.strerror or error}; give another"
                            f" place, or mend this one")
        if "InvalidCxxCompiler" in str(error) or "Failed to find C compiler" in str(error):
            error = Refusal("--compile: found no C++ compiler; install one, or leave it out")
        refused = type(error).__name__ == "Refusal"        # any file's own
        full = "out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED"
        if not (refused or isinstance(error, MemoryError) or any(f in str(error) for f in full)):
            raise
        text = str(error) if refused else (f"memory: not enough ({str(error) or 'MemoryError'}); "
                                           f"lower --batch or --size, or give smaller pictures")
        # What torchrun's processes refuse before they have met, each machine's first one says.
        if not refused or os.environ.get("LOCAL_RANK", "0") == "0" or dist.is_initialized():
            print("error:", text.replace("\n", " "), file=sys.stderr)
        sys.exit(2 if refused else 1)


def new_parser(docstring):
    """A command's argparse parser; its --help begins with the file's docstring, with examples."""
    return argparse.ArgumentParser(description=docstring, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def parse_options(parser):
    """parser.parse_args(), its errors as one-line refusals, with near names for an unknown flag."""
    def refuse(message):
        raise Refusal(re.sub(r"^argument (\S+?)(/\S+)?: ", r"\1: ", message) +
                      ("" if ";" in message else f"; see `python {parser.prog} --help`"))
    parser.error = refuse
    options, unknown = parser.parse_known_args()
    if abs(getattr(options, "seed", 0)) > 10 ** 9:
        refuse(f"--seed: {options.seed} is too large; give at most 1000000000")
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], flags, 3, 0.5)
        refuse(f"{unknown[0]}: no such option" + f"; is it {' or '.join(near)}?" * bool(near))
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
    if not re.fullmatch(r"0*[1-9]\d{0,4}(x0*[1-9]\d{0,4})?", text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r}: give 256, or height x width 256x512")
    return [int(text.lower().split("x")[side]) for side in (0, -1)]


WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def picture_name(text):
    """An argparse type: the name of a picture to write, refused before hours of work, not after."""
    if Path(text).suffix.lower() not in WRITTEN:
        raise argparse.ArgumentTypeError(f"{text!r}: give a name ending in {' or '.join(WRITTEN)}")
    return text


def device_of(name=None, local_rank=0, processes=1):
    """The torch.device of a --device flag; without one, a GPU where there is one. It is then the
    one that torch means by "cuda". Each of several processes on this machine takes its own."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kinds = ["cpu", *["cuda"] * (processes <= count)]      # every process says the same
    kinds += [f"cuda:{i}" for i in range(count) if processes == 1]
    name = name or ("cuda" if count else "cpu")
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
    elif isinstance(content, (dict, list, tuple)):
        for part in content.values() if isinstance(content, dict) else content:
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
        if fcntl and needed:                               # Windows opens no folders
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)                 # makes the renaming itself last
            os.close(folder)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):                            # its folder may be none
            temporary.unlink()
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            error = error.__context__                      # torch's hides the system's
        size = len(content) if isinstance(content, bytes) else sum(
            tensor.numel() * tensor.element_size() for tensor in tensors_of(content))
        raise Refusal(f"{path}: could not be written ({getattr(error, 'strerror', error)}; it "
                      f"takes {size / 2 ** 20:.1f} MiB); free some space or give another place, "
                      f"what was there is whole") from None


def append_line(path, line):
    """Adds a line to a file; where the disk is full, the file stays as it was."""
    write_whole(path, (path.read_bytes() if path.exists() else b"") + f"{line}\n".encode())


# Palettes (plain lists, as settings.json and the checkpoints keep them) and tasks

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
SERVER = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/"  # NAME.tar.gz


@dataclass(frozen=True)
class Task:
    """A row of TASKS: what differs between the experiments. Defaults: what most of them share."""
    kind: str = "pairs"        # "pairs" of pictures, "photos" of which x and y are made, "label maps"
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
        offer = " or ".join(difflib.get_close_matches(name, TASKS, 3, 0.4) or TASKS)
        raise Refusal(f"--task {name}: no such task; did you mean {offer}?")
    return TASKS[name]


# A picture in

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # not EPS: that starts Ghostscript
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
INDEX_MODES = ("1", "L", "P", "I;16")  # Pillow's, of pictures that may hold the numbers of classes
MOST_PIXELS, MOST_BYTES = 50_000_000, 200_000_000   # of a picture (150 MB as RGB), its file


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
            why = f"not {', '.join(formats)}: it begins with {Path(path).read_bytes()[:9]}"
        raise Refusal(f"{path}: {why}; mend, replace or remove it") from error


def open_picture(path):
    """Any picture as 8-bit RGB: a Pillow image, turned as EXIF says."""
    with opened(path) as image:
        ImageOps.exif_transpose(image, in_place=True)      # decodes first: half a JPEG opens
        if image.mode in ("I", "F"):
            raise OSError("its 32-bit pixels have no known range")
        if image.mode.startswith("I;16"):                  # Pillow would clip it at 255
            grey = np.array(image).astype(np.float32)      # (H, W), 0-65535
            grey[grey == image.info.get("transparency", -1)] = 65535  # one value may mean "clear"
            image = Image.fromarray((grey / 257).round().astype(np.uint8))  # 65535 = 257 * 255
        if image.has_transparency_data:                    # RGBA, LA, a palette with a clear colour
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return image.convert("RGB")


def open_label_map(path, classes):
    """A PNG's values as classes: uint8 (H, W), below `classes` or 255 = ignore; or Refusal."""
    with opened(path, ("PNG",)) as image:                  # a JPEG would have smeared the classes
        if image.mode not in INDEX_MODES:
            raise OSError("it holds colours, not the numbers of classes in grey or in a palette")
        spread = {"L;2": 85, "L;4": 17}.get(image.tile[0][3], 1)  # 2, 4 bits: Pillow fills 0-255
        ImageOps.exif_transpose(image, in_place=True)      # .convert("L") would give brightnesses
        labels = np.array(image).astype(np.uint16) // spread
        bad = np.argwhere((labels >= classes) & (labels != 255))
        if len(bad):
            y, x = bad[0]
            raise OSError(f"class {labels[y, x]} at x={x}, y={y} is not in 0-{classes - 1} or 255")
    return labels.astype(np.uint8)


def to_tensor(image):
    """A Pillow picture, RGB or grey -> uint8 (3 or 1, H, W). By numpy: torch would start threads of
    its own in each thread that decodes."""
    pixels = np.atleast_3d(np.array(image))                # (H, W, 3 or 1)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def to_image(picture):
    """uint8 (3 or 1, H, W) -> a Pillow picture."""
    return Image.fromarray(picture.permute(1, 2, 0).squeeze(2).numpy())


def resize(picture, size, nearest=False):
    """uint8 (C, h, w) -> (C, *size): bicubic, or nearest for label maps, which must not blend."""
    if tuple(picture.shape[1:]) == tuple(size):
        return picture
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return to_tensor(to_image(picture).resize((size[1], size[0]), how))


# A folder of pictures, its pairs and its splits

def list_pictures(folder):
    """The pictures in a folder itself, sorted; no dotfiles, folders or links to nothing."""
    try:
        files = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in ENDINGS
                       and not p.name.startswith(".") and p.is_file())
    except OSError as error:
        raise Refusal(f"{folder}: {error.strerror}; give a folder of pictures") from None
    twins = {p.stem: p for p in files}                     # a.jpg and a.png: one name, one survives
    for path in files:
        if (twin := twins[path.stem]) != path:
            raise Refusal(f"{folder}: {path.name} and {twin.name} share a name; keep one")
    return files


def pair_names(folder_a, folder_b):
    """[(path in A, path in B), ...] of one name, endings aside; missing partners: Refusal."""
    a, b = ({path.stem: path for path in list_pictures(f)} for f in (folder_a, folder_b))
    missing = [f"{folder}: {len(names)} partners missing: {', '.join(sorted(names)[:5])}"
               for folder, names in ((folder_b, a.keys() - b), (folder_a, b.keys() - a)) if names]
    if missing:
        raise Refusal(f"{'; '.join(missing)}; both folders need the same names, endings aside")
    return [(a[name], b[name]) for name in sorted(a)]


def find_files(folder, maps):
    """[(A, B), ...] where folder has A/ and B/ (or photos/ and labels/), else [(picture,), ...];
    where label maps alone are asked for, also Cityscapes' as published."""
    for a, b in (("A", "B"), ("photos", "labels")):
        if (folder / a).is_dir() and (folder / b).is_dir():
            return pair_names(folder / a, folder / b)
    ids = sorted(folder.rglob("*_labelIds.png")) if maps else []         # gtFine/SPLIT/CITY/*
    return [(path,) for path in ids or list_pictures(folder)]


def split_files(folder, split, maps=False):
    """The files of split "train" or "val" below folder. test/ is never looked into."""
    if folder is None:                                     # of a converted generator
        raise Refusal("--data: missing, as the run names no folder of pictures; give one")
    folder = Path(folder)
    if maps and (folder / "gtFine").is_dir():
        folder = folder / "gtFine"
    if not folder.is_dir():
        raise Refusal(f"{folder}: no such folder; give another with --data, or put pictures there")
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        files = find_files(folder / split, maps)
    else:  # a tenth is held out, by a hash of the name, the same in every run; at least one is
        files = find_files(folder / "train" if (folder / "train").is_dir() else folder, maps)
        code = {f: zlib.crc32(os.fsencode(f[0].stem)) for f in files}
        chosen = {f for f in files if code[f] % 10 == 0} or {min(files, key=code.get, default=None)}
        files = [f for f in files if (f in chosen) == (split == "val")]
    if not files:
        raise Refusal(f"{folder}: no pictures for {split}; it takes two at least, one of them held "
                      f"out, laid out as `python data.py --help` shows")
    return files


def halves(path, size):
    """The two pictures of a side-by-side file, A and B: uint8 (3, H, W) each, of the shape of size
    to 2%."""
    pair = to_tensor(open_picture(path))
    h, w = pair.shape[1:]
    if w % 2 or abs(w / 2 * size[0] - h * size[1]) > 0.02 * h * size[1]:
        raise Refusal(f"{path}: is {w}x{h}, width x height, but a pair of size {size[0]}x{size[1]} "
                      f"is two pictures of that shape side by side; give single ones in A/ and B/")
    return pair.chunk(2, dim=2)


# Label maps and their colours

def colorize(label_map, palette):
    """Class numbers (H, W) -> their colours, uint8 (3, H, W); 255 = ignore is black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:len(palette)] = [colour for _, colour in palette]
    return torch.from_numpy(colours[np.asarray(label_map)]).permute(2, 0, 1).contiguous()


def legal_colours(palette):
    """-> classes (M,), colours (M, 3): the palette's, for Cityscapes also CITYSCAPES_ALSO."""
    rows = [*enumerate(colour for _, colour in palette)]
    rows += CITYSCAPES_ALSO if palette == CITYSCAPES else []
    return torch.tensor([k for k, _ in rows]), torch.tensor([colour for _, colour in rows]).float()


def nearest_class(pictures, palette):
    """uint8 (N, 3, H, W) of label colours -> label_map (N, H, W): the nearest colour's class."""
    classes, colours = (v.to(pictures.device, non_blocking=True) for v in legal_colours(palette))
    pixels = pictures.permute(0, 2, 3, 1).float()          # (N, H, W, 3)
    return classes[torch.cdist(pixels.flatten(1, 2), colours).argmin(-1).view(pixels.shape[:3])]


def class_or_ignore(pictures, palette):
    """nearest_class, but 255 where colorize() painted that black, and no class is black."""
    black = (pictures == 0).all(1) & ([0, 0, 0] not in [colour for _, colour in palette])
    return nearest_class(pictures, palette).masked_fill(black, 255)


def check_colours(path, picture, palette):
    """Refuses uint8 (3, H, W) with a flat patch in a colour far from each class's. What JPEGs smear
    is hardly flat: of 400 facades none has such a patch over 19 off, so 40 is far."""
    if min(picture.shape[1:]) < 3:
        return
    pixels = picture[None].float()
    off = torch.cdist(pixels[0].flatten(1).T, legal_colours(palette)[1]).amin(-1)
    flat = F.pad(F.max_pool2d(pixels, 3, 1) + F.max_pool2d(-pixels, 3, 1), (1, 1, 1, 1), value=99)
    far = (off.view(picture.shape[1:]) > 40) & (flat[0].amax(0) <= 2)    # 3x3 within 2 levels
    if far.any():
        y, x = far.nonzero()[0].tolist()
        raise Refusal(f"{path}: colour {tuple(picture[:, y, x].tolist())} at x={x}, y={y} is no "
                      f"class's; correct it, or put the classes into a palette.json")


def clean_label_map(image, palette):
    """uint8 RGB (H, W, 3) whose label colours a JPEG has smeared -> label_map uint8 (H, W). Nearest
    colour alone grows seams: halfway from one class's colour to another's lies a third one. So a
    pixel in no solid block of 3x3 takes the nearest in colour of the classes solid nearby."""
    pixels, (classes, colours) = torch.from_numpy(image).float(), legal_colours(palette)
    squared = torch.stack([(pixels - rgb).square().sum(-1) for rgb in colours], -1)  # (H, W, M)
    label_map = classes[squared.argmin(-1)]
    votes = F.one_hot(label_map, len(palette)).permute(2, 0, 1).float()            # (K, H, W)
    solid = -F.max_pool2d(-votes, 3, 1, 1)                 # 1 where a 3x3 block is one class
    inside, nearby = (F.max_pool2d(solid, reach, 1, reach // 2) > 0 for reach in (3, 9))
    others = classes[squared.where(nearby[classes].permute(1, 2, 0), torch.inf).argmin(-1)]
    kept = inside.any(0) | ~nearby.any(0) | (squared.amin(-1) == 0).all()  # exact: no JPEG
    return torch.where(kept, label_map, others).byte().numpy()


# Drawn facades and shapes, for machines without a network. Skip it on first reading.

WALLS = ((196, 172, 118), (172, 164, 150), (150, 88, 68), (200, 186, 162), (150, 164, 140))
# What drawn windows have around them: how often, then (left, top, right, bottom) in the window's
# widths and heights from its top left corner; chosen so that class shares come near the real ones.
AROUND = (("cornice", 0.6, (-0.25, -0.27, 1.25, 0)), ("deco", 0.4, (-0.1, -0.47, 1.1, -0.27)),
          ("sill", 0.9, (-0.25, 1, 1.25, 1.24)), ("balcony", 0.55, (-0.3, 0.6, 1.3, 1.2)),
          ("blind", 0.12, (-0.36, 0, 0, 1)), ("blind", 0.12, (1, 0, 1.36, 1)),
          ("pillar", 0.15, (-0.45, -0.3, -0.25, 1.3)), ("pillar", 0.15, (1.25, -0.3, 1.45, 1.3)))


def plan_facade(rand):
    """A facade's parts, later ones on top: [(class, left, top, right, bottom), ...], 0 to 1."""
    left, right, top, bottom = rand(-0.1, 0.17), rand(0.83, 1.1), rand(0.05, 0.22), rand(0.91, 1.02)
    storeys, eaves = int(rand(2, 5.5)), rand(0.03, 0.08)   # these ranges are judged by eye
    height = (bottom - top - eaves) / (storeys + 1.3)      # of a storey; the ground floor is higher
    columns = round((right - left) / height / rand(0.5, 1.1)) + 1
    pitch, door = (right - left) / columns, int(rand(0, 1.2 * columns))
    w, h, up = rand(0.36, 0.56) * pitch, rand(0.48, 0.6) * height, rand(0.24, 0.3) * height
    around = [row for row in AROUND if rand(0, 1) < row[1]]
    below = ("shop", 0.08, 0) if rand(0, 1) < 0.65 else ("window", 0.22, 0.4)
    parts = [("background", 0, 0.9, 1, 1), ("facade", left, top, right, bottom),
             ("molding", left, top, right, top + eaves)]
    for column in range(columns):
        start = left + pitch * column
        for row in range(storeys):
            x, y = start + (pitch - w) / 2, top + eaves + row * height + up
            parts.append(("window", x, y, x + w, y + h))
            parts += [(name, x + a * w, y + b * h, x + c * w, y + d * h)
                      for name, _, (a, b, c, d) in around if name != "balcony" or column % 2]
        name, gap, lintel = ("door", 0.22, 0) if column == door else below     # the ground floor
        parts.append((name, start + pitch * gap, bottom - height,
                      start + pitch * (1 - gap), bottom - lintel * height))
    for row in range(1, storeys + 1):
        y, ledge = top + eaves + row * height, rand(0, 0.09) * height
        parts.append(("molding", left, y - ledge, right, y + ledge))
    return parts


def draw_facade(index, seed=0, size=286):
    """Draws a facade -> photo uint8 (3, size, size), label map uint8 (size, size): rows of FACADES.
    Sums and products of torch's uniform numbers alone: the same on every machine."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2 ** 32)
    draws = iter(torch.rand(4000, generator=generator, dtype=torch.float64).tolist())

    def rand(low, high):
        return low + (high - low) * next(draws)
    wall = np.array(WALLS[int(rand(0, len(WALLS)))]).reshape(3, 1, 1) * rand(0.75, 1.1)
    tone = {name: wall * rand(0.6, 1.4) for name, _ in FACADES}
    tone.update(facade=wall, background=0 * wall + rand(60, 130))        # the street
    joints, names = (4, 12, size)[int(rand(0, 3))], [name for name, _ in FACADES]
    labels = np.zeros((size, size), np.uint8)
    photo = np.array([150, 180, 215]).reshape(3, 1, 1) * np.linspace(0.8, 1.2, size)[:, None]
    photo = photo.repeat(size, 2)                          # the sky
    for name, *box in plan_facade(rand):
        x0, y0, x1, y1 = (min(max(int(side * size), 0), size) for side in box)
        labels[y0:y1, x0:x1] = names.index(name)
        part, h, w = photo[:, y0:y1, x0:x1], y1 - y0, x1 - x0
        part[:] = tone[name] * np.linspace(1.15, 0.85, h)[:, None]       # lit from above
        if name == "facade":                               # of bricks, ashlar or plaster
            part[:, ::joints] *= 0.8
        elif name in ("window", "door", "shop"):           # panes reflect less sky further down
            pane = part[:, 2:-1, 1:-1]
            pane[:] = rand(20, 160) * np.linspace(1.3, 0.7, pane.shape[1])[:, None]
            pane[:, :int(h * rand(-0.5, 0.7)), ::int(rand(1, 4))] += rand(20, 90)  # curtains
            part[:, :, w // 2:w // 2 + 1] = part[:, h // 3:h // 3 + 1] = tone[name]
        elif name in ("balcony", "blind"):                 # bars
            part[:, :, ::3] *= 0.5
        else:                                              # ledges throw a shadow
            photo[:, y1:y1 + 2, x0:x1] *= 0.6
    photo += torch.randint(-14, 15, (3, size, size), generator=generator).numpy()
    return torch.from_numpy(photo.clip(0, 255).astype(np.uint8)), torch.from_numpy(labels)


def draw_pair(index, size, kind):
    """The drawn facade of an index: x above y, uint8 (6, *size), or its label map (1, *size)."""
    photo, labels = draw_facade(index, size=max(size))
    if kind == "label maps":
        return resize(labels[None], size, nearest=True)
    return torch.cat([resize(colorize(labels, FACADES), size, nearest=True), resize(photo, size)])


def draw_shapes(seed=0):
    """The Coloured Shapes of SemGAN Sec. 5.0.1: uint8 (2916, 64, 64), classes as SHAPES. Picture 54
    * row + column has its 10x10 red square's top left corner at (row, column). The disc (radius 10)
    and the rectangle (12x24: our choice, the paper gives none) lie wholly inside."""
    generator = torch.Generator().manual_seed(seed)        # of integers: alike on every machine
    centre_y, centre_x, top, left = (
        torch.randint(low, high, (54 * 54, 1, 1), generator=generator).numpy()
        for low, high in ((10, 54), (10, 54), (0, 53), (0, 41)))
    row, column = np.divmod(np.arange(54 * 54).reshape(-1, 1, 1), 54)
    y, x = np.ogrid[:64, :64]
    rectangle = (top <= y) & (y < top + 12) & (left <= x) & (x < left + 24)
    square = (row <= y) & (y < row + 10) & (column <= x) & (x < column + 10)
    disc = (y - centre_y) ** 2 + (x - centre_x) ** 2 <= 10 ** 2
    return np.select([disc, square, rectangle], [1, 3, 2]).astype(np.uint8)  # the first on top


# Downloads. Skip it on first reading.

TIMEOUT = 20  # seconds to connect or to the next byte; after as many, under 1 kB/s is a stall, too


def alarm(seconds):
    """Ends what takes longer, by OSError; 0: no more. Windows has no such clock."""
    def late(*_):
        raise OSError("stalled: its server hardly answers")
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, late)
        signal.alarm(seconds)


def download(url, path):
    """Fetches a .gz file to path, unpacked on the way (zlib checks its sum); OSError or zlib.error.
    It says how far it is. Pictures hardly pack: what unpacks to ten times its size is a bomb."""
    unpack, done, shown, start = zlib.decompressobj(wbits=31), 0, 0, time.monotonic()
    end, pause = ("\r", 0.5) if sys.stdout.isatty() else ("\n", 10)
    alarm(2 * TIMEOUT)                                     # headers, too, can drip for ever
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, open(path, "wb") as file:
        total = response.length or 0                       # 0: the server did not say
        while data := response.read1(1 << 16):             # what is there; read() waits for 64 kB
            alarm(2 * TIMEOUT)
            file.write(unpack.decompress(data))
            done, seconds = done + len(data), time.monotonic() - start
            if seconds > TIMEOUT and done < 1000 * seconds:  # a server can drip for ever
                raise OSError(f"stalled: {done:,} bytes in {seconds:.0f} s")
            if file.tell() > 10 * done + 10_000_000:
                raise OSError("it unpacks to over ten times its size")
            if done == total or seconds > shown + pause:
                shown, left = seconds, max(total - done, 0) * seconds / done
                print(f"{url}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB, {left:,.0f} s left   ",
                      end="\n" if done == total else end, flush=True)
    alarm(0)                                               # unpacking may take its time
    if not unpack.eof or done != (total or done):
        raise OSError(f"cut short: {done:,} bytes came, of {total:,}")


def extract(archive, folder):
    """Unpacks a .tar into folder: files and folders of checked names alone; else OSError.

    By hand: tarfile's filter="data" has let an archive write outside (Python 3.11.7).
    """
    with tarfile.open(archive, "r:") as members:
        for number, member in enumerate(members):
            name, place = member.name, Path(folder, member.name)
            plain = member.isdir() or (member.isreg() and not member.issparse())
            if not plain or number > 500_000 or (
                    ".." in Path(name).parts or name.startswith("/") or set(name) & set("\\:")):
                raise OSError(f"{name!r} is a link, a device, outside or one too many")
            (place if member.isdir() else place.parent).mkdir(parents=True, exist_ok=True)
            if member.isreg():
                with open(place, "xb") as file:            # x: never over another file
                    shutil.copyfileobj(members.extractfile(member), file)


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
        whole = inside[0] if len(inside) == 1 else temporary / "set"  # published: one folder
        for split, count in (counts or {}).items():
            if (found := len(list_pictures(whole / split))) != count:
                raise OSError(f"{split} has {found:,} pictures, not {count:,}")
        whole.rename(folder)
    except (OSError, ValueError, http.client.HTTPException, zlib.error, tarfile.TarError) as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise Refusal(f"{url}: {why}; try again, or fetch it by hand and give --data") from error
    finally:
        alarm(0)
        shutil.rmtree(temporary, ignore_errors=True)


def locate(name, folder=None):
    """(folder, drawn) of a task: the pictures given, or datasets/, fetched if missing. Facades are
    drawn, (None, True), for --data drawn or where fetching fails, which one loud line says."""
    row = look_up(name)
    if str(folder) == "drawn" and row.drawn == "facades":
        return None, True
    if name == "shapes" and folder is not None:
        raise Refusal("--data: the Coloured Shapes are drawn, not read; leave it out")
    if name == "shapes" or folder is not None:
        return folder and Path(folder), False
    if row.archive is None:
        raise Refusal(f"--task {name}: has no published archive; give its folder with --data DIR")
    home = Path("datasets", row.archive)
    try:
        if not home.is_dir():
            home.parent.mkdir(exist_ok=True)
            with open(home.parent / ".lock", "w") as handle:   # torchrun's processes come at once
                fcntl and fcntl.flock(handle, fcntl.LOCK_EX)
                if not home.is_dir():
                    fetch(f"{SERVER}{row.archive}.tar.gz", home, row.counts)
    except (OSError, Refusal) as error:
        if row.drawn != "facades":
            raise
        print(f"{error}\n*** DRAWN FACADES: these pictures are drawn by data.py, not photographed. "
              f"For the real ones give --data DIR, or try again with a network. ***", flush=True)
        return None, True
    return home, False


# From files to batches: what training asks for

def palette_of(name, folder):
    """The palette of a task's folder: its palette.json, or CamVid's for a street task's labels/."""
    palette, file = look_up(name).palette, Path(folder or "", "palette.json")
    if folder is None or not file.exists():
        streets = folder is not None and palette is CITYSCAPES
        return CAMVID if streets and any(Path(folder).glob("**/labels")) else palette
    try:
        palette = [[str(n), [r, g, b]] for n, (r, g, b) in json.loads(file.read_text())]
        if not 1 < len(palette) < 256 or not all(bytes(colour) for _, colour in palette):
            raise ValueError                               # bytes(): integers of 0-255
        return palette
    except (ValueError, TypeError):
        raise Refusal(f"{file}: not a list of [name, [r, g, b]]; mend or remove it") from None


def pictures_of(name, folder=None):
    """What settings say of a task's pictures, found, fetched or drawn: data, drawn, palette."""
    folder, drawn = locate(name, folder)
    return {"data": folder and str(folder), "drawn": drawn, "palette": palette_of(name, folder)}


def read_label_map(path, palette):
    """A picture of class numbers -> label_map uint8 (H, W); None where it holds colours."""
    if path.name.endswith("_labelIds.png"):                # Cityscapes' numbers become ours
        ids = np.array(CITYSCAPES_IDS + (255,) * 222, np.uint8)
        return ids[open_label_map(path, len(CITYSCAPES_IDS))]
    with opened(path) as image:
        numbers = image.mode in INDEX_MODES
    return open_label_map(path, len(palette)) if numbers else None


def label_side(settings):
    """Which of "x" and "y" is a label map, or None. Of pairs with a palette.json it is what stands
    in labels/, else x, as kmeans_folder writes it."""
    if settings["task"] == "pairs" and settings["palette"]:
        folder = Path(settings["data"] or "")
        return "y" if any((folder / part / "labels").is_dir() for part in ("", "train")) else "x"
    return TASKS[settings["task"]].labels


def label_colours(files):
    """Labels drawn in colours, uint8 (3, H, W): a file of their own or the right half of a pair."""
    return to_tensor(open_picture(files[-1])) if len(files) == 2 else halves(files[0], [1, 1])[1]


def read_picture(settings, files, size):
    """What a task keeps of its file or two, uint8 (C, *size): x above y, a photo, a label map."""
    row, path, palette = TASKS[settings["task"]], files[-1], settings["palette"]
    if row.kind == "photos":                            # not their labels
        return resize(to_tensor(open_picture(files[0])), size)
    if row.kind == "label maps":
        if (numbers := read_label_map(path, palette)) is None:
            colours = label_colours(files)
            check_colours(path, colours, palette)
            numbers = clean_label_map(colours.permute(1, 2, 0).numpy(), palette)
        return resize(torch.from_numpy(numbers)[None], size, nearest=True)
    numbers = read_label_map(path, palette) if palette and path.parent.name == "labels" else None
    if len(files) == 1:
        a, b = halves(path, settings["size"])
    else:
        a, b = (to_tensor(open_picture(file)) for file in files)
        b = b if numbers is None else colorize(numbers, palette)
    if a.shape != b.shape:
        raise Refusal(f"{files[0]}: is {a.shape[2]}x{a.shape[1]}, but {path} is {b.shape[2]}x"
                      f"{b.shape[1]}; both halves of a pair need one size")
    pair = (b, a) if row.direction == "BtoA" else (a, b)
    if settings["one_hot"] and numbers is None:
        check_colours(path, pair[0], palette)
    labels = label_side(settings)
    pair = [resize(p, size, labels == side) for p, side in zip(pair, "xy")]
    return torch.from_numpy(np.concatenate(pair))


class Pictures:
    """The pictures of one split: [i] -> uint8 (C, H, W), x above y for pairs; as read_picture says.

    Kept while they fit in memory (gigabytes); else decoded each time they are asked for. Held-out
    ones have settings["size"]; those to train on 286/256 of it, where the task crops.
    """

    def __init__(self, settings, memory=4.0, split="train"):
        self.row, self.cache = TASKS[settings["task"]], None
        kind, size = self.row.kind, settings["size"]
        if split == "train" and self.row.crop:
            size = [round(side * 286 / 256) for side in size]
        if self.row.drawn == "shapes":                   # every tenth is held out
            maps = torch.from_numpy(draw_shapes())[:, None]              # (2916, 1, 64, 64)
            self.files = [(i,) for i in range(len(maps)) if (i % 10 == 9) == (split == "val")]
            self.read = lambda i: resize(maps[i], size, nearest=True)
        elif settings["drawn"]:
            self.files = [(i,) for i in (range(400) if split == "train" else range(400, 440))]
            self.read = lambda i: draw_pair(i, size, kind)
        else:
            self.files = split_files(settings["data"], split, kind == "label maps")
            self.read = lambda *files: read_picture(settings, files, size)
        shape = {"pairs": 6, "photos": 3, "label maps": 1}[kind], *size
        if len(self.files) * math.prod(shape) <= memory * 2 ** 30:
            self.cache = self.read_all(shape)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        return self.read(*self.files[i]) if self.cache is None else self.cache[i]

    def read_all(self, shape):
        """All pictures, uint8 (N, *shape); or a Refusal that names the first five it cannot use."""
        kept, bad = torch.empty(len(self), *shape, dtype=torch.uint8), {}

        def read(i):
            try:
                kept.numpy()[i] = self[i].numpy()          # see to_tensor
            except Refusal as refusal:
                bad[i] = refusal
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(len(self))))
        if bad:
            first, *more = sorted(bad)
            names = ", ".join(Path(self.files[i][0]).name for i in more[:4])
            raise Refusal(f"{bad[first]}" + f" (and {len(more)} more: {names})" * bool(more))
        return kept

    def batches(self, order):
        """Yields uint8 (n, C, H, W) for each list of indices in order; decodes ahead in threads."""
        ahead = deque()                                    # Pillow decodes outside python's lock
        with ThreadPoolExecutor(4) as pool:
            for indices in order:
                ahead.append(pool.map(self.__getitem__, indices))
                if len(ahead) > 4:                         # batches in flight
                    yield torch.stack(list(ahead.popleft()))
            yield from (torch.stack(list(batch)) for batch in ahead)


def far_apart(pictures, count):
    """At most count of Pictures, as far apart as can be: neighbours may be frames of one film."""
    count = min(count, len(pictures))
    return torch.stack([pictures[i * len(pictures) // count] for i in range(count)])


training = Pictures                                        # (settings, memory): at the load size
held_out = partial(Pictures, split="val")                  # never trained on, at the run's size


def epoch_order(count, batch, seed, epoch, rank=0, world=1):
    """The index lists of one rank's batches in one epoch: a function of (seed, epoch) alone. Each
    rank takes its own slice of each global batch of batch * world; no batch is incomplete."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    whole = order[:count // (batch * world) * batch * world].view(-1, world, batch)
    return whole[:, rank].tolist()


def augment(pictures, size, mirror, generator, rank=0, world=1):
    """Random crop and mirror of each picture, both halves alike: (n, C, H, W) -> (n, C, *size).
    mirror: -1 for left and right, -2 for top and bottom. generator, a torch.Generator on the CPU,
    draws for the whole batch of n * world pictures, and each rank takes its own: two processes
    crop as one would."""
    n, _, h, w = pictures.shape
    mine = slice(rank * n, (rank + 1) * n)
    top = torch.randint(h - size[0] + 1, (n * world,), generator=generator)[mine].tolist()
    left = torch.randint(w - size[1] + 1, (n * world,), generator=generator)[mine].tolist()
    crops = [p[:, t:t + size[0], l:l + size[1]] for p, t, l in zip(pictures, top, left)]
    for dim in mirror:
        flip = (torch.rand(n * world, generator=generator)[mine] < 0.5).tolist()
        crops = [c.flip(dim) if f else c for c, f in zip(crops, flip)]
    return torch.stack(crops)


# Colour spaces

RGB_TO_XYZ = torch.tensor([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                           [0.0193339, 0.1191920, 0.9503041]])             # sRGB, D65
WHITE = torch.tensor([0.95047, 1.0, 1.08883]).view(3, 1, 1)


def rgb_to_lab(images):
    """uint8 (N, 3, H, W) -> CIE Lab, float (N, 3, H, W): L 0..100, a and b signed, grey at 0."""
    c = images.float() / 255
    linear = torch.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz, white = (v.to(c.device, non_blocking=True) for v in (RGB_TO_XYZ, WHITE))
    xyz = torch.einsum("ij,njhw->nihw", to_xyz, linear) / white
    root = xyz.clamp_min(1e-9) ** (1 / 3)
    x, y, z = torch.where(xyz > 216 / 24389, root, (24389 / 27 * xyz + 16) / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lab_to_rgb(lab):
    """The inverse of rgb_to_lab; what sRGB cannot show is clipped."""
    y = (lab[:, 0] + 16) / 116
    f = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], 1)
    xyz = torch.where(f > 6 / 29, f ** 3, (116 * f - 16) * 27 / 24389) * WHITE.to(lab.device)
    linear = torch.einsum("ij,njhw->nihw", RGB_TO_XYZ.inverse().to(lab.device), xyz).clamp(1e-9, 1)
    c = torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return (c * 255).round().byte()


# Edges, and sketches to look like them

def around(pixels):
    """The 8 neighbours of each pixel, clockwise from the north: (N, 1, H, W) -> (8, N, 1, H, W)."""
    rows, columns, padded = *pixels.shape[2:], F.pad(pixels, (1, 1, 1, 1))
    return torch.stack([padded[..., y:y + rows, x:x + columns] for y, x in (
        (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))])


def thin(lines):
    """Zhang & Suen 1984: peels bool (N, 1, H, W) to 1-pixel lines, then cuts their stairs."""
    while True:
        before = lines
        for south_east in (True, False):                   # from two corners in turn
            ring = around(lines)
            n, e, s, w = ring[::2]
            count, starts = ring.sum(0), (~ring & ring.roll(-1, 0)).sum(0)
            outer = ~(e & s & (n | w)) if south_east else ~(n & w & (e | s))
            lines = lines & ~((count >= 2) & (count <= 6) & (starts == 1) & outer)
        if torch.equal(lines, before):
            break
    for turn in (0, 2, 4, 6):                              # a step's corner: its ends still touch
        n, ne, e, _, s, sw, w, _ = around(lines).roll(-turn, 0)
        lines = lines & ~(n & e & ~(ne | s | sw | w))
    return lines


def keep_pieces(lines, strong, least):
    """Keeps the connected pieces of bool (N, 1, H, W) with `least` pixels and a strong one."""
    todo, kept = set(map(tuple, lines.nonzero().tolist())), torch.zeros_like(lines)
    while todo:
        piece = [todo.pop()]
        for n, c, y, x in piece:                           # it grows while it is walked through
            near = todo & {(n, c, y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
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
    bell = torch.exp(-torch.linspace(-3, 3, 9, device=photos.device) ** 2 / 2)  # sigma 4/3 pixels
    bell = (bell / bell.sum()).expand(3, 1, 1, -1)
    smooth = F.pad(photos.float(), (4, 4, 4, 4), mode="replicate")  # a picture's border is no edge
    smooth = F.conv2d(F.conv2d(smooth, bell, groups=3), bell.transpose(2, 3), groups=3)
    dy, dx = torch.gradient(smooth, dim=(2, 3))
    slope, channel = torch.hypot(dx, dy).max(1, keepdim=True)       # the strongest channel
    dx, dy = dx.gather(1, channel), dy.gather(1, channel)
    n, ne, e, se, s, sw, w, nw = around(slope)
    across = torch.where(dx * dy > 0, torch.maximum(se, nw), torch.maximum(ne, sw))
    across = torch.where(dx.abs() > 2.4 * dy.abs(), torch.maximum(e, w), across)  # tan 67.5 degrees
    across = torch.where(dy.abs() > 2.4 * dx.abs(), torch.maximum(n, s), across)
    lines = thin((slope >= across) & (slope > 0.4 * threshold))
    return torch.where(keep_pieces(lines, slope > threshold, 5), 0, 255).byte()


def clean_sketch(image, size):
    """A drawing in any colours -> lines as edges() makes them: uint8 (N, 3, H, W) -> (N, 1, *size).
    Ink is what differs from the paper round about by a third of the most that anything does. Thick
    or large drawings shrink to size, (height, width), without losing a line."""
    small = F.interpolate(image.float(), (128, 128)).unfold(2, 32, 32).unfold(3, 32, 32)
    paper = small.flatten(4).median(-1).values             # (N, 3, 4, 4): light falls off on photos
    paper = F.interpolate(paper, image.shape[2:], mode="bilinear")
    ink = (image.float() - paper).abs().amax(1, keepdim=True)
    lines = ink > (ink.amax((2, 3), keepdim=True) / 3).clamp(min=25)   # 25: paper's grain is no ink
    lines = F.adaptive_max_pool2d(lines.float(), size) > 0
    return torch.where(keep_pieces(thin(lines), lines, 5), 0, 255).byte()


# From pixels to what networks see, and back

def to_network(settings, pictures):
    """A batch of Pictures, uint8 (N, C, H, W) -> x and y, float in [-1, 1], as G and D see them."""
    rgb, hides = pictures[:, :3], TASKS[settings["task"]].hides
    y = pictures[:, -3:].float() / 127.5 - 1               # of a photo, y is the photo itself
    if settings["one_hot"]:
        classes = class_or_ignore(rgb, settings["palette"])              # 255 is 0 in all channels
        return torch.stack([classes == k for k in range(len(settings["palette"]))], 1).float(), y
    if hides == "colour":                             # L 0..100 -> x, a and b -110..110 -> y
        lab = rgb_to_lab(pictures)
        return lab[:, :1] / 50 - 1, (lab[:, 1:] / 110).clamp(-1, 1)
    x = rgb.float() / 127.5 - 1
    if hides == "centre":                               # the central half is white
        h, w = x.shape[2:]
        x[:, :, h // 4:h - h // 4, w // 4:w - w // 4] = 1
    return x, y


def input_to_network(settings, pictures):
    """What a user's picture becomes: uint8 RGB (N, 3, H, W) -> x float (N, in_channels, H, W)."""
    if TASKS[settings["task"]].sketch:             # drawn by hand, and maybe larger
        scale = min(1, max(settings["size"]) / max(pictures.shape[2:]))
        small = [round(side * scale) or 1 for side in pictures.shape[2:]]
        pictures = clean_sketch(pictures, small).expand(-1, 3, -1, -1)
    return to_network(settings, pictures)[0]


def to_pixels(settings, x, image):
    """Network values to look at: x, or an output or target of that x -> uint8 RGB (N, 3, H, W)."""
    if settings["one_hot"] and image is x:
        return torch.stack([colorize(m, settings["palette"]) for m in image.argmax(1).cpu()])
    if TASKS[settings["task"]].hides == "colour":          # the output gets its input's own L
        ab = torch.zeros_like(x).expand(-1, 2, -1, -1) if image is x else image.clamp(-1, 1) * 110
        return lab_to_rgb(torch.cat([(x + 1) * 50, ab], dim=1).cpu())
    return image.add(1).mul(127.5).round().clamp(0, 255).byte().cpu()


def label_map_of(settings, pictures):
    """The true label map (N, H, W) of pairs, or None; the class "unlabelled" becomes 255."""
    palette, side = settings["palette"], TASKS[settings["task"]].labels
    if not palette or not side:
        return None
    classes = class_or_ignore(pictures[:, :3] if side == "x" else pictures[:, -3:], palette)
    ignored = torch.tensor([k for k, (name, _) in enumerate(palette) if name == "unlabelled"])
    return classes.masked_fill(torch.isin(classes, ignored.to(classes)), 255)


# Pictures out: files, sheets, curves

def sources(source, out):
    """[(picture to read, picture to write), ...] for a picture or a folder of them."""
    source, out = Path(source), Path(out)
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


def read_input(settings, path, pair=False):
    """A picture to translate, uint8 (3, H, W); of a side-by-side pair, the half that is x."""
    row, path, palette = TASKS[settings["task"]], Path(path), settings["palette"]
    if pair:
        return halves(path, settings["size"])[row.direction == "BtoA"]
    if row.labels == "x" and path.absolute().parent.name == "labels":  # as read_picture
        if (numbers := read_label_map(path, palette)) is not None:
            return colorize(numbers, palette)
    return to_tensor(open_picture(path))


def save_picture(path, picture):
    """Writes uint8 (3, H, W) as PNG or JPEG by the name's ending, whole or not at all."""
    path, buffer = Path(path), io.BytesIO()
    kind = WRITTEN.get(path.suffix.lower())
    if kind is None:
        raise Refusal(f"{path}: pictures are written as {' or '.join(WRITTEN)}; choose one")
    to_image(picture).save(buffer, kind, quality=95)
    write_whole(path, buffer.getvalue())


def contact_sheet(rows, titles=(), gap=4):
    """Rows of pictures, uint8 (3, h, w), under their titles -> one picture, uint8 (3, H, W)."""
    h, w = (max(p.shape[i] for row in rows for p in row) + gap for i in (1, 2))
    top = 20 if titles else gap
    size = max(map(len, rows)) * w + gap, len(rows) * h + top
    draw = ImageDraw.Draw(sheet := Image.new("RGB", size, "white"))
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            sheet.paste(to_image(picture), (gap + c * w, top + r * h))
    for c, title in enumerate(titles):
        draw.text((gap // 2 + (c + 0.5) * w, 9), title, "black", anchor="mm", font_size=12)
    return to_tensor(sheet)


CURVES = ((31, 111, 180), (209, 73, 91), (46, 139, 87), (138, 95, 191), (217, 142, 4), (85, 85, 85))


def plot_curves(path, panels, x_label="step"):
    """Draws one panel for each (title, {name: (xs, ys)}) under another: axes, legend, curves. A
    pale line is the data, a strong one its running mean over a twentieth of the points."""
    image = Image.new("RGB", (900, 300 * len(panels)), "white")
    draw = ImageDraw.Draw(image)
    write = partial(draw.text, fill="black", font_size=12)
    for row, (title, series) in enumerate(panels):
        x0, y0, x1, y1 = 70, row * 300 + 34, 880, row * 300 + 260  # the axes' box, in pixels
        series = {k: np.array(v, dtype=float) for k, v in series.items() if len(v[0]) > 1}
        xs, ys = np.nan_to_num(np.hstack([*series.values()] or [np.zeros((2, 1))]), posinf=0,
                               neginf=0)
        xa, xb = xs.min(), max(xs.max(), xs.min() + 1)
        ya, yb = min(ys.min(), 0), max(np.quantile(ys, 0.995), 1e-6) * 1.05

        def place(xs, ys):
            return list(zip(np.interp(xs, (xa, xb), (x0, x1)), np.interp(ys, (ya, yb), (y1, y0))))
        for x, y in np.linspace((xa, ya), (xb, yb), 5):
            (left, up), = place([x], [y])
            draw.line([(x0, up), (x1, up)], "#e4e4e4")
            write((x0 - 6, up), f"{y:.3g}" if abs(y) > 1e-5 else "0", anchor="rm")
            write((left, y1 + 12), f"{x:,.0f}", anchor="mm")
        write((x0, y0 - 17), title, anchor="lm", font_size=15)
        write(((x0 + x1) / 2, y1 + 28), x_label, anchor="mm")
        end = x1                                           # the legend grows from the right
        for (name, (xs, ys)), rgb in reversed(list(zip(series.items(), CURVES * len(series)))):
            window = max(1, len(ys) // 20)
            padded = np.pad(ys, ((window - 1) // 2, window // 2), mode="edge")
            draw.line(place(xs, ys), tuple(191 + value // 4 for value in rgb))
            draw.line(place(xs, np.convolve(padded, np.ones(window) / window, "valid")), rgb, 2)
            end -= draw.textlength(name, font_size=12) + 30
            draw.line([(end, y0 - 17), (end + 18, y0 - 17)], rgb, 3)
            write((end + 22, y0 - 17), name, anchor="lm")
        draw.line([(x0, y0), (x0, y1), (x1, y1)], "black")
    save_picture(path, to_tensor(image))


def draw_networks(path, networks):
    """Draws networks, [(title, [(channels, side), ...], skips), ...], under another: a box for each
    layer's output, its height log2(side), its width log2(channels); lines for the skips."""
    image = Image.new("RGB", (1000, 220 * len(networks)), "white")
    draw = ImageDraw.Draw(image)
    write = partial(draw.text, fill="black", anchor="mm", font_size=12)
    for row, (title, layers, skips) in enumerate(networks):
        base, middle, tops = 220 * row + 190, len(layers) // 2, []
        for i, (channels, side) in enumerate(layers):
            x, w = 10 + (i + 0.5) * 980 / len(layers), 2 + 2 * np.log2(channels)
            tops.append((x, base - 10 - 16 * np.log2(side)))
            colour = CURVES[2 if skips and i > middle else 0]
            draw.rectangle([x - w, tops[i][1], x + w, base], colour)
            write((x, base + 14), f"{channels} x {side}")
        for (left, y), (right, _) in zip(tops[1:middle], tops[:middle:-1][1:]) if skips else ():
            draw.line([(left, y + 8), (right, y + 8)], CURVES[1], 2)
        write((500, base - 170), title, font_size=15)
    save_picture(path, to_tensor(image))


# Label maps of any photos, by clustering: "Imagine your World"

def kmeans_palette(pixels, classes, seed=0):
    """The mean colours of k-means++ clusters, darkest first: (M, 3), 0-255 -> uint8 (classes, 3).
    Arthur & Vassilvitskii 2007: a first centre is a pixel drawn by its squared distance from those
    before it. An empty cluster moves to a pixel that is worst off. Too few colours: Refusal."""
    generator, pixels = torch.Generator().manual_seed(seed), pixels.float()
    if (colours := len(pixels.unique(dim=0))) < classes:
        raise Refusal(f"--classes {classes}: only {colours} colours are there; give fewer")
    centres = pixels[torch.randint(len(pixels), (1,), generator=generator)]
    while len(centres) < classes:
        far = torch.cdist(pixels, centres).amin(1) ** 2
        centres = torch.cat([centres, pixels[torch.multinomial(far, 1, generator=generator)]])
    for _ in range(50):                                    # it mostly settles within these
        distance, nearest = torch.cdist(pixels, centres).min(1)
        centres = torch.stack([pixels[nearest == k].mean(0) for k in range(classes)])
        empty = centres.isnan().any(1)
        centres[empty] = pixels[distance.topk(int(empty.sum())).indices]
    return centres[centres.sum(1).argsort()].round().byte()


def kmeans_folder(photos, out, classes=8, seed=0, size=(256, 256)):
    """Photos -> OUT/train and OUT/val (a fifth): label map | photo pairs for `--task pairs`.
    Clusters are those of the whole folder, so that a colour means the same in every picture. Photos
    are cut to the shape of size. palette.json and sheet.png, to judge the labels by, join them."""
    out, generator = Path(out), torch.Generator().manual_seed(seed)
    files, seen, sample = list_pictures(photos), [], []
    if not 1 < classes < 100:
        raise Refusal(f"--classes {classes}: out of range; give 2 to 99")
    if len(files) < 2 or (out / "train").exists():
        raise Refusal(f"{photos}: {len(files)} pictures; give at least two, and OUT a new folder")
    for path in files:                                     # 200,000 pixels of all
        pixels = to_tensor(open_picture(path)).flatten(1).T
        places = torch.randint(len(pixels), (200_000 // len(files) + 1,), generator=generator)
        sample.append(pixels[places])
    colours = kmeans_palette(torch.cat(sample), classes, seed).tolist()
    palette = [[f"class {number}", colour] for number, colour in enumerate(colours)]
    held = torch.randperm(len(files), generator=generator)[:max(1, len(files) // 5)].tolist()
    for number, path in enumerate(files):
        image = open_picture(path)
        scale = min(image.height / size[0], image.width / size[1], 1024 / max(size))
        photo = to_tensor(ImageOps.fit(image, [round(scale * side) or 1 for side in size[::-1]]))
        labels = to_image(nearest_class(photo[None], palette).byte())
        labels = labels.filter(ImageFilter.ModeFilter(5))  # the commonest nearby: no grains
        pair = torch.cat([colorize(labels, palette), photo], dim=2)
        save_picture(out / ("val" if number in held else "train") / f"{path.stem}.png", pair)
        seen += [resize(pair, [192, 384])] if number < 12 else []
    write_whole(out / "palette.json", json.dumps(palette).encode())
    seen += [torch.tensor(c).byte()[:, None, None].expand(3, 192, 384) for c in colours]
    save_picture(out / "sheet.png", contact_sheet([seen[i:i + 4] for i in range(0, len(seen), 4)]))


# The command

def task_sheet(name, folder, size, out):
    """Fetches and checks a task's pictures; writes a sheet of what training sees."""
    row, settings = look_up(name), {"task": name, "size": size, "one_hot": False}
    settings.update(pictures_of(name, folder))
    palette = settings["palette"]
    train, held = training(settings), held_out(settings)
    for pictures in (train, held):                         # each has been read if they are kept
        deque(() if pictures.cache is not None else
              pictures.batches([i] for i in range(len(pictures))), maxlen=0)
    print(f"{name}: {len(train):,} pictures to train on, {len(held):,} held out, "
          f"from {settings['data'] or 'drawings'}")
    shown, titles = torch.stack([train[i] for i in range(min(4, len(train)))]), ()
    if row.kind == "label maps":
        rows = [[colorize(p[0], palette)] for p in shown]
        first = train.files[0][-1]                         # a number where they are drawn
        if isinstance(first, Path) and read_label_map(first, palette) is None:
            titles = ("nearest colour", "cleaned")         # JPEG's seams, and what is left of them
            for files, line in zip(train.files, rows):
                image = resize(label_colours(files), size, nearest=True)[None]
                line.insert(0, colorize(nearest_class(image, palette)[0], palette))
    else:
        shown = augment(shown, size, row.mirror, torch.Generator().manual_seed(0))
        x, y = to_network(settings, shown)
        rows = list(zip(to_pixels(settings, x, x), to_pixels(settings, x, y)))     # x | y
    save_picture(out, contact_sheet(rows, titles))
    how = "cropped" if row.crop else "resized"
    print(f"{out}: {how} to {size[0]}x{size[1]}{', mirrored in training' * bool(row.mirror)}")


def main():
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("task", help=f"{', '.join(TASKS)}; or kmeans, or edges")
    add("folders", nargs="*", metavar="PHOTOS OUT", help="of kmeans and edges")
    add("--data", metavar="DIR", help="a folder of one's own")
    add("--size", type=sides, help="pixels (default: training's, 256 with a GPU, else 128; for "
        "SemGAN half of that, shapes 64)")
    add("--classes", type=positive(int), help="of kmeans (default 8)")
    add("--out", type=picture_name, metavar="PNG", help="default datasets/TASK-sheet.png")
    options = parse_options(parser)
    name, folders = options.task, options.folders
    makes_pairs = name in ("kmeans", "edges")
    if len(folders) != 2 * makes_pairs or (makes_pairs and (options.data or options.out)) or (
            options.classes and name != "kmeans"):
        raise Refusal(f"{name}: was given {len(folders)} folders; `kmeans PHOTOS OUT --classes 8` "
                      f"and `edges PHOTOS OUT` take two, a task none, but --data DIR and --out PNG")
    half = name in TASKS and TASKS[name].kind == "label maps"
    side = 64 if name == "shapes" else (256 if torch.cuda.is_available() else 128) >> half
    size = options.size or [side] * 2
    if name == "edges" and min(size) < 2:
        raise Refusal("--size 1: has no edges; give 2 or more")
    if name == "kmeans":
        kmeans_folder(*folders, options.classes or 8, size=size)
    elif name == "edges":                                  # edges | photo, of the size of training,
        for path, out in sources(*folders):                # so that no resizing blurs the lines
            photo = resize(to_tensor(open_picture(path)), size)
            pair = torch.cat([edges(photo[None])[0].expand(3, -1, -1), photo], dim=2)
            save_picture(out, pair)
    else:
        task_sheet(name, options.data, size, options.out or f"datasets/{name}-sheet.png")


if __name__ == "__main__":
    run_command(main)
