"""What all optimizers share: they are formulas on flat arrays that hold many parameters at once.

What a formula needs beside parameter and gradient (momentum, moments) lies in arrays of the arena's layout. Parameters
that stand side by side and are treated alike form a stretch, and the formula runs once per stretch, however many
parameters there are. Checkpoints hold state by parameter path, so the layout is free to change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from layernet.backend import Array, Shape
from layernet.core.configurable import Configurable
from layernet.core.net import Net
from layernet.core.param import Arena, Param
from layernet.errors import CheckpointError, ContractError, UsageError, did_you_mean

Groups = dict[str, dict[str, float | bool]]
"""Settings by pattern on the parameter path: {"head.*": {"lr_mult": 2}, "stem.*": {"frozen": True}}."""

NORMS = ("max_norm", "norm")
"""The settings that hold the norms of a weight's rows, of parameters with two axes or more."""

ONE_AXIS = "it has one axis; name the weights, as in conv*.weight"
"""What to say of `NORMS` set for biases."""

_SETTINGS = ("lr_mult", "decay_mult", "frozen", *NORMS)
_BLOCK = 1 << 16
"""Elements a formula handles at a time on the CPU: all it reads and writes of them stays in the second-level cache."""


@dataclass(frozen=True)
class _Stretch:
    """Parameters side by side that are treated alike: views of their values, gradients and state."""

    w: Array
    g: Array
    state: dict[str, Array]
    rule: Optimizer
    lr_mult: float
    decay_mult: float
    first_step: int


class Optimizer(Configurable):
    """Base of all optimizers. A subclass names the arrays it keeps in `state_names` and writes `update`.

    `lr` is the learning rate, `weight_decay` the decay rate; a parameter's own `lr_mult` and `decay_mult` (0 for biases
    and norm gains) multiply them. `groups` sets these, or `frozen`, anew for the parameters whose path matches a
    pattern. `max_norm: c` there scales what is longer than c back to c after every update, `norm: c` scales to c
    exactly (cuda-convnet's wball): all that leads to one unit, by its L2 norm: w[i], of Local2d w[r, c, i], of
    ConvTranspose2d w[..., i].
    """

    whole: ClassVar[bool] = False
    """Whether `update` wants each parameter by itself, in its own shape, in place of flat arrays of many."""

    one_kernel: ClassVar[bool] = False
    """Whether `update` is one call of a kernel in place of array passes, which on the CPU get a block at a time."""

    lr: float
    weight_decay: float = 0.0
    groups: Groups | None = None

    _net: Net | None = None

    def __init__(self, lr: float, weight_decay: float = 0.0, groups: Groups | None = None) -> None:
        at_least_zero("lr", lr)
        at_least_zero("weight_decay", weight_decay)
        _check_groups(groups or {})
        self.lr, self.weight_decay, self.groups = lr, weight_decay, groups

    @property
    def state_names(self) -> tuple[str, ...]:
        """The arrays kept for each parameter, of its shape, zero at first."""
        return ()

    def update(self, w: Array, g: Array, state: dict[str, Array], lr: float, decay: float, t: int) -> None:
        """Change the flat array w in place, given its gradient g, which must stay as it is.

        `lr` and `decay` come with schedule and multipliers in them; t = 1, 2, ... counts the updates of w.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def rule(self, param: Param) -> Optimizer:
        """Whose formula, lr and weight_decay the parameter follows: this optimizer's."""
        return self

    def scratch(self, like: Array, number: int = 0) -> Array:
        """An uninitialised array as long as `like`, reused by the next call with this number."""
        if number not in self._scratch or self._scratch[number].size < like.size:
            self._scratch[number] = self.xp.empty(like.size, dtype=like.dtype)
        return self._scratch[number][: like.size]

    def attach(self, net: Net) -> Self:
        """Get ready for a bound net: apply `groups`, make the state arrays, forget any earlier net. Returns self.

        Raises UsageError for a pattern that matches no parameter, and for one matched twice for the same setting.
        """
        settings = _settle_groups(net, self.groups or {})
        for pattern, group in (self.groups or {}).items():
            if "frozen" in group:
                net.freeze(pattern, bool(group["frozen"]))
        self._net, self._arena = net, net.arena
        self.ops, self.xp = net.device.ops, net.device.xp
        self._mults = {
            path: (settings.get((path, "lr_mult"), p.lr_mult), settings.get((path, "decay_mult"), p.decay_mult))
            for path, p in net.params().items()
        }
        self._norms = [
            (net.params()[path], limit, name == "norm") for (path, name), limit in settings.items() if name in NORMS
        ]
        with net.device.activate():
            self._state = {name: net.arena.like() for name in self.state_names}
        self._first_step: dict[str, int] = {}  # when each parameter was updated first; frozen ones start later
        self._next_step = 0
        self._scratch: dict[int, Array] = {}
        self._live: list[bool] | None = None
        return self

    def step(self, factor: float = 1.0, step: int | None = None) -> None:
        """Update every parameter that is not frozen, by its gradient, at the learning rate `factor * lr`.

        `step` is the number of the update, from 0; by default one more than the last. A parameter that got no gradient
        has gradient 0: momentum and decay still move it.
        """
        arena = self._attached()
        step = self._next_step if step is None else step
        if step < self._next_step:
            raise ContractError(
                f"{self!r} was asked for update {step} after update {self._next_step - 1}",
                "attach it again to start over, or load_state_dict() to go back",
            )
        with arena.device.activate():
            arena.settle()
            live = [not param.frozen for param in arena.params]
            if live != self._live:
                self._live, self._stretches = live, list(self._find_stretches(live, step))
            for part in self._stretches:
                lr, decay = part.rule.lr * factor * part.lr_mult, part.rule.weight_decay * part.decay_mult
                part.rule.update(part.w, part.g, part.state, lr, decay, step - part.first_step + 1)
            for param, limit, exact in self._norms:
                if not param.frozen:
                    self._hold_norms(param, limit, exact)
        self._next_step = step + 1

    def state_dict(self, copy: bool = True) -> dict[str, np.ndarray[Any, Any]]:
        """What a checkpoint keeps: `momentum/conv1.weight` and the like, the next `step`, and `first_step/<path>`.

        The last is there for parameters that were not updated from step 0 on: -1 where they still were not. With
        `copy=False` they are the arrays in use, to be read.
        """
        arena = self._attached()
        state: dict[str, np.ndarray[Any, Any]] = {"step": np.array(self._next_step)}
        for param, span in zip(arena.params, arena.spans, strict=True):
            for name, flat in self._state.items():
                values = arena.device.to_numpy(flat[span]).reshape(param.shape)
                state[f"{name}/{param.path}"] = np.array(values) if copy else values
            first = self._first_step.get(param.path, -1)
            if first and self._next_step:
                state[f"first_step/{param.path}"] = np.array(first)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`. Raises CheckpointError, naming all that does not fit, before any change."""
        arena = self._attached()
        if problems := self.misfits(state):
            raise CheckpointError(f"the state does not fit {self!r}:\n  " + "\n  ".join(problems))
        with arena.device.activate():
            for param, span in zip(arena.params, arena.spans, strict=True):
                for name, flat in self._state.items():
                    flat[span] = arena.device.asarray(state[f"{name}/{param.path}"], self._dtype).ravel()
        self._next_step = int(state["step"])
        first = {p.path: int(state.get(f"first_step/{p.path}", 0)) for p in arena.params} if self._next_step else {}
        self._first_step = {path: step for path, step in first.items() if step >= 0}
        self._live = None

    def misfits(self, state: Mapping[str, Any]) -> list[str]:
        """All for which `load_state_dict` would refuse `state`."""
        arena = self._attached()
        shapes: dict[str, tuple[int, ...]] = {"step": ()}
        shapes |= {f"{name}/{p.path}": p.shape for name in self._state for p in arena.params}
        optional = {f"first_step/{p.path}" for p in arena.params}
        return [
            *(f"missing: {key} {shape}" for key, shape in shapes.items() if key not in state),
            *(f"unknown: {key}" for key in state if key not in shapes and key not in optional),
            *(
                f"shape: {key} is {np.shape(state[key])}, expected {shape}"
                for key, shape in shapes.items()
                if key in state and np.shape(state[key]) != shape
            ),
        ]

    @property
    def _dtype(self) -> str:
        return str(self._arena.data.dtype)

    def _attached(self) -> Arena:
        if self._net is None:
            raise ContractError(f"{self!r} has no net yet", "call optimizer.attach(net) first")
        if self._net.arena is not self._arena:
            raise ContractError(
                "the net was bound again, and its parameters lie elsewhere now",
                "keep state_dict(), attach the optimizer again and load_state_dict() it",
            )
        return self._arena

    def _hold_norms(self, param: Param, limit: float, exact: bool) -> None:
        """Scale what leads to a unit and is longer than `limit` (`exact`: all but zeros) to that length."""
        shape, units = param.units or (param.shape, (0,))
        weights = param.data.reshape(shape)
        others = tuple(axis for axis in range(len(shape)) if axis not in units)
        norms = self.xp.sqrt((weights * weights).sum(axis=others, keepdims=True))
        moves = norms > (0 if exact else limit)
        weights *= self.xp.where(moves, limit / self.xp.where(moves, norms, 1), 1)

    def _find_stretches(self, live: list[bool], step: int) -> Iterator[_Stretch]:
        """Neighbours of one treatment merged, the padding between them included: it is 0 and stays 0."""
        arena = self._arena
        runs: list[tuple[tuple[Optimizer, float, float, int], Shape | None, int, int]] = []
        previous = False
        for param, span, lives in zip(arena.params, arena.spans, live, strict=True):
            if lives:
                rule = self.rule(param)
                treatment = (rule, *self._mults[param.path], self._first_step.setdefault(param.path, step))
                shape = param.shape if rule.whole else None
                if previous and shape is None and runs[-1][0] == treatment:
                    runs[-1] = (treatment, None, runs[-1][2], span.stop)
                else:
                    runs.append((treatment, shape, span.start, span.stop))
            previous = lives
        for treatment, shape, start, stop in runs:
            in_blocks = arena.device.name == "cpu" and shape is None and not treatment[0].one_kernel
            block = _BLOCK if in_blocks else max(1, stop - start)
            for begin in range(start, stop, block):
                part = slice(begin, min(begin + block, stop))
                views = (flat[part] for flat in (arena.data, arena.grad, *self._state.values()))
                w, g, *state = (view if shape is None else view.reshape(shape) for view in views)
                yield _Stretch(w, g, dict(zip(self._state, state, strict=True)), *treatment)


def _settle_groups(net: Net, groups: Groups) -> dict[tuple[str, str], float]:
    """The settings by (path, setting), refused where a parameter is matched twice for one."""
    settled: dict[tuple[str, str], float] = {}
    by: dict[tuple[str, str], str] = {}
    for pattern, group in groups.items():
        matched: list[Param] = net.matching(pattern)
        for setting, value in group.items():
            for param in matched:
                key = (param.path, setting)
                if key in by:
                    raise UsageError(
                        f"groups {by[key]!r} and {pattern!r} both set {setting} of {param.path}",
                        "let each parameter match one of them",
                    )
                if setting in NORMS and len(param.shape) < 2:
                    raise UsageError(f"{pattern!r} sets {setting} of {param.path}", ONE_AXIS)
                by[key] = pattern
                settled[key] = float(value)
    both = [path for path, setting in by if setting == "norm" and (path, "max_norm") in by]
    if both:
        raise UsageError(f"groups set both norm and max_norm of {both[0]}", "norm holds it at one length already")
    return settled


def _check_groups(groups: Groups) -> None:
    for pattern, group in groups.items():
        for setting, value in group.items():
            if setting not in _SETTINGS:
                raise ValueError(f"groups: {pattern}: unknown setting {setting!r}; {did_you_mean(setting, _SETTINGS)}")
            if isinstance(value, bool) != (setting == "frozen"):
                kind = "true or false" if setting == "frozen" else "a number"
                raise ValueError(f"groups: {pattern}: {setting} must be {kind}, got {value!r}")
            if setting != "frozen":
                at_least_zero(f"groups: {pattern}: {setting}", value)
            if setting in NORMS and value == 0:
                raise ValueError(f"groups: {pattern}: {setting} must be above 0, got {value}")


def at_least_zero(name: str, value: float) -> None:
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
