"""Rules about how a layer behaves in a pass: what it writes, keeps and adds to, alone and inside others."""

from __future__ import annotations

import weakref

import numpy as np

from layernet.core.net import Net
from layernet.core.sequential import Ref, Sequential
from layernet.errors import ContractError
from layernet.layers.composite import Recompute, Residual
from layernet.testing.bench import Broken, Subject, close
from layernet.testing.probes import (
    Twice,
    Watched,
    choices,
    gone,
    growth,
    is_random,
    poisoned,
    read_only,
    snapshot,
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
        if not gone(x.release()) or not (same or gone(kept)):
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
            bench.freeze(frozen)
            for needs_input_grad in (True, False):
                partial = bench.run(x, dy, training, needs_input_grad=needs_input_grad)
                for path in frozen:
                    if np.abs(partial[path]).max(initial=0.0) > 0:
                        raise Broken(f"{path} is frozen and got a gradient")
                wanted = {k: v for k, v in whole.items() if k not in frozen and (needs_input_grad or k != "dx")}
                no_dx = " and no input gradient" * (not needs_input_grad)
                close(partial, wanted, f"with {', '.join(frozen)} frozen{no_dx}")
            bench.freeze(frozen, False)


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
