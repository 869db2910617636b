"""The updates of optimizers in one pass: everything is read once and written once."""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.arrays import takes
from layernet.backend.compiled.lanes import LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, split
from layernet.backend.compiled.vectors import fma, load_first, load_float, splat, square_root, store_first
from layernet.backend.numpy_optimizer import NumpyOptimizerOps
from layernet.backend.reference.optimizer import adam_constants


@Kernel
def _sgd(task, tasks, w, g, v, size, nesterov, constants):
    first, last = split(vectors_of(size), task, tasks)
    fall, decay = splat(-load_float(constants)), splat(load_float(constants + 4))
    momentum, gain = splat(load_float(constants + 8)), splat(load_float(constants + 12))
    for i in range(first, last):
        at, left = i * LANES * 4, size - i * LANES
        weight = load_first(w + at, left)
        gradient = fma(weight, decay, load_first(g + at, left))
        move = gradient
        if v:
            move = fma(momentum, load_first(v + at, left), gain * gradient)
            store_first(v + at, move, left)
            if nesterov:
                move = fma(momentum, move, gradient)
        store_first(w + at, fma(fall, move, weight), left)


@Kernel
def _adam(task, tasks, w, g, m, v, size, constants):
    first, last = split(vectors_of(size), task, tasks)
    decay, shrink = splat(load_float(constants)), splat(load_float(constants + 4))
    beta1, rest1 = splat(load_float(constants + 8)), splat(load_float(constants + 12))
    beta2, rest2 = splat(load_float(constants + 16)), splat(load_float(constants + 20))
    offset, fall = splat(load_float(constants + 24)), splat(-load_float(constants + 28))
    for i in range(first, last):
        at, left = i * LANES * 4, size - i * LANES
        weight = load_first(w + at, left)
        gradient = fma(weight, decay, load_first(g + at, left))
        mean = fma(beta1, load_first(m + at, left), rest1 * gradient)
        square = fma(beta2, load_first(v + at, left), rest2 * gradient * gradient)
        store_first(m + at, mean, left)
        store_first(v + at, square, left)
        store_first(w + at, fma(fall, mean / (square_root(square) + offset), weight * shrink), left)


@Kernel
def _adagrad(task, tasks, w, g, v, size, constants):
    first, last = split(vectors_of(size), task, tasks)
    decay, fall = splat(load_float(constants)), splat(-load_float(constants + 4))
    offset = splat(load_float(constants + 8))
    for i in range(first, last):
        at, left = i * LANES * 4, size - i * LANES
        weight = load_first(w + at, left)
        gradient = fma(weight, decay, load_first(g + at, left))
        square = fma(gradient, gradient, load_first(v + at, left))
        store_first(v + at, square, left)
        store_first(w + at, fma(fall, gradient / (square_root(square) + offset), weight), left)


@Kernel
def _average(task, tasks, average, values, size, share):
    first, last = split(vectors_of(size), task, tasks)
    part = splat(load_float(share))
    for i in range(first, last):
        at, left = i * LANES * 4, size - i * LANES
        before = load_first(average + at, left)
        store_first(average + at, fma(load_first(values + at, left) - before, part, before), left)


class CompiledOptimizerOps(NumpyOptimizerOps):
    def sgd_update(self, w: Array, g: Array, v: Array | None, **settings: Any) -> None:
        if not takes(w, g, v):
            super().sgd_update(w, g, v, **settings)
            return
        constants = np.array([settings[name] for name in ("lr", "decay", "momentum", "gain")], dtype=np.float32)
        _sgd.launch(w=w, g=g, v=v, size=w.size, nesterov=int(settings["nesterov"]), constants=constants)

    def adam_update(self, w: Array, g: Array, m: Array, v: Array, **settings: Any) -> None:
        if not takes(w, g, m, v):
            super().adam_update(w, g, m, v, **settings)
            return
        beta1, beta2 = settings["betas"]
        corrected = adam_constants(*(settings[name] for name in ("lr", "betas", "eps", "t")))
        means = beta1, 1.0 - beta1, beta2, 1.0 - beta2
        constants = np.array([settings["decay"], settings["shrink"], *means, *corrected], dtype=np.float32)
        _adam.launch(w=w, g=g, m=m, v=v, size=w.size, constants=constants)

    def adagrad_update(self, w: Array, g: Array, v: Array, **settings: Any) -> None:
        if not takes(w, g, v):
            super().adagrad_update(w, g, v, **settings)
            return
        constants = np.array([settings[name] for name in ("decay", "lr", "eps")], dtype=np.float32)
        _adagrad.launch(w=w, g=g, v=v, size=w.size, constants=constants)

    def average_update(self, average: Array, values: Array, share: float) -> None:
        if not takes(average, values) or average.shape != values.shape:
            super().average_update(average, values, share)
            return
        _average.launch(average=average, values=values, size=average.size, share=np.array([share], dtype=np.float32))
