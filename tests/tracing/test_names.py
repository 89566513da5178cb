"""Plain names of what Dynamo calls `L['self']._modules['a']`."""

from __future__ import annotations

import pytest

from stonefx.tracing.names import plain_name, root_name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("L['self']._modules['encoder']._modules['0']._parameters['weight']", "encoder.0.weight"),
        ("L['fn']._modules['norm']._buffers['running_mean']", "norm.running_mean"),
        ("G['model']._modules['a.b']._parameters['w']", "a.b.w"),
        ("L['fn'].__closure__[0].cell_contents._modules['head']._parameters['bias']", "head.bias"),
        ("L['self']._parameters['weight']", "weight"),
        ("G['weights']", "weights"),
        ("L['batch']['ids']", "batch.ids"),
        ("L['args'][0]", "args.0"),
        ("L['kwargs']['pixels'].size()[0]", "kwargs.pixels.size.0"),
    ],
)
def test_plain_name(source: str, name: str) -> None:
    assert plain_name(source) == name


def test_root_name_is_the_variable() -> None:
    assert root_name("G['model']._modules['a']._parameters['w']") == "model"
    assert root_name("L['x']") == "x"
