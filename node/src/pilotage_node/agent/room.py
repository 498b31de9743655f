"""What fits on this node, how much may be leased ahead, when to ask again. Pure: no clock, no I/O."""

from collections import deque

from pilotage_node.protocol import AHEAD

KINDS = ("cores", "memory_mib", "disk_mib", "gpus")
LONGEST = 64.0
"""Longest pause between two questions while answers are empty [s]."""


def need_of(spec):
    """What a job takes of the node; what it does not say (null) takes nothing, but its use is limited all the same."""
    return {kind: spec.get(kind) or 0 for kind in KINDS}


def fits(need, free):
    return all(need[kind] <= free[kind] for kind in KINDS)


class Room:
    """The part of the node that is ours: ``total``, ``free``, and the names of free GPUs.

    :param node: ``facts.node``: cores, memory_mib, disk_mib, gpus
    :param gpus: names of GPUs, as in CUDA_VISIBLE_DEVICES
    """

    def __init__(self, node, gpus):
        self.total = dict(need_of(node), gpus=min(node["gpus"] or 0, len(gpus)))
        self.free = dict(self.total)
        self.gpus = list(gpus)
        self.starts = deque(maxlen=AHEAD)

    def take(self, need, sign=-1, kinds=KINDS):
        """Reserve what a job needs; with ``sign`` 1 free it, or some kinds of it, again."""
        for kind in kinds:
            self.free[kind] += sign * need[kind]

    def ahead(self, now):
        """Jobs to lease ahead: at most one second of the throughput measured over the last endings, at most as many as
        were measured, at most AHEAD. ``starts``: when the jobs started that ended last."""
        measured = len(self.starts)
        return min(measured, int(measured / max(now - self.starts[0], 0.001))) if measured else 0

    def wish(self, ahead, leased):
        """The room in a WANT of the protocol, or None: there is none.

        :param leased: jobs leased and not begun; the first waits for room, so what is free is kept for it
        """
        free = dict.fromkeys(KINDS, 0) if leased else {kind: max(0, self.free[kind]) for kind in KINDS}
        ahead = max(0, ahead - leased)
        return dict(free, ahead=ahead, total=self.total) if free["cores"] or ahead else None


class Questions:
    """When to ask for jobs: at once where there is new room or was work, else after 1, 2, 4 ... s.

    ``at``: not before; ``empty_since``: time of the first empty answer since then, or None.
    """

    def __init__(self):
        self.afresh(0.0)

    def afresh(self, now):
        self.empty_since, self.pause, self.at = None, 0.0, now

    def empty(self, now):
        """The answer was empty."""
        self.empty_since = now if self.empty_since is None else self.empty_since
        if now >= self.at:
            self.pause = min(LONGEST, self.pause * 2 or 1.0)
            self.at = now + self.pause
