"""What each peer's driver shares: say when the workers are up, run the jobs when told to, say when all are done.

Standard output carries one JSON object a line: {"ready": true}, then after each line of standard input {"seconds": s},
wall time from submission to the last result. The end of standard input ends the driver and all that it started.
"""

import json
import os
import sys
import time


def serve(main):
    """:param main: generator function of (jobs, workers): starts all, yields a function that runs the jobs, stops"""
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the peer prints is not ours to read
    jobs, workers = int(sys.argv[1]), int(sys.argv[2])
    lifetime = main(jobs, workers)
    work = next(lifetime)
    print(json.dumps({"ready": True}), file=talk, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        work()
        print(json.dumps({"seconds": time.perf_counter() - started}), file=talk, flush=True)
    for _ in lifetime:
        pass
