"""Secrets: a configuration says where one is, never what it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,199}$"
ABSOLUTE = r"^/.+$"
MOST = 65_536
"""Bytes of a file that may hold a secret."""


class Secret(BaseModel):
    """Where a secret is: an environment variable of the service (`env`), or a file that only it can read (`file`)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    env: Annotated[str, StringConstraints(pattern=VARIABLE)] | None = None
    file: Annotated[str, StringConstraints(pattern=ABSOLUTE)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("a secret is {env: NAME} or {file: /PATH}, one of the two")
        return self

    def read(self) -> str:
        """The secret, without the line break at the end of a file.

        Raises ValueError with a sentence that names the place, never the content.
        """
        if self.env is not None:
            value = os.environ.get(self.env, "")
            if not value:
                raise ValueError(f"the environment variable {self.env} is not set")
            return value
        assert self.file is not None
        try:
            with Path(self.file).open("rb") as file:
                content = file.read(MOST + 1)
            value = content.decode().rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"the file {self.file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the file {self.file} is not UTF-8") from None
        if not value or len(content) > MOST:
            raise ValueError(f"the file {self.file} is {'empty' if not value else 'too large for a secret'}")
        return value
