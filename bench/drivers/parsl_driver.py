"""Parsl: the HighThroughputExecutor on this machine, N calls of a bash_app. Started by bench/peers.py."""

import os
import tempfile

import parsl
from bench_driver import serve
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider


@parsl.bash_app
def task():
    return "/bin/true"


def main(jobs, workers):
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        executor = HighThroughputExecutor(
            label="bench",
            address="127.0.0.1",
            loopback_address="127.0.0.1",
            max_workers_per_node=workers,
            provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
        )
        config = Config(executors=[executor], run_dir=directory, usage_tracking=0, initialize_logging=False)
        with parsl.load(config):
            assert task().result() == 0  # the workers are up, as those of the others are

            def work():
                calls = [task() for _ in range(jobs)]
                assert sum(call.result() for call in calls) == 0

            yield work


if __name__ == "__main__":
    serve(main)
