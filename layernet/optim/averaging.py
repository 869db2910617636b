"""Averages of the weights over training, which are evaluated and saved in place of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from layernet.backend import Array
from layernet.core.configurable import Configurable
from layernet.core.duration import Duration
from layernet.core.net import Net
from layernet.errors import ContractError


class Average(Configurable):
    """Base of the averages. A subclass writes `share`: how much of the values now goes into the average.

    Parameters and running statistics are averaged alike, in the net's float type. `count` is how many values are in it;
    while that is 0, the net's own values stand for it.
    """

    count: int = 0

    _net: Net | None = None

    def attach(self, net: Net, steps_per_epoch: int = 1) -> Self:
        """Get ready for a bound net, with nothing in the average. Returns self."""
        self._net, self._steps_per_epoch = net, steps_per_epoch
        self.load(0)
        return self

    def share(self, step: int, count: int) -> float:
        """The share s in average += s (values - average) after `step` updates; 0 leaves it.

        `count` values are in the average so far.
        """
        raise NotImplementedError(f"{type(self).__name__} has no share")

    def update(self, step: int) -> None:
        """Take in the values that the net has after `step` updates."""
        share = self.share(step, self.count)
        if not share:
            return
        device = self._attached().device
        ops = device.ops
        with device.activate():
            for average, values in zip(self._averages, self._values(), strict=True):
                if self.count:
                    ops.average_update(average, values, share)
                else:
                    average[...] = values
        self.count += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the net has the averaged values; afterwards its own again, bit for bit."""
        if not self.count:
            yield
            return
        with self._attached().device.activate():
            own = [values.copy() for values in self._values()]
        self.adopt()
        try:
            yield
        finally:
            self._give(own)

    def adopt(self) -> None:
        """Give the net the averaged values for good."""
        if self.count:
            self._give(self._averages)

    def load(self, count: int) -> None:
        """Go on from the values that the net has now, as an average of `count`."""
        self.count = count
        with self._attached().device.activate():
            self._averages = [values.copy() for values in self._values()]

    def _give(self, arrays: list[Array]) -> None:
        with self._attached().device.activate():
            for values, given in zip(self._values(), arrays, strict=True):
                values[...] = given

    def _values(self) -> list[Array]:
        net = self._attached()
        return [net.arena.data, *(buffer.data for buffer in net.buffers().values())]

    def _attached(self) -> Net:
        if self._net is None:
            raise ContractError(f"{self!r} has no net yet", "call average.attach(net) first")
        return self._net


class EMA(Average):
    """average = decay average + (1 - decay) values, after every update; it begins with the values after the first.

    As torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn(decay) and use_buffers.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must lie in 0..1 (below 1), got {decay}")
        self.decay = decay

    def share(self, step: int, count: int) -> float:
        return 1.0 - self.decay


class SWA(Average):
    """The plain mean of the values at `start` of training and then every `every` (stochastic weight averaging).

    The running statistics of norms are averaged too, where the authors measure them anew. Before `start` the net's own
    values are evaluated. As torch's AveragedModel with use_buffers (Izmailov et al. 2018, arXiv:1803.05407).
    """

    def __init__(self, start: Duration, every: Duration = Duration(1, "epochs")) -> None:
        for name, value in (("start", start), ("every", every)):
            if not isinstance(value, Duration) or not value.count > 0:
                raise ValueError(f"{name} must be a duration like '5 epochs' or '300 steps', got {value}")
        self.start, self.every = start, every

    def share(self, step: int, count: int) -> float:
        since = step - self.start.steps(self._steps_per_epoch)
        return 1.0 / (count + 1) if since >= 0 and since % self.every.steps(self._steps_per_epoch) == 0 else 0.0
