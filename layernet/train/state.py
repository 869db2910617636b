"""What a checkpoint of a run holds, and how it comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layernet.core.net import Net
from layernet.errors import CheckpointError, ContractError
from layernet.train.callbacks import Callback
from layernet.train.checkpoint import Checkpoint
from layernet.train.trainer import Trainer

if TYPE_CHECKING:
    from layernet.config.experiment import ExperimentConfig

_META = 1 << 16
"""Bytes that rows, metrics and callbacks may take in a checkpoint."""


def capture(trainer: Trainer) -> Checkpoint:
    """Everything that training needs to go on, and prediction to run: weights, optimizer, transforms, counters.

    To be saved before training goes on: on a CPU the arrays are those in use, since a large net's copies might not fit
    beside it.
    """
    config = trainer.config
    saved = Checkpoint(
        meta={
            **trainer.state(),
            "callbacks": _states(config.callbacks),
            "config": config.dump(),
            "classes": config.data.train.classes,
            "seed": config.seed,
            "dtype": trainer.net.dtype,
        }
    )
    with trainer.averaged():
        saved.add("net", trainer.net.state_dict(copy=trainer.average is not None))
    if trainer.average is not None:  # "net" is what predicts; these are what training goes on with
        saved.add("trained", trainer.net.state_dict(copy=False))
    saved.add("optimizer", trainer.optimizer.state_dict(copy=False))
    for index, transform in enumerate(config.data.all_transforms()):
        saved.add(f"transform/{index}", transform.state())
    return saved


def size_of(config: ExperimentConfig, net: Net) -> int:
    """About how many bytes a checkpoint of the net's training has, before there is one."""
    copies = 1 + (config.average is not None)
    state = len(config.optimizer.state_names)
    buffers = sum(buffer.data.nbytes for buffer in net.buffers().values())
    names = 512 * (len(net.params()) * (copies + state) + len(net.buffers()) * copies)  # headers and directory
    return int(net.arena.data.nbytes * (copies + state) + buffers * copies + names + len(config.dump()) + _META)


def not_finite(saved: Checkpoint) -> str:
    """A warning where weights or statistics of a checkpoint are NaN or infinite; empty where none are."""
    paths = [path for path, value in saved.group("net").items() if not np.isfinite(value).all()]
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"warning: the checkpoint holds NaN or infinity: {', '.join(paths[:3])}{more}" if paths else ""


def restore_net(saved: Checkpoint, net: Net, transforms: Sequence[Any]) -> None:
    """Take over weights, statistics and measured transforms. Raises CheckpointError, naming all that does not fit."""
    _refuse(net.misfits(saved.group("net")))
    for index, transform in enumerate(transforms):
        transform.load_state(saved.group(f"transform/{index}"))
    net.load_state_dict(saved.group("net"))


def restore(saved: Checkpoint, trainer: Trainer) -> None:
    """Put a trainer where the checkpoint was taken. Raises CheckpointError before anything of it is taken over."""
    step, net = saved.meta.get("step"), trainer.net
    if not isinstance(step, int) or not 0 <= step <= trainer.total_steps:
        raise CheckpointError(
            f"the checkpoint is at step {step}, but the config trains {trainer.total_steps} steps",
            "it is of another config",
        )
    transforms = trainer.config.data.all_transforms()
    known = {"net", "optimizer", *(f"transform/{index}" for index in range(len(transforms)))}
    problems = net.misfits(saved.group("net"))
    if trainer.average is not None:
        known.add("trained")
        problems += [f"of those trained, {problem}" for problem in net.misfits(saved.group("trained"))]
    problems += [f"of the optimizer, {problem}" for problem in trainer.optimizer.misfits(saved.group("optimizer"))]
    problems += [f"unknown: {n}" for n in saved.arrays if not any(n.startswith(f"{group}/") for group in known)]
    _refuse(problems)
    try:
        trainer.load_state(saved.meta)
        _give_back(saved.meta.get("callbacks", []), trainer.config.callbacks)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # no state that a trainer has written
        raise CheckpointError(
            f"the checkpoint does not say where training stood: {type(error).__name__}: {error}",
            "it is of another version of layernet, or its metrics or callbacks have changed",
        ) from error
    restore_net(saved, net, transforms)
    if trainer.average is not None:
        trainer.average.load(saved.meta["average"])
        net.load_state_dict(saved.group("trained"))
    trainer.optimizer.load_state_dict(saved.group("optimizer"))


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise CheckpointError("the checkpoint does not fit the config's net:\n  " + "\n  ".join(problems))


def _states(callbacks: Sequence[Callback]) -> list[dict[str, Any]]:
    """`{"type": ..., "state": ...}` of each callback, in order. Raises ContractError for what JSON cannot hold."""
    states = []
    for callback in callbacks:
        name, state = type(callback).__name__, callback.state()
        try:
            json.dumps(state)
        except (TypeError, ValueError) as error:
            raise ContractError(
                f"{name}.state() is not plain data: {error}", "give numbers, strings, lists and dictionaries of them"
            ) from error
        states.append({"type": name, "state": state})
    return states


def _give_back(states: Sequence[dict[str, Any]], callbacks: Sequence[Callback]) -> None:
    """Each callback gets its state: the n-th of a type that of the n-th; one that is new in the config starts anew."""
    waiting: dict[str, list[dict[str, Any]]] = {}
    for entry in states:
        waiting.setdefault(entry["type"], []).append(entry["state"])
    for callback in callbacks:
        if same := waiting.get(type(callback).__name__):
            callback.load_state(same.pop(0))
