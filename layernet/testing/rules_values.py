"""Rules about what a layer computes: its values, types and shapes, for any batch, layout, step and copy of it."""

from __future__ import annotations

import numpy as np

from layernet.testing.bench import Bench, Broken, Subject, close
from layernet.testing.branches import Incomparable, Replay
from layernet.testing.probes import column_major, fingerprint, gradients, strided

_PARTS = (1, 3, 13)
"""Examples in the parts of a batch: one, the number that gradients are checked with, and more than that."""

_FACTORS = (2.0**20, 2.0**-20, -1.0, 0.0)


def shapes_and_types(subject: Subject) -> None:
    """Outputs and gradients have the declared shape and the net's float type, for one example and for several."""
    for dtype in ("float32", "float64"):
        bench = subject.bench(dtype)
        for n in (subject.batch, 1):
            for training in bench.modes(n):
                for name, array in bench.run(bench.input(n), bench.output_grad(n), training).items():
                    if str(array.dtype) != dtype:
                        raise Broken(f"{name} is {array.dtype} in a net of {dtype}")
                    if not np.isfinite(array).all():
                        raise Broken(f"{name} holds a value that is not finite, for a batch of {n} in {dtype}")


def precision(subject: Subject) -> None:
    """A float32 pass is the float64 pass to float32 precision."""
    exact, single = subject.bench("float64"), subject.bench("float32")
    for training in (True, False):
        n = subject.batch
        close(
            single.run(single.input(n), single.output_grad(n), training),
            exact.run(exact.input(n), exact.output_grad(n), training),
            "float32 against float64",
            tolerance=2e-4,
        )


def strided_arrays(subject: Subject) -> None:
    """Arrays that are not contiguous give the same results as contiguous ones."""
    bench = subject.bench()
    for training in (True, False):
        x, dy = bench.input(subject.batch), bench.output_grad(subject.batch)
        plain = bench.run(x, dy, training)
        for layout, lay in (("strided", strided), ("column-major", column_major)):
            close(bench.run(lay(bench, x), lay(bench, dy), training), plain, f"a {layout} input")


def evaluation_is_deterministic(subject: Subject) -> None:
    """In evaluation, outputs and gradients depend on the input alone, not on the step."""
    bench = subject.bench()
    x, dy = bench.input(subject.batch), bench.output_grad(subject.batch)
    first, *others = (bench.run(x, dy, False, step=step) for step in (0, 1, 0))
    for other in others:
        close(other, first, "two evaluations of the same input", tolerance=0.0)


def randomness_is_keyed(subject: Subject) -> None:
    """In training, all randomness comes from ctx.rng: the same step gives the same bits."""
    bench = subject.bench()
    x = bench.input(subject.batch)
    before = fingerprint(np.random.get_state(legacy=False))  # to see that nobody draws from it
    first, *others = (bench.host(bench.forward(x, True, step=5)[0]) for _ in range(3))
    if not all(np.array_equal(first, y) for y in others):
        raise Broken("two training passes of the same step differ: randomness must come from ctx.rng")
    if fingerprint(np.random.get_state(legacy=False)) != before:
        raise Broken("it draws from numpy's global random state: use ctx.rng")


def config_round_trip(subject: Subject) -> None:
    """The captured constructor arguments make the same layer again, and stay as they were given."""
    layer = subject.original.clone()
    before = fingerprint(layer.arguments)
    Bench(layer, subject.shape)
    if fingerprint(layer.arguments) != before:
        raise Broken("build changed a constructor argument")
    first, second = subject.bench(), subject.bench_of(subject.bench().layer.clone())
    shapes = [{path: p.shape for path, p in bench.net.params().items()} for bench in (first, second)]
    if shapes[0] != shapes[1]:
        raise Broken(f"a clone has parameters {shapes[1]}, the layer has {shapes[0]}")
    x, dy = first.input(subject.batch), first.output_grad(subject.batch)
    close(second.run(x, dy, False), first.run(x, dy, False), "a clone", tolerance=0.0)


def state_round_trip(subject: Subject) -> None:
    """The state dict is the whole state: another instance that loads it computes the same."""
    first, second = subject.bench(), subject.bench()
    x, dy = first.input(subject.batch), first.output_grad(subject.batch)
    first.run(x, dy, False)  # what a pass may have kept beside the state is out of date from here on
    for tensor in (*first.net.params().values(), *first.net.buffers().values()):
        noise = first.rng("state", tensor.path).uniform(tensor.shape, 0.5, 1.5)
        tensor.data[...] = tensor.data * first.place(noise) + first.place(noise) * 0.1
    second.net.load_state_dict(first.net.state_dict())
    close(second.run(x, dy, False), first.run(x, dy, False), "a layer with the same state", tolerance=0.0)


def batch_independence(subject: Subject) -> None:
    """An example's output does not depend on the other examples, unless the layer declares `batch_dependent`."""
    bench = subject.bench()
    for training in (False,) if bench.batch_dependent else (False, True):
        for example, place in ((0, "first"), (-1, "last")):
            x, mixed = bench.input(subject.batch), bench.input(subject.batch, 1)
            mixed[example] = x[example]
            a, b = (bench.host(bench.forward(v, training)[0])[example] for v in (x, mixed))
            close({"y": a}, {"y": b}, f"the {place} example beside other examples")


def batches_of_any_size(subject: Subject) -> None:
    """A batch gives what its parts give: their rows, and the sum of their parameter gradients.

    A random layer gets the numbers that it drew for the batch again, row by row, for the parts; it is let off where
    they are not drawn by row. Not asked where a training output depends on the whole batch.
    """
    bench, n = subject.bench(), sum(_PARTS)
    x, dy = bench.input(n), bench.output_grad(n)
    starts = np.cumsum((0, *_PARTS[:-1]))
    for training in (False,) if bench.batch_dependent else (False, True):
        replay, parts = Replay(), []
        with replay.remembering():
            whole = bench.run(x, dy, training)
        try:
            for start, size in zip(starts, _PARTS, strict=True):
                rows = slice(int(start), int(start) + size)
                with replay.giving(rows):
                    parts.append(bench.run(x[rows], dy[rows], training))
        except Incomparable:
            continue
        params = bench.net.params()
        expected = {
            name: np.sum([p[name] for p in parts], axis=0)
            if name in params
            else np.concatenate([p[name] for p in parts])
            for name in parts[0]
        }
        close(whole, expected, f"a batch of {n} against its parts of {_PARTS}")


def linear_in_dy(subject: Subject) -> None:
    """Backward is linear in dy, however large or small: no clipping, no division by its size."""
    bench = subject.bench()
    for training in (True, False):
        x, dys = bench.input(subject.batch), [bench.output_grad(subject.batch, i) for i in (0, 1)]
        one, two = (gradients(bench.run(x, dy, training)) for dy in dys)
        for factor in _FACTORS:
            scaled = gradients(bench.run(x, factor * dys[0], training, emitted=factor))
            found = {name: g / factor if factor else g for name, g in scaled.items()}
            close(found, {name: g if factor else 0 * g for name, g in one.items()}, f"{factor:g} times dy")
        both = gradients(bench.run(x, dys[0] + dys[1], training, emitted=2.0))
        close(both, {name: g + two[name] for name, g in one.items()}, "the sum of two dy")


def flops(subject: Subject) -> None:
    """The count of multiply-adds is a number that is not negative, or None."""
    layer = subject.bench().layer
    count = layer.flops(layer.in_shape)
    if count is not None and (not isinstance(count, int) or count < 0):
        raise Broken(f"flops returned {count!r}")
