"""How are the networks trained? `python train.py --task facades`

    settings (flags over preset over task) -> pictures (data.py) -> one of two loops, both below:
        train_pix2pix   pix2pix Sec. 3.3: a step on D, then a step on G, Adam, constant rate
        train_semgan    SemGAN Sec. 5 and App. B: D by cross-entropy, G by feature matching
    -> runs/NAME/: settings.json, log.csv, losses.png, samples/, checkpoint.pt, generator.pt

    python train.py --task facades                       400 pairs, fetched or drawn; Ctrl-C saves
    python train.py --task pairs --data my/pairs --size 256x512
    python train.py --task shapes --head tanh --out runs/shapes-tanh      SemGAN's baseline
    torchrun --nproc-per-node 2 train.py --task facades --batch 4         several processes

The same command goes on where it stopped, bit by bit as if it had not: everything random in a step
is drawn from (seed, epoch) or (seed, step, rank), so a checkpoint holds networks, optimisers and the
step, and nothing else. --batch counts over all processes: two of them with --batch 4 see 2 each.

Where it leaves the paper: the generator's one forward pass serves D's step and G's; D sees the real
and the generated pictures in one pass, which per-picture norm makes the same as two.
"""
import argparse
import contextlib
import csv
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
import pix2pix
try:
    import semgan
except ImportError:
    semgan = None
from data import Refusal

LOG_EVERY = 25            # steps between two rows of log.csv
SHOW_EVERY = 2.0          # seconds between two progress lines on a terminal, five times that elsewhere
SAVE_EVERY = 60.0         # seconds, at the least, between two checkpoints (they are large)
FIRST_SHEET, LATER_SHEETS = 20.0, 120.0   # seconds until the first sample sheet, then between two
SHOWN = 6                 # held-out pictures on a sample sheet

# The laptop preset is the same method with a quarter of the pixels and of the weights, chosen by
# looking at samples: README "Measured results" says what it gives.
PRESETS = {
    "pix2pix": {
        "paper": {"size": [256, 256], "width": 64, "lr": 2e-4},           # Sec. 3.3
        "laptop": {"size": [128, 128], "width": 32, "lr": 2e-4, "batch": 2, "epochs": 100}},
    "semgan": {
        "paper": {"size": [128, 128], "width": 64, "lr": 2e-4, "batch": 32, "latent": 128,
                  "kernel": 7, "steps": 50_000},                          # SemGAN App. B, Table 3
        "laptop": {"size": [64, 64], "width": 32, "lr": 2e-4, "batch": 32, "latent": 128,
                   "kernel": 5, "steps": 3_000}}}
SHAPES_PAPER = {"size": [64, 64], "lr": 1e-4, "latent": 100, "kernel": 11}  # App. B's last lines


def parse():
    """The flags as given; None where a flag takes its value from the task and the preset."""
    parser = argparse.ArgumentParser(
        description="Trains pix2pix or SemGAN; the same command again goes on where it stopped.",
        epilog="examples:\n  python train.py --task facades\n"
               "  python train.py --task pairs --data my/pairs --size 256 --epochs 100\n"
               "  python train.py --task shapes --preset laptop --out runs/my-shapes",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    count, number = data.positive(int), data.positive(float)
    add = parser.add_argument
    add("--task", default="facades", help=f"{', '.join(data.TASKS)} (default facades)")
    add("--data", metavar="DIR", help="a folder of one's own instead of the task's archive")
    add("--out", metavar="RUN", help="the run's folder (default runs/TASK)")
    add("--preset", choices=["paper", "laptop"], help="default: paper with a GPU, else laptop")
    add("--seed", type=int, default=0, help="of all randomness (default 0)")
    add("--device", help="cpu or cuda (default: cuda where there is one)")
    add("--size", type=data.size, help="pixels: 128, or height x width 256x512 (paper 256)")
    add("--width", type=count, help="channels of the first layer (paper 64, laptop 32)")
    add("--batch", type=count, help="pictures a step, over all processes (default: the task's)")
    add("--epochs", type=count, help="passes over the pictures (default: the task's)")
    add("--lr", type=number, help="Adam's learning rate (pix2pix 0.0002)")
    add("--l1-weight", type=number, default=100.0, help="lambda of Eq. 4 (default 100)")
    add("--objective", default="l1+cgan", choices=["l1", "gan", "cgan", "l1+gan", "l1+cgan"],
        help="Table 1 (default l1+cgan)")
    add("--generator", default="unet", choices=["unet", "encoder-decoder"], help="Table 2")
    add("--receptive-field", type=int, default=70, choices=list(pix2pix.PatchGAN.LAYERS),
        help="of D in pixels, Table 3 (default 70)")
    add("--norm", default="instance", choices=["instance", "batch"], help="default instance")
    add("--upsample", default="deconv", choices=["deconv", "nearest"],
        help="nearest cures checkerboards (default: the paper's deconv)")
    add("--one-hot", action="store_true", help="label maps enter as a channel for each class")
    add("--head", default="softmax", choices=["softmax", "tanh"], help="SemGAN or its RGB baseline")
    add("--latent", type=count, help="SemGAN: length of the latent vector")
    add("--kernel", type=count, help="SemGAN: side of all kernels, odd (paper 7 or 11)")
    add("--precision", choices=["fp32", "bf16", "fp16"],
        help="default: fp32 on a CPU, bf16 or else fp16 on a GPU")
    add("--compile", action="store_true", help="torch.compile the networks, for long runs")
    add("--memory", type=number, default=4.0, help="GiB for decoded pictures (default 4)")
    add("--tensorboard", action="store_true", help="also write event files to RUN/tensorboard")
    return data.parse_options(parser)


def default_precision(device):
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def resolve(options, device, world=1):
    """Flags over preset over task -> the settings: a flat dict of plain types, all that is needed
    to repeat the run. Refuses what cannot work, before anything is written."""
    row = data.look_up(options.task)
    model = "semgan" if row["kind"] == "label maps" else "pix2pix"
    preset = options.preset or ("paper" if device.type == "cuda" else "laptop")
    chosen = {"epochs": row["epochs"], "batch": row["batch"], "latent": None, "kernel": None,
              "steps": None, **PRESETS[model][preset]}
    if options.task == "shapes":
        chosen.update(SHAPES_PAPER if preset == "paper" else {})
    flags = {key: value for key, value in vars(options).items()
             if value is not None and key not in ("device", "memory", "tensorboard", "out", "compile")}
    settings = {"model": model, "one_hot": False, "precision": default_precision(device), "data": None,
                **chosen, **flags, "preset": preset, "in_channels": row["in_channels"],
                "out_channels": row["out_channels"], "drawn": False}
    shortest = min(settings["size"])
    settings["depth"] = min(8, int(math.log2(shortest))) if shortest >= 8 else 3
    step = 2 ** settings["depth"]
    if shortest < 64 or any(side % step for side in settings["size"]):
        legal = [max(64, round(side / step) * step) for side in settings["size"]]
        raise Refusal(f"--size {'x'.join(map(str, settings['size']))}: sides must be at least 64 and "
                      f"multiples of {step}; the nearest is {legal[0]}x{legal[1]}")
    if settings["batch"] % world:
        raise Refusal(f"--batch {settings['batch']}: cannot be shared by {world} processes; "
                      f"give a multiple of {world}")
    palette = row["palette"]
    if settings["one_hot"] and (model == "semgan" or row["labels"] != "x"):
        raise Refusal(f"--one-hot: the input of {options.task} is not a label map; leave it out")
    if model == "semgan" and (settings["size"] not in ([64, 64], [128, 128], [256, 256])
                              or settings["kernel"] % 2 == 0):
        raise Refusal("--size and --kernel: SemGAN makes squares of 64, 128 or 256 pixels with odd "
                      "kernels; for example --size 128 --kernel 7")
    settings["palette"] = [[name, list(colour)] for name, colour in palette] if palette else None
    return settings


def locate(settings, out):
    """Finds, fetches or draws the pictures; completes data, drawn and palette; -> the run's folder."""
    folder, drawn = data.locate(settings["task"], settings["data"])
    settings["data"], settings["drawn"] = folder and str(folder), drawn
    if folder:
        palette = data.palette_of(settings["task"], folder)
        settings["palette"] = palette and [[name, list(colour)] for name, colour in palette]
    if settings["one_hot"]:
        settings["in_channels"] = len(settings["palette"])
    if settings["model"] == "semgan":
        settings["out_channels"] = len(settings["palette"]) if settings["head"] == "softmax" else 3
    return Path(out or f"runs/{settings['task']}{'-drawn' if drawn else ''}")


def save_whole(path, content):
    """torch.save, whole or not at all: to another name, forced to disk, then renamed over the old."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:  # an opened file: a full disk is then a clean OSError
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)                     # makes the renaming itself last
        os.close(folder)
    except OSError as error:
        size = sum(t.numel() * t.element_size() for t in tensors_of(content)) / 2 ** 20
        temporary.unlink(missing_ok=True)
        raise Refusal(f"{path}: could not be written ({error.strerror}; it takes {size:.0f} MiB); free "
                      f"some space and give the same command again, the earlier file is whole") from None


def tensors_of(content):
    """All tensors in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, (dict, list, tuple)):
        for part in content.values() if isinstance(content, dict) else content:
            yield from tensors_of(part)


class Run:
    """A run's folder and its clock: batches in, log rows, sheets and checkpoints out.

    parts: the networks and optimisers by their names in checkpoint.pt. sheet() gives a sample sheet,
    uint8 (3, H, W); score() the held-out values for the log, a dict. Only rank 0 writes.
    """

    def __init__(self, context, parts, sheet, score, score_names):
        self.folder, self.settings, self.device = context.folder, context.settings, context.device
        self.rank, self.world, self.parts = context.rank, context.world, parts
        self.sheet, self.score, self.writer = sheet, score, context.writer
        self.score_names = score_names
        self.step, self.signal, self.pending, self.rows = 0, None, [], []
        self.resume()
        self.started = self.saved = self.flushed = self.printed = time.monotonic()
        self.next_sheet, self.first_step = self.started + FIRST_SHEET, self.step

    def resume(self):
        """Takes up checkpoint.pt, if there is one, and cuts log.csv back to its step."""
        path = self.folder / "checkpoint.pt"
        if path.exists():
            content = pix2pix.load_file(path, "move the run's folder away to start afresh")
            try:
                for name, part in self.parts.items():
                    part.load_state_dict(content[name])
                self.step = content["step"]
            except (KeyError, ValueError, RuntimeError):
                raise Refusal(f"{path}: does not fit its settings; move the run's folder away") from None
        if self.rank == 0:
            for stale in self.folder.glob(".*.partial"):
                stale.unlink()
            log = self.folder / "log.csv"
            lines = log.read_text().splitlines(keepends=True) if log.exists() else []
            self.columns = lines[0].strip().split(",") if lines else None
            kept = lines[:1] + [line for line in lines[1:] if line.endswith("\n")
                                and line.count(",") == lines[0].count(",")
                                and int(line.split(",")[0]) <= self.step]
            if kept != lines:
                data.write_whole(log, "".join(kept).encode())

    def batches(self, pictures, epochs, batch):
        """Yields the uint8 batches that are still to come, this process's share of each step's."""
        seed, mine = self.settings["seed"], batch // self.world
        self.per_epoch = len(pictures) // batch
        self.total, self.batch = self.per_epoch * epochs, batch
        self.names, self.first_batch_at = pictures.files, None
        handlers = {s: signal.signal(s, self.stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.step < self.total:
                epoch, done = divmod(self.step, self.per_epoch)
                order = data.epoch_order(len(pictures), mine, seed, epoch, self.rank, self.world)[done:]
                for self.indices, uint8 in zip(order, pictures.batches(order)):
                    torch.manual_seed(step_seed(seed, self.step, self.rank))
                    yield uint8
            self.save()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def chance(self):
        """Where the step's crops and mirrors come from: drawn alike by all, each takes its share."""
        seed = step_seed(self.settings["seed"], self.step, 0)
        return torch.Generator().manual_seed(seed), self.rank, self.world

    def stop(self, number, _):
        """Asks for a stop after this step; the second request does not wait."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        print("\nstopping after this step, and saving", flush=True)

    def finish_step(self, values):
        """Ends a step: values, a dict of scalar tensors, go to the log; saves and stops where due."""
        self.pending.append((self.step, self.indices, torch.stack(
            [v.detach().float().reshape(()) for v in values.values()])))
        self.step += 1
        now, last = time.monotonic(), self.step == self.total
        epoch_ends = self.step % self.per_epoch == 0
        row_due = self.step % LOG_EVERY == 0 or epoch_ends
        poisoned = None
        if row_due or self.signal or now - self.flushed > SHOW_EVERY:
            poisoned = self.flush(list(values))
        poisoned, self.signal = self.agree(poisoned)
        if poisoned:
            sys.exit(f"error: {poisoned}")
        if self.rank == 0:
            if row_due:
                self.write_row(list(values), self.score() if epoch_ends else {})
            if now > self.next_sheet or last or self.signal:
                self.next_sheet = now + LATER_SHEETS
                data.save_picture(self.folder / "samples" / f"{self.step:06d}.png", self.sheet())
                draw_losses(self.folder)
            if self.signal or (epoch_ends and now - self.saved > SAVE_EVERY and not last):
                self.save()
        if self.signal:
            if self.rank == 0:
                print(f"saved at step {self.step:,}; the same command goes on from here")
            sys.exit(128 + self.signal)

    def flush(self, names):
        """Reads the waiting losses off the device. -> a sentence if one of them is not finite."""
        for step, indices, values in self.pending:
            if not torch.isfinite(values).all():
                bad = names[int((~torch.isfinite(values)).nonzero()[0])]
                pictures = ", ".join(Path(str(self.names[i][0])).name for i in indices)
                return (f"step {step}: {bad} is not finite, on {pictures}; nothing of it was saved. "
                        f"Try a smaller --lr, or --precision fp32")
        self.rows += [values.tolist() for _, _, values in self.pending]
        self.pending, self.flushed = [], time.monotonic()
        self.progress(names)

    def agree(self, poisoned):
        """All processes stop at the same step: any one's reason is everybody's."""
        if self.world == 1:
            return poisoned, self.signal
        flags = torch.tensor([float(bool(poisoned)), float(self.signal or 0)], device=self.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return (poisoned or "another process met a loss that is not finite") if flags[0] else None, \
            int(flags[1]) or None

    def progress(self, names):
        """The progress line: rewritten in place on a terminal, now and then elsewhere."""
        now, terminal = time.monotonic(), sys.stdout.isatty()
        if self.rank or not self.rows or now - self.printed < SHOW_EVERY * (1 if terminal else 5):
            return
        self.printed = now
        speed = (self.step - self.first_step) / (now - self.started)       # steps a second
        left = int((self.total - self.step) / speed)
        values = "  ".join(f"{name} {value:.3f}" for name, value in zip(names, self.rows[-1]))
        line = (f"epoch {self.step // self.per_epoch + 1}  step {self.step:,}/{self.total:,}  "
                f"{speed * self.batch:.1f} pictures/s  {left // 60}:{left % 60:02d} left  {values}")
        print(f"\r{line}\x1b[K" if terminal else line, end="" if terminal else "\n", flush=True)

    def write_row(self, names, scores):
        """One row of log.csv: means of the losses since the last row, held-out scores if there are."""
        means = [sum(column) / len(column) for column in zip(*self.rows)]
        if self.columns is None:
            self.columns = ["step", "epoch", "pictures_per_second", *names, *self.score_names]
            data.write_whole(self.folder / "log.csv", (",".join(self.columns) + "\n").encode())
        speed = (self.step - self.first_step) * self.batch / (time.monotonic() - self.started)
        row = {"step": self.step, "epoch": self.step / self.per_epoch, "pictures_per_second": speed,
               **dict(zip(names, means)), **scores}
        data.append_line(self.folder / "log.csv", ",".join(
            f"{row[c]:.6g}" if c in row else "" for c in self.columns))
        for name, value in row.items() if self.writer else ():
            self.writer.add_scalar(name, value, self.step)
        self.rows = []

    def save(self):
        """checkpoint.pt to go on, generator.pt to use; never with a weight that is not finite."""
        if self.rank:
            return
        content = {name: part.state_dict() for name, part in self.parts.items()}
        if not all(torch.isfinite(t).all() for t in tensors_of(content)):
            sys.exit(f"error: step {self.step}: a weight is not finite; nothing of it was saved. "
                     f"Try a smaller --lr, or --precision fp32")
        settings = {**self.settings, "steps": self.step}
        save_whole(self.folder / "checkpoint.pt", {"format": pix2pix.FORMAT, "settings": settings,
                                                   "step": self.step, **content})
        save_whole(self.folder / "generator.pt", {"format": pix2pix.FORMAT, "settings": settings,
                                                  "generator": content["generator"]})
        self.saved = time.monotonic()


def autocast(settings, device):
    """Half-precision convolutions on a GPU; on a CPU they are slower, and fp32 the default."""
    if settings["precision"] == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if settings["precision"] == "bf16" else
                          torch.float16)


def sample_sheet(settings, generator, held_out, device):
    """input | output | target, always of the same held-out pictures and the same noise."""
    uint8 = torch.stack([held_out[i] for i in range(min(SHOWN, len(held_out)))])
    x, y = data.to_network(settings, uint8.to(device))
    fake = pix2pix.generate(generator, x, seed=0)
    rows = list(zip(*(data.to_pixels(settings, x, image) for image in (x, fake, y))))
    half = -(-len(rows) // 2)                              # two pairs of three columns
    rows = [left + (rows[half + i] if half + i < len(rows) else ())
            for i, left in enumerate(rows[:half])]
    return data.contact_sheet(rows, ("input", "output", "target") * (2 if len(rows[0]) > 3 else 1))


def held_out_l1(settings, generator, held_out, device):
    """Mean |y - G(x)| in [-1, 1] units over the held-out pictures (the first 100 of them)."""
    total = count = 0
    for first in range(0, min(100, len(held_out)), 10):
        uint8 = torch.stack([held_out[i] for i in range(first, min(first + 10, len(held_out)))])
        x, y = data.to_network(settings, uint8.to(device))
        total += l1_loss(pix2pix.generate(generator, x, seed=0), y).item() * len(uint8)
        count += len(uint8)
    return total / count


def step_seed(seed, step, rank):
    """One number for all that is random in a step: dropout, latents, and crops by way of it."""
    return (seed * 1_000_003 + step) * 1_009 + rank


def draw_losses(folder):
    """losses.png from log.csv: the losses, D's accuracies, the held-out score."""
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    panels = []
    for title, columns in LOSS_PANELS:
        series = {c: ([float(r["step"]) for r in rows if r.get(c)],
                      [float(r[c]) for r in rows if r.get(c)]) for c in columns if rows and c in rows[0]}
        if series:
            panels.append((title, series))
    data.plot_curves(folder / "losses.png", panels)


LOSS_PANELS = [("adversarial losses", ["D loss", "G adversarial", "feature matching"]),
               ("share that D judges rightly", ["D on real", "D on fake"]),
               ("mean absolute error, in [-1, 1] units", ["L1", "held-out L1"]),
               ("sliced Wasserstein distance, x1000", ["SWD"]),
               ("share of pixels whose colour is no class's", ["out of palette"])]


def event_writer(folder):
    """TensorBoard's writer, which is not among this project's requirements."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise Refusal("--tensorboard: the package is not installed; `pip install tensorboard`, or "
                      "leave the flag out: log.csv and losses.png hold the same values") from None
    return SummaryWriter(folder / "tensorboard")


def adam(network, settings):
    """Adam(0.5, 0.999), pix2pix Sec. 3.3 and SemGAN App. B. The fused kernel reads each weight once:
    on two cores it makes the whole 256x256 step a quarter faster."""
    return torch.optim.Adam(network.parameters(), settings["lr"], betas=(0.5, 0.999), eps=1e-8, fused=True)


def wrapped(network, context):
    """What training steps call: compiled and, among several processes, with gradients averaged."""
    network = torch.compile(network) if context.compile else network
    return DistributedDataParallel(network) if context.world > 1 else network


def train_pix2pix(context, pictures, held_out):
    """pix2pix Sec. 3.3: "one gradient descent step on D, then one step on G". Ends when epochs do."""
    settings, device = context.settings, context.device
    objective = settings["objective"].split("+")           # Table 1: ["l1", "cgan"] by default
    conditional, l1_weight = "cgan" in objective, settings["l1_weight"] * ("l1" in objective)
    torch.manual_seed(settings["seed"])
    generator = pix2pix.build_generator(settings).to(device)
    discriminator = pix2pix.PatchGAN(
        settings["in_channels"] * conditional + settings["out_channels"], settings["width"],
        settings["receptive_field"], settings["norm"]).to(device)
    g_optimizer, d_optimizer = adam(generator, settings), adam(discriminator, settings)
    run = Run(context, {"generator": generator, "discriminator": discriminator,
                        "g_optimizer": g_optimizer, "d_optimizer": d_optimizer},
              sheet=lambda: sample_sheet(settings, generator, held_out, device),
              score=lambda: {"held-out L1": held_out_l1(settings, generator, held_out, device)},
              score_names=["held-out L1"])
    translate, judge = wrapped(generator, context), wrapped(discriminator, context)
    scaler = torch.amp.GradScaler(device.type, enabled=settings["precision"] == "fp16")

    for uint8 in run.batches(pictures, settings["epochs"], settings["batch"]):
        uint8 = data.augment(uint8, settings["size"], pictures.row["mirror"], *run.chance())
        x, y = data.to_network(settings, uint8.to(device))               # (N, 3, 256, 256) each
        given = [x] if conditional else []                               # D(x, y) or D(y), Eq. 1, 2
        values = {}
        with autocast(settings, device):
            fake = translate(x)                                          # G(x, z); z is dropout

        if "gan" in settings["objective"]:                               # the step on D
            with autocast(settings, device):
                both = [torch.cat([t, t]) for t in given] + [torch.cat([y, fake.detach()])]
                real_logits, fake_logits = judge(*both).float().chunk(2)
                d_loss = pix2pix.discriminator_loss(real_logits, fake_logits)
            d_optimizer.zero_grad()
            scaler.scale(d_loss).backward()
            scaler.step(d_optimizer)
            values.update({"D loss": d_loss, "D on real": (real_logits > 0).float().mean(),
                           "D on fake": (fake_logits < 0).float().mean()})

        discriminator.requires_grad_(False)                              # the step on G: D is only
        with autocast(settings, device):                                 # looked through
            fake_logits = discriminator(*given, fake).float() if values else None
            g_loss, adversarial, l1 = pix2pix.generator_loss(fake_logits, fake.float(), y, l1_weight)
        g_optimizer.zero_grad()
        scaler.scale(g_loss).backward()
        scaler.step(g_optimizer)
        scaler.update()
        discriminator.requires_grad_(True)
        run.finish_step({**values, "G adversarial": adversarial, "L1": l1})
    return run


def check_same(folder, settings):
    """Refuses a folder that another run lives in, naming each differing option with both values."""
    if folder.exists() and not folder.is_dir():
        raise Refusal(f"--out {folder}: is a file; give another folder")
    path = folder / "settings.json"
    if not path.exists() or not (folder / "checkpoint.pt").exists():
        return
    try:
        before = json.loads(path.read_text())
    except ValueError:
        raise Refusal(f"{path}: damaged; move the run's folder away to start afresh") from None
    free = {"epochs", "data", "preset", "steps", "precision"}    # may change: longer, or moved
    different = [f"--{key.replace('_', '-')} {before.get(key)} there, {value} now"
                 for key, value in settings.items() if key not in free and before.get(key) != value]
    if different:
        raise Refusal(f"--out {folder}: holds another run ({'; '.join(different)}); give these values "
                      f"again to go on, or another --out")


def lock(folder):
    """Holds the folder for this process; the system lets go even of a killed one's lock."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w")
    except OSError as error:
        raise Refusal(f"--out {folder}: cannot be written ({error.strerror}); give another folder") from None
    try:
        import fcntl  # not on Windows, where two runs in one folder go unnoticed
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except OSError:
        raise Refusal(f"--out {folder}: another process is training there; wait for it, or give "
                      f"another --out") from None
    return handle


def introduce(context, pictures, held_out, started):
    """The first lines: what will happen, on what, where, and how to stop and go on."""
    settings, device = context.settings, context.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else \
        f"cpu, {torch.get_num_threads()} threads"
    other = {"paper": "laptop", "laptop": "paper"}[settings["preset"]]
    steps = len(pictures) // settings["batch"] * settings["epochs"]
    print(f"{settings['model']} on {settings['task']}: torch {torch.__version__}, {where}, "
          f"{settings['precision']}, {context.world} process{'es' * (context.world > 1)}")
    print(f"preset {settings['preset']} (the other: --preset {other}): size "
          f"{'x'.join(map(str, settings['size']))}, width {settings['width']}, "
          f"batch {settings['batch']}, {settings['epochs']} epochs = {steps:,} steps, seed {settings['seed']}")
    print(f"{len(pictures):,} pictures to train on, {len(held_out):,} held out, from "
          f"{settings['data'] or 'drawings'}, {'in memory' if pictures.cache is not None else 'decoded as needed'}"
          f", ready after {time.monotonic() - started:.1f} s")
    print(f"run folder {context.folder}; Ctrl-C saves, the same command goes on", flush=True)


def main():
    started, options = time.monotonic(), parse()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # until there is a run
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = data.device_of(options.device, int(os.environ.get("LOCAL_RANK", 0)))
    settings = resolve(options, device, world)
    folder = locate(settings, options.out)
    check_same(folder, settings)
    pictures, held_out = data.training(settings, options.memory), data.held_out(settings)
    settings["names"] = zlib.crc32("/".join(Path(str(f[0])).name for f in pictures.files).encode())
    if settings["steps"]:                                  # SemGAN counts steps, not epochs
        settings["epochs"] = options.epochs or -(-settings.pop("steps") // (
            len(pictures) // settings["batch"] or 1))
    settings.pop("steps", None)
    if len(pictures) < settings["batch"]:
        raise Refusal(f"--batch {settings['batch']}: more than the {len(pictures)} pictures; give at "
                      f"most that many")
    check_same(folder, settings)
    held_lock = lock(folder) if rank == 0 else None
    context = argparse.Namespace(
        folder=folder, settings=settings, device=device, rank=rank, world=world,
        compile=options.compile,
        writer=event_writer(folder) if options.tensorboard and rank == 0 else None)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if rank == 0:
        data.write_whole(folder / "settings.json", json.dumps(settings, indent=1).encode())
        introduce(context, pictures, held_out, started)
    train = train_pix2pix if settings["model"] == "pix2pix" else train_semgan
    run = train(context, pictures, held_out)
    if rank == 0:
        print(f"\nfinished: {run.step:,} steps; samples in {folder}/samples, the generator in "
              f"{folder}/generator.pt. A larger --epochs trains on.")
    if world > 1:
        dist.destroy_process_group()
    del held_lock


if __name__ == "__main__":
    data.run_command(main)
