"""The pure parts of the job agent: leasing ahead, names, patterns, what is kept of long outputs."""

import os
from collections import deque

import pytest

from pilotage_node.agent import ahead
from pilotage_node.agent.files import Stream, checked, disk_use, matches
from pilotage_node.processes import remove_tree
from pilotage_node.protocol import AHEAD, INLINE


def test_ahead_is_a_second_of_measured_throughput():
    starts = deque(maxlen=AHEAD)
    assert ahead(starts, 100.0) == 0
    starts.append(100.0)
    assert ahead(starts, 100.01) == 1, "never more than were measured"
    starts.extend(100.0 + n / 20 for n in range(40))
    assert ahead(starts, 102.0) == 20, "41 jobs in 2 s"
    starts.extend([102.0] * 100)
    assert ahead(starts, 102.001) == AHEAD
    assert ahead(starts, 200.0) == 0, "long ago"
    assert ahead([0.0, 0.0, 600.0, 600.0], 1200.0) == 0


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".", "a//b", "a/", "x\0y", None, 7, "./a"])
def test_names_that_lead_out_are_refused(name):
    with pytest.raises(ValueError, match="leads out"):
        checked(name)


def test_patterns(tmp_path):
    top = tmp_path / "job"
    for name in ("a.png", "b.png", "out/c.png", "out/deep/er/d.root", "out/e.root", "[x].txt", "é.txt"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (tmp_path / "secret.png").write_text("not yours")
    (top / "link.png").symlink_to(tmp_path / "secret.png")
    (top / "up").symlink_to(tmp_path)
    os.mkfifo(top / "fifo.png")

    def names(*globs):
        found, idle = matches(str(top), globs)
        assert all(path == str(top / name) for path, name in found)
        return [name for _, name in found], idle

    assert names("*.png") == (["a.png", "b.png"], [])
    assert names("?.png", "none-*") == (["a.png", "b.png"], ["none-*"])
    assert names("out/*") == (["out/c.png", "out/e.root"], [])
    assert names("out/**/*.root") == (["out/deep/er/d.root", "out/e.root"], [])
    assert names("**/*.root") == (["out/deep/er/d.root", "out/e.root"], [])
    assert names("[ab].png", "a.png") == (["a.png", "b.png"], [])
    assert names("[[]x].txt", "é.txt") == (["[x].txt", "é.txt"], [])
    assert names("up/*", "up/**/*.png", "link.png") == ([], ["link.png", "up/*", "up/**/*.png"])
    assert names("../*") == ([], ["../*"])


def test_an_output_name_that_is_not_text(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.txt", "wb"):
        pass
    [(path, name)], idle = matches(str(tmp_path), ["*.txt"])
    assert os.path.exists(path) and name == "\ufffd.txt" and not idle


def test_use_of_disk_and_removal(tmp_path):
    top = tmp_path / "job"
    (top / "a/b").mkdir(parents=True)
    (top / "a/b/file").write_bytes(os.urandom(1 << 20))
    (top / "out").symlink_to(tmp_path)
    (tmp_path / "other").write_bytes(os.urandom(1 << 20))
    assert 1 << 20 <= disk_use(str(top)) < 1.2 * (1 << 20)
    remove_tree(str(top))
    assert not top.exists() and (tmp_path / "other").exists()


def stream_of(tmp_path, cap, *pieces):
    stream = Stream("stdout", str(tmp_path / "kept"), cap)
    for piece in pieces:
        os.write(stream.writer, piece)
        assert stream.feed()
    assert stream.feed(), "nothing now"
    os.close(stream.writer)
    stream.close()
    return stream


def test_short_output_travels_whole_and_makes_no_file(tmp_path):
    stream = stream_of(tmp_path, 1000000, b"x" * (INLINE - 1), b"\n")
    assert stream.text() == "x" * (INLINE - 1) + "\n"
    assert stream.file is None and not (tmp_path / "kept").exists()
    assert stream_of(tmp_path, 10).text() == ""


def test_long_output_travels_as_start_and_end_and_is_kept(tmp_path):
    data = b"".join(b"%06d\n" % n for n in range(5000))
    stream = stream_of(tmp_path, 1000000, data[:100], data[100:5000], data[5000:])
    text = stream.text()
    assert text.startswith("000000\n") and text.endswith("004999\n") and "bytes left out" in text
    assert len(text) <= INLINE
    assert (tmp_path / "kept").read_bytes() == data


def test_output_beyond_its_cap_is_dropped(tmp_path):
    stream = stream_of(tmp_path, 10000, *[b"y" * 9000] * 4, b"the end")
    assert (tmp_path / "kept").read_bytes() == b"y" * 10000
    assert stream.size == 36007 and stream.text().endswith("the end")
    stream = stream_of(tmp_path, 0, b"z" * 9000)
    assert stream.file is None and len(stream.text()) <= INLINE


def test_output_that_is_not_text(tmp_path):
    text = stream_of(tmp_path, 0, b"a\0b\xff" * 2000).text()
    assert len(text.encode()) <= INLINE and text.startswith("a?b?") and text.endswith("b?")
