#!/usr/bin/env bash
# FFmpeg: a video of label maps, stored in grey by lossless H.264, comes back without its classes.
#
# Versions: PyAV 18.1.0 (its wheel holds FFmpeg and x264), OpenCV 5.0.0.93 (headless; another
#   FFmpeg in its wheel), imageio 2.38.1, numpy 2.4.6.
# Guess: maps of classes 0-18 and void 255 are frames of one grey byte a pixel. A lossless codec
#   that takes the pixel format gray gives the same bytes back: FFV1, H.265 with lossless=1, and
#   x264 with qp=0, which is lossless by its text.
# What happens: FFV1 and H.265 do. H.264 does not: each class up to 16 comes back as 0, 17 and 18 as
#   1 and 2, and void as 255. The bytes of the file are right, to the last one (the luma plane of a
#   decoded frame). But x264 writes no range into the stream for gray, and FFmpeg's H.264 decoder
#   hands grey out as yuv420p, which without a range means 16-235, so that turning it to grey or RGB
#   stretches it. The same maps with color_range "full" set on encoder and frames are right. In
#   yuv420p, which is what PyAV and imageio take if no format is named, FFV1 gives 220 levels to 256
#   numbers: classes 4, 11 and 18 are one too low.
# Why it matters: a mask of 0 and 255 comes back right, and a grey photo has only a little more
#   contrast. A clip of class numbers is black, nearly all of it; numbers spread over 0-255 to be
#   seen become others. Nothing is said, the encoder calls it lossless, and it is.
# Seen (what each class has become; PyAV, and the same file by OpenCV and by imageio):
#   classes                                    0 1 4 11 16 17 18 100 234 255
#   FFV1, gray, PyAV                           0 1 4 11 16 17 18 100 234 255; luma right: True
#   H.265, gray, lossless, PyAV                0 1 4 11 16 17 18 100 234 255; luma right: True
#   H.264, gray, qp=0, PyAV                    0 0 0 0 0 1 2 98 254 255; luma right: True
#   H.264, gray, qp=0, OpenCV                  0 0 0 0 0 1 2 97 253 255; luma right: True
#   H.264, gray, qp=0, imageio                 0 0 0 0 0 1 2 98 254 255; luma right: True
#   H.264, gray, qp=0, range full, all three   0 1 4 11 16 17 18 100 234 255; luma right: True
#   FFV1, yuv420p, PyAV                        0 1 3 10 16 17 17 100 234 255; luma right: False
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 opencv-python-headless==5.0.0.93 \
    imageio==2.38.1 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import av
import cv2
import imageio.v3 as iio
import numpy as np

CLASSES = [0, 1, 4, 11, 16, 17, 18, 100, 234, 255]
FULL = 2  # AVCOL_RANGE_JPEG
rng = np.random.default_rng(0)
clip = np.repeat(np.repeat(rng.choice(np.array(CLASSES, np.uint8), (4, 8, 12)), 8, 1), 8, 2)


def write(path, codec, pixels, options, full=False):
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = clip.shape[1:]
        stream.pix_fmt = pixels
        if full:
            stream.codec_context.color_range = FULL
        for label_map in clip:
            frame = av.VideoFrame.from_ndarray(label_map, format="gray")
            if full:
                frame.color_range = FULL
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def by_pyav(path):
    """-> the frames in grey; whether the luma of the decoded frames is the clip"""
    grey, right = [], True
    with av.open(path) as file:
        for frame, label_map in zip(file.decode(video=0), clip, strict=True):
            grey.append(frame.to_ndarray(format="gray"))
            luma = np.frombuffer(frame.planes[0], np.uint8)
            luma = luma.reshape(frame.height, -1)[:, :frame.width]
            right = right and np.array_equal(luma, label_map)
    return np.array(grey), right


def by_opencv(path):
    video, frames = cv2.VideoCapture(path, cv2.CAP_FFMPEG), []
    while True:
        there, frame = video.read()
        if not there:
            return np.array(frames)[..., 0]  # blue, green and red are alike
        frames.append(frame)


def by_imageio(path):
    return iio.imread(path, plugin="pyav", format="gray")


def became(frames):
    """-> for each class the numbers that it has become, as text"""
    return " ".join("/".join(str(n) for n in np.unique(frames[clip == k])) for k in CLASSES)


for package in ("av", "opencv-python-headless", "imageio", "numpy"):
    print(package, version(package))
kept = " ".join(str(k) for k in CLASSES)
print(f"{'classes':42} {kept}")
ways = {
    "FFV1, gray": ("clip.mkv", "ffv1", "gray", {}),
    "H.265, gray, lossless": ("clip.mp4", "libx265", "gray",
                              {"x265-params": "lossless=1:log-level=0"}),
    "H.264, gray, qp=0": ("clip.mp4", "libx264", "gray", {"qp": "0"}),
    "H.264, gray, qp=0, range full": ("clip.mp4", "libx264", "gray", {"qp": "0"}, True),
    "FFV1, yuv420p": ("clip.mkv", "ffv1", "yuv420p", {}),
}
seen = {}
for name, way in ways.items():
    write(*way)
    frames, luma = by_pyav(way[0])
    readers = {"PyAV": frames}
    if name.startswith("H.264"):
        readers["OpenCV"] = by_opencv(way[0])
        readers["imageio"] = by_imageio(way[0])
    for reader, found in readers.items():
        seen[name, reader] = became(found)
        print(f"{name + ', ' + reader:42} {seen[name, reader]}; luma right: {luma}")
    seen[name, "luma"] = luma
SAME, BLACK = "0 1 4 11 16 17 18 100 234 255", "0 0 0 0 0 1 2"
same = seen["FFV1, gray", "PyAV"] == seen["H.265, gray, lossless", "PyAV"] == SAME
same = same and all(seen[name, "luma"] for name in ways if name != "FFV1, yuv420p")
for reader in ("PyAV", "OpenCV", "imageio"):
    found = seen["H.264, gray, qp=0", reader]
    same = same and found.startswith(BLACK) and found.endswith(" 255")
    same = same and seen["H.264, gray, qp=0, range full", reader] == SAME
same = same and seen["FFV1, yuv420p", "PyAV"].startswith("0 1 3 10")
print("as described" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PYTHON
