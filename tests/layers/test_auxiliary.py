"""Heads beside the main line."""

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.core.sequential import Ref, Sequential
from layernet.errors import ContractError, ShapeError
from layernet.layers.activation import Tanh
from layernet.layers.composite import AuxiliaryHead, Recompute
from layernet.layers.dropout import Dropout
from layernet.layers.linear import Linear
from layernet.layers.norm import BatchNorm
from tests.core.toys import Twice
from tests.layers.one_layer import close, net_of, numbers, run


def test_a_tied_head_needs_a_name_for_its_output():
    def net(ref):
        return Net([AuxiliaryHead("aux", [Linear(2)]), ref], (4,))

    with pytest.raises(ShapeError, match="Ref to an AuxiliaryHead needs a name"):
        net(Ref("aux"))
    tape = net(Ref("aux").named("aux2")).bind("cpu", "float64").forward(numbers((3, 4)))
    assert (tape.outputs["aux2"] == tape.outputs["aux"]).all()


def aux_net(x):
    head = AuxiliaryHead("aux", [Linear(3).named("fc"), Tanh()])
    return net_of([Linear(4).named("stem"), Tanh(), head, Linear(2).named("head")], x)


@pytest.mark.parametrize("looked_at", [("output",), ("aux",), ("output", "aux")])
def test_auxiliary_gradients(looked_at):
    x = numbers((5, 4))
    net = aux_net(x)
    dys = {name: numbers((5, width), 9) for name, width in (("output", 2), ("aux", 3)) if name in looked_at}
    found = run(net, x, dys)

    def value():
        outputs = net.forward(x, training=True, step=0, recording=False).outputs
        return float(sum((outputs[name] * dy).sum() for name, dy in dys.items()))

    h = 1e-5
    for path, param in net.params().items():
        numeric = np.zeros(param.shape)
        for index in np.ndindex(param.shape):
            before = param.data[index]
            param.data[index] = before + h
            above = value()
            param.data[index] = before - h
            numeric[index] = (above - value()) / (2 * h)
            param.data[index] = before
        close(found.grads[path], numeric, 1e-7)
    assert found.grads["aux.fc.weight"].any() == ("aux" in looked_at)
    assert found.grads["head.weight"].any() == ("output" in looked_at)


def test_the_main_line_passes_unchanged():
    x = numbers((5, 4))
    net = aux_net(x)
    tape = net.forward(x)
    assert tape.outputs["aux"].shape == (5, 3)
    w = net.state_dict()
    stem = np.tanh(x @ w["stem.weight"].T + w["stem.bias"])
    np.testing.assert_allclose(tape.outputs["aux"], np.tanh(stem @ w["aux.fc.weight"].T + w["aux.fc.bias"]))
    np.testing.assert_allclose(tape.output, stem @ w["head.weight"].T + w["head.bias"])


def test_a_head_that_alone_is_trained():
    x = numbers((5, 4))
    net = aux_net(x)
    net.freeze("stem.*")
    net.freeze("head.*")
    net.backward(net.forward(x, training=True), {"aux": numbers((5, 3))})
    assert net.params()["aux.fc.weight"].grad.any()


def test_an_auxiliary_head_in_recompute():
    x = numbers((5, 4))
    dys = {"output": numbers((5, 2), 1), "aux": numbers((5, 3), 2)}

    def make(wrap):
        head = AuxiliaryHead("aux", [Linear(3), BatchNorm(), Dropout(0.3)])
        return net_of([wrap([Linear(4), Tanh(), head]), Linear(2)], x)

    plain, again = run(make(Sequential), x, dys), run(make(Recompute), x, dys)
    for path, gradient in plain.grads.items():
        np.testing.assert_array_equal(gradient, again.grads[path])


def test_an_output_emitted_twice_is_an_error():
    x = numbers((5, 4))
    net = net_of(Twice(AuxiliaryHead("aux", [Linear(2)])), x)
    with pytest.raises(
        ContractError, match=r"layer twice_1\.body \(AuxiliaryHead\).*already has an output called 'aux'"
    ):
        net.forward(x)


def test_output_is_a_reserved_name():
    with pytest.raises(ValueError, match="'output' is that of the net's own output"):
        AuxiliaryHead("output", [])


def test_a_cloned_head_keeps_its_name():
    assert AuxiliaryHead("aux", [Linear(2)]).clone().name == "aux"
