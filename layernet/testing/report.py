"""What a gradient check found: numbers for every tensor, and every failure with its place and both values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from layernet.text import aligned

_SHOWN = 12  # failures printed in full
COUNTS = ("elements", "directions", "kinks", "ill_conditioned", "unproven")
"""What is counted of every tensor, and summed up."""


@dataclass(frozen=True)
class Failure:
    """One thing that is wrong, named by the rule it breaks.

    `rule` is one of `gradient` (the values differ), `missing` (no gradient where there should be one), `nan`,
    `contract` (wrong shape or type, an error of the core), `exception` (it raised one), `determinism`, `accumulation`,
    `kinks` (too many points could not be compared), `precision`, `nothing` (every gradient is zero: nothing is shown).
    """

    rule: str
    subject: str
    mode: str
    layer: str
    tensor: str
    message: str
    index: tuple[int, ...] | None = None
    analytic: float | None = None
    numeric: tuple[float, float] | None = None
    steps: tuple[float, float] | None = None
    cause: str = ""

    def __str__(self) -> str:
        place = f"{self.tensor} " if self.tensor else ""
        if self.index is not None:
            place = f"{self.tensor}[{', '.join(map(str, self.index))}] "
        lines = f"{self.layer}: {place}({self.mode}): {self.rule}: {self.message}"
        if self.analytic is not None and self.numeric is not None and self.steps is not None:
            lines += f": analytic {self.analytic:.10g}, numeric {self.numeric[0]:.10g} at h = {self.steps[0]:.3g}"
            if not math.isnan(self.numeric[1]):
                lines += f", {self.numeric[1]:.10g} at h = {self.steps[1]:.3g}"
        return lines + (f"; likely cause: {self.cause}" if self.cause else "")

    def as_dict(self) -> dict[str, Any]:
        """As plain data for JSON; numbers that are not finite become text."""
        return {key: plain(value) for key, value in vars(self).items()}


@dataclass(frozen=True)
class TensorResult:
    """How one parameter or input was checked.

    `elements` and `directions` were compared; of them `kinks` and `ill_conditioned` needed smaller steps and were
    compared less exactly, `unproven` of those not at all (a subgradient at a kink, or no digit left), and `tiny` were
    below the rounding floor on both sides. `worst` is the largest relative error of the others, `norm_error` is
    |a - n| / max(|a|, |n|) over the elements among them (Euclidean norms), `cosine` theirs.
    """

    subject: str
    mode: str
    layer: str
    tensor: str
    shape: tuple[int, ...]
    elements: int
    directions: int
    kinks: int
    ill_conditioned: int
    unproven: int
    tiny: int
    failed: int
    worst: float
    norm_error: float
    cosine: float

    @property
    def path(self) -> str:
        """Layer and tensor as one word."""
        return f"{self.layer}: {self.tensor}"

    def as_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {key: plain(value) for key, value in vars(self).items()}


@dataclass
class Report:
    """The outcome of a gradient check. `ok` says whether it passed; `str` is a readable table; it is true when ok."""

    title: str
    tensors: list[TensorResult] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing failed."""
        return bool(self.tensors) and not self.failures

    def __bool__(self) -> bool:
        return self.ok

    @property
    def worst(self) -> float:
        """The largest relative error of any point that could be compared: at most rtol where all is well."""
        return max((tensor.worst for tensor in self.tensors), default=0.0)

    def unseen(self) -> list[str]:
        """The tensors whose gradients were below the rounding floor everywhere, in every mode: nothing is shown."""
        seen = {t.path for t in self.tensors if t.tiny < t.elements + t.directions}
        return sorted({t.path for t in self.tensors} - seen)

    def add(self, other: Report) -> None:
        """Take over what another report found."""
        self.tensors += other.tensors
        self.failures += other.failures
        self.notes += [note for note in other.notes if note not in self.notes]
        self.seconds += other.seconds

    def count(self, what: str) -> int:
        """The sum over all tensors of one of their counts, `elements` or `kinks`."""
        return sum(getattr(tensor, what) for tensor in self.tensors)

    def summary(self) -> str:
        """The outcome in one line."""
        outcome = f"FAILED ({len(self.failures)})" if self.failures else "ok" if self.ok else "nothing checked"
        counts = ", ".join(f"{self.count(kind)} {kind.replace('_', '-')}" for kind in COUNTS)
        return (
            f"{self.title}: {outcome}: {len(self.tensors)} tensors, {counts}, "
            f"worst relative error {self.worst:.1e}, {self.seconds:.1f} s"
        )

    def rows(self) -> list[list[str]]:
        """The table as text, its headings first."""
        head = ["layer", "tensor", "mode", "shape", "elements", "dirs", "kinks", "ill", "unproven", "tiny", "worst", ""]
        return [head] + [
            [
                t.layer if t.subject in (t.layer, "") else f"{t.subject} > {t.layer}",
                t.tensor,
                t.mode,
                "x".join(map(str, t.shape)) or "scalar",
                *(str(n) for n in (t.elements, t.directions, t.kinks, t.ill_conditioned, t.unproven, t.tiny)),
                f"{t.worst:.1e}",
                "FAILED" if t.failed or self._blamed(t) else "ok",
            ]
            for t in self.tensors
        ]

    def __str__(self) -> str:
        parts = [aligned(self.rows())] if self.tensors else []
        parts += [f"note: {note}" for note in self.notes]
        parts += [str(failure) for failure in self.failures[:_SHOWN]]
        if len(self.failures) > _SHOWN:
            parts.append(f"... and {len(self.failures) - _SHOWN} more failures")
        return "\n".join([*parts, self.summary()])

    def as_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            "title": self.title,
            "ok": self.ok,
            "worst": plain(self.worst),
            **{what: self.count(what) for what in COUNTS},
            "seconds": self.seconds,
            "notes": list(self.notes),
            "tensors": [tensor.as_dict() for tensor in self.tensors],
            "failures": [failure.as_dict() for failure in self.failures],
        }

    def _blamed(self, tensor: TensorResult) -> bool:
        place = (tensor.subject, tensor.mode, tensor.layer, tensor.tensor)
        return any((f.subject, f.mode, f.layer, f.tensor) == place for f in self.failures)


def plain(value: Any) -> Any:
    """As JSON can hold it: lists for tuples, text for numbers that are not finite."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
