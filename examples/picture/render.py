#!/usr/bin/env python3
"""Render one tile of a picture: the job that the demo submits 64 times. Standard library only, any Python 3.6+.

    python3 render.py tiles.json 17        writes tile-17.png

``tiles.json`` says what is to be seen and how it is cut::

    {"view": {"width": 640, "height": 640, "x": [-0.755, -0.742], "y": [0.1013, 0.1143], "limit": 250},
     "tiles": [{"left": 0, "top": 0, "width": 80, "height": 80}, ...]}            # lengths in pixels

Each pixel is a point of the complex plane, coloured by how many steps of z -> z*z + c it takes to escape (Mandelbrot).
"""

import json
import math
import struct
import sys
import zlib


def steps(x, y, limit):
    """Steps until the point (x, y) escapes; `limit` where it does not."""
    a = b = 0.0
    for count in range(limit):
        aa, bb = a * a, b * b
        if aa + bb > 4.0:
            return count
        b = 2.0 * a * b + y
        a = aa - bb + x
    return limit


def palette(limit):
    """The colour (three bytes) of each count of steps; black where a point never escapes."""
    colours = []
    for count in range(limit):
        angle = math.sqrt(count / limit) * 2.0 * math.pi
        colours.append(bytes(int(127.5 - 127.5 * math.cos(angle + shift)) for shift in (0.0, 0.7, 1.5)))
    return [*colours, b"\0\0\0"]


def rows_of(tile, view):
    """The tile's rows of pixels from top to bottom, three bytes a pixel."""
    colours, limit = palette(view["limit"]), view["limit"]
    (x0, x1), (y0, y1) = view["x"], view["y"]
    for row in range(tile["top"], tile["top"] + tile["height"]):
        y = y1 - (y1 - y0) * (row + 0.5) / view["height"]
        columns = range(tile["left"], tile["left"] + tile["width"])
        yield b"".join(colours[steps(x0 + (x1 - x0) * (column + 0.5) / view["width"], y, limit)] for column in columns)


def png(width, height, rows):
    """The bytes of a PNG file (8-bit RGB, no filter) of these rows. Format: the PNG specification, third edition."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    number = int(sys.argv[2])
    tile = plan["tiles"][number]
    with open(f"tile-{number}.png", "wb") as file:
        file.write(png(tile["width"], tile["height"], rows_of(tile, plan["view"])))
    print(f"tile {number} of {len(plan['tiles'])}: {tile['width']} x {tile['height']} pixels")


if __name__ == "__main__":
    main()
