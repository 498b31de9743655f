"""Join the tiles of the picture into one PNG, and check that it is the right one. Standard library only."""

import random
import struct
import zlib

import render


def read_png(data):
    """(width, height, rows) of a PNG file as `render.png` writes them: 8-bit RGB, no filter, not interlaced."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG file")
    at, size, packed = 8, (0, 0), b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] != zlib.crc32(kind + body):
            raise ValueError("damaged PNG file")
        if kind == b"IHDR":
            if body[8:] != b"\x08\x02\0\0\0":
                raise ValueError("not a PNG file of this kind")
            size = struct.unpack(">II", body[:8])
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    width, height = size
    pixels = zlib.decompress(packed)
    line = 1 + 3 * width
    if len(pixels) != line * height or any(pixels[row * line] for row in range(height)):
        raise ValueError("not as many pixels as it says")
    return width, height, [pixels[row * line + 1 : (row + 1) * line] for row in range(height)]


def join(plan, tiles):
    """The rows of the whole picture, from the PNG data of each tile in the plan's order.

    :raises ValueError: a tile is damaged, of the wrong size, or the tiles leave a hole
    """
    view = plan["view"]
    canvas = [bytearray(3 * view["width"]) for _ in range(view["height"])]
    covered = 0
    for number, (tile, data) in enumerate(zip(plan["tiles"], tiles, strict=True)):
        width, height, rows = read_png(data)
        if (width, height) != (tile["width"], tile["height"]):
            raise ValueError(f"tile {number} is {width} x {height} pixels, not {tile['width']} x {tile['height']}")
        for row, pixels in enumerate(rows):
            canvas[tile["top"] + row][3 * tile["left"] : 3 * (tile["left"] + width)] = pixels
        covered += width * height
    if covered != view["width"] * view["height"]:
        raise ValueError(f"{view['width'] * view['height'] - covered} pixels are missing")
    return [bytes(row) for row in canvas]


def wrong_pixels(plan, rows, samples=8, seed=1):
    """How many of some pixels, sampled in each tile, differ from the formula worked out here once more."""
    view, colours, chance = plan["view"], render.palette(plan["view"]["limit"]), random.Random(seed)
    wrong = 0
    for tile in plan["tiles"]:
        for _ in range(samples):
            column, row = tile["left"] + chance.randrange(tile["width"]), tile["top"] + chance.randrange(tile["height"])
            wrong += rows[row][3 * column : 3 * column + 3] != colours[_escape(view, column, row)]
    return wrong


def _escape(view, column, row):
    """Steps until the point of this pixel escapes, by another loop than the renderer's."""
    x = view["x"][0] + (view["x"][1] - view["x"][0]) * (column + 0.5) / view["width"]
    y = view["y"][1] - (view["y"][1] - view["y"][0]) * (row + 0.5) / view["height"]
    a, b, count = 0.0, 0.0, 0
    while a * a + b * b <= 4.0 and count < view["limit"]:
        a, b, count = a * a - b * b + x, 2.0 * a * b + y, count + 1
    return count
