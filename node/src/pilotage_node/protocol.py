"""The wire between pilot and service: versions, routes, the fields of each message. Nothing else defines it.

All bodies are JSON objects in UTF-8. Durations are seconds as numbers; no absolute times travel but ``time`` in the
registration's answer, by which the pilot measures its clock skew.

Registration (``POST /pilot/register``), once per pilot, idempotent for the same (stamp, secret, nonce)::

    -> {"protocol": 1, "stamp": S, "secret": SECRET, "nonce": N, "digest": HEX, "node": {facts.node},
        "log": "first lines", "profile": {"vo", "site", "resource", "queue", "flavour", "revision"}}
    <- {"stamp": S, "token": JWT, "token_seconds": 600, "sync_seconds": 10, "lease_seconds": 120, "time": 1700000000.0,
        "log_offset": bytes of log that the service has, "sequence": last sequence seen}

Synchronisation (``POST /pilot/sync``), level-triggered; repeating it is harmless::

    -> {"protocol": 1, "sequence": n, "held": [LEASE, ...], "reports": [REPORT, ...], "want": WANT or null,
        "log": {"offset": bytes, "text": str} or null, "beat": {"phase": command, "usage": {...}}}
    <- {"hold": [LEASE id, ...], "granted": [GRANT, ...], "acknowledged": [report id, ...], "log_offset": bytes,
        "orders": [ORDER, ...], "again_seconds": n, "token": JWT or null, "token_seconds": n}

    LEASE   lease id (str). Held: leased and not ended, whether its job was started or not.
    WANT    {"cores": free now, "memory_mib", "disk_mib", "gpus", "seconds_left": or null,
             "ahead": jobs wanted beyond what is free (0..64),
             "total": {"cores", "memory_mib", "disk_mib", "gpus"}, "tags": [...], "platform": str,
             "isolation": ["bwrap", ...] kinds that work here}
    GRANT   {"lease": id, "job": id, "attempt": n, "token": job token, "spec": {"command": [..], "environment": {..},
             "inputs": [{"name", "sha256", "size", "executable"}], "outputs": [glob, ..], "stdout_mib", "cores",
             "memory_mib", "disk_mib", "gpus", "wall_seconds", "cpu_seconds", "isolation"}}
             A grant that the pilot does not list as held is granted again in every answer: a lost reply loses nothing.
    REPORT  {"id": unique in this pilot, "kind": "job" | "command" | "pilot", ...}
      job     {"lease", "job", "state": "Running" | "Done" | "Failed" | "Killed" | "Returned", "exit_code", "signal",
               "reason", "message", "wall_seconds",
               "usage": {"cpu_user", "cpu_system" [s], "max_rss_mib", "read_mib", "write_mib"},
               "stdout", "stderr" (text, at most INLINE bytes each, else the start and the end),
               "outputs": [{"name", "sha256", "size"}], "isolation": kind used}
              reason: "exit" by itself, "signal" by one not ours, "wall_limit", "cpu_limit", "memory_limit",
              "disk_limit", "killed" on order, "drained", "input_failed", "output_failed", "output_missing",
              "isolation_missing", "start_failed", "lost".
              "Returned": leased ahead and never started; goes back to Waiting without a retry.
      command {"name", "index", "outcome": "done" | "failed" | "timeout" | "crashed" | "killed" | "skipped",
               "code", "message", "seconds", "usage", "tail": [last lines]}
      pilot   {"exit_code", "reason", "usage": {...}}: the pilot's last report.
    ORDER   {"order": "drain" | "kill"} for the pilot; {"order": "kill", "lease": id, "reason": text} for a job.
            Orders are repeated until the pilot's state shows that they are carried out.

Files: ``GET/PUT /pilot/files/{sha256}`` with the job token; ``PUT /pilot/output/{name}`` with the pilot token.
Errors: status >= 400 with ``{"error": sentence, "code": word}``; 401 unknown or expired credential, 403 not yours,
409 ``stamp_used`` (another nonce), 410 ``pilot_ended``, 413 too large, 426 ``protocol`` (version unknown), 503 with
Retry-After (come again later).
"""

VERSION = 1
SUPPORTED = (1,)
VERSION_HEADER = "Pilotage-Protocol"

REGISTER = "/pilot/register"
SYNC = "/pilot/sync"
FILES = "/pilot/files/"
OUTPUT = "/pilot/output/"

INLINE = 4096
"""Bytes of stdout and stderr that travel inside a job report; what is longer is uploaded as an output file."""

AHEAD = 64
"""Most jobs that a pilot may hold leased beyond what it has room for."""
