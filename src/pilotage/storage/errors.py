"""What storage and engines refuse, each with the word that the service sends as ``code``."""


class Refused(Exception):
    """A request that cannot be granted; nothing was changed. ``code`` is stable, the text is for people."""

    code = "refused"


class Unknown(Refused):
    """No such stamp, or not its secret (HTTP 401): the two are not told apart on purpose."""

    code = "unknown"


class Expired(Refused):
    """The secret was right once and is too old now (HTTP 401)."""

    code = "expired"


class StampUsed(Refused):
    """The stamp was used with another nonce: a second start (HTTP 409)."""

    code = "stamp_used"


class Ended(Refused):
    """The pilot has ended and may do nothing more (HTTP 410)."""

    code = "pilot_ended"


class Stale(Refused):
    """The request is older than one that was already answered (HTTP 409)."""

    code = "stale"


class Conflict(Refused):
    """The same request id with other content, or a compare-and-set that lost (HTTP 409)."""

    code = "conflict"


class TooLarge(Refused):
    """More bytes than allowed (HTTP 413)."""

    code = "too_large"


class Mismatch(Refused):
    """The bytes do not have the digest that was announced (HTTP 422)."""

    code = "digest_mismatch"


class Missing(Refused):
    """No such object (HTTP 404)."""

    code = "not_found"


class SchemaError(Exception):
    """The database is older or newer than this code, or not a Pilotage database."""
