"""HyperQueue: a server and one worker with the given cores, one job of N tasks. Started by bench/peers.py."""

import os
import tempfile

from bench_driver import serve
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main(jobs, workers):
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)  # two files a task, its standard output and error, as by default
        with LocalCluster(os.path.join(directory, "server"), WorkerConfig(cores=workers)) as cluster:
            client = cluster.client()

            def work():
                job = Job()
                for _ in range(jobs):
                    job.program(["/bin/true"])
                assert client.wait_for_jobs([client.submit(job)])

            yield work


serve(main)
