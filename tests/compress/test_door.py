"""`stonefx.compress`: what it takes, what it refuses and in which words, and that it leaves the user's model alone."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import stonefx
from stonefx.compress import Settings, search


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(64, 4) @ torch.randn(4, 32) / 8 + 0.01 * torch.randn(64, 32))
    return model


def batches(count=12, features=32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, features, generator=generator) for _ in range(count)]


QUICK = {"cost": "bytes", "forms": ["pair"], "progress": False}


def compress(model=None, data=None, **options):
    return stonefx.compress(
        network() if model is None else model, batches() if data is None else data, **QUICK | options
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"min_accuracy": 0}, ValueError, r"min_accuracy: expected a number in \(0, 1\], got 0"),
        ({"min_accuracy": 1.5}, ValueError, r"min_accuracy: .* got 1\.5"),
        ({"min_accuracy": float("nan")}, ValueError, r"min_accuracy: .* got nan"),
        ({"min_accuracy": "high"}, ValueError, r"min_accuracy: .* got 'high'"),
        ({"max_ratio": -1}, ValueError, r"max_ratio: expected a number in \(0, 1\], got -1"),
        ({"energy": 2}, ValueError, r"energy: expected"),
        ({"confidence": True}, ValueError, r"confidence: expected"),
        ({"max_seconds": 0, "cost": "both"}, ValueError, r"max_seconds: expected a positive number of seconds a call"),
        ({"max_seconds": 1.0}, ValueError, r"max_seconds and cost='bytes': expected one of the two"),
        ({"max_seconds": 1.0, "max_ratio": 0.5, "cost": "both"}, ValueError, r"max_ratio and max_seconds"),
        ({"forms": "pair"}, TypeError, r"forms: expected a tuple of 'pair'"),
        ({"forms": ["pairs"]}, ValueError, r"forms: expected one of .* got 'pairs'; did you mean 'pair'\?"),
        ({"cost": "time"}, ValueError, r"cost: expected one of 'both', 'bytes', 'seconds', got 'time'"),
        ({"metric": "cosin"}, ValueError, r"metric: .* or a callable .*, got 'cosin'; did you mean 'cosine'\?"),
        ({"metric": 3}, TypeError, r"metric: expected a name or a callable metric\(model\), got int"),
        ({"output": 0}, TypeError, r"output: expected a function of the model's result, got int"),
        ({"probe": "labels"}, ValueError, r"probe: expected one of 'auto'"),
        ({"probes": 0}, ValueError, r"probes: expected an integer of at least 1, got 0"),
        ({"evaluations": 1}, ValueError, r"evaluations: expected an integer of at least 2"),
        ({"seed": None}, ValueError, r"seed: expected an integer of at least 0, got None"),
        ({"batch_size": 0}, ValueError, r"batch_size: expected an integer of at least 1"),
        ({"layers": "3"}, ValueError, r"layers: '3' fits no layer of the model"),
        ({"fast": True}, TypeError, r"fast"),
        ({"min_accuracy": None}, ValueError, r"min_accuracy: expected a number in \(0, 1\], got None"),
        ({"confidence": 1.0}, ValueError, r"confidence: expected a number in \(0, 1\), got 1\.0"),
        ({"max_seconds": float("inf"), "cost": "both"}, ValueError, r"max_seconds: expected .* got inf"),
        ({"forms": None}, TypeError, r"forms: expected a tuple of .* got None"),
        ({"forms": 3}, TypeError, r"forms: expected a tuple of .* got 3"),
        ({"layers": 3}, TypeError, r"layers: expected a path or pattern, or several, got int"),
        ({"layers": [0]}, TypeError, r"layers: expected paths such as .* got a int; model\.named_modules"),
        ({"layers": network()}, TypeError, r"layers: expected paths such as .* got a Linear"),
        ({"layers": nn.ReLU()}, TypeError, r"layers: expected a path or pattern, or several, got ReLU"),
        ({"layers": ()}, ValueError, r"layers: expected at least one path or pattern, got none; None stands for"),
        ({"refine": "no"}, TypeError, r"refine: expected True or False, got 'no'"),
        ({"progress": 2}, TypeError, r"progress: expected True or False, got 2"),
        ({"seed": 2**70}, ValueError, r"seed: expected an integer of at most 4294967295, got 1180591620717411303424"),
        ({"memory": "1G"}, ValueError, r"memory: expected a number of bytes, got '1G'"),
        ({"memory": float("inf")}, ValueError, r"memory: expected a number of bytes, got inf"),
        ({"weights": 3, "output_folder": "x"}, TypeError, r"weights: expected a path, got int"),
        ({"output_folder": 3}, TypeError, r"output_folder: expected a path, got int"),
        ({"checkpoint": True}, TypeError, r"checkpoint: expected a path, got bool"),
        ({"metric": lambda: 1.0}, TypeError, r"metric: expected a function metric\(model\) or .* takes \(\)"),
        ({"metric": lambda a, b, c: 1.0}, TypeError, r"metric: expected .* one that takes \(a, b, c\)"),
        ({"output": lambda y: y["x"]}, ValueError, r"output: expected a function of the model's result, a Tensor; it"),
        ({"output": lambda y: y.argmax(-1)}, TypeError, r"output: expected .* floating-point .* torch\.int64"),
        ({"output": lambda y: y.sum()}, ValueError, r"output: expected a tensor \[samples, .* metric='cosine'"),
    ],
)  # fmt: skip
def test_options_out_of_range(options, error, message):
    with pytest.raises(error, match=message):
        compress(**options)


class WithLabels(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 4)

    def forward(self, x, labels):
        return self.layer(x).sum() + labels.sum()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (3, TypeError, r"data: expected a DataLoader, a list of batches, a tensor.* got int"),
        ([], ValueError, r"data: expected at least one batch, got none"),
        ({"x": torch.ones(4, 32)}, TypeError, r"put one batch into a list: \[batch\]"),
        (["text"], TypeError, r"data\[0\]: expected a tensor, a tuple .* got str"),
        ([{"y": torch.ones(4, 32)}], TypeError, r"data\[0\]: does not fit the model's forward: .*input"),
        (
            batches(features=31),
            ValueError,
            r"the model cannot be called on a batch of it, and one of \[16, 31\]",
        ),
        (
            [torch.ones(2, 32)],
            ValueError,
            r"expected at least 3 samples, one each to calibrate, select and confirm",
        ),
        ([torch.full((16, 32), float("nan"))] * 12, ValueError, r"result on a batch of it is not finite"),
        (
            [x.to_sparse() for x in batches()],
            TypeError,
            r"data\[0\]: expected dense tensors, .* torch\.sparse_coo",
        ),
    ],
)
def test_data_that_does_not_fit(data, error, message):
    with pytest.raises(error, match=message):
        compress(data=data)


def test_a_model_that_needs_labels_says_which_argument_is_missing():
    with pytest.raises(TypeError, match=r"data\[0\]: does not fit the model's forward: missing .*'labels'"):
        compress(WithLabels())


def test_no_model_and_no_data():
    with pytest.raises(
        TypeError, match=r"model: expected an nn\.Module, or the path of .* folder, got function"
    ):
        stonefx.compress(lambda x: x, batches())
    with pytest.raises(TypeError, match="data: expected calibration data beside"):
        stonefx.compress(network(), selection_data=batches())
    with pytest.raises(ValueError, match="max_seconds: expected data"):
        stonefx.compress(network(), max_seconds=1.0)


def test_models_that_cannot_be_worked_on_are_named_before_they_are_called():
    lazy = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(ValueError, match="model: 0 has weights without a shape yet"):
        compress(lazy)
    assert isinstance(lazy[0].weight, nn.parameter.UninitializedParameter)
    with pytest.raises(
        TypeError, match="model: expected a module whose forward is Python, got a scripted one"
    ):
        compress(torch.jit.trace(network(), batches()[0]))
    with pytest.raises(TypeError, match="plain: expected what compress returned, got int"):
        stonefx.compress.plain(3)
    with pytest.raises(TypeError, match=r"reloaded: expected an nn\.Module, got int"):
        stonefx.compress.reloaded_accuracy(3, network(), batches())


@pytest.mark.parametrize("model", [nn.Linear(32, 32), nn.Conv1d(16, 16, 3), nn.LSTM(32, 32)], ids=repr)
def test_a_model_that_is_one_layer_is_left_with_the_way_out(model):
    data = [torch.randn(16, 16, 32) for _ in range(8)]
    small, stats = compress(model.eval(), data, max_ratio=0.5)
    row = next(row for row in stats.layers if row.path == "")
    assert "it is the whole model" in row.reason and "torch.nn.Sequential(model)" in row.reason
    assert type(small) is type(model) and stats.model_ratio == 1.0
    assert compress(nn.Sequential(model), data, max_ratio=0.9)[1].compression_ratio < 1


def test_output_picks_a_tensor():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, x):
            return {"note": "text", "inner": {"y": self.layer(x)}}

    with pytest.raises(TypeError, match="say which one counts with output="):
        compress(Pair().eval())
    with pytest.raises(
        TypeError, match="output: expected a function that returns a tensor of the result, got dict"
    ):
        compress(Pair().eval(), output=lambda result: result["inner"])
    _, stats = compress(Pair().eval(), output=lambda result: result["inner"]["y"], min_accuracy=0.5)
    assert stats.reached


def state(model):
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "wants": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad is None for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "classes": [type(m) for m in model.modules()],
    }


def same(a, b):
    weights = all(torch.equal(a["weights"][k], b["weights"][k]) for k in a["weights"])
    return (
        weights
        and all(a[k] == b[k] for k in a if k != "weights")
        and a["weights"].keys() == b["weights"].keys()
    )


def in_training():
    model = network().train()
    model[0].bias.requires_grad_(False)
    return model


STAGES = ("_measure", "_decompose", "_weigh", "_time", "_choose", "_confirm", "_finish")


def test_the_users_model_is_left_as_it_was():
    model = in_training()
    before = state(model)
    small, _ = compress(model, min_accuracy=0.5)
    assert same(before, state(model)) and small is not model
    assert not any(m.training for m in small.modules())


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_leaves_the_users_model_as_it_was(stage, monkeypatch):
    done = getattr(search.Search, stage)

    def interrupted(self, *arguments):
        done(self, *arguments)
        raise KeyboardInterrupt

    interrupted.__name__ = stage
    monkeypatch.setattr(search.Search, stage, interrupted)
    model = in_training()
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        compress(model, min_accuracy=0.5)
    assert same(before, state(model))


def test_an_interrupt_within_a_call_of_the_model():
    class Interrupting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = network(), [0, 0]

        def forward(self, x):
            self.calls[0] += 1
            if self.calls[0] == self.calls[1]:
                raise KeyboardInterrupt
            return self.inner(x)

    for at in (1, 3, 12, 25):
        model = Interrupting().train()
        model.calls[1] = at
        before = state(model)
        with pytest.raises(KeyboardInterrupt):
            compress(model, min_accuracy=0.9)
        assert same(before, state(model))


@pytest.mark.parametrize("forms", [["pair"], ["pair", "pifa", "width", "int8"]])
def test_two_runs_give_the_identical_result(forms):
    results = []
    for _ in range(2):
        # What a user draws in between is none of its business.
        torch.randn(7)
        small, stats = compress(min_accuracy=0.9, forms=forms, seed=3)
        document = copy.deepcopy(stats)
        document.seconds = {}
        results.append((small.state_dict(), document))
    (a, first), (b, second) = results
    assert first.to_json() == second.to_json()
    assert a.keys() == b.keys()
    for name in a:
        x, y = (
            getattr(t, "dequantize", lambda t=t: t)() if "Int8" in type(t).__name__ else t
            for t in (a[name], b[name])
        )
        assert torch.equal(x, y)


def test_the_users_random_numbers_are_not_touched():
    torch.manual_seed(5)
    expected = torch.randn(3)
    model, data = network(), batches()
    torch.manual_seed(5)
    compress(model, data)
    assert torch.equal(torch.randn(3), expected)


def test_the_function_stands_before_the_package_of_its_name():
    code = (
        "import stonefx\n"
        "import stonefx.compress\n"
        "assert callable(stonefx.compress) and stonefx.compress.__name__ == 'compress'\n"
        "from stonefx.compress import CompressionStats, compress, plain, save_transformers\n"
        "import stonefx.compress.search\n"
        "assert stonefx.compress is compress and stonefx.compress.plain is plain\n"
        "assert stonefx.CompressionStats is CompressionStats\n"
        "import sys\n"
        "assert not {'torchao', 'matplotlib', 'transformers'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settings_are_those_of_the_door():
    import inspect

    door = inspect.signature(stonefx.compress).parameters
    for name, value in inspect.signature(Settings).parameters.items():
        assert door[name].default == value.default, name
