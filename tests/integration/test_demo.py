"""The demo as `make demo` runs it: 64 jobs, a right picture, nothing left; and that a wrong picture would be found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image
from tests.allinone import AllInOne

PICTURE = Path(__file__).resolve().parents[2] / "examples" / "picture"
sys.path.insert(0, str(PICTURE))

import join  # noqa: E402
import render  # noqa: E402


def test_the_demo(tmp_path: Path) -> None:
    place = tmp_path / "out"
    command = [sys.executable, str(PICTURE / "demo.py"), "--output", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{(place / 'up.log').read_text()}"
    assert "64 Done" in done.stdout
    assert "The picture is right: out/picture.png" in done.stdout
    plan = json.loads((PICTURE / "tiles.json").read_text())
    with Image.open(place / "picture.png") as picture:
        assert picture.size == (plan["view"]["width"], plan["view"]["height"])
        assert picture.mode == "RGB"
        rows = picture.tobytes()
    width = 3 * plan["view"]["width"]
    lines = [rows[at : at + width] for at in range(0, len(rows), width)]
    assert join.wrong_pixels(plan, lines, samples=40, seed=7) == 0
    assert len(list((place / "tiles").glob("job-*/tile-*.png"))) == 64
    assert "RunJobAgent" in next((place / "logs").glob("*.log")).read_text()
    assert not AllInOne(tmp_path).processes()


def test_the_demo_touches_no_directory_of_others(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    command = [sys.executable, str(PICTURE / "demo.py"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "not made by the demo" in done.stderr
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_wrong_tile_is_found() -> None:
    tile = {"width": 8, "height": 8}
    plan = {
        "view": {"width": 16, "height": 8, "x": [-2.0, 0.5], "y": [-1.0, 1.0], "limit": 50},
        "tiles": [{"left": 0, "top": 0, **tile}, {"left": 8, "top": 0, **tile}],
    }
    tiles = [render.png(8, 8, render.rows_of(tile, plan["view"])) for tile in plan["tiles"]]
    assert join.wrong_pixels(plan, join.join(plan, tiles)) == 0
    assert join.wrong_pixels(plan, join.join(plan, tiles[::-1])) > 0
    for damaged in ([tiles[0], tiles[1][:-20] + b"x" * 20], [tiles[0], b"nothing"]):
        try:
            join.join(plan, damaged)
        except ValueError:
            continue
        raise AssertionError("damage was not found")
