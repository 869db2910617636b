"""The layer contract: what a user subclasses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from layernet.backend import Array, Shape
from layernet.core.configurable import Configurable
from layernet.core.param import Buffer, Const, Param
from layernet.errors import ContractError, ShapeError

if TYPE_CHECKING:
    from layernet.core.context import Context


class Layer(Configurable):
    """A step of a net with a hand-written forward and backward.

    Subclasses write `__init__` (plain annotated arguments, no arrays), optionally `build` (shapes and parameters), and
    `forward` and `backward`. Shapes are those of one example, without N. A layer never writes to itself during a pass:
    what a pass produces goes through its `ctx`, so a layer can be shared, recomputed and run by several threads.
    """

    name: str | None = None
    """Given by the user; None lets the container number it (`conv2d_1`)."""
    path: str = ""
    """Where the layer stands in its net, set when the net is built."""
    in_shape: Shape
    out_shape: Shape
    batch_dependent: bool = False
    """True for layers whose training output for one example depends on the others (BatchNorm)."""
    integer_input: bool = False
    """True for layers that take integers (indices) rather than the net's float type."""
    placed: bool = False
    """Whether it was built for a place in a net: a layer object has one."""
    before_failure: dict[str, Any] | None = None
    """What its attributes were before an attempt to build a net failed; kept by the net, until the next attempt."""
    integer_bound: int | None = None
    """What the integers of an `integer_input` layer stay below, where it knows: checks then draw from 0 up to it."""
    learns: bool = True
    """Whether any parameter in it is trained; kept by the net."""
    learns_itself: bool = True
    """Whether any parameter that it declares itself is trained; kept by the net."""
    tied: bool = False
    """Whether it shares its parameters with another layer of its net."""
    adds_level: bool = True
    """Whether its name is part of its children's paths. False: only when the user gave the name, so that a composite
    that says no more than how layers are run can be put around them, or taken away, without renaming a parameter."""
    recomputes: bool = False
    """Whether it keeps its input alone, and runs what is in it anew in backward."""

    def build(self, in_shape: Shape) -> Shape:
        """Declare Param, Buffer and Const attributes for this input shape; return the output shape."""
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        """The output (N, *out_shape) for the input x (N, *in_shape)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        """The gradient with respect to x, given that with respect to the output; adds parameter gradients to ctx.

        May return None when not `ctx.needs_input_grad`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def flops(self, in_shape: Shape) -> int | None:
        """Multiply-adds of the forward pass for one example; None where nobody counted."""
        return None

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        """One step that does what this layer and then `following`, its neighbour in a chain, do; None: they stay two.

        `inference`: the step has a forward only. Both layers stay as they are, and the step uses their parameters. It
        holds for a class alone: of a subclass that does not define its own, it is not asked (see `core/plan.py`).
        """
        return None

    def named(self, name: str) -> Self:
        """This layer, called `name` in paths. Returns self."""
        self.name = name
        return self

    def clone(self) -> Self:
        copy = super().clone()
        copy.name = self.name
        return copy

    def connect(self, in_shape: Sequence[int]) -> Shape:
        """Build for an input of this shape, once; return the output shape. A composite calls it for its children.

        Raises ShapeError when the layer cannot take the shape, ContractError when it was built before.
        """
        if self.placed:
            raise ContractError(
                f"{self.label} is already part of a net",
                "a layer object has one place: build a second one, or share the parameters with Ref(name)",
            )
        self.placed = True
        self.in_shape = tuple(int(n) for n in in_shape)
        try:
            built = self.build(self.in_shape)
        except ShapeError as error:
            error.layer = error.layer or self
            raise
        if not isinstance(built, tuple | list):
            hint = "it must return the output shape, without N"
            raise ContractError(f"{self.label}: build returned {built!r}", hint, self)
        out_shape = tuple(int(n) for n in built)
        if any(n < 1 for n in out_shape):
            raise ShapeError(
                f"the output would have shape {out_shape} for an input of shape {self.in_shape}", layer=self
            )
        self.out_shape = out_shape
        return out_shape

    @property
    def reader(self) -> Layer:
        """The layer that reads the input: this one, or of one made of layers the first of them."""
        first = next((child for _, child in self._members()), None)
        return self if self.integer_input or first is None else first.reader

    @property
    def label(self) -> str:
        """How messages call this layer: its path (or name) and its type."""
        where = self.path or self.name
        if not where:
            return f"a {self.type_name} layer"
        return f"layer {self.type_name}" if where == self.type_name else f"layer {where} ({self.type_name})"

    @property
    def type_name(self) -> str:
        """What tables and messages call its type; of a step of a plan, the types of all layers it stands for."""
        return type(self).__name__

    def children(self) -> dict[str, Layer]:
        """The layers that this one is made of, by name: attributes that hold a layer or a list of layers.

        A list adds no name of its own; its unnamed layers are numbered per type (`conv2d_1`, `conv2d_2`, ...).
        """
        names = _Names(self)
        return {names.give(attribute, child): child for attribute, child in self._members()}

    def _members(self) -> Iterator[tuple[str | None, Layer]]:
        """The layers in it, in order, each with the attribute that holds it; None when it stands in a list."""
        for attribute, value in vars(self).items():
            if isinstance(value, Layer):
                yield attribute, value
            elif isinstance(value, list | tuple):
                yield from ((None, item) for item in value if isinstance(item, Layer))

    def own(self, kind: type[Any]) -> dict[str, Any]:
        """The Param, Buffer or Const objects that this layer itself declares, by attribute name."""
        found = {}
        for attribute, value in vars(self).items():
            if isinstance(value, kind):
                found[attribute] = value
            elif isinstance(value, list | tuple):
                found.update({f"{attribute}.{i}": item for i, item in enumerate(value) if isinstance(item, kind)})
        return found

    def walk(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """This layer and all layers in it, each with its path, in order."""
        return self._walk(path, path, _Names(self))

    def _walk(self, path: str, level: str, names: _Names) -> Iterator[tuple[str, Layer]]:
        """`level` is what the paths of the children start with, `names` are those given on that level."""
        yield path, self
        for attribute, child in self._members():
            name = names.give(attribute, child)
            place = f"{level}.{name}" if level else name
            if child.adds_level or child.name or attribute:
                yield from child._walk(place, place, _Names(child))
            else:
                yield from child._walk(place, level, names)

    def params(self) -> dict[str, Param]:
        """All parameters in this layer by path; a shared one under its first path only."""
        return self._tensors(Param)

    def buffers(self) -> dict[str, Buffer]:
        """All buffers in this layer by path; a shared one under its first path only."""
        return self._tensors(Buffer)

    def consts(self) -> dict[str, Const]:
        """All constants in this layer by path."""
        return self._tensors(Const)

    def _tensors(self, kind: type[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        seen: set[int] = set()
        for path, layer in self.walk():
            for name, tensor in layer.own(kind).items():
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[f"{path}.{name}" if path else name] = tensor
        return found


class _Names:
    """The names given so far on one level of paths."""

    def __init__(self, owner: Layer) -> None:
        self.owner = owner
        self.given: set[str] = set()
        self.counts: dict[str, int] = {}

    def give(self, attribute: str | None, child: Layer) -> str:
        kind = type(child).__name__.lower()
        if attribute is None:
            self.counts[kind] = self.counts.get(kind, 0) + 1
        name = attribute or child.name or f"{kind}_{self.counts[kind]}"
        if name in self.given:
            raise ContractError(
                f"{self.owner.label} holds two layers called {name!r}",
                "give each its own name, or name what holds them",
            )
        self.given.add(name)
        return name


def tie(layer: Layer, source: Layer) -> None:
    """Make `layer`, built like `source`, use the parameters and buffers of `source`."""
    for kind in (Param, Buffer):
        for name, tensor in source.own(kind).items():
            mine = layer.own(kind)[name]
            if mine.shape != tensor.shape:
                raise ShapeError(
                    f"it shares {name} with {source.label}, which has shape {tensor.shape}, "
                    f"but here the input {layer.in_shape} asks for shape {mine.shape}",
                    layer=layer,
                )
            attribute, _, index = name.partition(".")
            if index:
                items = list(getattr(layer, attribute))
                items[int(index)] = tensor
                setattr(layer, attribute, items)
            else:
                setattr(layer, attribute, tensor)
    for child, original in zip(layer.children().values(), source.children().values(), strict=True):
        tie(child, original)
