"""What is it for? Paint a label map in the browser, and see its photo while the pen still moves.

    python paint.py runs/facades [runs/other ...] [--dream runs/semantic-facades]

    page (paint.html)                            this file, on 127.0.0.1
    class numbers, a byte a pixel  --base64-->   painted(): checked, coloured
    and a seed for the dropout                   data.input_to_network   (1, 3, h, w) in [-1, 1]
                                                 pix2pix's generator, under a lock
    photo                          <--PNG-----   data.to_pixels          (3, h, w), 0-255

The application of "Imagine your World" (Sec. 4.3), for label maps, pencil edges or plain pictures.
The page asks again as soon as an answer has come, so photos follow the pen as fast as the machine
makes them. It never reads a canvas back: browsers may add noise to what they give (against
fingerprinting) or shift its colours (for wide screens). Only numbers travel, and files as they are.

--dream draws label maps from a SemGAN run (its Sec. 6.1). "Look inside" shows what a run's networks
do: what D thinks of each patch, what each skip carries, where the noise enters. /study is pix2pix
Sec. 4.1's real-or-fake test; each session leaves a line in RUN/study.jsonl, for metrics.py.
To copy it out, take it with the files that it imports and with paint.html.
"""
import base64
import io
import json
import os
import re
import secrets
import select
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

if __name__ == "__main__":
    if sys.version_info < (3, 11):                         # as requirements.txt needs
        print("error: Python: 3.11 or newer is needed; see Set-up in README.md", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")    # see train.py: the browser is busy, too
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

import torch
from torch.overrides import TorchFunctionMode

import data
import pix2pix
import semgan

PRACTICE = 10   # trials of a study with answers, pix2pix Sec. 4.1
TRIALS = 40     # and those that count
SESSIONS = 16   # studies at most that are kept at once; the oldest gives way
MOST_SIDE = 4096        # of a photo that is enlarged: 50 MB in memory
LARGEST = 24_000_000    # bytes of a file that the page opens: FILE_BODY holds it in base64

# What a request may hold, each with its value where the request leaves it out; what comes is
# brought to that value's type.
FIELDS = {
    "run": "",          # the name of one of the runs
    "seed": 0,          # the number of the dropout's noise, of an example, or of a dream
    "cells": "",        # the picture in base64, as painted() reads it
    "muted": [],        # skips that carry zeros, by number
    "quiet": [],        # dropouts that are off, by number
    "judge": "",        # "fake": D judges the photo made; "real": an example's; "": none
    "example": 0,       # that example's number
    "beside": False,    # whether the reply's picture has the map on the photo's left
    "enlarged": [],     # [h, w] to bring the photo to; [] leaves it as it is
    "file": "",         # an opened file in base64
    "name": "",         # and what it is called
    "walk": 0,          # how far to walk from a dream, in hundredths of the round
    "session": "",      # the token of a study under way; "" begins one
    "answered": 0,      # how many of its answers the page knows to have arrived
    "fake": "",         # the next answer: "left" or "right"
}


class Studio:
    """The runs, and a method for each thing that the page can ask of them: it takes a run and a
    request, a dict with FIELDS, and returns a dict. One at a time, under self.lock."""

    def __init__(self, paths, dream=None, device="cpu"):
        self.lock = threading.Lock()
        self.device = device
        self.runs = {}                          # name -> settings, and what open_run adds
        self.sessions = {}                      # token -> a study, or one that is finished
        self.dreamer = None
        if dream:
            self.dreamer, self.dream_settings = semgan.load_generator(dream)
        for path in map(Path, paths):
            self.open_run(path)

    def open_run(self, path):
        network, settings = pix2pix.load_generator(path)
        channels = data.channels_of(settings, "x")
        if channels not in (1, 3):
            raise data.Refusal(f"{path}: its input has {channels} channels, which nobody can paint;"
                               f" translate files: python pix2pix.py {path} IN OUT")
        folder = path if path.is_dir() else path.parent
        folder = folder.resolve()
        name = folder.name if folder.name not in self.runs else str(path)
        self.runs[name] = {**settings, "name": name, "mode": mode_of(settings), "folder": folder,
                           "network": network.to(self.device)}

    def page(self):
        """paint.html, whose script learns of the runs in place of its {ABOUT}."""
        about = {"runs": [about_run(run) for run in self.runs.values()],
                 "dream": self.dreamer is not None, "practice": PRACTICE, "trials": TRIALS,
                 "largest": LARGEST}
        text = json.dumps(about).replace("<", "\\u003c")   # no name ends the script
        return Path(__file__).with_name("paint.html").read_text("utf-8").replace("{ABOUT}", text)

    def translate(self, run, request):
        """A painted picture -> its photo; with "judge", what D thinks of it, too."""
        picture = painted(run, request["cells"])           # uint8 (3, h, w)
        x = data.input_to_network(run, picture[None])
        steps = run["network"].depth - 1                   # the decoder's, each with its skip
        muted = numbers_below(request["muted"], steps, "skip")
        quiet = numbers_below(request["quiet"], steps, "dropout")
        fake = pix2pix.generate_without(run["network"], x.to(self.device), request["seed"],
                                        muted, quiet)
        photo = data.to_pixels(run, x, fake.cpu())[0]
        reply = {}
        if request["judge"]:
            reply["judged"] = self.judge(run, request, x.to(self.device), fake)
        if request["beside"]:
            photo = torch.cat([picture, photo], dim=2)     # (3, h, 2 w)
        if request["enlarged"]:
            labels = data.label_side(run) == "y"
            photo = data.resize(photo, sides_of(request["enlarged"]), nearest=labels)
        return {"png": png(photo), **reply}

    @torch.no_grad()
    def judge(self, run, request, x, fake):
        """D's logits for x and its photo, or for x and the real photo of an example."""
        if "discriminator" not in run:                     # read when first asked for
            run["discriminator"] = pix2pix.load_discriminator(run["folder"] / "checkpoint.pt")
        discriminator = run["discriminator"].to(self.device)
        y = fake
        reply = {}
        if request["judge"] == "real":
            pair = self.pair(run, request["example"])
            y = data.to_network(run, pair[None])[1].to(self.device)
            reply["real"] = png(both_of(run, pair)[1])
        logits = pix2pix.logits_of(discriminator, x, y)[0, 0]      # (30, 30)
        reply["logits"] = [round(logit, 3) for logit in logits.flatten().tolist()]
        return {**reply, **pix2pix.patch_grid(discriminator, run["size"])}

    def pictures(self, run):
        """Those held out of training, each decoded when it is asked for."""
        if "held out" not in run:
            run["held out"] = data.held_out(run, memory=0)
        return run["held out"]

    def pair(self, run, number):
        """A held-out picture, uint8 (C, h, w), x above y; where they have gone, a drawn facade."""
        try:
            pictures = self.pictures(run)
            return pictures[number % len(pictures)]
        except data.Refusal as refusal:
            if data.TASKS[run["task"]].drawn != "facades":
                why = str(refusal).split(";")[0]           # the rest advises train.py's user
                sentence = f"No example ({why}); paint a picture, or open one."
                raise data.Refusal(sentence) from None
            return data.drawn_picture(run, number, run["size"])

    def example(self, run, request):
        """A picture to start from, and the real photo that belongs to it."""
        pair = self.pair(run, request["seed"])
        x, y = both_of(run, pair)
        return {"cells": cells_of(run, x), "photo": png(y)}

    def read(self, run, request):
        """An opened file, read as training reads its pictures; and what was done, in words."""
        return read_file(run, request["file"], request["name"])

    def dream(self, run, request):
        """A SemGAN run's label map: step walk of 100 on a round of four latents."""
        if not self.dreamer or run["mode"] != "labels":
            raise data.Refusal("Dreams need --dream RUN, and a run that paints label maps.")
        settings = self.dream_settings
        rng = torch.Generator().manual_seed(request["seed"])
        latents = torch.randn(4, settings["latent"], generator=rng)
        round_trip = semgan.walk(latents, frames=25)       # 4 times 25
        z = round_trip[request["walk"] % len(round_trip)]
        with torch.no_grad():
            output = self.dreamer(z[None])
        picture = semgan.to_pixels(output, settings["palette"], settings["head"])[0]
        return {"cells": cells_of(run, fitted(run, picture, []))}

    def study(self, run, request):
        """A step of a session: starts it, or notes an answer -> the next pair, or the total."""
        token = request["session"] or self.begin_session(run)
        if token not in self.sessions:
            raise data.Refusal("This session is over; start a new one.")
        session = self.sessions[token]
        run = session["run"]
        if request["session"]:
            note_answer(session, request)
        answers = session["answers"]
        reply = {"session": token, "answered": len(answers), "pictures": len(self.pictures(run)),
                 "fooled": None}
        if 0 < len(answers) <= PRACTICE:                   # in practice each mistake is told
            reply["fooled"] = answers[-1]
        if len(answers) == PRACTICE + TRIALS:
            if "total" not in session:          # where keeping fails, the next answer tries again
                session["total"] = self.keep_session(run, answers[PRACTICE:])
            return {**reply, "total": session["total"]}
        session["fake"] = secrets.choice(("left", "right"))
        picture = self.trial(run, session["order"], session["shown"], session["fake"])
        session["shown"] += 1           # after a reload a pair not answered is no pair seen twice
        return {**reply, "png": png(picture)}

    def begin_session(self, run):
        """-> the token of a new session, whose pictures come in an order of their own."""
        count = len(self.pictures(run))
        order = []
        while len(order) < PRACTICE + TRIALS:              # few pictures come back
            order += secrets.SystemRandom().sample(range(count), count)
        token = secrets.token_urlsafe(16)
        self.sessions[token] = {"run": run, "order": order, "answers": [], "shown": 0}
        for oldest in list(self.sessions)[:-SESSIONS]:
            del self.sessions[oldest]
        return token

    def trial(self, run, order, k, fake_side):
        """Pair k: a real photo and a fake one, joined: (3, h, 2 w). One picture: no address and
        no file size tells which half is fake."""
        # Sec. 4.1: of maps, real and fake come from different inputs, or it would be too easy.
        this = order[k % len(order)]
        other = order[(k - 1) % len(order)] if data.TASKS[run["task"]].unpaired_study else this
        pictures = self.pictures(run)
        x, y = data.to_network(run, torch.stack([pictures[this], pictures[other]]))
        real = data.to_pixels(run, x[:1], y[:1])[0]
        fake = pix2pix.generate(run["network"], x[1:].to(self.device), seed=k).cpu()
        fake = data.to_pixels(run, x[1:], fake)[0]
        return torch.cat([fake, real] if fake_side == "left" else [real, fake], dim=2)

    def keep_session(self, run, scored):
        """Adds a session to the run's study.jsonl -> how many fakes were taken for real."""
        row = {"format": 1, "algorithm": run["name"], "trials": TRIALS, "fooled": sum(scored),
               "answers": scored, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        try:
            data.append_line(run["folder"] / "study.jsonl", json.dumps(row))
        except data.Refusal as refusal:
            raise NotKept(f"{refusal}; then give the last answer again.") from None
        return row["fooled"]


def note_answer(session, request):
    """Adds whether the person was fooled to a session's answers; not of an answer that comes again,
    as its reply was lost on the way."""
    answers = session["answers"]
    comes_again = request["answered"] != len(answers)
    if comes_again or len(answers) == PRACTICE + TRIALS:
        return
    if request["fake"] not in ("left", "right"):
        raise data.Refusal("An answer is left or right.")
    answers.append(request["fake"] != session["fake"])


ROUTES = {                                                 # and no others
    "GET /": None, "GET /study": None,                     # the page, which shows one or the other
    "POST /translate": Studio.translate, "POST /example": Studio.example,
    "POST /read": Studio.read, "POST /dream": Studio.dream, "POST /study": Studio.study,
}


# What the page keeps of a picture, and how it is made: numbers in, pictures out.

def mode_of(settings):
    """How a run is painted: by the classes of its "labels", in "pencil", or in "plain" colours."""
    if data.label_side(settings) == "x":
        return "labels"
    return "pencil" if data.sketched(settings) else "plain"


def about_run(run):
    """What the page must know of a run."""
    network = run["network"]
    skips = range(network.depth - 1) if network.skips else []
    trained_d = "gan" in run.get("objective", "l1+cgan")
    grids = [pix2pix.patch_grid(pix2pix.PatchGAN(2, 1, field), run["size"])
             for field in pix2pix.PatchGAN.LAYERS]
    return {"grids": [grid for grid in grids if min(grid["rows"], grid["columns"]) > 0],
            "name": run["name"], "mode": run["mode"], "size": run["size"],
            "palette": run["palette"], "depth": network.depth, "skips": list(skips),
            "dropouts": list(network.dropout_at),
            "judge": trained_d and (run["folder"] / "checkpoint.pt").is_file()}


def both_of(run, pair):
    """A held-out picture, uint8 (C, h, w) -> x and y to look at, uint8 (3, h, w)."""
    x = pair[:data.channels_of(run, "x")]
    y = pair[-data.channels_of(run, "y"):]
    return data.first_three(x[None])[0], data.first_three(y[None])[0]


def painted(run, cells):
    """The page's picture in base64 -> uint8 (3, h, w). Of label maps it keeps class numbers, a byte
    a pixel; of others red, green and blue."""
    h, w = run["size"]
    channels = 1 if run["mode"] == "labels" else 3
    content = b""
    with suppress(ValueError):                             # what is no base64 is 0 bytes long
        content = base64.b64decode(cells, validate=True)
    if len(content) != h * w * channels:
        raise data.Refusal(f"A picture for this run is {w}x{h} pixels of {channels} bytes, in "
                           f"base64; {len(content)} bytes came.")
    pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(h, w, channels)
    if channels == 3:
        return pixels.permute(2, 0, 1).contiguous()
    classes = len(run["palette"])
    if pixels.max() >= classes:
        raise data.Refusal(f"The picture has class {pixels.max()}; this run's are 0 to "
                           f"{classes - 1}.")
    return data.colorize(pixels[:, :, 0], run["palette"])


def cells_of(run, picture):
    """uint8 (3, h, w) of the run's size -> the same as the page keeps it, in base64. A pixel whose
    colour is no class's takes a class near it."""
    pixels = picture.permute(1, 2, 0).contiguous()         # (h, w, 3)
    if run["mode"] == "labels":
        pixels = torch.from_numpy(data.clean_label_map(pixels.numpy(), run["palette"]))
    return base64.b64encode(pixels.numpy().tobytes()).decode()


def png(picture):  # uint8 (3, h, w) -> a PNG in base64, packed lightly because someone is waiting
    file = io.BytesIO()
    data.to_image(picture).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def fitted(run, picture, words):
    """uint8 (3, H, W) of any size -> the run's, from the middle. What was done joins the words."""
    h, w = run["size"]
    rows, columns = picture.shape[1:]
    tall, wide = largest_part(run, picture)
    if (tall, wide) != (rows, columns):
        top = (rows - tall) // 2
        left = (columns - wide) // 2
        picture = picture[:, top:top + tall, left:left + wide]
        words.append(f"cropped from {columns}x{rows} to {wide}x{tall}, its middle")
    if (tall, wide) != (h, w):
        words.append(f"resized to {w}x{h}, the scale that this run knows")
    if run["mode"] == "pencil":                            # as input_to_network cleans a user's own
        lines = data.clean_sketch(picture[None], [h, w])[0]
        return lines.expand(3, -1, -1).contiguous()
    return data.resize(picture, [h, w], nearest=run["mode"] == "labels")


def largest_part(run, picture):
    """[height, width] of the largest part of uint8 (3, H, W) that has the run's proportions."""
    h, w = run["size"]
    scale = min(picture.shape[1] / h, picture.shape[2] / w)
    return [max(round(h * scale), 1), max(round(w * scale), 1)]


@contextmanager
def saved(file, name):
    """An opened file in base64, written for as long as the `with` lasts, as data.py reads files.
    Of its name the path keeps what says that the numbers are Cityscapes' own (data.holds_ids), and
    a refusal has it in the path's place."""
    ids = re.search(r"_label(Train)?Ids(?=\.\w+$)", name)
    kept = ids[0] if ids else ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x{kept}.png")                # pictures are known by what they hold
        with suppress(ValueError):                         # what is no base64 becomes no file
            path.write_bytes(base64.b64decode(file, validate=True))
        try:
            yield path
        except data.Refusal as refusal:                    # whoever opened it cannot look there
            sentence = str(refusal).replace(str(path), name or "This file")
            raise data.Refusal(sentence) from None


# How data.label_map_in has read a label map, where that is worth a word.
READINGS = {"by number": "its numbers read as classes",
            "by row": "the rows of its palette read as classes"}


def read_file(run, file, name):
    """A file that was opened in the page -> its cells, and what was done with it, in words."""
    words = []
    with saved(file, name) as path:
        stored = data.read_stored(path)
        stored.learned = run.get("reading")                # what it leaves open, its run tells
        try:
            picture = picture_in(run, stored, words)
        except NoLabelMap:                                 # the page then lays it under the map
            return {"photo": True, "words": "a photo, as it seems, and no label map"}
    size = largest_part(run, picture)
    own_size = None                                        # which its photo can be brought to
    if size != run["size"] and max(size) <= MOST_SIDE:
        own_size = size
    picture = fitted(run, picture, words)
    if run["mode"] == "labels":
        off = torch.from_numpy(data.distances_of(picture.flatten(1).T, run["palette"]))
        moved = off > (data.NEAR if stored.lossy else 0)   # a JPEG moves nearly all a little
        if moved.any():
            words.append(f"{share_of(moved)} moved to a class, as their colours were none's")
        if off.any() and stored.lossy:
            words.append("its format smears colours, so thin parts may be read wrong: save maps as "
                         "PNG")
    return {"cells": cells_of(run, picture), "words": "; ".join(words) or "taken as it is",
            "size": own_size}


class NoLabelMap(Exception):
    """An opened file is a photo, as it seems."""


def picture_in(run, stored, words):
    """A file's picture as training reads it, uint8 (3, H, W); of a pair its x. What was done joins
    the words. NoLabelMap, where a photo is opened in place of one."""
    pair = is_pair(run, stored)
    if pair:
        side = "right" if data.direction_of(run) == "BtoA" else "left"
        kind = "label half" if run["mode"] == "labels" else "half"
        words.append(f"the {kind} of a pair taken, its {side}")
    if run["mode"] != "labels":
        picture = data.read_input(run, stored.path, pair=pair)     # uint8 (3, H, W), or 1 channel
        return data.first_three(picture[None])[0]
    if pair:
        left, right = data.halves(stored)
        return labels_in(run, right if side == "right" else left, words)
    try:
        data.refuse_a_whole_pair(run, stored)
        return labels_in(run, stored, words)
    except data.Refusal:
        if like_a_photo(run, stored):
            raise NoLabelMap from None
        raise


def labels_in(run, stored, words):
    """A label map in its classes' colours, uint8 (3, H, W); with smeared colours as it is. It is
    read once, as a large one takes seconds."""
    with data.offering_no_palette():
        classes, how = data.label_map_in(stored, run["palette"])
    if classes is None:
        return data.to_tensor(data.shown_colours(stored))
    words += [READINGS[kind] for kind in READINGS if how.startswith(kind)]
    classes = torch.from_numpy(classes)
    ignored = classes == 255                               # which no paint shows
    if ignored.any():
        first = run["palette"][0][0]
        words.append(f"{share_of(ignored)}, to ignore, painted as {first}")
    return data.colorize(classes.masked_fill(ignored, 0), run["palette"])


def share_of(marked):
    """bool, a value a pixel -> how many of a picture's it marks, in words."""
    share = marked.float().mean().item()
    words = f"{share:.1%}"
    if share < 0.001:
        words = "under 0.1%"
    return f"{words} of its pixels"


def like_a_photo(run, stored):
    """Whether what was refused has more colours than a label map, and mostly others. Asked of all
    files, it would be too strict: of 400 real maps that a JPEG has smeared, 23 look so, too."""
    if stored.bands is not None:                           # more than 8 bits: numbers
        return False
    with data.refusing(stored.path):
        # None if there are more than 256 colours: a label map of a byte a pixel has no more.
        many = data.shown_colours(stored).getcolors(256) is None
        return many and data.share_of_classes(stored, run["palette"]) < 0.5   # so mostly others


def is_pair(run, stored):
    """Whether an opened file is a pair side by side. A wide label map has that shape, too."""
    if not data.is_two_halves(stored, run["size"]) or data.TASKS[run["task"]].kind != "pairs":
        return False
    if run["mode"] != "labels":
        return True
    return data.label_half(stored, run["palette"]) is not None


def numbers_below(values, end, what):
    """A request's list -> whole numbers from 0 to end - 1, or Refusal."""
    for value in values:
        if type(value) is not int or not 0 <= value < end:
            raise data.Refusal(f"There is no {what} of that number in this run.")
    return tuple(values)


def sides_of(size):
    """A request's [h, w] -> the same, or Refusal."""
    if len(size) != 2 or any(type(side) is not int or not 0 < side <= MOST_SIDE for side in size):
        raise data.Refusal(f"A photo is enlarged to [height, width]; each is at most {MOST_SIDE}.")
    return size


# The server: who may ask, for what, how much. Skip it on first reading.

DEADLINE = 10         # seconds for a request to arrive, and again for its reply to leave
BODY = 8 << 20        # bytes of a request: a 1024x1024 picture in base64
FILE_BODY = 32 << 20  # of one that brings an opened file
LOCAL = ("localhost", "127.0.0.1", "[::1]")
HOST = r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?"        # a name, and maybe a port
POLICY = ("default-src 'none'; connect-src 'self'; img-src data: blob:; "
          "script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; base-uri 'none'; "
          "form-action 'none'; frame-ancestors {frames}")


class Gone(Exception):
    """Whoever asked has hung up."""


class NotKept(Exception):
    """A finished study could not be written; its last answer may come again."""


class WhileWanted(TorchFunctionMode):
    """Within this, torch looks before each step whether the asker is still there. A page that has
    something newer to ask hangs up, and need not wait for the rest of an old photo."""

    def __init__(self, connection):
        super().__init__()
        self.connection = connection

    def check(self):
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise Gone

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.check()
        return function(*args, **(kwargs or {}))


class Handler(BaseHTTPRequestHandler):
    """One request: who asks, for what, how much; then the studio's reply, or a sentence."""
    default_request_version = "HTTP/1.0"       # so that noise, too, is answered with headers
    timeout = DEADLINE                         # of sending the reply

    def handle(self):
        # A timeout starts anew with each byte, so a dripping client outlives it; a timer does not.
        self.timer = threading.Timer(DEADLINE, self.connection.shutdown, [socket.SHUT_RD])
        self.timer.daemon = True               # Ctrl-C need not wait for it
        self.timer.start()
        with suppress(ConnectionError, TimeoutError, Gone):   # who leaves early needs no reply
            super().handle()
        self.timer.cancel()

    def stranger(self):
        """Why the asker is refused, or None. A page of another name could otherwise reach this
        server through its visitor's browser, by making its name mean 127.0.0.1. Ports may differ:
        a tunnel, a container or a notebook's proxy asks from another one."""
        names = {*self.server.names, self.connection.getsockname()[0]}   # of --host 0.0.0.0
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            return "A request names one Host."
        origins = self.headers.get_all("Origin", [])
        askers = [("Host", HOST, text) for text in hosts]
        askers += [("Origin", "https?://" + HOST, text) for text in origins]
        for header, pattern, text in askers:
            match = re.fullmatch(pattern, text.lower())
            if not match:
                return f"This {header} is not served."
            name = match[1]
            if name not in names:
                return (f"{header} {name[:60]} is unknown here: open http://127.0.0.1:"
                        f"{self.server.server_port}/, or add --allow-host {name[:60]}.")
        return None

    def fault(self):
        """(status, sentence or "") of all that can be wrong before the body, or None."""
        sentence = self.stranger()
        if sentence:
            return 403, sentence
        if self.route not in ROUTES:
            return 404, ""
        if self.command == "POST" and self.headers.get_content_type() != "application/json":
            return 415, ""
        sizes = self.headers.get_all("Content-Length", [])
        if self.command == "POST" and (not sizes or "Transfer-Encoding" in self.headers):
            return 411, ""
        size = sizes[0] if sizes else "0"
        if len(sizes) > 1 or not size.isascii() or not size.isdigit():
            return 400, ""
        self.size = int(size.lstrip("0")[:20] or 0)        # 20 digits are over any limit
        most = FILE_BODY if self.route == "POST /read" else BODY
        if self.size > most:
            return 413, f"That is too much: at most {most >> 20} MiB."
        return None

    def request_in_body(self):
        """-> a dict of FIELDS, or None where the body was cut short or makes no sense."""
        try:
            body = json.loads(self.rfile.read(self.size))
            request = {}
            for name, default in FIELDS.items():
                request[name] = type(default)(body.get(name, default))
            request["seed"] %= 2 ** 32         # torch takes no more than 64 bits
            return request
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def do_GET(self):
        self.route = " ".join(self.requestline.split()[:2])
        fault = self.fault()
        if fault:
            return self.refuse(*fault)
        return self.reply(200, self.server.studio.page(), "text/html")

    def do_POST(self):
        self.route = " ".join(self.requestline.split()[:2])
        fault = self.fault()
        if fault:
            return self.refuse(*fault)
        request = self.request_in_body()
        if request is None:
            return self.refuse(400)
        self.timer.cancel()                    # all has arrived; what follows takes its time
        studio = self.server.studio
        run = studio.runs.get(request["run"])  # a name is looked up, and never becomes a path
        if run is None:                        # as when paint.py was started anew, with others
            return self.refuse(400, "paint.py has no run of this name now; reload the page.")
        with studio.lock:
            wanted = WhileWanted(self.connection)
            wanted.check()                     # it may have gone while it waited for the lock
            try:
                with wanted:
                    content = ROUTES[self.route](studio, run, request)
            except (data.Refusal, pix2pix.Refusal) as refusal:
                return self.refuse(400, str(refusal))
            except NotKept as why:             # a fault of this side, so it may pass
                return self.refuse(507, str(why))
        return self.reply(200, json.dumps(content), "application/json")

    def refuse(self, status, sentence=""):
        self.reply(status, sentence or f"{self.responses[status][0]}.")

    def send_error(self, code, message=None, explain=None):
        self.refuse(code)                      # the library's own refusals come this way, too

    def log_message(self, format, *arguments):
        """The terminal shows faults, not visits."""

    def reply(self, status, content, kind="text/plain"):
        nonce = secrets.token_urlsafe(16)      # the page's own script and style run, and no others
        policy = POLICY.format(nonce=nonce, frames=self.server.frames)
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(content.replace("{NONCE}", nonce).encode())


class Server(ThreadingHTTPServer):
    # Elsewhere the port of a server that has ended is free at once; on Windows two could share one.
    allow_reuse_address = os.name == "posix"


def open_server(studio, host, port, allowed=()):
    """A server of the studio that is bound, and so can be reached, but does not answer yet.
    allowed: names beside the local ones that it may be asked by, and whose frames may hold it."""
    try:
        server = Server((host, port), Handler)
    except (OSError, OverflowError) as why:
        raise data.Refusal(f"--host {host}:{port}: {why}; try --port 0, or no --host") from None
    server.socket.listen(128)      # the library's 5 would let idle visitors keep others waiting
    server.studio = studio
    allowed = [name.lower() for name in allowed]
    server.names = {*LOCAL, host.lower(), *allowed}
    frames = [f"http://{name}:* https://{name}:*" for name in allowed]
    server.frames = " ".join(frames) or "'none'"
    return server


def host_name(text):
    """An argparse type: a host's name, without a port."""
    match = re.fullmatch(HOST, text.lower())
    if not match or match[2]:
        raise ValueError
    return text


def main():
    parser = data.new_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that train.py wrote")
    parser.add_argument("--dream", metavar="RUN", help="a SemGAN run, for label maps from noise")
    parser.add_argument("--port", type=int, default=8256, help="default 8256")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine only")
    parser.add_argument("--allow-host", metavar="NAME", type=host_name, action="append", default=[],
                        help="a name, beside the local ones, that browsers may know this server "
                             "by (behind a proxy), and whose pages may show it in a frame")
    parser.add_argument("--device", help="cpu, cuda or mps (default: a GPU where there is one)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    options = data.parse_options(parser)
    studio = Studio(options.runs, options.dream, data.device_of(options.device))
    server = open_server(studio, options.host, options.port, options.allow_host)
    address = f"http://{options.host}:{server.server_port}/"
    if options.host not in LOCAL:
        print(f"WARNING: --host {options.host} lets every machine that reaches it use this server.")
    print(f"paint: {address}   real or fake: {address}study   Ctrl-C ends it", flush=True)
    with server:
        if not options.no_browser:
            threading.Timer(0.3, webbrowser.open, [address]).start()
        server.serve_forever()


if __name__ == "__main__":
    data.run_command(main)
