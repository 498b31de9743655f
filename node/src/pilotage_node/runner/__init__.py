"""The runner: a pilot's first process. One thread, no network; it owns the order, the children, the log, the record."""


def main(script):
    """Run a pilot script to its end; leaves by ``sys.exit`` with a code of ``pilotage_node.exitcodes``.

    :param script: object with ``text_of(section)`` -> str, ``profile`` (dict), ``digest`` (hex), ``path``
    """
    import sys

    from pilotage_node.runner.start import start

    sys.exit(start(script, sys.argv[1:]))
