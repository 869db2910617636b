"""Losses and penalties that each break one promise of their contract."""

from __future__ import annotations

import numpy as np

from layernet.losses import Loss, Penalty


class Squares(Loss):
    """(outputs - target)^2: keeps every promise."""

    def forward(self, outputs, target, ctx):
        target = ctx.xp.asarray(target, dtype=ctx.dtype)
        ctx.save(outputs - target)
        return ((outputs - target) ** 2).sum(), outputs.size

    def backward(self, ctx):
        (difference,) = ctx.saved
        return 2 * difference


class MeanInside(Squares):
    """The mean where the sum is asked for."""

    def forward(self, outputs, target, ctx):
        total, count = super().forward(outputs, target, ctx)
        ctx.save(ctx.saved[0] / count)
        return total / count, count


class CountsBatches(Squares):
    """A normaliser of 1 for each batch, however many examples it has."""

    def forward(self, outputs, target, ctx):
        return super().forward(outputs, target, ctx)[0], 1


class MissingFactor(Squares):
    def backward(self, ctx):
        return super().backward(ctx) / 2


class SumsRows(Squares):
    """A sum for each feature."""

    def forward(self, outputs, target, ctx):
        _, count = super().forward(outputs, target, ctx)
        return ctx.saved[0].sum(axis=0), count


class DoubleSum(Squares):
    """float64 whatever the net's float type."""

    def backward(self, ctx):
        return super().backward(ctx).astype("float64")


class KeepsTargetType(Squares):
    """Computes in the wider type of outputs and target."""

    def forward(self, outputs, target, ctx):
        ctx.save(outputs - target)
        return float(((outputs - target) ** 2).sum()), outputs.size


class HalfPrecision(Squares):
    def forward(self, outputs, target, ctx):
        if ctx.dtype == "float32":
            outputs = outputs.astype("float16").astype("float32")
        return super().forward(outputs, target, ctx)


class NaiveCrossEntropy(Loss):
    """log(softmax) without taking the maximum off."""

    targets = "classes"

    def forward(self, outputs, target, ctx):
        p = ctx.xp.exp(outputs) / ctx.xp.exp(outputs).sum(axis=-1, keepdims=True)
        hot = ctx.xp.asarray(np.eye(outputs.shape[-1])[target], dtype=ctx.dtype)
        ctx.save(p - hot)
        return -(ctx.xp.log(p) * hot).sum(), len(outputs)

    def backward(self, ctx):
        return ctx.saved[0]


class NaiveLogistic(Loss):
    """The logarithm of 1 - sigmoid, which float32 rounds to 0 where the net is sure."""

    def forward(self, outputs, target, ctx):
        target = ctx.xp.asarray(target, dtype=ctx.dtype)
        p = 1 / (1 + ctx.xp.exp(-outputs))
        ctx.save(p - target)
        return -(target * ctx.xp.log(p) + (1 - target) * ctx.xp.log(1 - p)).sum(), outputs.size

    def backward(self, ctx):
        return ctx.saved[0]


class CacheOnSelf(Squares):
    def forward(self, outputs, target, ctx):
        self.difference = outputs - target
        return super().forward(outputs, target, ctx)


class WritesOutputs(Squares):
    def forward(self, outputs, target, ctx):
        outputs -= target
        return super().forward(outputs, 0 * target, ctx)


class WritesTarget(Squares):
    def forward(self, outputs, target, ctx):
        target *= 0.9
        return super().forward(outputs, target, ctx)


class AssumesContiguous(Squares):
    """Reads the memory behind the outputs as if it were contiguous."""

    def forward(self, outputs, target, ctx):
        flat = np.lib.stride_tricks.as_strided(outputs, (outputs.size,), (outputs.itemsize,))
        return super().forward(flat.reshape(outputs.shape).copy(), target, ctx)


class NarrowLabels(Loss):
    """Knows labels of 64 bits."""

    targets = "classes"

    def forward(self, outputs, target, ctx):
        hot = np.eye(outputs.shape[-1], dtype=ctx.dtype)[target.view("int64").reshape(-1)[: len(outputs)] % 5]
        ctx.save(hot)
        return -(outputs * hot).sum(), len(outputs)

    def backward(self, ctx):
        return -ctx.saved[0]


class SharedCache(Squares):
    """One place for all passes."""

    kept: list = []  # noqa: RUF012

    def forward(self, outputs, target, ctx):
        self.kept[:] = [outputs - target]
        return super().forward(outputs, target, ctx)

    def backward(self, ctx):
        return (2 * self.kept[0]).astype(ctx.dtype)


class SpendsSaved(Squares):
    """Doubles what was saved, in place."""

    def backward(self, ctx):
        (difference,) = ctx.saved
        difference *= 2
        return difference


class Noisy(Squares):
    """Smooths its targets with numpy's global random numbers."""

    def forward(self, outputs, target, ctx):
        return super().forward(outputs, target + 0.1 * np.random.rand(*target.shape), ctx)


class CountsActive(Loss):
    """A hinge that divides by the number of outputs inside its margin."""

    def forward(self, outputs, target, ctx):
        active = outputs > ctx.xp.asarray(target, dtype=ctx.dtype)
        ctx.save(active)
        return ((outputs - target) * active).sum().astype(ctx.dtype), max(1, int(active.sum()))

    def backward(self, ctx):
        return ctx.saved[0].astype(ctx.dtype)


class LooksAround(Squares):
    """Takes the net's output, whatever output it is put on."""

    def forward(self, outputs, target, ctx):
        return super().forward(ctx.tape.outputs.get("output", outputs), target, ctx)


class HiddenArgument(Squares):
    """Every instance weighs more than the one before."""

    made = 0

    def __init__(self):
        HiddenArgument.made += 1
        self.factor = float(HiddenArgument.made)

    def forward(self, outputs, target, ctx):
        total, count = super().forward(outputs, target, ctx)
        return self.factor * total, count

    def backward(self, ctx):
        return self.factor * super().backward(ctx)


class Hoards(Squares):
    hoard: list = []  # noqa: RUF012

    def backward(self, ctx):
        dy = super().backward(ctx)
        self.hoard.append(dy)
        return dy


class Cube(Penalty):
    """sum |w|^3: keeps every promise."""

    def forward(self, params, ctx):
        return sum((abs(p.data) ** 3).sum() for p in params)

    def gradient(self, param, ctx):
        return 3 * param.data * abs(param.data)

    def backward(self, params, scale, ctx):
        for param in params:
            ctx.add_grad(param, scale * self.gradient(param, ctx))


class WrongPower(Cube):
    def gradient(self, param, ctx):
        return 3 * param.data**2


class DoublePenalty(Cube):
    def forward(self, params, ctx):
        return sum((abs(p.data.astype("float64")) ** 3).sum() for p in params)


class HalfPenalty(Cube):
    def forward(self, params, ctx):
        half = "float16" if ctx.dtype == "float32" else "float64"
        return sum((abs(p.data.astype(half)) ** 3).sum() for p in params).astype(ctx.dtype)


class CountsPasses(Cube):
    passes = 0

    def forward(self, params, ctx):
        self.passes += 1
        return super().forward(params, ctx)


class Decays(Cube):
    """Shrinks the weights itself."""

    def backward(self, params, scale, ctx):
        super().backward(params, scale, ctx)
        for param in params:
            param.data[...] *= 0.99


class OverwritesLoss(Cube):
    def backward(self, params, scale, ctx):
        for param in params:
            if ctx.needs_grad(param):
                buffer, _ = ctx.grad(param)
                buffer[...] = scale * self.gradient(param, ctx)


class ForgetsScale(Cube):
    def backward(self, params, scale, ctx):
        super().backward(params, 1.0, ctx)


class IgnoresFrozen(Cube):
    def backward(self, params, scale, ctx):
        for param in params:
            buffer, accumulate = ctx.grad(param)
            g = scale * self.gradient(param, ctx)
            buffer[...] = buffer + g if accumulate else g


class Drifts(Cube):
    """Another power with every pass of the process."""

    passes: list = []  # noqa: RUF012

    def forward(self, params, ctx):
        self.passes.append(None)
        return super().forward(params, ctx) + len(self.passes)


class HiddenPower(Cube):
    made = 0

    def __init__(self, params="*.weight"):
        super().__init__(params)
        HiddenPower.made += 1
        self.factor = float(HiddenPower.made)

    def forward(self, params, ctx):
        return self.factor * super().forward(params, ctx)

    def gradient(self, param, ctx):
        return self.factor * super().gradient(param, ctx)


MISTAKES = {
    # loss: (shape of one example's outputs, the rule that must reject it)
    MissingFactor: ((5,), "gradient"),
    MeanInside: ((5,), "parts of a batch"),
    CountsBatches: ((5,), "parts of a batch"),
    SumsRows: ((5,), "shapes and types"),
    DoubleSum: ((5,), "shapes and types"),
    NaiveCrossEntropy: ((5,), "far outputs"),
    NaiveLogistic: ((5,), "far outputs"),
    HalfPrecision: ((5,), "precision"),
    CacheOnSelf: ((5,), "self untouched"),
    WritesOutputs: ((5,), "arrays untouched"),
    WritesTarget: ((5,), "arrays untouched"),
    AssumesContiguous: ((5,), "strided arrays"),
    KeepsTargetType: ((5,), "targets of any width"),
    NarrowLabels: ((5,), "targets of any width"),
    SharedCache: ((5,), "independent passes"),
    SpendsSaved: ((5,), "backward repeats"),
    Noisy: ((5,), "deterministic"),
    CountsActive: ((5,), "normaliser of the targets"),
    LooksAround: ((5,), "only its outputs"),
    HiddenArgument: ((5,), "config round trip"),
    Hoards: ((5,), "nothing kept"),
}

WRONG_PENALTIES = {
    WrongPower: ((), "gradient"),
    DoublePenalty: ((), "shapes and types"),
    HalfPenalty: ((), "precision"),
    CountsPasses: ((), "self untouched"),
    Decays: ((), "arrays untouched"),
    OverwritesLoss: ((), "accumulation"),
    ForgetsScale: ((), "linear in scale"),
    IgnoresFrozen: ((), "only its parameters"),
    Drifts: ((), "deterministic"),
    HiddenPower: ((), "config round trip"),
}
