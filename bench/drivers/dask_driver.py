"""dask.distributed: a scheduler and worker processes, N calls that each run a process. Started by bench/peers.py."""

import subprocess

from bench_driver import serve


def task(number):
    return subprocess.run(["/bin/true"]).returncode


def main(jobs, workers):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def work():
            assert sum(client.gather(client.map(task, range(jobs), pure=False))) == 0

        yield work


if __name__ == "__main__":
    serve(main)
