"""From a validated config to a trained net: the loop, evaluation, checkpoints, the run directory."""
