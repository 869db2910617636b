"""layernet against PyTorch on the CPU: time of a step, of an answer, with data loading, from process start; memory.

    python scripts/bench_torch.py [--nets mlp,lenet,...] [--kinds train,...] [--kernels numba|numpy] [--json FILE]

Kinds: `train`, a whole step (forward, loss, backward, SGD with momentum) on a batch in memory; `inference1` and
`inference128`, answers for so many examples; `data`, training steps from the data loader; `start`, from the start of
the process to the end of the first training step. A ratio is our time over PyTorch's: below 1 we are faster.

PyTorch runs eager, with fused SGD, in NCHW and in channels_last; for `data` with as many loader processes as cores and
with none. What is fastest counts. Each candidate is a process of its own that stays, on all cores; they run in turn,
rounds of 0.3 s, the others blocked meanwhile. Rounds are repeated while medians and minima disagree by more than 15 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench.duel import Worker, WorkerFailed, agree, duel
from bench.machine import cores, described, machine

NETS = ("mlp", "lenet", "cuda_convnet", "vgg", "resnet20", "resnet18")
KINDS = ("train", "inference1", "inference128", "data", "start")
CONFIGS = Path(__file__).with_name("bench")
HEAD = f"{'net':<13}{'kind':<13}{'kernels':<8}{'ratio':>6}{'(min)':>8}"
HEAD += f"{'ours ms':>10}{'(min)':>10}{'theirs ms':>11}{'(min)':>10}{'ours MB':>9}{'theirs MB':>11}  their best"

Row = dict[str, Any]


class Bench:
    """The settings that all rows share."""

    def __init__(self, kernels: str, rounds: int, threads: int) -> None:
        self.kernels, self.rounds, self.threads = kernels, rounds, threads

    def row(self, net: str, kind: str) -> Row:
        """One comparison."""
        ours = self.ours(net, kind)
        if kind == "start":
            return self.start(ours)
        with ExitStack() as stack:
            us = stack.enter_context(Worker("layernet", ours))
            them = [stack.enter_context(Worker(label, spec)) for label, spec in self.theirs(ours, us.facts)]
            self.same_size(us, them)
            best = duel(us, them, self.rounds)
            return {
                **self.head(ours, us, best),
                **self.figures(us.typical, us.least, us.peak, "ours"),
                **self.figures(best.typical, best.least, best.peak, "theirs"),
                "rounds": len(us.medians),
                "agreed": agree(us, best),
                "tried": {w.label: self.figures(w.typical, w.least, w.peak) for w in them},
            }

    def start(self, ours: dict[str, Any]) -> Row:
        """Times to the first step, each of new processes that start in turn; and ours once without compiled kernels."""
        cold: Row = {}
        with tempfile.TemporaryDirectory() as empty, Worker("layernet", ours, {"NUMBA_CACHE_DIR": empty}) as us:
            if us.facts["kernels"] == "numba":
                cold = {"ours_cold": 1e3 * us.first_step, "ours_cold_peak_mb": us.peak}
        workers: dict[str, list[Worker]] = {}
        for _ in range(self.rounds + 1):  # the first one reads everything from disk
            with Worker("layernet", ours) as us:
                workers.setdefault(us.label, []).append(us)
            for label, spec in self.theirs(ours, us.facts):
                with Worker(label, spec) as them:
                    workers.setdefault(label, []).append(them)
        times = {label: [worker.first_step for worker in made[1:]] for label, made in workers.items()}
        label = min((label for label in times if label != "layernet"), key=lambda label: median(times[label]))

        def figures(label: str, side: str = "") -> Row:
            peak = max(worker.peak for worker in workers[label])
            return self.figures(median(times[label]), min(times[label]), peak, side)

        self.same_size(workers["layernet"][0], [workers[label][0]])
        return {
            **self.head(ours, workers["layernet"][0], workers[label][0]),
            **figures("layernet", "ours"),
            **figures(label, "theirs"),
            **cold,
            "tried": {tried: figures(tried) for tried in times if tried != "layernet"},
        }

    def ours(self, net: str, kind: str) -> dict[str, Any]:
        """What our worker is told."""
        config = str(CONFIGS / f"{net}.yaml")
        return {
            "side": "ours", "net": net, "kind": kind, "config": config, "kernels": self.kernels, "threads": self.threads
        }  # fmt: skip

    def theirs(self, ours: dict[str, Any], facts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """What theirs are told, by label: on inputs of the same shape."""
        layouts = ("nchw",) if ours["net"] == "mlp" else ("nchw", "channels_last")
        for layout in layouts:
            for workers in (0, self.threads) if ours["kind"] == "data" else (0,):
                label = f"{layout}, {workers} loaders" if ours["kind"] == "data" else layout
                yield label, {**ours, **facts, "side": "theirs", "layout": layout, "workers": workers}

    @staticmethod
    def same_size(us: Worker, them: list[Worker]) -> None:
        """The nets of both sides have as many parameters."""
        sizes = {worker.label: worker.facts["parameters"] for worker in (us, *them)}
        if len(set(sizes.values())) > 1:
            raise WorkerFailed(f"{us.spec['net']}: the nets differ in their number of parameters: {sizes}")

    @staticmethod
    def head(ours: dict[str, Any], us: Worker, best: Worker) -> Row:
        """What identifies a row."""
        row = {name: ours[name] for name in ("net", "kind", "threads")}
        row |= {name: us.facts[name] for name in ("kernels", "examples", "parameters")}
        return {**row, "their_best": best.label}

    @staticmethod
    def figures(typical: float, least: float, peak: float, side: str = "") -> Row:
        """Milliseconds and MB under the names of one side."""
        names = (side, f"{side}_min", f"{side}_peak_mb") if side else ("median", "min", "peak_mb")
        return dict(zip(names, (1e3 * typical, 1e3 * least, peak), strict=True))


def shown(row: Row) -> str:
    """A line of the table."""
    line = (
        f"{row['net']:<13}{row['kind']:<13}{row['kernels']:<8}{row['ratio']:6.2f}{row['ratio_min']:8.2f}{row['ours']:10.2f}"
        f"{row['ours_min']:10.2f}{row['theirs']:11.2f}{row['theirs_min']:10.2f}{row['ours_peak_mb']:9.0f}"
        f"{row['theirs_peak_mb']:11.0f}  {row['their_best']}"
    )
    if row["kind"] == "data":
        ours, theirs = (1e3 * row["examples"] / row[side] for side in ("ours", "theirs"))
        line += f"; {ours:.0f} and {theirs:.0f} images/s"
    if "ours_cold" in row:
        line += f"; ours without compiled kernels {row['ours_cold'] / 1e3:.1f} s"
    return line if row.get("agreed", True) else f"{line}; disturbed: {row['rounds']} rounds do not agree"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS), help="default: %(default)s")
    parser.add_argument("--kinds", default="train", help=f"of {', '.join(KINDS)}, or all; default: %(default)s")
    parser.add_argument("--kernels", choices=("auto", "numba", "numpy"), default="auto", help="ours")
    parser.add_argument("--rounds", type=int, default=5, help="of each candidate, at least (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=cores(), help="of each candidate (default: all, %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write rows to a file: net, kind, ratio, ours, theirs, ...")
    args = parser.parse_args(argv)
    nets, kinds = args.nets.split(","), list(KINDS) if args.kinds == "all" else args.kinds.split(",")
    known = {file.stem for file in CONFIGS.glob("*.yaml")}
    for what, given, there in (("net", nets, known), ("kind", kinds, set(KINDS))):
        if unknown := set(given) - there:
            parser.error(f"unknown {what} {', '.join(sorted(unknown))}: choose from {', '.join(sorted(there))}")
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    if find_spec("torch") is None:
        print("there is no torch to compare with: pip install torch", file=sys.stderr)
        return 1
    bench = Bench(args.kernels, args.rounds, args.threads)
    print(described())
    print(f"threads: {bench.threads}\n{HEAD}", flush=True)
    rows: list[Row] = []
    for kind in kinds:
        for net in nets:
            try:
                row = bench.row(net, kind)
            except WorkerFailed as error:
                print(error, file=sys.stderr)
                return 1
            row |= {"ratio": row["ours"] / row["theirs"], "ratio_min": row["ours_min"] / row["theirs_min"]}
            rows.append(row)
            print(shown(row), flush=True)
            if args.json:  # after every row: a long run that is broken off leaves what it has
                Path(args.json).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
