"""Where an all-in-one is found: by programs of its machine, by other machines, by pilots; and its certificate."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pilotage.configuration import Configuration
    from pilotage.service.tls import TlsFiles


@dataclass(frozen=True)
class Settings:
    """What `pilotage up` was told: the data directory, where to listen, and whether with TLS."""

    data: Path
    host: str
    port: int
    tls: bool


def loopback(host: str) -> bool:
    """Whether only programs of this machine can come."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def everywhere(host: str) -> bool:
    """Whether all addresses of this machine are listened on."""
    return host in ("", "0.0.0.0", "::")


def own_host(host: str) -> str:
    """How programs of this machine reach what listens on `host`."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def own_name() -> str:
    """How other machines call this one; some systems give "localhost" as the full name."""
    full = socket.getfqdn()
    return socket.gethostname() if full.startswith("localhost") else full


def url_of(settings: Settings, host: str, port: int) -> str:
    """How the service is called under one of its names."""
    return f"{'https' if settings.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def urls(configuration: Configuration, settings: Settings, port: int) -> list[str]:
    """Where pilots find the service: what is configured, else this machine's name, if others may come, and address."""
    if configuration.service.url:
        return [configuration.service.url.rstrip("/")]
    own = url_of(settings, own_host(settings.host), port)
    return [url_of(settings, own_name(), port), own] if everywhere(settings.host) else [own]


def certificate(configuration: Configuration, settings: Settings) -> TlsFiles:
    """The certificate for all names by which this service may be called."""
    from pilotage.service import tls

    hosts = {"localhost", "127.0.0.1", own_host(settings.host)}
    if everywhere(settings.host):
        hosts |= {socket.gethostname(), socket.getfqdn()}
    if configuration.service.url:
        hosts.add(urlsplit(configuration.service.url).hostname or "localhost")
    return tls.ensure(settings.data / "tls", hosts)
