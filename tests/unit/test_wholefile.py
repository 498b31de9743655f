"""Files that are written whole or not at all."""

import os
import stat

import pytest

from pilotage.wholefile import write_whole


def test_a_file_is_replaced_in_one_step_with_the_mode_that_was_asked_for(tmp_path):
    file = tmp_path / "key"
    file.write_text("old")
    file.chmod(0o644)
    reader = file.open()
    umask = os.umask(0o077)
    try:
        write_whole(file, "new ä")
        write_whole(tmp_path / "open", b"\xff", 0o644)
    finally:
        os.umask(umask)
    assert (file.read_text(), reader.read()) == ("new ä", "old")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, tmp_path / "open")] == [0o600, 0o644]
    reader.close()


def test_what_fails_leaves_everything_as_it_was(tmp_path):
    place = tmp_path / "taken"
    (place / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        write_whole(place, "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]
