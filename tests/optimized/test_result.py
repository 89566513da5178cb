"""What `optimize` returns is the model: what is done to it acts as on the original, or raises and says the way out."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import stonefx

WAY_OUT = "release=False"
Change = Callable[[Any], Any]


def x(rows: int = 5) -> torch.Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows))


class Auto(nn.Module):
    """A chain that is merged, a head that stays, and attributes of every kind."""

    factor = 3.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 3))
        self.act = nn.ReLU()
        self.head = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.spare = nn.Linear(2, 2)
        self.scale = 2.0
        self.note = "read by nobody"
        self.optional: Any = None

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)

    @property
    def first(self) -> torch.Tensor:
        return self.encoder[0].weight

    def __len__(self) -> int:
        return 7

    def forward(self, x: torch.Tensor, flip: bool = False) -> torch.Tensor:
        y = torch.sigmoid(self.head(self.act(self.encode(x))))
        y = self.drop(self.norm(y)) * self.scale * self.factor
        if self.optional is not None:
            y = y + self.optional
        if hasattr(self, "shift"):
            y = y + self.shift
        return -y if flip else y


class Double(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


class Renorm(nn.Linear):
    """A class of its own, of the shapes of the head."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / 2


@functools.cache
def optimized_once(release: bool) -> Any:
    return stonefx.optimize(Auto().eval(), x(), release=release)


def optimized(release: bool = True) -> Any:
    """A copy each: capturing takes longer than copying, and copies are to behave alike."""
    return copy.deepcopy(optimized_once(release))


def outcome(model: Any, *args: Any) -> torch.Tensor:
    torch.manual_seed(3)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        return model(*(args or (x(),)))


def setting(path: str, name: str, make: Callable[[], Any]) -> Change:
    def change(model: Any) -> None:
        torch.manual_seed(7)
        setattr(model.get_submodule(path), name, make())

    change.__name__ = f"{path}.{name}"
    return change


def doing(act: Change, name: str) -> Change:
    act.__name__ = name
    return act


def halved(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight.mul_(0.5)


# What acts whether or not weights were folded away.
ACTS: list[Change] = [
    setting("", "note", lambda: "else"),
    setting("", "scale", lambda: 2.0),
    setting("", "novel", lambda: 1),
    setting("", "spare", lambda: nn.Linear(3, 3)),
    setting("head", "weight", lambda: nn.Parameter(torch.randn(4, 3))),
    setting("head", "bias", lambda: nn.Parameter(torch.randn(4))),
    setting("", "head", lambda: nn.Linear(3, 4)),
    setting("norm", "running_mean", lambda: torch.randn(4)),
    doing(lambda m: halved(m.head.weight), "a write in place"),
    doing(lambda m: m.head.weight.data.mul_(2), "a write to data"),
    doing(
        lambda m: m.head.load_state_dict({"weight": torch.ones(4, 3), "bias": torch.zeros(4)}), "load a part"
    ),
    doing(lambda m: m.head.register_parameter("weight", nn.Parameter(torch.ones(4, 3))), "register a weight"),
    doing(lambda m: nn.init.constant_(m.head.weight, 0.5), "initialise"),
    doing(lambda m: prune.l1_unstructured(m.head, "weight", 0.5), "prune"),
    doing(
        lambda m: (
            prune.l1_unstructured(m.head, "weight", 0.5),
            prune.random_unstructured(m.head, "bias", 1),
        ),
        "prune both",
    ),
    doing(
        lambda m: (prune.l1_unstructured(m.head, "weight", 0.5), prune.remove(m.head, "weight")),
        "prune for good",
    ),
    doing(lambda m: parametrize.register_parametrization(m.head, "weight", Double()), "parametrise"),
    doing(lambda m: parametrizations.weight_norm(m.head), "weight norm"),
    doing(
        lambda m: (
            parametrize.register_parametrization(m.head, "weight", Double()),
            parametrize.remove_parametrizations(m.head, "weight"),
        ),
        "parametrise for good",
    ),
    doing(lambda m: m.register_forward_hook(lambda module, args, result: result + 1), "a hook on the model"),
    doing(
        lambda m: m.register_forward_pre_hook(lambda module, args: (args[0] * 2,)), "a hook before the model"
    ),
    doing(lambda m: m.spare.register_forward_hook(lambda *_: 1 / 0), "a hook on what is not called"),
    doing(lambda m: m.requires_grad_(False), "freeze"),
    doing(lambda m: m.eval(), "evaluate"),
    doing(lambda m: m.to("cpu").float().share_memory(), "move"),
]

# What acts where all weights were kept, and raises where not.
ACTS_OR_RAISES: list[Change] = [
    setting("", "scale", lambda: 0.0),
    setting("", "factor", lambda: 1.0),
    setting("", "optional", lambda: 1.0),
    setting("", "shift", lambda: 1.0),
    setting("", "encode", lambda: lambda x: x[:, :3]),
    setting("", "act", lambda: nn.Tanh()),
    setting("", "encoder", lambda: nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 3))),
    setting("", "encoder", lambda: nn.Linear(6, 3)),
    setting("", "head", lambda: Renorm(3, 4)),
    setting("", "head", lambda: nn.Linear(3, 4, bias=False)),
    setting("norm", "eps", lambda: 0.5),
    doing(
        lambda m: [setattr(m.norm, name, None) for name in ("running_mean", "running_var")], "no statistics"
    ),
    setting("head", "bias", lambda: None),
    setting("head", "forward", lambda: lambda x: x[:, :1].expand(-1, 4)),
    setting("encoder.0", "weight", lambda: nn.Parameter(torch.randn(64, 6))),
    setting("encoder", "0", lambda: nn.Linear(6, 64)),
    doing(lambda m: halved(m.encoder[0].weight), "a write to a folded weight"),
    doing(lambda m: nn.init.constant_(m.encoder[1].weight, 0.5), "initialise a folded weight"),
    doing(lambda m: m.encoder.append(nn.Tanh()), "append"),
    doing(lambda m: m.encoder.insert(1, nn.Tanh()), "insert"),
    doing(lambda m: m.encoder.add_module("last", nn.Tanh()), "add a module"),
    doing(lambda m: m.encoder.__delitem__(1) or setattr(m, "head", nn.Linear(64, 4)), "delete a layer"),
    doing(lambda m: m.encoder.register_forward_hook(lambda module, args, result: 2 * result), "a hook"),
    doing(lambda m: m.head.register_forward_pre_hook(lambda module, args: (2 * args[0],)), "a hook before"),
    doing(lambda m: prune.l1_unstructured(m.encoder[0], "weight", 0.5), "prune a folded weight"),
    doing(
        lambda m: parametrize.register_parametrization(m.encoder[0], "weight", Double()),
        "parametrise a folded weight",
    ),
    doing(
        lambda m: m.apply(lambda part: isinstance(part, nn.Linear) and nn.init.ones_(part.weight)), "apply"
    ),
    doing(
        lambda m: m.load_state_dict({k: torch.ones_like(v) for k, v in Auto().state_dict().items()}), "load"
    ),
    doing(lambda m: halved(m.get_parameter("encoder.0.weight")), "get_parameter"),
    doing(lambda m: halved(m.first), "a property"),
    doing(lambda m: m.drop.train(), "train a part"),
    doing(lambda m: m.train(), "train"),
]


@pytest.mark.parametrize("release", [True, False])
@pytest.mark.parametrize("change", ACTS, ids=lambda change: change.__name__)
def test_what_is_done_to_the_result_acts(change: Change, release: bool) -> None:
    model, fast = Auto().eval(), optimized(release)
    with warnings.catch_warnings(action="ignore"):
        for one in (model, fast):
            torch.manual_seed(11)
            change(one)
    torch.testing.assert_close(outcome(fast), outcome(model), rtol=1e-5, atol=1e-5)
    twin = copy.deepcopy(fast)
    torch.testing.assert_close(outcome(twin), outcome(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", ACTS_OR_RAISES, ids=lambda change: change.__name__)
def test_what_the_graph_does_not_hold_for_raises_or_runs_the_original(change: Change) -> None:
    model, fast = Auto().eval(), optimized()
    before = outcome(fast)
    with pytest.raises((AttributeError, RuntimeError, ValueError), match=WAY_OUT):
        change(fast)
    assert torch.equal(outcome(fast), before)
    fast = optimized(release=False)
    with warnings.catch_warnings(action="ignore"):
        for one in (model, fast):
            torch.manual_seed(11)
            change(one)
    torch.testing.assert_close(outcome(fast), outcome(model), rtol=1e-5, atol=1e-5)
    twin = copy.deepcopy(fast)
    torch.testing.assert_close(outcome(twin), outcome(model), rtol=1e-5, atol=1e-5)


def test_the_fast_path_comes_back() -> None:
    fast = optimized(release=False)
    quick = type(fast)
    with pytest.warns(stonefx.StonefxWarning, match="'scale' was changed; the original forward runs instead"):
        fast.scale = 0.0
    assert outcome(fast).abs().max() == 0 and type(fast) is not quick
    fast.scale = 2.0
    handle = fast.head.register_forward_hook(lambda module, args, result: 0 * result)
    other = outcome(fast)
    assert type(fast) is not quick
    handle.remove()
    torch.testing.assert_close(outcome(fast), outcome(Auto().eval()))
    assert type(fast) is quick and not torch.equal(outcome(fast), other)
    fast.train()
    fast.eval()
    outcome(fast)
    assert type(fast) is quick


@pytest.mark.parametrize("release", [True, False])
def test_it_prints_counts_and_iterates_as_the_model(release: bool) -> None:
    for model in (Auto().eval(), nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 3), nn.ReLU()).eval()):
        fast = stonefx.optimize(model, x(), release=release)
        assert str(fast) == str(model) and len(fast) == len(model)  # type: ignore[arg-type]
        assert isinstance(fast, type(model)) and type(fast).__name__ == type(model).__name__
        assert [*map(str, fast.modules())] == [*map(str, model.modules())]
        assert [name for name, _ in fast.named_modules()] == [name for name, _ in model.named_modules()]
        if isinstance(model, nn.Sequential):
            assert [*map(str, fast)] == [*map(str, model)] and str(fast[1:]) == str(model[1:])  # type: ignore
        if not release:
            assert [name for name, _ in fast.named_parameters()] == [
                name for name, _ in model.named_parameters()
            ]


def test_methods_parts_and_attributes_name_what_is_gone() -> None:
    model, fast, whole = Auto().eval(), optimized(), optimized(release=False)
    gone = r"'encoder\.0\.weight' was folded into .*release=False"
    for act in (
        lambda m: m.encode(x()),
        lambda m: m.encoder(x()),
        lambda m: m.encoder[0](x()),
        lambda m: m.encoder[0].weight,
        lambda m: m.first,
        lambda m: m.get_parameter("encoder.0.weight"),
        lambda m: copy.deepcopy(m.encoder)(x()),
        lambda m: torch.func.functional_call(m, dict(model.named_parameters()), (x(),)),
    ):
        with pytest.raises(AttributeError, match=gone):
            act(fast)
        torch.testing.assert_close(act(whole), act(model))
    with torch.no_grad():
        assert torch.equal(fast.head(torch.ones(2, 3)), model.head(torch.ones(2, 3)))
    assert not hasattr(fast.encoder[0], "weight") and fast.encoder[0].in_features == 6
    assert type(type(fast)()) is Auto


@pytest.mark.parametrize("release", [True, False])
def test_transforms_and_ensembles(release: bool) -> None:
    models = [Auto().eval() for _ in range(3)]
    for number, model in enumerate(models):
        halved(model.encoder[number % 2].weight)
    made = [stonefx.optimize(model, x(), release=release) for model in models[:2]]
    halved(made[0].head.weight)
    halved(models[0].head.weight)
    fasts = [*made, copy.deepcopy(made[0])]
    models[2] = models[0]
    expected = torch.stack([outcome(model) for model in models])
    with torch.no_grad():
        weights, buffers = torch.func.stack_module_state(fasts)
        base = copy.deepcopy(fasts[0]).to("meta")
        run = lambda w, b, x: torch.func.functional_call(base, (w, b), (x,))  # noqa: E731
        torch.testing.assert_close(torch.vmap(run, (0, 0, None))(weights, buffers, x()), expected)
        rows = torch.stack([x(), 2 * x()])
        torch.testing.assert_close(torch.vmap(made[1])(rows)[0], expected[1])


def test_gradients_reach_the_kept_weights() -> None:
    model, fast = Auto().eval(), optimized(release=False)
    for one in (model, fast):
        one(x()).square().sum().backward()
    for (name, first), second in zip(model.named_parameters(), fast.parameters(), strict=True):
        if first.grad is not None:
            torch.testing.assert_close(second.grad, first.grad, msg=name)
    for one in (model, fast):
        torch.optim.SGD(one.parameters(), lr=0.1).step()
    torch.testing.assert_close(outcome(fast), outcome(model))


def test_calls_that_were_not_captured_run_the_original_where_it_is_there() -> None:
    model, fast = Auto().eval(), optimized(release=False)
    with (
        torch.no_grad(),
        pytest.warns(stonefx.StonefxWarning, match=r"`flip` was False at capture, and now is True"),
    ):
        torch.testing.assert_close(fast(x(), True), model(x(), True))
    with pytest.raises(ValueError, match=r"`flip` was False at capture.*release=False"):
        optimized()(x(), True)


def test_checkpoints_and_pickles_are_the_originals_or_raise() -> None:
    model, fast, whole = Auto().eval(), optimized(), optimized(release=False)
    assert {*whole.state_dict()} == {*model.state_dict()}
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(fast.state_dict())
    with pytest.raises(RuntimeError, match=r"the state has 'encoder\.0\.weight' and 3 more.*release=False"):
        fast.load_state_dict(model.state_dict())
    for part in (fast, fast.encoder, fast.encoder[0]):
        with pytest.raises(TypeError, match=WAY_OUT):
            pickle.dumps(part)
    for one, part in ((model.head, fast.head), (model, whole), (model.encoder, whole.encoder)):
        read = pickle.loads(pickle.dumps(part))
        assert [type(module) for module in read.modules()] == [type(module) for module in one.modules()]
        assert not any(name.startswith("_stone") for module in read.modules() for name in vars(module))
        for (name, first), second in zip(one.state_dict().items(), read.state_dict().values(), strict=True):
            assert torch.equal(first, second), name
    file = io.BytesIO()
    torch.save(whole, file)
    file.seek(0)
    assert torch.equal(outcome(torch.load(file, weights_only=False)), outcome(model))
    with pytest.raises(TypeError, match="release=False"):
        stonefx.save(whole, "/tmp/never.safetensors")


def test_invalidate_folds_kept_weights_again() -> None:
    model, fast = Auto().eval(), optimized(release=False)
    outcome(fast)
    for one in (model, fast):
        one.encoder[0].weight.detach().numpy()[:] *= 2
    stonefx.invalidate(fast)
    torch.testing.assert_close(outcome(fast), outcome(model))
    with pytest.raises(TypeError, match=r"came out of stonefx\.optimize"):
        stonefx.invalidate(optimized())


def test_a_model_that_calls_itself_back() -> None:
    class Backward(nn.Module):
        def __init__(self, parent: nn.Module) -> None:
            super().__init__()
            self.parent = [parent]
            self.layers = nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x) * self.parent[0].scale

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.scale = 3.0
            self.below = Backward(self)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.below(x)

    model = Whole().eval()
    fast = stonefx.optimize(model, x())
    twin: Any = copy.deepcopy(fast)
    for one in (fast, twin):
        torch.testing.assert_close(outcome(one), outcome(model))
        assert one.below.parent[0] is one
        with pytest.raises(AttributeError, match="'scale' cannot be changed"):
            one.scale = 1.0


def test_a_class_that_minds_being_derived_from() -> None:
    class Picky(nn.Module):
        known: ClassVar[list[str]] = []

        def __init_subclass__(cls, *, name: str) -> None:
            cls.known.append(name)

    class Named(Picky, name="named"):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(width, 64), nn.Linear(64, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    fast = stonefx.optimize(Named(6).eval(), x())
    assert isinstance(fast, Named) and Picky.known == ["named"] and fast(x()).shape == (5, 3)
