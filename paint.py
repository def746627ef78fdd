"""What is it for? Paint a label map in the browser, and see the photo a moment later.

    python paint.py runs/facades [runs/other ...] [--dream runs/semantic-facades]

    page (paint.html)                     this file, on 127.0.0.1
    strokes, 300 ms of rest  --PNG-->     check, data.input_to_network, generator, under a lock
    photo                    <--PNG--     data.to_pixels  <-------- (1, 3, h, w) in [-1, 1]

The application of "Imagine your World" (Sec. 4.3), for label maps, pencil edges or plain pictures.
--dream: label maps from a SemGAN run (its Sec. 6.1). /study: pix2pix Sec. 4.1's real-or-fake test,
a line of RUN/study.jsonl a session, for metrics.py. Copy it with its imports and paint.html.
"""
import base64
import io
import json
import secrets
import select
import socket
import threading
import time
import webbrowser
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from PIL import Image

import data
import pix2pix
import semgan

DEADLINE = 10              # seconds for a request to arrive, and again for its reply to leave
BODY = 8 << 20             # bytes: a 1024x1024 picture with no compression, in base64
PRACTICE, TRIALS = 10, 40  # pix2pix Sec. 4.1
FIELDS = {"run": "", "seed": 0, "png": "", "walk": 0, "session": "", "fake": ""}  # of a request
HEADERS = """Content-Type: {kind}; charset=utf-8 | X-Content-Type-Options: nosniff | \
Cache-Control: no-store | Content-Security-Policy: default-src 'none'; connect-src 'self'; \
img-src data:; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; base-uri 'none'; \
form-action 'none'; frame-ancestors 'none'"""


def read_png(text, size):
    """A PNG in base64, from the page -> uint8 (3, h, w) of exactly this size, or Refusal."""
    with suppress(Exception):                  # on damage Pillow raises some seven kinds
        image = Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"])
        # Only the header is read so far: no bomb goes off. Alpha would vanish without a word.
        if image.size == (size[1], size[0]) and image.mode in ("RGB", "RGBA") and (
                image.convert("RGBA").getextrema()[3][0] == 255):
            return data.to_tensor(image.convert("RGB"))
    raise data.Refusal(f"This must be a whole, opaque RGB PNG of {size[1]}x{size[0]} pixels.")


def png(picture):  # uint8 (3, h, w) -> a PNG in base64, packed lightly because someone is waiting
    file = io.BytesIO()
    data.to_image(picture).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


class Studio:
    """The runs, and a method for each thing that the page can ask of them: it takes a run and a
    request, a dict with FIELDS, and returns a dict. One at a time, under self.lock."""

    def __init__(self, paths, dream=None, device="cpu"):
        self.lock, self.device, self.runs, self.sessions = threading.Lock(), device, {}, {}
        self.dreamer, self.dream_settings = semgan.load_generator(dream) if dream else (None, {})
        for path in map(Path, paths):
            network, settings = pix2pix.load_generator(path)
            labels = settings["palette"] and data.label_side(settings) == "x"
            mode = "labels" if labels else "pencil" if data.TASKS[settings["task"]].sketch else "plain"
            folder = (path if path.is_dir() else path.parent).resolve()
            name = str(path) if folder.name in self.runs else folder.name
            self.runs[name] = {**settings, "name": name, "mode": mode, "folder": folder,
                               "network": network.to(device)}

    def page(self):
        """paint.html, whose script learns of the runs in place of its {ABOUT}."""
        about = json.dumps({"runs": [{key: run[key] for key in ("name", "mode", "size", "palette")}
                                     for run in self.runs.values()], "dream": bool(self.dreamer),
                            "practice": PRACTICE, "trials": TRIALS}).replace("<", "\\u003c")
        return Path(__file__).with_name("paint.html").read_text("utf-8").replace("{ABOUT}", about)

    def photo(self, run, x, seed):             # x float (1, C, h, w) -> uint8 (3, h, w)
        fake = pix2pix.generate(run["network"], x.to(self.device), seed)
        return data.to_pixels(run, x, fake.cpu())[0]

    def translate(self, run, request):
        """A painted picture -> its photo; seed is that of the dropout noise, pix2pix Sec. 3.1."""
        picture = read_png(request["png"], run["size"])[None]                    # (1, 3, h, w)
        if run["mode"] == "labels":
            legal = semgan.colorize(semgan.nearest_class(picture, run["palette"]), run["palette"])
            if not torch.equal(picture, legal):
                raise data.Refusal("The picture has colours that are not in the run's palette.")
        return {"png": png(self.photo(run, data.input_to_network(run, picture), request["seed"]))}

    def pictures(self, run):                   # those held out, opened when first asked for
        run["held out"] = run.get("held out") or data.held_out(run)
        return run["held out"]

    def example(self, run, request):
        """A picture to start from, drawn or held out. The page moves its colours to a class's."""
        if data.TASKS[run["task"]].drawn == "facades":
            return {"png": png(data.draw_pair(request["seed"], run["size"], "pairs")[:3])}
        return {"png": png(self.pictures(run)[request["seed"] % len(self.pictures(run))][:3])}

    def dream(self, run, request):
        """A SemGAN run's label map: step walk of 100 on a round of latents. The page fits it."""
        if not self.dreamer or run["mode"] != "labels":
            raise data.Refusal("Dreams need --dream RUN, and a run that paints label maps.")
        settings, noise = self.dream_settings, torch.Generator().manual_seed(request["seed"])
        z = semgan.walk(torch.randn(4, settings["latent"], generator=noise), frames=25)
        with torch.no_grad():
            output = self.dreamer(z[request["walk"] % 100][None])
        return {"png": png(semgan.to_pixels(output, settings["palette"], settings["head"])[0])}

    def study(self, run, request):
        """A step of a session: starts it, or notes which side was called fake; the next pair."""
        n, token = len(self.pictures(run)), request["session"] or secrets.token_urlsafe(16)
        if not request["session"]:             # 16 sessions at most are kept in memory
            order = [i for _ in range(0, PRACTICE + TRIALS, n)
                     for i in secrets.SystemRandom().sample(range(n), n)]
            new = {"run": run, "order": order, "answers": []}
            self.sessions = dict([*self.sessions.items(), (token, new)][-16:])
        elif token not in self.sessions or request["fake"] not in ("left", "right"):
            raise data.Refusal("This session is over; start a new one.")
        else:
            self.sessions[token]["answers"].append(request["fake"] != self.sessions[token]["fake"])
        run, order, answers = (self.sessions[token][key] for key in ("run", "order", "answers"))
        k, scored = len(answers), answers[PRACTICE:PRACTICE + TRIALS]
        reply = {"session": token, "answered": k, "pictures": n,
                 "fooled": answers[-1] if 0 < k <= PRACTICE else None}  # told in practice, Sec. 4.1
        if len(scored) == TRIALS:
            row = {"format": 1, "algorithm": run["name"], "trials": TRIALS, "fooled": sum(scored),
                   "answers": scored, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            data.append_line(run["folder"] / "study.jsonl", json.dumps(row))
            del self.sessions[token]           # kept by now; else the next answer tries again
            return {**reply, "total": row["fooled"]}
        # Sec. 4.1: of maps, real and fake come from different inputs, or it would be too easy.
        other = order[k - 1] if data.TASKS[run["task"]].unpaired_study else order[k]
        x, y = data.to_network(run, torch.stack([self.pictures(run)[i] for i in (order[k], other)]))
        pair = [self.photo(run, x[1:], seed=k), data.to_pixels(run, x[:1], y[:1])[0]]
        fake = self.sessions[token]["fake"] = secrets.choice(("left", "right"))
        # ONE picture, (3, h, 2 w): no address and no file size tells which half is fake.
        return {**reply, "png": png(torch.cat(pair if fake == "left" else pair[::-1], dim=2))}


ROUTES = {"GET /": None, "GET /study": None, "POST /translate": Studio.translate,  # and no others
          "POST /example": Studio.example, "POST /dream": Studio.dream, "POST /study": Studio.study}


class Handler(BaseHTTPRequestHandler):
    """One request: who asks, for what, how much; then the studio's reply, or a sentence."""
    default_request_version = "HTTP/1.0"       # so that noise, too, is answered with headers
    timeout = DEADLINE                         # of sending the reply
    log_message = lambda self, *words: None    # the terminal shows faults, not visits

    def handle(self):
        # A timeout starts anew with each byte, so a dripping client outlives it; a timer does not.
        self.timer = threading.Timer(DEADLINE, self.connection.shutdown, [socket.SHUT_RD])
        self.timer.daemon = True               # Ctrl-C need not wait for it
        self.timer.start()
        with suppress(ConnectionError, TimeoutError):  # who leaves early needs no reply
            super().handle()
        self.timer.cancel()

    def fault(self):  # the status that refuses, or 0: all that can be wrong before the body
        names, post, get = self.server.names, self.command == "POST", self.headers.get_all
        names = {*names, "{}:{}".format(*self.connection.getsockname())}   # of --host 0.0.0.0
        hosts, origins, sizes = (get(h, []) for h in ("Host", "Origin", "Content-Length"))
        size = sizes[0] if len(sizes) == 1 and sizes[0].isascii() else ""
        return next((status for status, wrong in (
            (403, len(hosts) != 1 or hosts[0] not in names),
            (403, {*origins} - {f"http://{name}" for name in names}),
            (404, self.route not in ROUTES),
            (415, post and self.headers.get_content_type() != "application/json"),
            (411, post and (not sizes or "Transfer-Encoding" in self.headers)),
            (400, post and not size.isdigit()),
            (413, size.isdigit() and int(size.lstrip("0")[:20] or 0) > BODY)) if wrong), 0)

    def do_GET(self):
        studio, self.route = self.server.studio, " ".join(self.requestline.split()[:2])
        if status := self.fault():
            return self.send_error(status)
        if self.command == "GET":
            return self.reply(200, studio.page(), "text/html")
        try:
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = {key: type(v)(given.get(key, v)) for key, v in FIELDS.items()}
            request["seed"] %= 2 ** 32         # torch takes no more than 64 bits
            run = studio.runs[request["run"]]  # a name is looked up, and never becomes a path
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError):
            return self.send_error(400)        # cut short, too late, or of the wrong kind
        self.timer.cancel()                    # all has arrived; what follows takes its time
        with studio.lock:
            # The page may have hung up, having sent something newer: then a read finds the end.
            if select.select([self.connection], [], [], 0)[0] and not self.rfile.peek(1):
                return
            try:
                content = ROUTES[self.route](studio, run, request)
            except data.Refusal as refusal:
                return self.reply(400, str(refusal))
        self.reply(200, json.dumps(content), "application/json")
    do_POST = do_GET

    def send_error(self, code, *words):        # the library's own refusals come this way, too
        self.reply(code, f"{self.responses[code][0]}.")

    def reply(self, status, content, kind="text/plain"):
        nonce = secrets.token_urlsafe(16)      # the page's own script and style run, and no others
        self.send_response(status)
        for header in HEADERS.format(kind=kind, nonce=nonce).split(" | "):
            self.send_header(*header.split(": ", 1))
        self.end_headers()
        self.wfile.write(content.replace("{NONCE}", nonce).encode())


def open_server(studio, host, port):
    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as why:
        raise data.Refusal(f"--host {host}:{port}: {why}; try --port 0, or no --host") from None
    server.socket.listen(128)      # the library's 5 would let idle visitors keep others waiting
    server.studio, names = studio, ("localhost", "127.0.0.1", "[::1]", host)
    server.names = {f"{name}:{server.server_port}".removesuffix(":80") for name in names}
    return server


def main():
    parser = data.new_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that train.py wrote")
    parser.add_argument("--dream", metavar="RUN", help="a SemGAN run, for label maps from noise")
    parser.add_argument("--port", type=int, default=8256, help="default 8256")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine only")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    options = data.parse_options(parser)
    studio = Studio(options.runs, options.dream, data.device_of(options.device))
    server = open_server(studio, options.host, options.port)
    address = f"http://{options.host}:{server.server_port}/"
    if options.host not in ("localhost", "127.0.0.1"):
        print(f"WARNING: --host {options.host} lets every machine that reaches it use this server.")
    print(f"paint: {address}   real or fake: {address}study   Ctrl-C ends it", flush=True)
    with server:
        if not options.no_browser:
            threading.Timer(0.3, webbrowser.open, [address]).start()
        server.serve_forever()


if __name__ == "__main__":
    data.run_command(main)
