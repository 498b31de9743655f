"""Secrets: a configuration says where one is, never what it is."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,199}$"
ABSOLUTE = r"^/.+$"
MOST = 65_536
"""Bytes of a file that may hold a secret, or of what a command prints."""
COMMAND_SECONDS = 10.0
"""How long a command may take."""
GIVEN = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What a command gets of our environment: other secrets are none of its business."""


Program = Annotated[list[str], Field(min_length=1, max_length=100)]


class Secret(BaseModel):
    """Where a secret is: an environment variable of the service (`env`), a file that only it can read (`file`), or what
    a program prints (`command`: its absolute path and its arguments; no shell, 10 s)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    env: Annotated[str, StringConstraints(pattern=VARIABLE)] | None = None
    file: Annotated[str, StringConstraints(pattern=ABSOLUTE)] | None = None

    command: Program | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Secret:
        if sum(place is not None for place in (self.env, self.file, self.command)) != 1:
            raise ValueError("a secret is {env: NAME} or {file: /PATH} or {command: [/PROGRAM, ...]}, one of the three")
        if self.command is not None and not self.command[0].startswith("/"):
            raise ValueError("the program of a command is an absolute path: {command: [/PROGRAM, ARGUMENT, ...]}")
        return self

    def read(self) -> str:
        """The secret, without the line break at the end of a file or of what a program prints.

        Raises ValueError with a sentence that names the place, never the content.
        """
        if self.env is not None:
            value = os.environ.get(self.env, "")
            if not value:
                raise ValueError(f"the environment variable {self.env} is not set")
            return value
        if self.command is not None:
            return _text(f"what {self.command[0]} prints", _printed(self.command))
        assert self.file is not None
        place = f"the file {self.file}"
        try:
            with Path(self.file).open("rb") as file:
                return _text(place, file.read(MOST + 1))
        except OSError as error:
            raise ValueError(f"{place} cannot be read: {error.strerror}") from None


def _text(place: str, content: bytes) -> str:
    """The secret in these bytes. Raises ValueError, which says the place only."""
    try:
        value = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{place} is not UTF-8") from None
    if not value or len(content) > MOST:
        raise ValueError(f"{place} is {'empty' if not value else 'too large for a secret'}")
    return value


def _printed(command: list[str]) -> bytes:
    """What a program writes on its standard output, a little more than `MOST` bytes at most.

    Its standard error goes nowhere: programs that hold secrets put them there, too. When the time is over, or the
    output is too long, it is ended with all that it has started. Raises ValueError, which names only the program.
    """
    program = command[0]
    environment = {name: os.environ[name] for name in GIVEN if name in os.environ}
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "an argument has a null character"
        raise ValueError(f"the command {program} cannot be run: {reason}") from None
    try:
        content = _bounded(process, time.monotonic() + COMMAND_SECONDS)
    finally:
        # Not yet waited for, its number is still its own: nobody else's processes can be hit.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if content is None:
        raise ValueError(f"the command {program} did not end within {COMMAND_SECONDS:.0f} s")
    if len(content) <= MOST and status:
        raise ValueError(f"the command {program} failed (exit status {status})")
    return content


def _bounded(process: subprocess.Popen[bytes], end: float) -> bytes | None:
    """What it prints until it ends or has printed too much; None when that is not before `end`."""
    assert process.stdout is not None
    content = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(content) <= MOST:
            if not selector.select(max(0.0, end - time.monotonic())):
                return None
            part = os.read(process.stdout.fileno(), MOST)
            if not part:
                break
            content += part
    while len(content) <= MOST and not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() > end:
            return None
        time.sleep(0.01)
    return content
