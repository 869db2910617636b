"""A process that runs steps of one side on request: python worker.py SPEC, requests and answers as lines of JSON.

Between requests it is blocked on its standard input. What libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

SETTLE = 0.5
"""Seconds of steps before the first that counts."""


def peak_memory() -> float:
    """The most memory that was ever resident, in MB: that of this program, not of the one that started it."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Make the job and answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**what: Any) -> None:
        print(json.dumps(what), file=answers, flush=True)

    spec = json.loads(sys.argv[1])
    sys.path.insert(0, str(Path(__file__).parents[1]))
    job = importlib.import_module(f"bench.{spec['side']}").Job(spec)
    job.step()
    answer(facts=job.facts, peak=peak_memory())
    if spec["kind"] == "start":
        return
    begin = time.perf_counter()
    while time.perf_counter() - begin < SETTLE:
        job.step()
    for line in sys.stdin:
        times: list[float] = []
        job.step()  # after the pause, caches and threads are cold
        begin = last = time.perf_counter()
        while last - begin < json.loads(line)["seconds"]:
            job.step()
            times.append((now := time.perf_counter()) - last)
            last = now
        answer(times=times, peak=peak_memory())


if __name__ == "__main__":
    main()
