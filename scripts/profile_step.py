"""Where a training step's time goes: by layer and pass, and loss, optimizer, waiting for data, the framework itself.

    python scripts/profile_step.py CONFIG [--steps 40] [--set KEY=VALUE] [--kernels numba|numpy] [--json FILE]

Trains as `layernet train` would, without evaluation and without a run directory. scripts/bench/ has configs that need
no data files.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench.experiment import KERNELS, computing, load

from layernet.cli.common import add_config
from layernet.errors import LayernetError
from layernet.train.profile import Profile
from layernet.train.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Train some steps and print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument("--steps", type=int, default=40, help="steps to time (default: %(default)s)")
    parser.add_argument("--kernels", choices=KERNELS, default=None, help="default: the fastest there are")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to a file")
    args = parser.parse_args(argv)
    profile = Profile()
    try:
        overrides = [*args.overrides, "train.epochs=null", f"train.steps={profile.skip + args.steps + 1}"]
        experiment = load(args.config, args.kernels, overrides)
        trainer = Trainer(experiment.config, experiment.net, {"train": experiment.loaders["train"]}, [profile])
        with computing(experiment):
            trainer.fit()
    except LayernetError as error:
        print(error, file=sys.stderr)
        return 1
    times = profile.result()
    if times is None:
        parser.error("--steps is too small: no step was timed")
    print(times.table())
    print(f"the means of the {times.steps} fastest of {args.steps} steps, batch {experiment.config.data.batch_size}")
    if args.json:
        Path(args.json).write_text(json.dumps(dataclasses.asdict(times), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
