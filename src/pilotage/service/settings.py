"""What an operator may set of the HTTP service; every value has a default that fits one machine."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and durations of the service. Durations in seconds, sizes in MiB unless the name says otherwise."""

    token_seconds: int = 600
    """Life of a pilot token; it is renewed in a sync's answer once less than half of it is left."""
    max_pending: int = 2000
    """Writes waiting for the database above which pilots and users are told to come again later (503)."""
    retry_after: int = 5
    """What a 503 tells the caller to wait."""
    max_job_bytes: int = 1 * MIB
    """One job description, as JSON."""
    max_bulk_mib: int = 64
    """One request with many job descriptions."""
    max_sync_mib: int = 32
    """One sync of a pilot."""
    max_file_mib: int = 10240
    """One input, output or pilot file."""
    max_log_mib: int = 64
    """All of one pilot's log; what comes later is acknowledged and dropped."""
    metrics_seconds: float = 3.0
    """How old the counts in /metrics and /summary may be."""
    urls: tuple[str, ...] = ()
    """Where pilots find this service; what a hand-run pilot's profile gets."""
    trust: tuple[str, ...] = ()
    """Trust anchors (PEM texts) that such a pilot pins."""
