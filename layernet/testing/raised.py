"""What the checked code raises is a finding about it, with its place; the check goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from layernet.core.blame import blame
from layernet.core.duties import faults
from layernet.core.layer import Layer
from layernet.errors import ContractError, LayernetError
from layernet.losses import Loss, Penalty
from layernet.testing.report import Failure, Report


@contextmanager
def told(report: Report, subject: str, mode: str) -> Iterator[None]:
    """Within it, an exception of the checked code is a failure of the rule `exception`.

    What layernet says of the contract is one of the rule `contract`. Its other errors and its own mistakes go through.
    """
    try:
        yield
    except ContractError as error:
        report.failures.append(Failure("contract", subject, mode, subject, "", str(error)))
    except LayernetError:
        raise
    except Exception as error:
        message = blame(error)
        if message is None:
            raise
        report.failures.append(Failure("exception", subject, mode, subject, "", message))


def owed(target: Layer | Loss | Penalty) -> list[Failure]:
    """A failure for every method of the user's classes in it that is missing, or cannot be called as training does."""
    classes = dict.fromkeys(
        type(part) for part in ([layer for _, layer in target.walk()] if isinstance(target, Layer) else [target])
    )
    name = type(target).__name__
    return [Failure("contract", name, "contract", name, "", fault) for cls in classes for fault in faults(cls)]


def once(failures: Sequence[Failure]) -> list[Failure]:
    """The failures, but a sentence that several rules came to is told of the first: it was one mistake."""
    first: dict[str, Failure] = {}
    others: dict[str, int] = {}
    for failure in failures:
        what = _sentence(failure)
        others[what] = others[what] + 1 if what in first else 0
        first.setdefault(what, failure)
    return [
        replace(failure, message=f"{failure.message}; so ended {others[what]} more checks") if others[what] else failure
        for what, failure in first.items()
    ]


def _sentence(failure: Failure) -> str:
    """What is said, but for what a rule chose: sizes, the float type, what the layer and its parameters are called."""
    if failure.tensor:
        return str(failure)
    message = failure.message.partition(" failed: ")[2] or failure.message
    message = re.sub(r"layer \S+( \(\w+\))?: |a \S+ layer: |(?<=Param )\S+|float(32|64)", "", message)
    return re.sub(r"\d+", "#", message)
