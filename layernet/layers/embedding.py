"""Layers that take integers."""

from __future__ import annotations

from layernet.backend import Array, Shape
from layernet.backend.random import Stream
from layernet.core import init
from layernet.core.context import Context
from layernet.core.init import InitFunction
from layernet.core.layer import Layer
from layernet.core.param import Param


class Embedding(Layer):
    """y = weight[x]: each integer, 0 to num_embeddings - 1, becomes its row of a learned table.

    It stands first in a net, whose input is then integers of the data set (of any integer type but uint8, which means
    pixels). Nothing is differentiated with respect to them. `padding_idx`, which may count from the end, is the integer
    that stands for nothing: it gives zeros, and its row is 0 at first and gets no gradient. (torch gives that row as it
    is, which is 0 too unless it was written.)

    Shape: (N, ...) integers -> (N, ..., embedding_dim); weight (num_embeddings, embedding_dim), normal with variance 1
    by default. Raises DataError for an integer that is no row, on the CPU; on a GPU, where a look would wait for the
    device, it wraps around.
    """

    integer_input = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        weight_init: InitFunction = init.normal(1.0),
    ) -> None:
        if num_embeddings < 1 or embedding_dim < 1:
            raise ValueError(
                f"num_embeddings and embedding_dim must be at least 1, got {num_embeddings} and {embedding_dim}"
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx must be one of the {num_embeddings} rows, got {padding_idx}")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.integer_bound = num_embeddings
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight_init = weight_init

    def build(self, in_shape: Shape) -> Shape:
        self.weight = Param((self.num_embeddings, self.embedding_dim), self._table)
        return (*in_shape, self.embedding_dim)

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.embedding(x, self.weight.data)
        ctx.save(res)
        if self.padding_idx is not None:
            y *= (x != self.padding_idx)[..., None]
        return y

    def backward(self, dy: Array, ctx: Context) -> None:
        (res,) = ctx.saved
        if ctx.needs_grad(self.weight):
            dw = ctx.ops.embedding_backward(dy, res)
            if self.padding_idx is not None:
                dw[self.padding_idx] = 0
            ctx.add_grad(self.weight, dw)

    def flops(self, in_shape: Shape) -> int:
        return 0

    def _table(self, shape: Shape, rng: Stream) -> Array:
        table = self.weight_init(shape, rng)
        if self.padding_idx is not None:
            table[self.padding_idx] = 0
        return table
