"""How are the networks trained? `python train.py --task facades`

    settings (flags over preset over task) -> pictures (data.py) -> one of two loops, both below:
        train_pix2pix   pix2pix Sec. 3.3: a step on D, then a step on G, by Adam
        train_semgan    SemGAN App. B: D by binary cross-entropy, G by feature matching
    -> runs/NAME/: settings.json, log.csv, losses.png, samples/, checkpoint.pt, generator.pt

    python train.py --task facades                       400 pairs, fetched or drawn; Ctrl-C saves
    python train.py --task pairs --data my/pairs --size 256x512
    python train.py --task shapes --head tanh --out runs/shapes-tanh      SemGAN's RGB baseline
    torchrun --nproc-per-node 2 train.py --task facades --batch 4         several processes

The same command goes on where it stopped, on a CPU bit by bit as if it had not (a GPU may round
differently each time): everything random in a step is a function of (seed, epoch) or (seed, step,
rank), so a checkpoint holds no random state: networks, optimisers, step and settings (in fp16 the
scale of the losses, too). --batch counts over all processes: two with --batch 4 see 2 each.
"""
import argparse
import contextlib
import json
import math
import os
import signal
import sys
import time
import zlib
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import l1_loss
from torch.nn.parallel import DistributedDataParallel

import data
import metrics
import pix2pix
import semgan
from data import Refusal, fcntl

LOG_EVERY = 25            # steps between two rows of log.csv
SHOW_EVERY = 2.0          # seconds between progress lines on a terminal, five times that elsewhere
SAVE_EVERY = 60.0         # seconds, at the least, between two checkpoints (they are large)
FIRST_SHEET, LATER_SHEETS = 20.0, 120.0   # seconds until the first sample sheet, then between two
LOSS_PANELS = [           # of losses.png: title, columns of log.csv
    ("adversarial losses", ["D loss", "G adversarial", "feature matching"]),
    ("share that D judges rightly", ["D on real", "D on fake"]),
    ("mean absolute error, in [-1, 1] units", ["L1", "held-out L1"]),
    ("sliced Wasserstein distance to the training set, x1000", ["SWD"]),
    ("share of pixels whose colour is no class's", ["out of palette"])]

# paper: Sec. 3.3; SemGAN App. A and B, where latents and rates differ by row. laptop: the same
# method, smaller, for two cores and half an hour, at a rate that shows facades sooner; the README
# says what it gave. Batch and epochs not named here are the task's. decay: the last share of the
# steps, over which Adam's rate falls in a straight line to 0. noise: added to all that D sees, its
# standard deviation in units of the values' range (instance noise, Sonderby et al. 2017). blur: of
# all that D sees, before the noise, its standard deviation in pixels at first; in a straight line
# to 0 at the last step. All three, and 9,000 steps, are our choice, not the paper's: without noise
# D learned real shapes by heart, and told them by probabilities of exactly 0 and 1; without blur it
# is ahead of G from early on, and G lets shapes jump from place to place instead of moving them.
PRESETS = {
    "pix2pix": {"paper": {"size": [256, 256], "width": 64, "lr": 2e-4},
                "laptop": {"size": [128, 128], "width": 32, "lr": 5e-4, "batch": 2, "epochs": None,
                           "steps": 14_400}},
    "semgan": {"paper": {"size": [128, 128], "width": 64, "lr": 2e-4, "batch": 32, "latent": 128,
                         "kernel": 7, "steps": 50_000},
               "laptop": {"size": [64, 64], "width": 16, "lr": 1e-3, "batch": 32, "latent": 100,
                          "kernel": 5, "steps": 2_400}}}
SHAPES = {"paper": {"size": [64, 64], "lr": 1e-4, "latent": 100, "kernel": 11},   # end of App. B
          "laptop": {"steps": 9_000, "decay": 0.5, "noise": 0.3, "blur": 3.0}}
# What only one of the two has, with its defaults: Eq. 4, Table 1, 2 and 3; SemGAN Sec. 5.
OWN = {"pix2pix": {"l1_weight": 100.0, "objective": "l1+cgan", "generator": "unet",
                   "receptive_field": 70, "norm": "instance", "upsample": "deconv"},
       "semgan": {"head": "softmax", "latent": None, "kernel": None}}


def parse():
    """The flags as given; None where a flag takes its value from the task and the preset."""
    parser = data.new_parser(__doc__)
    count, number, add = data.positive(int), data.positive(float), parser.add_argument
    add("--task", default="facades", help=f"{', '.join(data.TASKS)} (default facades)")
    add("--data", metavar="DIR", help="a folder, not the task's archive (of facades, also: drawn)")
    add("--out", metavar="RUN", help="the run's folder (default runs/TASK)")
    add("--preset", choices=["paper", "laptop"], help="default: paper with a GPU, else laptop")
    add("--seed", type=int, default=0, help="of all randomness (default 0)")
    add("--device", help="cpu or cuda (default: cuda where there is one)")
    add("--size", type=data.sides, help="pixels: 128, or height x width 256x512 (paper 256)")
    add("--width", type=count, help="channels of the first layer (paper 64; laptop 32, SemGAN 16)")
    add("--batch", type=count, help="pictures a step, over all processes (paper: the task's, 1 or "
        "4; laptop 2; SemGAN 32)")
    add("--epochs", type=count, help="passes over the pictures (paper: the task's; laptop: as many "
        "as make 14,400 steps, one at least; SemGAN: 50,000 steps, laptop 2,400, shapes 9,000)")
    add("--lr", type=number, help="Adam's learning rate (paper 0.0002, shapes 0.0001; laptop "
        "0.0005, SemGAN 0.001)")
    add("--l1-weight", type=number, help="lambda of Eq. 4 (default 100)")
    add("--objective", choices=["l1", "gan", "cgan", "l1+gan", "l1+cgan"],
        help="Table 1 (default l1+cgan)")
    add("--generator", choices=["unet", "encoder-decoder"], help="Table 2 (default unet)")
    add("--receptive-field", type=int, choices=list(pix2pix.PatchGAN.LAYERS),
        help="of D in pixels, Table 3 (default 70)")
    add("--norm", choices=["instance", "batch"], help="default instance")
    add("--upsample", choices=["deconv", "nearest"],
        help="nearest cures checkerboards (default: the paper's deconv)")
    add("--one-hot", action="store_true", help="label maps enter as a channel for each class")
    add("--head", choices=["softmax", "tanh"], help="SemGAN (default) or its RGB baseline")
    add("--latent", type=count, help="SemGAN: numbers in a latent (paper 128; shapes, laptop 100)")
    add("--kernel", type=count, help="SemGAN: side of kernels, odd (paper 7; shapes 11; laptop 5)")
    add("--precision", choices=["fp32", "bf16", "fp16"],
        help="default: fp32 on a CPU, bf16 or else fp16 on a GPU")
    add("--compile", action="store_true", help="torch.compile the networks, for long runs")
    add("--memory", type=number, default=4.0, help="GiB for a split's decoded pictures (default 4)")
    add("--tensorboard", action="store_true", help="also write event files to RUN/tensorboard")
    return data.parse_options(parser)


def depth_for(size):
    """The U-Net's levels: 8 halve a smaller side of 256 to 1, as do 7 for 128 and 6 for 64."""
    return min(8, max(6, int(math.log2(min(size)))))


def refuse_impossible(settings, given, labels, world):
    """What does not go together, though each flag is legal."""
    maps, size, kernel = settings["model"] == "semgan", settings["size"], settings.get("kernel", 1)
    objective, legal, wanted = settings.get("objective", ""), size, "x".join(map(str, size))
    while any(side % 2 ** depth_for(legal) for side in legal):
        step = 2 ** depth_for(legal)
        legal = [max(1, round(side / step)) * step for side in legal]
    for wrong, words in (
            (legal != size, f"--size {wanted}: sides must be multiples of {2 ** settings['depth']};"
             f" the nearest is {legal[0]}x{legal[1]}"),
            (maps and (size[0] != size[1] or size[0] not in (64, 128, 256) or kernel % 2 == 0
                       or kernel > 31),                    # 999 seemed to hang
             f"--size {wanted}, --kernel {kernel}: SemGAN makes squares of 64, 128 or 256 pixels, "
             f"with odd kernels up to 31; give --size 128 --kernel 7"),
            (maps and settings["precision"] == "fp16",
             "--precision fp16: not an option of SemGAN's; give bf16 or fp32"),
            (settings.get("receptive_field") == 286 and min(size) < 128,
             f"--receptive-field 286: larger than --size {wanted} allows; give --size 128 or more, "
             f"or --receptive-field 142"),
            (settings["one_hot"] and labels != "x",
             f"--one-hot: the input of {settings['task']} is not a label map; leave it out"),
            ("l1_weight" in given and "l1" not in objective,
             f"--l1-weight: --objective {objective} does not use it; leave it out"),
            ("receptive_field" in given and "gan" not in objective,
             f"--receptive-field: --objective {objective} does not use it; leave it out"),
            (settings["batch"] % world, f"--batch {settings['batch']}: cannot be shared by {world} "
             f"processes; give a multiple of {world}")):
        if wrong:
            raise Refusal(words)


def resolve(options, device, world=1):
    """Flags over preset over task -> the settings: a flat dict of plain types, all that is needed
    to repeat the run. Refuses what cannot work, before anything is fetched or written."""
    row = data.look_up(options.task)
    model, other = ("semgan", "pix2pix") if row.kind == "label maps" else ("pix2pix", "semgan")
    gpu, precision = device.type == "cuda", "fp32"
    preset = options.preset or ("paper" if gpu else "laptop")
    if gpu:
        half = "fp16" if model == "pix2pix" else "fp32"    # SemGAN's loop scales no losses
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else half
    about_here = ("device", "memory", "tensorboard", "out", "compile")   # not about the result
    given = {k: v for k, v in vars(options).items() if v is not None and k not in about_here}
    for key in OWN[other].keys() & given:
        raise Refusal(f"--{key.replace('_', '-')}: not an option of {options.task}, a {model} task;"
                      f" leave it out")
    settings = {
        "model": model, "epochs": row.epochs, "batch": row.batch, "steps": None,
        "precision": precision, "data": None, "drawn": False, "in_channels": row.in_channels,
        "out_channels": row.out_channels, **OWN[model], **PRESETS[model][preset],
        **(SHAPES[preset] if options.task == "shapes" else {}), **given, "preset": preset}
    settings["depth"] = depth_for(settings["size"])
    refuse_impossible(settings, given, row.labels, world)
    return settings


def find_pictures(settings, memory):
    """Finds, fetches or draws the pictures; completes the settings. -> (to train on, held out)"""
    settings.update(data.pictures_of(settings["task"], settings["data"]))
    if settings["one_hot"]:
        settings["in_channels"] = len(settings["palette"])
    if settings["model"] == "semgan" and settings["head"] == "softmax":
        settings["out_channels"] = len(settings["palette"])
    pictures, held_out = data.training(settings, memory), data.held_out(settings, memory)
    names = "/".join(Path(str(file[0])).name for file in pictures.files)
    settings["pictures"] = f"{len(pictures)} of names {zlib.crc32(os.fsencode(names)):08x}"
    if len(pictures) < settings["batch"]:
        raise Refusal(f"--batch {settings['batch']}: there are only {len(pictures)} pictures; give "
                      f"at most that many")
    if steps := settings.pop("steps"):                     # SemGAN's length, and laptop's
        settings["epochs"] = settings["epochs"] or math.ceil(
            steps / (len(pictures) // settings["batch"]))
    return pictures, held_out


def check_same(folder, settings):
    """Refuses a folder in which another run lives, naming each differing option and both values."""
    if not (folder / "checkpoint.pt").exists():
        if (folder / "generator.pt").exists():
            raise Refusal(f"--out {folder}: holds a generator.pt, but no checkpoint.pt to go on "
                          f"from; give another --out, or move it away")
        return
    try:
        before = dict(json.loads((folder / "settings.json").read_text()))
    except (OSError, ValueError, TypeError):
        raise Refusal(f"{folder}/settings.json: missing or damaged; move the folder away") from None
    may_change = {"epochs", "data", "preset", "precision"}               # trained longer, or moved
    different = [f"{key} {before.get(key)} there, {settings.get(key)} now"
                 for key in sorted((settings | before).keys() - may_change)
                 if before.get(key) != settings.get(key)]
    if different:
        raise Refusal(f"--out {folder}: holds another run ({'; '.join(different)}); give the same "
                      f"values (and a picture under each name) to go on, or another --out")


def lock(folder):
    """Holds the folder for this process; the system lets go even of a killed one's lock."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w")
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except BlockingIOError:
        raise Refusal(f"--out {folder}: another process trains there; give another --out") from None
    except OSError as error:
        raise Refusal(f"--out {folder}: {error.strerror}; give a folder to write to") from None


def step_seed(seed, step, rank=0):
    """One number for all that is random in a step: crops, dropout, latents."""
    return (seed * 1_000_003 + step) * 1_009 + rank


class Run:
    """A run's folder and its clock: batches in; log rows, sample sheets and checkpoints out.

    parts: networks and optimisers by their names in checkpoint.pt. sheet() draws a sample sheet,
    uint8 (3, H, W); score() measures {column: value} every score_every steps (0: once an epoch).
    Only rank 0 writes.
    """

    def __init__(self, context, parts, sheet, score, score_columns, score_every=0):
        self.folder, self.settings = context.folder, context.settings
        self.rank, self.world, self.writer = context.rank, context.world, context.writer
        self.parts, self.sheet, self.score = parts, sheet, score
        self.score_columns, self.score_every = score_columns, score_every
        self.step, self.signal, self.pending, self.rows = 0, None, [], []
        self.resume()
        if self.rank == 0:                                 # all that can be refused has been
            data.write_whole(self.folder / "settings.json",
                             json.dumps(self.settings, indent=1).encode())
            g, d = (pix2pix.parameters(parts[name]) for name in ("generator", "discriminator"))
            begun = f"going on from step {self.step:,}" if self.step else "starting afresh"
            print(f"generator {g:,} parameters, discriminator {d:,} parameters; {begun}\n"
                  f"run folder {self.folder}; Ctrl-C saves, the same command goes on", flush=True)
        self.started = self.saved = self.flushed = self.printed = time.monotonic()
        self.next_sheet, self.first_step = self.started + FIRST_SHEET, self.step

    def resume(self):
        """Takes up checkpoint.pt, if there is one, and cuts log.csv back to its step."""
        path, log = self.folder / "checkpoint.pt", self.folder / "log.csv"
        if path.exists():
            content = pix2pix.load_file(path, "move the run's folder away to start afresh")
            try:
                for name, part in self.parts.items():
                    if name != "scaler" or name in content:  # not in those of other precisions
                        part.load_state_dict(content[name])
                self.step = int(content["step"])
            except (KeyError, TypeError, ValueError, RuntimeError):
                raise Refusal(f"{path}: does not fit its settings; move the folder away") from None
        if self.rank == 0:
            for stale in self.folder.glob(".*.partial"):   # of a process killed while saving
                stale.unlink()
            try:
                text = log.read_text() if log.exists() else ""
                head, *rows = text.splitlines(keepends=True) or [""]
                rows = [r for r in rows if r.endswith("\n") and int(r.split(",")[0]) <= self.step]
            except ValueError:
                raise Refusal(f"{log}: damaged; mend it or move it away") from None
            self.columns = head.strip().split(",") if rows else None
            data.write_whole(log, "".join([head, *rows] if rows else []).encode())

    def batches(self, pictures):
        """Yields the uint8 batches still to come, this process's share of each; then saves."""
        seed, self.files = self.settings["seed"], pictures.files
        self.per_epoch = len(pictures) // self.settings["batch"]
        self.total = self.per_epoch * self.settings["epochs"]
        decay = self.settings.get("decay", 0) * self.total               # steps
        handlers = {s: signal.signal(s, self.stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.step < self.total:
                epoch, done = divmod(self.step, self.per_epoch)
                order = data.epoch_order(len(pictures), self.settings["batch"] // self.world, seed,
                                         epoch, self.rank, self.world)[done:]
                for self.indices, uint8 in zip(order, pictures.batches(order)):
                    torch.manual_seed(step_seed(seed, self.step, self.rank))
                    left = (self.total - self.step) / max(1.0, decay)
                    for optimizer in self.parts["g_optimizer"], self.parts["d_optimizer"]:
                        optimizer.param_groups[0]["lr"] = self.settings["lr"] * min(1.0, left)
                    yield uint8
            if self.step > self.first_step or not (self.folder / "generator.pt").exists():
                self.save()
        except Refusal:                # a picture that has gone in mid-epoch, of rank 0's share
            if self.step > self.first_step:
                self.save()
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def chance(self):
        """For what all processes draw alike, each taking its share: generator, rank, world. (Rank
        0's dropout and noise use the same seed for other things: that harms nothing.)"""
        seed = step_seed(self.settings["seed"], self.step)
        return torch.Generator().manual_seed(seed), self.rank, self.world

    def stop(self, number, _):
        """Asks for a stop after this step; the second request does not wait."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        if self.rank == 0:
            with contextlib.suppress(RuntimeError):        # it may have come within another print
                print("\nstopping after this step, and saving", flush=True)

    def finish_step(self, values):
        """Ends a step: values, {name: scalar tensor}, go to the log; saves and stops where due."""
        self.step += 1
        losses = torch.stack([value.detach().float() for value in values.values()])
        self.pending.append((self.step, self.indices, losses))
        now, last, poisoned = time.monotonic(), self.step == self.total, None
        epoch_ends = self.step % self.per_epoch == 0
        row_due = self.step % LOG_EVERY == 0 or epoch_ends
        first = self.step == self.first_step + 1
        if row_due or first or self.signal or now - self.flushed > SHOW_EVERY:
            poisoned = self.flush(list(values))            # waits for the device, so not each step
        poisoned, stopping = self.agree(poisoned)          # a later signal is the next step's
        if poisoned:
            sys.exit(f"error: {poisoned}")
        if self.rank == 0:
            score_due = self.step % self.score_every == 0 if self.score_every else epoch_ends
            if row_due or score_due or stopping:
                self.write_row(list(values), self.score() if score_due or last else {})
            if now > self.next_sheet or last or stopping:
                self.next_sheet = now + LATER_SHEETS
                data.save_picture(self.folder / "samples" / f"{self.step:06d}.png", self.sheet())
                if self.columns:                           # there is a row
                    self.draw_losses()
            if stopping or (row_due and now - self.saved > SAVE_EVERY and not last):
                self.save()
        if stopping:
            if self.world > 1:
                dist.barrier()             # torchrun ends the others as soon as one has left
            if self.rank == 0:
                print(f"saved at step {self.step:,}; the same command goes on from here")
            sys.exit(128 + stopping)

    def flush(self, names):
        """Reads the waiting losses off the device. -> a sentence where one is not finite."""
        rows = torch.stack([values for _, _, values in self.pending]).cpu()
        for (step, indices, _), values in zip(self.pending, rows):
            if not torch.isfinite(values).all():
                bad = names[int((~torch.isfinite(values)).nonzero()[0])]
                pictures = ", ".join(Path(str(self.files[i][0])).name for i in indices)
                return (f"step {step}: {bad} is not finite, on {pictures}; nothing of it was saved."
                        f" Try a smaller --lr, or --precision fp32")
        self.rows += rows.tolist()
        self.pending, self.flushed = [], time.monotonic()
        self.progress(names)

    def agree(self, poisoned):
        """All processes stop at the same step: any one's reason is everybody's."""
        if self.world == 1:
            return poisoned, self.signal
        flags = torch.tensor([bool(poisoned), self.signal or 0])         # on the CPU: no GPU waits
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        bad, number = flags.tolist()
        if bad and not poisoned:
            poisoned = "another process met a loss that is not finite"
        return poisoned, number

    def progress(self, names):
        """The progress line: rewritten in place on a terminal, a new one now and then elsewhere."""
        now, terminal = time.monotonic(), sys.stdout.isatty()
        if self.rank or (now - self.printed < SHOW_EVERY * (1 if terminal else 5)
                         and self.step > self.first_step + 1):
            return
        self.printed, speed = now, (self.step - self.first_step) / (now - self.started)
        minutes, seconds = divmod(int((self.total - self.step) / speed), 60)
        values = "  ".join(f"{name} {value:.3f}" for name, value in zip(names, self.rows[-1]))
        line = (f"epoch {(self.step - 1) // self.per_epoch + 1}  step {self.step:,}/{self.total:,}"
                f"  {speed * self.settings['batch']:.1f} pictures/s  {minutes}:{seconds:02d} left  "
                f"{values}")
        print(f"\r{line}\x1b[K" if terminal else line, end="" if terminal else "\n", flush=True)

    def write_row(self, names, scores):
        """One row of log.csv: means of the losses since the last row, and the scores, if any."""
        if self.columns is None:
            self.columns = ["step", "epoch", "pictures_per_second", *names, *self.score_columns]
            data.append_line(self.folder / "log.csv", ",".join(self.columns))
        speed = (self.step - self.first_step) / (time.monotonic() - self.started)
        means = [sum(column) / len(column) for column in zip(*self.rows)]
        row = {"step": self.step, "epoch": self.step / self.per_epoch,
               "pictures_per_second": speed * self.settings["batch"],
               **dict(zip(names, means)), **scores}
        data.append_line(self.folder / "log.csv", ",".join(
            f"{row[column]:.7g}" if column in row else "" for column in self.columns))
        for name, value in row.items() if self.writer else ():
            self.writer.add_scalar(name, value, self.step)
        self.rows = []

    def save(self):
        """checkpoint.pt to go on, generator.pt to use; never with a weight that is not finite."""
        if self.rank:
            return
        content = {name: part.state_dict() for name, part in self.parts.items()}
        if not all(torch.isfinite(tensor).all() for tensor in data.tensors_of(content)):
            sys.exit(f"error: step {self.step}: a weight is not finite; nothing of it was saved. "
                     f"Try a smaller --lr, or --precision fp32")
        head = {"format": pix2pix.FORMAT, "settings": {**self.settings, "steps": self.step}}
        files = {"generator.pt": {**head, "generator": content["generator"]},
                 "checkpoint.pt": {**head, "step": self.step, **content}}
        # The generator first: killed between the two, a run goes on from the older checkpoint and
        # writes both again; the other way round, a finished run would keep an old generator. Only
        # the first time the checkpoint comes first, as a generator alone is refused (check_same).
        again = (self.folder / "checkpoint.pt").exists()
        for name in files if again else reversed(files):
            data.write_whole(self.folder / name, files[name])
        if self.writer:
            self.writer.flush()
        self.saved = time.monotonic()

    def draw_losses(self):
        """losses.png from log.csv: the panels above, as far as their columns are there."""
        panels = [(title, {column: metrics.logged(self.folder, column)
                           for column in columns if column in self.columns})
                  for title, columns in LOSS_PANELS]
        data.plot_curves(self.folder / "losses.png", [panel for panel in panels if panel[1]])


def event_writer(folder):
    """TensorBoard's writer, which is not among this project's requirements."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise Refusal("--tensorboard: not installed; `pip install tensorboard`, or leave it out: "
                      "log.csv and losses.png hold the same values") from None
    return SummaryWriter(folder / "tensorboard")


def adam(network, settings):
    """Adam(0.5, 0.999), pix2pix Sec. 3.3 and SemGAN App. B. Fused, it goes through the weights (57
    million in the paper's networks) once: much of what makes a step faster than the textbook's."""
    return torch.optim.Adam(network.parameters(), settings["lr"], (0.5, 0.999), fused=True)


def wrapped(network, context):
    """-> what a step on this network calls: compiled where asked for, and among several processes
    with gradients averaged; and what a step on the other one calls: the same without averaging."""
    bare = torch.compile(network) if context.compile else network
    return DistributedDataParallel(bare) if context.world > 1 else bare, bare


def keep_on_gpu(pictures, device):
    """Moves the decoded pictures to a GPU where a quarter of its free memory holds them: batches
    are then cut there, and no step waits for a copy. Not yet run on a GPU."""
    if device.type == "cuda" and pictures.cache is not None:
        if pictures.cache.numel() <= torch.cuda.mem_get_info(device)[0] / 4:
            pictures.cache = pictures.cache.to(device)


def sent(tensor, device):
    """A tensor on the device; to a GPU from pinned memory, so that no step waits for the copy."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def autocast(settings, device):
    """Half-precision convolutions, on a GPU; on a CPU they are slower, and fp32 the default."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings["precision"])
    return torch.autocast(device.type, kind) if kind else contextlib.nullcontext()


def sample_sheet(settings, generator, held_out, device):
    """input | output | target, always of the same six held-out pictures and the same noise."""
    x, y = data.to_network(settings, data.far_apart(held_out, 6).to(device))
    fake = pix2pix.generate(generator, x, seed=0)
    rows = list(zip(*(data.to_pixels(settings, x, image) for image in (x, fake, y))))
    rows = [sum(rows[i:i + 2], ()) for i in range(0, len(rows), 2)]      # two triples side by side
    return data.contact_sheet(rows, ("input", "output", "target") * 2)


def held_out_l1(settings, generator, held_out, device):
    """Mean |y - G(x)| in [-1, 1] units over the held-out pictures (the first 100 of them)."""
    total, count = 0.0, min(100, len(held_out))
    batch = settings["batch"] if settings["norm"] == "batch" else 10     # its statistics matter
    for first in range(0, count, batch):
        uint8 = torch.stack([held_out[i] for i in range(first, min(first + batch, count))])
        x, y = data.to_network(settings, uint8.to(device))
        total += l1_loss(pix2pix.generate(generator, x, seed=0), y).item() * len(uint8)
    return total / count


def train_pix2pix(context, pictures, held_out):
    """pix2pix Sec. 3.3: "one gradient descent step on D, then one step on G"."""
    settings, device = context.settings, context.device
    objective = settings["objective"].split("+")           # Table 1: ["l1", "cgan"] by default
    adversarial_too, conditional = objective != ["l1"], "cgan" in objective
    l1_weight = settings["l1_weight"] if "l1" in objective else 0.0
    torch.manual_seed(settings["seed"])
    generator = pix2pix.faster(pix2pix.build_generator(settings)).to(device)
    discriminator = pix2pix.faster(pix2pix.PatchGAN(
        settings["in_channels"] * conditional + settings["out_channels"], settings["width"],
        settings["receptive_field"], settings["norm"])).to(device)
    g_optimizer, d_optimizer = adam(generator, settings), adam(discriminator, settings)
    # fp16's smallest gradients would vanish: the losses are scaled up, the gradients down again.
    scaler = torch.amp.GradScaler(device.type, enabled=settings["precision"] == "fp16")
    run = Run(context, {"generator": generator, "discriminator": discriminator,
                        "g_optimizer": g_optimizer, "d_optimizer": d_optimizer,
                        **({"scaler": scaler} if scaler.is_enabled() else {})},
              lambda: sample_sheet(settings, generator, held_out, device),
              lambda: {"held-out L1": held_out_l1(settings, generator, held_out, device)},
              ["held-out L1"])
    (translate, _), (judge, resting) = wrapped(generator, context), wrapped(discriminator, context)

    for uint8 in run.batches(pictures):                                  # (N, 6, 286, 286)
        uint8 = data.augment(uint8, settings["size"], pictures.row.mirror, *run.chance())
        x, y = data.to_network(settings, sent(uint8, device))            # (N, 3, 256, 256) each
        given = [x] if conditional else []                               # D(x, y) or D(y), Eq. 1, 2
        values = {}
        with autocast(settings, device):
            fake = translate(x)                                          # G(x, z); z is the dropout

        if adversarial_too:                                              # the step on D
            with autocast(settings, device):
                real_logits = judge(*given, y).float()                   # (N, 1, 30, 30)
                fake_logits = judge(*given, fake.detach()).float()       # no gradient reaches G
            d_loss = pix2pix.discriminator_loss(real_logits, fake_logits)
            d_optimizer.zero_grad()
            scaler.scale(d_loss).backward()
            scaler.step(d_optimizer)
            values = {"D loss": d_loss, "D on real": (real_logits > 0).float().mean(),
                      "D on fake": (fake_logits < 0).float().mean()}

        # The step on G, through a D at rest, which has no gradient to share with other processes.
        # D has just changed, so it judges the same fake anew.
        discriminator.requires_grad_(False)
        with autocast(settings, device):
            fake_logits = resting(*given, fake).float() if adversarial_too else None
        g_loss, adversarial, l1 = pix2pix.generator_loss(fake_logits, fake.float(), y, l1_weight)
        g_optimizer.zero_grad()
        scaler.scale(g_loss).backward()
        scaler.step(g_optimizer)
        scaler.update()
        discriminator.requires_grad_(True)
        run.finish_step({**values, "G adversarial": adversarial, "L1": l1})
    return run


def maps_as_seen(settings, uint8):
    """Label maps (N, 1, H, W) as D sees real ones: one-hot; for the baseline, colours."""
    if settings["head"] == "softmax":
        return semgan.one_hot(uint8[:, 0].long(), len(settings["palette"]))      # (N, K, H, W)
    return semgan.colorize(uint8[:, 0].long(), settings["palette"]).float() / 127.5 - 1


def blurred(maps, sigma):
    """Maps (N, K, size, size) through a Gaussian of sigma pixels, mirrored at the border."""
    reach = 3 * math.ceil(sigma)
    bell = torch.exp(-(torch.arange(-reach, reach + 1) / sigma).square() / 2)
    rows = sent(metrics.filter_matrix(maps.shape[2], bell / bell.sum(), mirror=True), maps.device)
    return rows @ maps @ rows.T                            # rows (size, size)


def map_scores(settings, generator, pictures, device):
    """SWD to the training set and the share of pixels whose colour is no class's, over 512 maps."""
    count, chance = min(512, len(pictures)), torch.Generator().manual_seed(0)
    z, palette = torch.randn(count, settings["latent"], generator=chance), settings["palette"]
    with torch.no_grad():
        fake = torch.cat([semgan.to_pixels(generator(part.to(device)), palette, settings["head"])
                          for part in z.split(32)]).cpu()
    chosen = torch.randperm(len(pictures), generator=chance)[:count].tolist()
    real = semgan.colorize(torch.stack([pictures[i][0] for i in chosen]).long(), palette).cpu()
    return {"SWD": metrics.swd(real, fake)["average"],
            "out of palette": float(semgan.out_of_palette(fake, palette))}


def train_semgan(context, pictures, held_out):
    """SemGAN Sec. 3 and App. B: D by binary cross-entropy, G by matching D's features."""
    settings, device = context.settings, context.device
    torch.manual_seed(settings["seed"])
    generator = semgan.build_generator(settings).to(device)
    discriminator = semgan.Discriminator(settings["out_channels"], settings["size"][0],
                                         settings["kernel"], settings["width"]).to(device)
    g_optimizer, d_optimizer = adam(generator, settings), adam(discriminator, settings)
    shown = torch.randn(48, settings["latent"], generator=torch.Generator().manual_seed(0))

    def sheet():
        with torch.no_grad():
            maps = generator(shown.to(device))
        maps = semgan.to_pixels(maps, settings["palette"], settings["head"]).cpu()
        return data.contact_sheet([list(row) for row in maps.split(8)])
    run = Run(context, {"generator": generator, "discriminator": discriminator,
                        "g_optimizer": g_optimizer, "d_optimizer": d_optimizer}, sheet,
              lambda: map_scores(settings, generator, pictures, device),
              ["SWD", "out of palette"], 250 if settings["preset"] == "laptop" else 1_000)
    (generate, _), (judge, resting) = wrapped(generator, context), wrapped(discriminator, context)

    noise, blur = settings.get("noise", 0.0), settings.get("blur", 0.0)  # see PRESETS
    noise *= {"softmax": 1, "tanh": 2}[settings["head"]]   # the width of its range

    def seen(maps):                                        # what D sees of maps, anew in each use
        if blur:
            maps = blurred(maps, blur * (1 - run.step / run.total))
        return maps + noise * torch.randn_like(maps) if noise else maps

    for uint8 in run.batches(pictures):                                  # (N, 1, 64, 64)
        chance, rank, world = run.chance()
        uint8 = data.augment(uint8, settings["size"], pictures.row.mirror, chance, rank, world)
        real = maps_as_seen(settings, sent(uint8, device))               # (N, K, 64, 64)
        z = torch.randn(len(real) * world, settings["latent"], generator=chance).chunk(world)[rank]
        with autocast(settings, device):
            fake = generate(sent(z, device))

            real_logits = judge(seen(real))[0].float()                   # the step on D: (N, 1)
            fake_logits = judge(seen(fake.detach()))[0].float()
        d_loss = semgan.discriminator_loss(real_logits, fake_logits)
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()

        discriminator.requires_grad_(False)    # the step on G; each process matches its own means
        with autocast(settings, device):
            g_loss = semgan.feature_matching_loss(resting(seen(real))[1], resting(seen(fake))[1])
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        discriminator.requires_grad_(True)
        run.finish_step({"D loss": d_loss, "D on real": (real_logits > 0).float().mean(),
                         "D on fake": (fake_logits < 0).float().mean(), "feature matching": g_loss})
    return run


def introduce(context, pictures, held_out, seconds):
    """The first lines: what is trained, where, with which settings and pictures."""
    settings, size = context.settings, "x".join(map(str, context.settings["size"]))
    where = torch.cuda.get_device_name() if context.device.type == "cuda" else \
        f"cpu with {torch.get_num_threads()} threads"
    other = "laptop" if settings["preset"] == "paper" else "paper"
    steps = len(pictures) // settings["batch"] * settings["epochs"]
    kept = "decoded as needed" if pictures.cache is None else (
        "kept on the GPU" if pictures.cache.is_cuda else "kept in memory")
    print(f"{settings['model']} on {settings['task']}: torch {torch.__version__}, {where}, "
          f"{settings['precision']}, {context.world} process{'es' * (context.world > 1)}\n"
          f"preset {settings['preset']} (the other: --preset {other}): size {size}, width "
          f"{settings['width']}, batch {settings['batch']}, {settings['epochs']} epochs = {steps:,}"
          f" steps, seed {settings['seed']}\n"
          f"{len(pictures):,} pictures to train on, {len(held_out):,} held out, from "
          f"{settings['data'] or 'drawings'}, ready after {seconds:.1f} s, {kept}")


def main():
    started, options = time.monotonic(), parse()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # until there is a run
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = data.device_of(options.device, int(os.environ.get("LOCAL_RANK", 0)),
                            int(os.environ.get("LOCAL_WORLD_SIZE", world)))
    settings = resolve(options, device, world)
    pictures, held_out = find_pictures(settings, options.memory)
    folder = Path(options.out or f"runs/{options.task}{'-drawn' * settings['drawn']}")
    check_same(folder, settings)
    held_lock = lock(folder) if rank == 0 else None
    keep_on_gpu(pictures, device)
    context = argparse.Namespace(
        folder=folder, settings=settings, device=device, rank=rank, world=world,
        compile=options.compile,
        writer=event_writer(folder) if options.tensorboard and rank == 0 else None)
    if world > 1:                      # what a process alone can see to be wrong has been refused
        store = next(dist.rendezvous("env://"))[0]         # torch 2.13 keeps it over restarts
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                                store=store, rank=rank, world_size=world)
        seen = settings["pictures"], (folder / "checkpoint.pt").exists()
        dist.all_gather_object(found := [None] * world, seen)
        if len(set(found)) > 1:                            # one fetched or goes on, another not
            raise Refusal(f"--task {options.task}: the processes see different pictures or run "
                          f"folders; run `python data.py {options.task}` first, and share --out")
    if rank == 0:
        introduce(context, pictures, held_out, time.monotonic() - started)
    train = train_pix2pix if settings["model"] == "pix2pix" else train_semgan
    run = train(context, pictures, held_out)
    if rank == 0:
        print(f"\nfinished: {run.step:,} steps. Samples are in {folder}/samples, the generator is "
              f"{folder}/generator.pt; a larger --epochs trains on"
              f"{', at a rate that rises again' * ('decay' in settings)}.")
    if world > 1:
        dist.barrier()                                     # while rank 0 saves: all leave together
        dist.destroy_process_group()
    if held_lock:
        held_lock.close()


if __name__ == "__main__":
    data.run_command(main)
