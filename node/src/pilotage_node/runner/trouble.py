"""What the runner makes of answers that are not 200: nothing is lost, the same is said again later."""

from pilotage_node import exitcodes

REFUSALS = {409: exitcodes.SECOND_START, 426: exitcodes.PROTOCOL}
"""Answers to the first registration that end the pilot; any other 4xx means that the credentials are refused."""


def met(link, op, message, body, now):
    """:param op: "register" or "sync", to which ``message`` is the courier's answer; status 0 = not reached"""
    status = message["status"]
    why = body.get("error") or "status %d" % status
    refused = 400 <= status < 500 and status != 429
    pause = link.schedule.failed(now, message.get("retry_after") or body.get("retry_after") or 0)
    if refused and op == "register" and not link.contact["reached"]:
        link.refusal = REFUSALS.get(status, exitcodes.REFUSED), "the service refuses this pilot: " + why
    elif status == 410:
        link.events.gone("the service ended this pilot: " + why)
    elif status == 401:  # the token is too old: register again, the first time at once
        link.registered = False
        if link.schedule.failures == 1:
            link.schedule.not_before = 0.0
    elif refused:  # it would be refused again as it is
        link.text.own("the service refuses a %s (%d): %s" % (op, status, why))
        link.body = None if op == "sync" else link.body
        if status == 413:
            link.chunk = max(4096, link.chunk // 4)
    elif not link.lost_at:
        link.lost_at = now
        link.text.own("the service is not reached (%s); the pilot goes on and tries again" % why)
    link.events.missed(pause)
