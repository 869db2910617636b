"""What of its config a run may change when it goes on: how long and how it trains, not what is trained on what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from layernet.errors import UsageError

_MAY_CHANGE = (
    *("train", "schedule", "optimizer", "callbacks", "data.prefetch", "data.eval_batch_size"),
    *("device", "kernels", "threads", "precise", "plan"),
)
_MAY_NOT = ("optimizer.type", "optimizer.groups", "train.accumulate")
"""Of those above: state is kept by the optimizer's own names, and for what it trains; a step has its examples."""

Changes = dict[str, tuple[Any, Any]]
"""(before, after) by the path of the key."""


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """What differs between two resolved configs. Raises UsageError, naming every key that must stay."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    found = {key: (old.get(key), new.get(key)) for key in [*old, *new] if old.get(key) != new.get(key)}
    refused = [key for key in found if not _under(key, _MAY_CHANGE) or _under(key, _MAY_NOT)]
    if refused:
        hint = f"what can: {', '.join(_MAY_CHANGE)}, but not {', '.join(_MAY_NOT)}; for all else train anew"
        raise UsageError(f"{', '.join(refused)} cannot change when a run goes on", hint)
    return found


def _under(key: str, places: tuple[str, ...]) -> bool:
    return any(f"{key}.".startswith(f"{place}.") for place in places)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
