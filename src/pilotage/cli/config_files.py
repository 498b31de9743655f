"""Files of a configuration: read to be sent, written when they come back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import CliError, Refusal
from .output import clean


def files_of(source: Path) -> dict[str, str]:
    """{relative name: text} of a file (whatever its suffix is), or of all .yaml files below a directory.

    :raises CliError: it is not there, cannot be read, holds nothing, or too much
    """
    from pilotage.configuration import ConfigurationError
    from pilotage.configuration.directory import SUFFIX, texts_of
    from pilotage.configuration.document import text_of

    try:
        if not source.is_dir():
            return {f"{source.stem}{SUFFIX}": text_of(source)}
        return texts_of(source)
    except ConfigurationError as error:
        raise CliError(str(error)) from error


def ask(method: str, path: str, body: Any = None, **query: Any) -> Any:
    """The service's answer. To check what is large takes it a minute: it is given ten.

    All that it found wrong is listed, before its one sentence. :raises CliError: that sentence
    """
    from .client import TRANSFER, Client

    given = {key: value for key, value in query.items() if value is not None}
    try:
        with Client() as client:
            return client.request(method, path, params=given, json=body, timeout=TRANSFER).json()
    except Refusal as refusal:
        if len(refusal.problems) > 1:
            for problem in refusal.problems:
                print(clean(problem), file=sys.stderr)
        raise


def write_files(files: Mapping[str, str], directory: Path) -> list[Path]:
    """Write files below a directory that is new or empty; their paths.

    :raises CliError: it holds something, a name leads out of it, or it cannot be written
    """
    from .fetch import safe_parts

    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CliError(f"{directory} is there already and not an empty directory")
    targets = [(directory.joinpath(*safe_parts(name)), text) for name, text in sorted(files.items())]
    try:
        for path, text in targets:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="utf-8", newline="") as out:
                out.write(text)
    except OSError as error:
        raise CliError(f"cannot write {error.filename or directory}: {error.strerror}") from error
    return [path for path, _ in targets]
