"""What a checkpoint of a run holds, and how it comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from layernet.core.net import Net
from layernet.errors import CheckpointError, ContractError
from layernet.train.callbacks import Callback
from layernet.train.checkpoint import Checkpoint
from layernet.train.trainer import Trainer


def capture(trainer: Trainer) -> Checkpoint:
    """Everything that training needs to go on, and prediction to run: weights, optimizer, transforms, counters."""
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
        saved.add("net", trainer.net.state_dict())
    if trainer.average is not None:  # "net" is what predicts; these are what training goes on with
        saved.add("trained", trainer.net.state_dict())
    saved.add("optimizer", trainer.optimizer.state_dict())
    for index, transform in enumerate(config.data.all_transforms()):
        saved.add(f"transform/{index}", transform.state())
    return saved


def restore_net(saved: Checkpoint, net: Net, transforms: Sequence[Any]) -> None:
    """Take over weights, statistics and measured transforms. Raises CheckpointError, naming all that does not fit."""
    net.load_state_dict(saved.group("net"))
    for index, transform in enumerate(transforms):
        transform.load_state(saved.group(f"transform/{index}"))


def restore(saved: Checkpoint, trainer: Trainer) -> None:
    """Put a trainer where the checkpoint was taken."""
    if saved.meta["step"] > trainer.total_steps:
        raise CheckpointError(
            f"the checkpoint is at step {saved.meta['step']}, but the config trains {trainer.total_steps} steps",
            "it is of another config",
        )
    restore_net(saved, trainer.net, trainer.config.data.all_transforms())
    if trainer.average is not None:
        trainer.average.load(saved.meta["average"])
        trainer.net.load_state_dict(saved.group("trained"))
    trainer.optimizer.load_state_dict(saved.group("optimizer"))
    trainer.load_state(saved.meta)
    _give_back(saved.meta.get("callbacks", []), trainer.config.callbacks)


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
