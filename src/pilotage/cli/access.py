"""Where the service is and how it is spoken to: the environment, or what `pilotage up` left in its data directory."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import CliError

FILE = "client.json"


@dataclass(frozen=True)
class Access:
    """How to reach a service: base URL, user or admin token, and a file of trust anchors (None: the system's)."""

    url: str
    token: str
    ca: str | None = None


def data_directory(given: Path | None = None) -> Path:
    """The all-in-one's directory: `--data`, PILOTAGE_DATA, $XDG_DATA_HOME/pilotage or ~/.local/share/pilotage."""
    if given is not None:
        return given.expanduser().absolute()
    if named := os.environ.get("PILOTAGE_DATA"):
        return Path(named).expanduser().absolute()
    return default_directory()


def default_directory() -> Path:
    """Where the data is when nobody says otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser().absolute() / "pilotage"


def save(access: Access, data: Path) -> Path:
    """Write `client.json` (mode 0600, replaced in one step), so that commands on this machine find the service."""
    from pilotage.wholefile import write_whole

    file = data / FILE
    write_whole(file, json.dumps({"url": access.url, "token": access.token, "ca": access.ca}))
    return file


def find() -> Access:
    """The service to speak to. PILOTAGE_URL, PILOTAGE_TOKEN and PILOTAGE_CA override the file, each for itself.

    A URL from the environment never gets the file's token: a token is only sent to the service that gave it.
    :raises CliError: no service is known, or the file cannot be read
    """
    url, token, ca = (os.environ.get(f"PILOTAGE_{name}") for name in ("URL", "TOKEN", "CA"))
    if url:
        if not url.startswith(("http://", "https://")):
            raise CliError(f"PILOTAGE_URL is not an http or https address: {url}")
        return Access(url.rstrip("/"), token or "", ca)
    file = data_directory() / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Access(str(content["url"]).rstrip("/"), token or str(content["token"]), ca or content.get("ca"))
    except FileNotFoundError:
        hint = "start one with: pilotage up   (or set PILOTAGE_URL and PILOTAGE_TOKEN)"
        raise CliError(f"no service is known here ({file} is not there); {hint}") from None
    except PermissionError:
        raise CliError(f"cannot read {file}: it belongs to another user; set PILOTAGE_URL and PILOTAGE_TOKEN") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CliError(f"{file} is damaged ({error}); stop the service and start it again: pilotage up") from None
