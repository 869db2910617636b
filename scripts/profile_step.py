"""Where a training step's time goes: by layer and pass, and loss, optimizer, waiting for data, the framework itself.

    python scripts/profile_step.py CONFIG [--steps 40] [--set KEY=VALUE] [--kernels numba] [--json FILE]

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

import layernet as ln
from layernet.cli.common import add_compute, add_config, with_chosen
from layernet.errors import LayernetError
from layernet.train.compute import computing, facts, in_words
from layernet.train.profile import Profile
from layernet.train.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    """Train some steps and print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument("--steps", type=int, default=40, help="steps to time (default: %(default)s)")
    add_compute(parser)
    parser.add_argument("--json", metavar="FILE", help="also write the figures to a file")
    args = parser.parse_args(argv)
    profile = Profile()
    try:
        overrides = [*with_chosen(args), "train.epochs=null", f"train.steps={profile.skip + args.steps + 1}"]
        experiment = ln.load(args.config, overrides)
        trainer = Trainer(experiment.config, experiment.net, {"train": experiment.loaders["train"]}, [profile])
        with computing(experiment.config, experiment.net):
            trainer.fit()
    except LayernetError as error:
        print(error, file=sys.stderr)
        return 1
    times = profile.result()
    if times is None:
        parser.error("--steps is too small: no step was timed")
    print(times.table())
    batch, kernels = experiment.config.data.batch_size, in_words(facts(experiment.config, experiment.net))
    print(f"the means of the {times.steps} fastest of {args.steps} steps, batch {batch}, kernels {kernels}")
    if args.json:
        Path(args.json).write_text(json.dumps(dataclasses.asdict(times), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
