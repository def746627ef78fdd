#!/usr/bin/env bash
# A class map saved as a Cloud Optimized GeoTIFF gives class numbers that do not exist when it is
# read small, though nearest neighbour is asked for.
#
# Versions: rasterio 1.4.4 (its wheel's GDAL 3.10.3), numpy 2.4.6.
# Guess: a uint8 map of classes 0, 1, 4, 11 is stored without loss, and reading it at a quarter
#   of its size with Resampling.nearest picks existing pixels: only 0, 1, 4 and 11 come out.
# What happens: at full size every pixel is right. At a quarter each number from 0 to 12 comes out,
#   in some 4% of the pixels; 12 is above the highest class. The COG driver adds overviews by
#   itself and makes them by CUBIC, unless the band has a colour table; a smaller read then takes
#   its pixels from an overview, by nearest. A plain tiled GeoTIFF, a COG with a colour table and
#   one written with overview_resampling="NEAREST" give the four classes.
# Why it matters: aerial label maps are kept as COG and read reduced to save memory. Training then
#   meets classes that nobody drew (4 between 1 and 11 is a real one, so no check of the range
#   finds it), along every border.
# Seen:
#   plain GeoTIFF            full size right, quarter: 0 1 4 11, invented 0.0000
#   COG                      full size right, quarter: 0 1 2 3 4 5 6 7 8 9 10 11 12, invented 0.0419
#   COG, NEAREST overviews   full size right, quarter: 0 1 4 11, invented 0.0000
#   COG with a colour table  full size right, quarter: 0 1 4 11, invented 0.0000
# Exit 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rasterio==1.4.4 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin

rng = np.random.default_rng(0)
label_map = np.zeros((2048, 2048), np.uint8)
for _ in range(400):
    y, x = rng.integers(0, 2000, 2)
    height, width = rng.integers(5, 120, 2)
    label_map[y:y + height, x:x + width] = rng.choice([1, 4, 11])
profile = {"width": 2048, "height": 2048, "count": 1, "dtype": "uint8", "crs": "EPSG:3857",
           "transform": from_origin(500000, 5000000, 1, 1)}
colours = {0: (0, 0, 0), 1: (255, 0, 0), 4: (0, 255, 0), 11: (0, 0, 255)}


def quarter(title, with_colours=False, **options):
    """Writes, reads and prints; the share of pixels whose class does not exist."""
    with rasterio.open("map.tif", "w", **profile, **options) as file:
        file.write(label_map, 1)
        if with_colours:
            file.write_colormap(1, colours)
    with rasterio.open("map.tif") as file:
        whole = np.array_equal(file.read(1), label_map)
        small = file.read(1, out_shape=(512, 512), resampling=Resampling.nearest)
    invented = float((~np.isin(small, label_map)).mean())
    print(f"{title}: full size {'right' if whole else 'wrong'}, quarter:", *np.unique(small),
          f"invented {invented:.4f}")
    return invented if whole else -1


print("rasterio", rasterio.__version__, "GDAL", rasterio.__gdal_version__)
plain = quarter("plain GeoTIFF", driver="GTiff", tiled=True)
cog = quarter("COG", driver="COG")
nearest = quarter("COG, NEAREST overviews", driver="COG", overview_resampling="NEAREST")
palette = quarter("COG with a colour table", with_colours=True, driver="COG")
same = plain == nearest == palette == 0 and 0.02 < cog < 0.06
sys.exit(0 if same else "the behaviour has changed")
PYTHON
