"""The contract of penalties as tests, on the parameters of a small net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from layernet.backend.device import get_device
from layernet.core.context import Context, Tape
from layernet.core.net import Net
from layernet.layers.linear import Linear
from layernet.losses import Penalty
from layernet.testing.bench import Broken, Result, close
from layernet.testing.probes import fingerprint, read_only
from layernet.testing.sampling import stream, tie_free

_SCALES = (2.0, -0.5, 0.0)


class PenaltySubject:
    """The penalty under test, and the net whose parameters it looks at."""

    def __init__(self, penalty: Penalty, seed: int = 0, device: str = "cpu") -> None:
        self.original, self.penalty = penalty, penalty.clone()
        self.seed, self.device = seed, get_device(device)

    def net(self, dtype: str = "float64") -> Net:
        """A net with all values different."""
        net = Net([Linear(3).named("first"), Linear(2).named("second")], (4,)).bind(self.device, dtype, self.seed)
        for path, param in net.params().items():
            param.data[...] = self.device.asarray(tie_free(param.shape, stream(self.seed, "penalty", path)), dtype)
        net.arena.grad[...] = float("nan")  # what stands there before the first write means nothing
        net.zero_grad()
        return net

    def value(self, net: Net) -> Any:
        """The value for a net."""
        return self.penalty.forward(self.penalty.select(net), self._context(net))

    def grads(self, net: Net, *scales: float) -> Result:
        """The value, and what backward adds to the gradients, once for each scale."""
        params, ctx = self.penalty.select(net), self._context(net)
        value = self.penalty.forward(params, ctx)
        for scale in scales:
            self.penalty.backward(params, scale, ctx)
        found = {path: np.array(self.device.to_numpy(param.grad)) for path, param in net.params().items()}
        return {"the value": np.asarray(float(value)), **found}

    def _context(self, net: Net) -> Context:
        return Context(Tape(self.device, net.dtype, training=True))


def shapes_and_types(subject: PenaltySubject) -> None:
    """One finite number, and finite gradients, in the net's float type."""
    for dtype in ("float32", "float64"):
        net = subject.net(dtype)
        value = subject.value(net)
        if np.shape(value) != () or not np.isfinite(float(value)):
            raise Broken(f"the value is {value} in {dtype}, expected one finite number")
        if hasattr(value, "dtype") and str(value.dtype) != dtype:
            raise Broken(f"the value is {value.dtype} in a net of {dtype}")
        for name, array in subject.grads(net, 1.0).items():
            if not np.isfinite(array).all():
                raise Broken(f"{name} holds a value that is not finite in {dtype}: is it added to garbage?")


def precision(subject: PenaltySubject) -> None:
    """A float32 pass is the float64 pass to float32 precision."""
    single, exact = (subject.grads(subject.net(dtype), 1.0) for dtype in ("float32", "float64"))
    close(single, exact, "float32 against float64", tolerance=2e-4)


def self_untouched(subject: PenaltySubject) -> None:
    """A pass writes nothing to the penalty."""
    before = {name: fingerprint(value) for name, value in vars(subject.penalty).items()}
    subject.grads(subject.net(), 1.0)
    if {name: fingerprint(value) for name, value in vars(subject.penalty).items()} != before:
        raise Broken("a pass changed it: what a pass makes belongs into ctx.save")


def arrays_untouched(subject: PenaltySubject) -> None:
    """It writes into no parameter: an optimizer does that."""
    net = subject.net()
    arrays = [param.data for param in net.params().values()]
    before = [np.array(subject.device.to_numpy(array)) for array in arrays]
    with read_only(arrays):
        try:
            subject.grads(net, 1.0)
        except ValueError as error:
            raise Broken(f"it writes into a parameter ({error})") from error
    if not all(np.array_equal(subject.device.to_numpy(a), b) for a, b in zip(arrays, before, strict=True)):
        raise Broken("a pass changed a parameter")


def accumulation(subject: PenaltySubject) -> None:
    """Its gradient is added to what a loss, or another penalty, has given."""
    net, rest = subject.net(), subject.net()
    given = {path: tie_free(param.shape, stream(subject.seed, "given", path)) for path, param in net.params().items()}
    ctx = Context(Tape(subject.device, "float64", training=True))
    for path, param in net.params().items():
        ctx.add_grad(param, subject.device.asarray(given[path], "float64"))
    alone = subject.grads(rest, 1.0)
    expected = {path: given[path] + alone[path] for path in given}
    close(subject.grads(net, 1.0), expected, "after another gradient")


def linear_in_scale(subject: PenaltySubject) -> None:
    """Backward adds `scale` times the gradient of the value."""
    one = subject.grads(subject.net(), 1.0)
    for scale in _SCALES:
        found, value = subject.grads(subject.net(), scale), one["the value"]
        expected = {name: scale * g for name, g in one.items()} | {"the value": value}
        close(found, expected, f"with a scale of {scale:g}")


def only_its_parameters(subject: PenaltySubject) -> None:
    """Parameters that its pattern does not match, and frozen ones, get no gradient and no part in it."""
    net = subject.net()
    chosen = {param.path for param in subject.penalty.select(net)}
    if not chosen:
        raise Broken("it selects no parameter of first.weight, first.bias, second.weight, second.bias")
    plain = subject.grads(net, 1.0)
    for path, param in net.params().items():
        if path not in chosen and param.has_grad:
            raise Broken(f"{path} is not among its parameters and got a gradient")
        if path not in chosen:
            param.data[...] = 7.0
    close(subject.grads(net), {"the value": plain["the value"]}, "with other values of other parameters", 0.0)
    for path in chosen:
        net = subject.net()
        net.freeze(path)
        frozen = subject.grads(net, 1.0)
        if np.abs(frozen[path]).max() > 0:
            raise Broken(f"{path} is frozen and got a gradient")
        close(frozen, {name: g for name, g in plain.items() if name != path}, f"with {path} frozen")


def deterministic(subject: PenaltySubject) -> None:
    """The same parameters give the same bits, as often as it is asked."""
    first = subject.grads(subject.net(), 1.0)
    for _ in range(2):
        close(subject.grads(subject.net(), 1.0), first, "the same parameters once more", tolerance=0.0)


def config_round_trip(subject: PenaltySubject) -> None:
    """The captured constructor arguments make the same penalty again."""
    copy = PenaltySubject(subject.original, subject.seed)
    close(copy.grads(copy.net(), 1.0), subject.grads(subject.net(), 1.0), "a clone", tolerance=0.0)


RULES: tuple[Callable[[PenaltySubject], None], ...] = (
    shapes_and_types,
    precision,
    self_untouched,
    arrays_untouched,
    accumulation,
    linear_in_scale,
    only_its_parameters,
    deterministic,
    config_round_trip,
)
