"""Whether acceleration costs accuracy: the same trainings with and without it, over several seeds.

    python scripts/accuracy.py [--seeds 1,2,3] [--json FILE]      (real MNIST and CIFAR-10 under $LAYERNET_DATA)

Accelerated: compiled kernels, Winograd's filtering, the plan. Plain: `kernels: numpy, precise: true, plan: off`, every
sum in the order of the definition. Both start from the same weights and see the same batches: what differs is
rounding alone, which training magnifies until runs differ as those of two seeds do. So the difference of the means is
set against the spread between seeds: one of more than three standard errors is no noise, and the script fails.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console

import layernet as ln

sys.path.insert(0, str(Path(__file__).parent))

from bench.machine import described, machine

ROOT = Path(__file__).parents[1]
TRAININGS = {"mnist_lenet": 2, "cifar10_quick": 5}
"""Epochs, by config."""
ACCELERATED: dict[str, Any] = {"kernels": "numba", "precise": False, "plan": "on"}
PLAIN: dict[str, Any] = {"kernels": "numpy", "precise": True, "plan": "off"}


def accuracy(config: str, seed: int, settings: dict[str, Any], epochs: int) -> float:
    """Test accuracy in percent after so many epochs."""
    with tempfile.TemporaryDirectory() as runs:
        overrides = {"train.epochs": epochs, "seed": seed, **settings}
        experiment = ln.load(str(ROOT / "configs" / f"{config}.yaml"), overrides)
        experiment.train(runs, console=Console(file=StringIO()))
        return 100 * experiment.evaluate("test")["accuracy"]


def standard_error(a: list[float], b: list[float]) -> float:
    """Of the difference of two means."""
    return math.sqrt(stdev(a) ** 2 / len(a) + stdev(b) ** 2 / len(b))


def main() -> int:
    """Print a row for each training; 1 where accuracies differ by more than noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    here = machine()
    print(described())
    print(f"{'config':<15}{'epochs':>7}  {'accelerated %':<24}{'plain %':<24}{'difference':>11}{'std. error':>12}")
    rows = []
    for config, epochs in TRAININGS.items():
        found = [[accuracy(config, seed, s, epochs) for seed in args.seeds] for s in (ACCELERATED, PLAIN)]
        difference, error = mean(found[0]) - mean(found[1]), standard_error(*found)
        rows.append({"config": config, "epochs": epochs, "accelerated": found[0], "plain": found[1], "error": error})
        shown = [", ".join(f"{value:.2f}" for value in values) for values in found]
        print(f"{config:<15}{epochs:>7}  {shown[0]:<24}{shown[1]:<24}{difference:>+11.2f}{error:>12.2f}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps({"machine": here, "rows": rows}, indent=2) + "\n")
    apart = [r["config"] for r in rows if abs(mean(r["accelerated"]) - mean(r["plain"])) > 3 * r["error"]]
    if apart:
        print(f"acceleration changes the accuracy of {', '.join(apart)}", file=sys.stderr)
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
