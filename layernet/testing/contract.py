"""The layer contract as tests: every promise of docs/architecture.md, asked of one layer.

A rule is a function that raises `Broken` where a promise is not kept; its name, with spaces, is the rule's name in
messages.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np

from layernet.core.net import Net
from layernet.core.sequential import Ref, Sequential
from layernet.errors import ContractError
from layernet.layers.composite import Recompute, Residual
from layernet.testing.bench import Bench, Broken, Subject, close
from layernet.testing.probes import (
    Twice,
    Watched,
    choices,
    column_major,
    fingerprint,
    gradients,
    growth,
    is_random,
    poisoned,
    read_only,
    snapshot,
    strided,
)


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


def self_untouched(subject: Subject) -> None:
    """A pass writes nothing to the layer: no attribute appears, goes, or changes."""
    bench = subject.bench()
    for training in (True, False):
        before = snapshot(bench.layer)
        bench.run(bench.input(subject.batch), bench.output_grad(subject.batch), training)
        after = snapshot(bench.layer)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if changed:
            raise Broken(f"a pass changed {', '.join(changed)}: what a pass makes belongs into ctx.save")


def arrays_untouched(subject: Subject) -> None:
    """Input, gradient of the output, parameters, statistics and the layer's own output are not written afterwards."""
    bench = subject.bench()
    for training in (True, False):
        x, dy = bench.input(subject.batch), bench.output_grad(subject.batch)
        tensors = {**bench.net.params(), **bench.net.buffers()}
        watched = {"its input": x, "dy": dy, **{path: tensor.data for path, tensor in tensors.items()}}
        before = {name: bench.host(array) for name, array in watched.items()}
        with read_only(watched.values()):
            try:
                y, call = bench.forward(x, training)
                kept = bench.host(y)
                bench.backward(call, dy)
            except ValueError as error:
                if "read-only" in str(error):
                    raise Broken(f"it writes into an array that is not its own ({error})") from error
                raise
        for name, array in watched.items():
            if not np.array_equal(bench.host(array), before[name]):
                raise Broken(f"a pass changed {name}")
        if not np.array_equal(bench.host(y), kept):
            raise Broken("backward changed the output of forward, which the next layer may have saved")


def strided_arrays(subject: Subject) -> None:
    """Arrays that are not contiguous give the same results as contiguous ones."""
    bench = subject.bench()
    for training in (True, False):
        x, dy = bench.input(subject.batch), bench.output_grad(subject.batch)
        plain = bench.run(x, dy, training)
        for layout, lay in (("strided", strided), ("column-major", column_major)):
            close(bench.run(lay(bench, x), lay(bench, dy), training), plain, f"a {layout} input")


def independent_passes(subject: Subject) -> None:
    """Two forwards, then two backwards in either order, equal two passes of their own."""
    bench = subject.bench()
    for training in (True, False):
        xs = [bench.input(subject.batch, i) for i in (0, 1)]
        dys = [bench.output_grad(subject.batch, i) for i in (0, 1)]
        alone = [bench.run(x, dy, training) for x, dy in zip(xs, dys, strict=True)]
        for order in ((0, 1), (1, 0)):
            passes = [bench.forward(x, training) for x in xs]
            dxs = []
            for i in order:
                bench.net.zero_grad()
                dxs.append(bench.backward(passes[i][1], dys[i]))
                found = bench.result(passes[i][0], dxs[-1])
                expected = {name: array for name, array in alone[i].items() if not name.startswith("output ")}
                close(found, expected, f"pass {i} of two, gone back through in the order {order}")
            if dxs[0] is not None:
                kept = {"dx": alone[order[0]]["dx"]}
                close({"dx": bench.host(dxs[0])}, kept, "the input's gradient, after the backward of another pass")


def accumulation(subject: Subject) -> None:
    """Gradients of two passes add up, whatever stood in the gradient buffers before the first."""
    bench = subject.bench()
    for training in (True, False):
        batches = [(bench.input(subject.batch, i), bench.output_grad(subject.batch, i)) for i in (0, 1)]
        alone = []
        for x, dy in batches:
            bench.net.arena.grad[...] = float("nan")
            alone.append(bench.run(x, dy, training))
            for name in bench.net.params():
                if np.isnan(alone[-1][name]).any():
                    raise Broken(f"the first gradient of {name} does not overwrite what stood in its buffer")
        bench.net.zero_grad()
        for x, dy in batches:
            bench.backward(bench.forward(x, training)[1], dy)
        expected = {name: alone[0][name] + alone[1][name] for name in bench.net.params()}
        close(bench.grads(), expected, "the sum over two passes")


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
    before = str(np.random.get_state(legacy=False))  # to see that nobody draws from it
    first, *others = (bench.host(bench.forward(x, True, step=5)[0]) for _ in range(3))
    if not all(np.array_equal(first, y) for y in others):
        raise Broken("two training passes of the same step differ: randomness must come from ctx.rng")
    if str(np.random.get_state(legacy=False)) != before:
        raise Broken("it draws from numpy's global random state: use ctx.rng")


def config_round_trip(subject: Subject) -> None:
    """The captured constructor arguments make the same layer again, and stay as they were given."""
    layer = subject.original.clone()
    before = fingerprint(layer.arguments)
    Bench(layer, subject.shape)
    if fingerprint(layer.arguments) != before:
        raise Broken("build changed a constructor argument")
    first, second = subject.bench(), Bench(subject.bench().layer.clone(), subject.shape, seed=subject.seed)
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

    Not asked where a training output depends on the whole batch or on random numbers.
    """
    bench, n = subject.bench(), sum(_PARTS)
    x, dy = bench.input(n), bench.output_grad(n)
    for training in (False, True):
        if training and (bench.batch_dependent or is_random(bench, x)):
            continue
        cuts = np.cumsum(_PARTS)[:-1]
        batches = zip(np.split(np.arange(n), cuts), _PARTS, strict=True)
        parts = [bench.run(x[rows[0] : rows[-1] + 1], dy[rows[0] : rows[-1] + 1], training) for rows, _ in batches]
        params = bench.net.params()
        expected = {
            name: np.sum([p[name] for p in parts], axis=0)
            if name in params
            else np.concatenate([p[name] for p in parts])
            for name in parts[0]
        }
        close(bench.run(x, dy, training), expected, f"a batch of {n} against its parts of {_PARTS}")


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


def inside_a_residual(subject: Subject) -> None:
    """In a Residual, the gradient of the input is dy plus the layer's own."""
    plain = subject.bench(wrap=lambda layer: Sequential([layer]))
    if plain.layer.out_shape != plain.layer.in_shape or plain.takes_integers:
        return
    around = subject.bench(wrap=lambda layer: Residual([layer]))
    for training in (True, False):
        x, dy = plain.input(subject.batch), plain.output_grad(subject.batch)
        alone, inside = plain.run(x, dy, training), around.run(x, dy, training)
        alone["y"], alone["dx"] = alone["y"] + plain.host(x), alone["dx"] + plain.host(dy)
        close(inside, alone, "inside a Residual")


def inside_a_recompute(subject: Subject) -> None:
    """Inside Recompute, outputs and gradients are the same bits, and statistics are asked to move once."""
    plain = subject.bench(wrap=lambda layer: Sequential([layer]))
    around = subject.bench(wrap=lambda layer: Recompute([layer]))
    for training in (True, False):
        x, dy = plain.input(subject.batch), plain.output_grad(subject.batch)
        close(around.run(x, dy, training), plain.run(x, dy, training), "inside Recompute", tolerance=0.0)
        moves = []
        for bench in (plain, around):
            _, call = bench.forward(x, training)
            bench.backward(call, dy)
            moves.append([buffer.path for buffer, _, _ in call.tape._updates])
        if moves[0] != moves[1] or len(set(moves[0])) != len(moves[0]):
            raise Broken(f"statistics move {moves[0]} in a pass and {moves[1]} inside Recompute, expected once each")
        if moves[0] and not training:
            raise Broken("statistics move in evaluation")


def tied(subject: Subject) -> None:
    """Where two layers share parameters, the gradient is the sum of both places."""
    bench = subject.bench()
    if bench.layer.out_shape != bench.layer.in_shape or bench.takes_integers or not bench.net.params():
        return
    separate = Net([subject.original.clone().named("a"), subject.original.clone().named("b")], subject.shape)
    shared = Net([subject.original.clone().named("a"), Ref("a").named("b")], subject.shape)
    found = []
    for net in (separate, shared):
        net.bind(bench.net.device, "float64")
        for path, param in net.params().items():
            param.data[...] = bench.net.params()[f"layer.{path.partition('.')[2]}"].data
        net.backward(net.forward(bench.input(subject.batch), training=True, step=0), bench.output_grad(subject.batch))
        found.append({path: bench.host(param.grad) for path, param in net.params().items()})
    expected = {path: g + found[0]["b." + path.partition(".")[2]] for path, g in found[0].items() if path[:2] == "a."}
    close(found[1], expected, "shared by two layers")


def called_twice(subject: Subject) -> None:
    """Two calls in one pass add up: each has its own context, whatever the layer's shapes."""
    plain = subject.bench(wrap=lambda layer: Sequential([layer]))
    twice = subject.bench(wrap=lambda layer: Twice([layer]))
    x, dy = plain.input(subject.batch), plain.output_grad(subject.batch)
    for training in (True, False):
        if (training and is_random(plain, x)) or plain.forward(x, training)[1].tape.outputs:
            continue  # another mask for the second call; a name can be emitted once
        one, other = plain.run(x, dy, training), plain.run(x[::-1].copy(), dy, training)
        if "dx" in one:
            other["dx"] = other["dx"][::-1]
        close(twice.run(x, dy, training), {name: one[name] + other[name] for name in one}, "called twice in one pass")


def nothing_kept(subject: Subject) -> None:
    """Without recording nothing outlives the pass; after backward, nothing that was saved does."""
    bench = subject.bench()
    for training, recording in ((True, False), (False, False), (True, True), (False, True)):
        x, dy = Watched(bench.input(subject.batch)), bench.output_grad(subject.batch)
        y, call = bench.forward(x.array, training, recording=recording)
        kept = weakref.ref(y)
        if recording:
            bench.backward(call, dy)
        same = y is x.array
        del y
        if not recording and call._saved is not None:
            raise Broken("ctx.save kept something although nothing is recorded")
        gone = x.release()
        if gone() is not None or (not same and kept() is not None):
            when = "after backward" if recording else "of a pass that is not recorded"
            raise Broken(f"the input or output is kept alive {when}: something outside ctx.save holds it")
        if growth(bench, training, recording) > 0:
            raise Broken("every pass leaves arrays behind: something outside ctx.save holds them")


def only_what_is_needed(subject: Subject) -> None:
    """Leaving out the gradient of the input, or of a frozen parameter, changes no other result."""
    bench = subject.bench()
    for training in (True, False):
        x, dy = bench.input(subject.batch), bench.output_grad(subject.batch)
        whole = bench.run(x, dy, training)
        without = bench.run(x, dy, training, needs_input_grad=False)
        close(without, {k: v for k, v in whole.items() if k != "dx"}, "without needs_input_grad")
        for frozen in choices(list(bench.net.params())):
            if training and len(frozen) > 1 and bench.net.buffers():
                continue  # statistics are frozen with the parameters of their layer, which changes the output
            for path in frozen:
                bench.net.freeze(path)
            for needs_input_grad in (True, False):
                partial = bench.run(x, dy, training, needs_input_grad=needs_input_grad)
                for path in frozen:
                    if np.abs(partial[path]).max(initial=0.0) > 0:
                        raise Broken(f"{path} is frozen and got a gradient")
                wanted = {k: v for k, v in whole.items() if k not in frozen and (needs_input_grad or k != "dx")}
                close(
                    partial,
                    wanted,
                    f"with {', '.join(frozen)} frozen" + " and no input gradient" * (not needs_input_grad),
                )
            for path in frozen:
                bench.net.freeze(path, frozen=False)


def one_backward(subject: Subject) -> None:
    """A second backward of the same pass is refused."""
    bench = subject.bench()
    x, dy = bench.input(subject.batch), bench.output_grad(subject.batch)
    _, call = bench.forward(x, True)
    bench.backward(call, dy)
    try:
        bench.backward(call, dy)
    except ContractError:
        return
    raise Broken("a second backward of the same pass was not refused")


def work_areas(subject: Subject) -> None:
    """What ctx.empty and ctx.scratch give is written before it is read."""
    bench = subject.bench()
    for training in (True, False):
        x, dy = bench.input(subject.batch), bench.output_grad(subject.batch)
        plain = bench.run(x, dy, training)
        with poisoned():
            close(bench.run(x, dy, training), plain, "with poisoned work areas", tolerance=0.0)


def flops(subject: Subject) -> None:
    """The count of multiply-adds is a number that is not negative, or None."""
    layer = subject.bench().layer
    count = layer.flops(layer.in_shape)
    if count is not None and (not isinstance(count, int) or count < 0):
        raise Broken(f"flops returned {count!r}")


RULES: tuple[Callable[[Subject], None], ...] = (
    shapes_and_types,
    precision,
    self_untouched,
    arrays_untouched,
    strided_arrays,
    independent_passes,
    accumulation,
    evaluation_is_deterministic,
    randomness_is_keyed,
    config_round_trip,
    state_round_trip,
    batch_independence,
    batches_of_any_size,
    linear_in_dy,
    inside_a_residual,
    inside_a_recompute,
    tied,
    called_twice,
    nothing_kept,
    only_what_is_needed,
    one_backward,
    work_areas,
    flops,
)


_PARTS = (1, 3, 13)
"""Examples in the parts of a batch: one, the number that gradients are checked with, and more than that."""

_FACTORS = (2.0**20, 2.0**-20, -1.0, 0.0)
