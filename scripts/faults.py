"""Kills a save, or lets the system refuse, at every system call that it makes: `faults.py [--every N]`. Needs strace.

A save is all that a run writes at once: `last`, the copy that is kept, the rotation of the oldest, `best`, metrics.csv.
Afterwards every checkpoint that is there must load and hold what was saved under its name, the newest at most one save
old, and the next save must succeed and leave nothing beside it. A refusal (no space, I/O error) must be one line, and
no temporary file may stay. The order of the calls is checked too: write, fsync, rename, fsync of the directory.
`--every N` takes each N-th call alone. Exit code 1 where anything of it fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # a process with threads must not be forked

import numpy as np  # noqa: E402

from layernet.errors import CheckpointError, LayernetError  # noqa: E402
from layernet.train import checkpoint  # noqa: E402
from layernet.train.checkpoint import Checkpoint  # noqa: E402
from layernet.train.rundir import RunDirectory  # noqa: E402

KEEP = 2
OF_FILES = {
    *("openat", "open", "write", "lseek", "fsync", "rename", "close", "unlink", "link", "getdents64", "pwrite64"),
    *("mkdir", "newfstatat", "fstat", "stat", "ioctl", "readlink", "fcntl"),
}
"""The calls that a file system refuses; SIGKILL comes at all others, too."""


def content(step: int) -> Checkpoint:
    """What is saved at a step."""
    rng = np.random.default_rng(step)
    saved = Checkpoint(meta={"step": step, "history": [{"step": s} for s in range(1, step + 1)]})
    saved.add("net", {f"layer{i}.weight": rng.normal(size=(40, 50)).astype("float32") for i in range(3)})
    return saved


def save(run: RunDirectory, step: int) -> None:
    """All that a run writes after a step with an evaluation."""
    run.write_metrics([{"step": s, "loss": 1 / s} for s in range(1, step + 1)])
    run.save_best(content(step))
    run.save_last(content(step), KEEP)


def child(run: RunDirectory, step: int, report: Path) -> int:
    """Save in a process of its own, which stops before it begins; its process id."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, os.WUNTRACED)
        return pid
    code = 70
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            save(run, step)
            code = 0
        except LayernetError as error:
            report.write_text(str(error))
            code = error.exit_code
        except BaseException as error:
            report.write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def traced(pid: int, log: Path, inject: str | None = None) -> int:
    """Let the stopped child go on under strace; its exit code, or minus the signal that ended it."""
    options = ["-e", f"inject={inject}"] if inject else []
    tracer = subprocess.Popen(["strace", "-y", "-s", "0", "-o", log, *options, "-p", str(pid)], stderr=subprocess.PIPE)
    while not re.search(r"TracerPid:\s+[1-9]", Path(f"/proc/{pid}/status").read_text()):
        if tracer.poll() is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert tracer.stderr is not None
            raise OSError(f"strace cannot trace: {tracer.stderr.read().decode().strip()}")
        time.sleep(0.001)
    os.kill(pid, signal.SIGCONT)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    tracer.communicate()
    return code


def calls_of(log: Path) -> list[tuple[str, str]]:
    """(name, the whole line) of every system call of the save in a trace."""
    found = [(match[1], match[0]) for match in re.finditer(r"^(\w+)\(.*$", log.read_text(), re.M)]
    return [call for call in found if call[0] not in ("exit_group", "kill", "rt_sigprocmask")]


def check_order(calls: list[tuple[str, str]], folder: Path) -> list[str]:
    """What is wrong with how files were replaced: of each, write, fsync, rename and fsync of its directory in order."""
    problems = []
    for name, place in (("last.npz", "checkpoints"), ("best.npz", "checkpoints"), ("metrics.csv", "")):
        where = re.escape(str(folder / place)).rstrip("/")
        temporary = rf"{where}/\.{re.escape(name)}\.\d+\.tmp"
        order = [
            ("write", rf"^write\(\d+<{temporary}>"),
            ("fsync", rf"^fsync\(\d+<{temporary}>\)"),
            ("rename", rf'^rename\("{temporary}", "{where}/{re.escape(name)}"\)'),
            ("fsync of the directory", rf"^fsync\(\d+<{where}>\)"),
        ]
        position = 0
        for what, pattern in order:
            at = [index for index, (_, line) in enumerate(calls) if index >= position and re.search(pattern, line)]
            if not at:
                problems.append(f"{name}: no {what} in its place")
                break
            position = at[-1] + 1 if what == "write" else at[0] + 1
    return problems


def check(run: RunDirectory, before: int, code: int, message: str, killed: bool) -> list[str]:
    """What is wrong with a run directory after a save, from step `before` on, that was cut short."""
    problems = []
    if not killed and (code not in (0, 1) or "\n" in message or (code == 1 and str(run.path) not in message)):
        problems.append(f"exit code {code}: {message!r}")
    for name in run.checkpoints():
        try:
            saved = checkpoint.load(run.checkpoint(name))
        except CheckpointError as error:
            problems.append(str(error))
            continue
        step = saved.meta["step"]
        if step not in range(1, before + 2) or name not in ("last", "best", f"step-{step:08d}"):
            problems.append(f"{name} holds step {step}")
        if any((saved.arrays[key] != value).any() for key, value in content(step).arrays.items()):
            problems.append(f"{name} does not hold what was saved")
    newest = run.newest()[0]
    if newest is None or newest.meta["step"] < before + (code == 0):
        problems.append("the newest checkpoint is more than a save old")
    if "best" not in run.checkpoints() or len((run.path / "metrics.csv").read_text().split()) < before + 1:
        problems.append("best or metrics.csv are gone")
    temporary = list(run.path.rglob("*.tmp"))
    if temporary and not killed:
        problems.append(f"left behind: {temporary}")
    run.sweep()
    save(run, before + 1)
    if list(run.path.rglob("*.tmp")) or len(run.checkpoints()) != KEEP + 2 or run.newest()[1]:
        problems.append(f"the next save leaves {run.checkpoints()}")
    return problems


def main() -> int:
    """Fault every call; print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    every = parser.parse_args().every
    began, found, failed = time.monotonic(), Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        log, report = folder / "trace", folder / "report"
        (prepared := RunDirectory(folder / "prepared")).checkpoint("last").parent.mkdir(parents=True)
        for step in (1, 2):
            save(prepared, step)

        def attempt(inject: str | None) -> tuple[RunDirectory, int, str]:
            run = RunDirectory(folder / "run")
            shutil.rmtree(run.path, ignore_errors=True)
            shutil.copytree(prepared.path, run.path)
            report.write_text("")
            code = traced(child(run, 3, report), log, inject)
            return run, code, report.read_text()

        run, code, message = attempt(None)
        calls = calls_of(log)
        for problem in [*check_order(calls, run.path), *([] if code == 0 else [message])]:
            failed += 1
            print(f"WRONG ORDER: {problem}")
        seen: Counter[str] = Counter()
        for number, (call, line) in enumerate(calls):
            seen[call] += 1
            if number % every:
                continue
            for fault in ("signal=KILL", "error=ENOSPC", "error=EIO", "error=EDQUOT"):
                if fault != "signal=KILL" and call not in OF_FILES:
                    continue
                run, code, message = attempt(f"{call}:{fault}:when={seen[call]}")
                found[fault, f"exit {code}" if code >= 0 else "killed"] += 1
                for problem in check(run, 2, code, message, killed=code < 0):
                    failed += 1
                    print(f"{fault} at {line}: {problem}")
    print(f"a save makes {len(calls)} system calls: {', '.join(f'{n} {c}' for c, n in seen.most_common())}")
    for (fault, result), count in sorted(found.items()):
        print(f"{fault:14} {result:8} {count}")
    print(f"{sum(found.values())} faults, {failed} problems, in {time.monotonic() - began:.0f} s")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
