"""The HTTP client of the service's API: every command of a person goes through it."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import httpx

from .access import Access, find
from .errors import CliError, Refusal

TIMEOUT = httpx.Timeout(60.0, connect=10.0)
TRANSFER = httpx.Timeout(600.0, connect=10.0)
PATIENCE = 60.0
"""Seconds that a busy service (503 with Retry-After) is waited for."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Client:
    """Speaks JSON with the service; turns every failure into a CliError of one line. Use it as a context manager."""

    def __init__(self, access: Access | None = None) -> None:
        self.access = access or find()
        try:
            host = httpx.URL(self.access.url).host
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise CliError(f"not a usable address of a service: {self.access.url!r}: {error}") from error
        if not (self.access.token.isascii() and self.access.token.isprintable()):
            raise CliError("the token (PILOTAGE_TOKEN or client.json) has characters that no token has")
        self._http = httpx.Client(
            base_url=self.access.url,
            headers={"Authorization": f"Bearer {self.access.token}"} if self.access.token else {},
            verify=self._trust(),
            timeout=TIMEOUT,
            trust_env=host not in LOOPBACK,  # a proxy of the environment is not for the own machine
        )

    def _trust(self) -> ssl.SSLContext | bool:
        # The system's anchors cost as much to load as everything else together: not for plain HTTP.
        if not self.access.url.startswith("https:"):
            return False
        try:
            return ssl.create_default_context(cafile=self.access.ca)
        except (OSError, ssl.SSLError) as error:
            raise CliError(f"cannot use the certificate file {self.access.ca}: {error}") from error

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON at `path`; query values of None are left out, lists are repeated."""
        return self.request("GET", path, params=_given(query)).json()

    def post(self, path: str, body: Any, **query: Any) -> Any:
        """Send JSON, return the answer's JSON."""
        return self.request("POST", path, json=body, params=_given(query)).json()

    def delete(self, path: str) -> None:
        self.request("DELETE", path)

    def put(self, path: str, content: Iterable[bytes], size: int, **query: Any) -> None:
        """Upload `size` bytes."""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._checked(self._send("PUT", path, content=content, headers=headers, params=_given(query), timeout=TRANSFER))

    def download(self, path: str) -> Iterator[bytes]:
        """The body at `path`, in pieces."""
        try:
            with self._http.stream("GET", path) as answer:
                if answer.status_code >= 400:
                    answer.read()
                self._checked(answer)
                yield from answer.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request; waits where the service says that it is busy (503 with Retry-After).

        :raises CliError: the service was not reached, or it refused (its own sentence)
        """
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._send(method, path, **more)
            if answer.status_code != 503 or "Retry-After" not in answer.headers or time.monotonic() > until:
                return self._checked(answer)
            time.sleep(min(_seconds(answer.headers["Retry-After"]), 10.0))

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **more)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        except httpx.InvalidURL as error:
            raise CliError(f"not a usable address: {error}") from error
        except UnicodeEncodeError as error:
            wrong = error.object[error.start : error.start + 20].encode("utf-8", "surrogateescape")
            raise CliError(f"what was given is not UTF-8, from these bytes on: {wrong!r}") from error

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code < 400:
            return answer
        said: dict[str, Any] = {}
        try:
            said = answer.json()
            sentence = str(said["error"])
        except (ValueError, KeyError, TypeError):
            sentence = f"the service answered {answer.status_code} {answer.reason_phrase}"
        if answer.status_code == 401 and not self.access.token:
            sentence = f"{self.access.url} asks for a token, and none is given: set PILOTAGE_TOKEN"
        elif answer.status_code == 401:
            source = "PILOTAGE_TOKEN" if os.environ.get("PILOTAGE_TOKEN") else "client.json"
            sentence = f"{sentence.rstrip('.')} (it comes from {source})"
        refusal = Refusal(sentence)
        refusal.code = answer.status_code
        if isinstance(said, dict) and isinstance(problems := said.get("problems"), list):
            refusal.problems = tuple(str(problem) for problem in problems)
        raise refusal

    def _unreachable(self, error: httpx.TransportError) -> CliError:
        text = str(error) or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            return CliError(f"the service at {self.access.url} did not answer in time; look at its log, or try again")
        if "CERTIFICATE" in text.upper():
            return CliError(
                f"the certificate of {self.access.url} is not trusted: {text}; set PILOTAGE_CA to its anchor"
            )
        if isinstance(error, httpx.RemoteProtocolError) and self.access.url.startswith("http:"):
            return CliError(f"{self.access.url} does not answer in HTTP ({text.rstrip('.')}); is it https://?")
        return CliError(f"cannot reach the service at {self.access.url} ({text}); start it with: pilotage up")


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value is not None}


def _seconds(retry_after: str) -> float:
    try:
        return max(0.1, float(retry_after))
    except ValueError:
        return 1.0
