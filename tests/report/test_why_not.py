"""Why a place was left as it is: the true reason, the user's line, and what can be done, for fifty-odd models."""

import inspect
import re

import pytest
import torch
import why_not_library_models as library
import why_not_models as models
from why_not_models import Case

import stonefx
from stonefx.backend import collected_reports
from stonefx.passes.refusal import Refusal
from stonefx.report import Report


def rows(*sizes, dtype=torch.float32):
    return lambda: torch.randn(*sizes, dtype=dtype)


CASES = {
    "an activation between": Case(
        models.Activation, "nonlinear", "`gelu` between the maps is not a fixed linear map"
    ),
    "a value that is used twice": Case(models.Shared, "shared", "'linear' is used in 2 places"),
    "a value that is returned": Case(
        models.Returned, "returned", "'linear' is returned", cure="Return it only where"
    ),
    "training mode": Case(
        models.TrainingMode, "dropout", "dropout with p=0.2", training=True, cure="model.eval"
    ),
    "a batch norm that learns": Case(
        models.BatchNormTraining, "norm", "`batch_norm`", training=True, cure="evaluation"
    ),
    "weights that are trained": Case(
        models.Trained, "trained", "gradients are wanted of up.weight", door="compile", cure="torch.no_grad"
    ),
    "autocast": Case(models.Autocast, "autocast", r"float32 to bfloat16", cure="without autocast"),
    "a parametrisation that draws": Case(models.Parametrised, "run_time_weight", "computed at run time"),
    "a weight made by a network": Case(
        models.Hypernetwork,
        "run_time_weight",
        "computed at run time",
        module="up",
        cure="parameter or a buffer",
    ),
    "a weight that is written": Case(
        models.WrittenWeight, "run_time_weight", "'mul_' is computed at run time"
    ),
    "a weight that is to stay": Case(
        models.Kept,
        "kept",
        "'up.weight' is to be kept",
        door="optimize",
        options={"keep": ("up",)},
        cure="keep=",
    ),
    "weights in one buffer": Case(
        models.FlatParameters,
        "untraced",
        "'up.weight' is not folded: it is part of a larger buffer",
        door="compile without gradients",
        cure="copy.deepcopy",
    ),
    "nothing to gain": Case(
        models.Unprofitable, "no_faster", "would be no faster", "conv_chain", example=rows(2, 64, 12, 12)
    ),
    "another dtype behind": Case(
        models.HalfBetween, "dtype_changes", "from float32 to float64", cure="one dtype"
    ),
    "complex numbers": Case(
        models.Complex, "not_floating", "complex64", example=rows(16, 64, dtype=torch.complex64)
    ),
    "a layer norm between": Case(models.LayerNorm, "norm", "`layer_norm` between the maps"),
    "a bias at a border": Case(
        models.Padding,
        "border",
        "padding of 'conv2d_1'",
        "conv_chain",
        example=rows(2, 8, 6, 6),
        cure="bias=False",
    ),
    "a detached value": Case(models.Detached, "detached", "`detach` between the maps stops gradients"),
    "a region without gradients": Case(models.NoGrad, "gradient_mode", "no_grad region", cure="all of them"),
    "rows that the data count": Case(
        models.DataDependentRows, "data_rows", "`index`.* depends on the data", cure="before"
    ),
    "one map of several that wins nothing": Case(
        models.FanOut,
        "fan_out_no_faster",
        r"one map 256 -> 256 \+ 256",
        "linear_fan_out",
        example=rows(2, 256),
    ),
    "two curvatures": Case(
        models.CurvatureMismatch,
        "other_curvature",
        r"0\.25 \|\|args_0.* expected 1 \+ 0\.49",
        "mobius_add",
        "near miss",
    ),
    "another clamp": Case(
        models.AnotherClamp, "other_norm", "clamped from above at 0.5", "logmap0", "near miss"
    ),
    "times that are stored": Case(
        models.StoredTimes, "stored_time", "hold times that nothing", "lorentz_dist", cure="add_time"
    ),
    "a vector that is not tangent": Case(
        models.NotTangent,
        "not_tangent",
        "nothing in the graph makes 'args_0.*' tangent",
        "lorentz_expmap",
        cure="Project",
    ),
    "a norm that is used outside": Case(
        models.SharedNorm, "needed_inside", "clamp_min .* is also used by", "expmap0"
    ),
}

IMAGE, SEQUENCE = rows(2, 8, 12, 12), rows(2, 10, 64)
BOTH = "both of its operands are computed at each call"
# What stands between the maps, where it is on a line of its own, is named with that line.
LIBRARY_CASES = {
    "a norm written out": Case(
        library.NormWrittenOut, "nonlinear", rf"`mul`.* between the maps is not a fixed linear map: {BOTH}"
    ),
    "a gated unit": Case(library.GatedLinearUnit, "nonlinear", BOTH),
    "halves that gate each other": Case(library.SplitGate, "nonlinear", BOTH),
    "an adaptive norm": Case(library.AdaptiveNorm, "nonlinear", rf"`mul`.*: {BOTH}"),
    "rotary positions": Case(library.Rotary, "nonlinear", "`where`", example=SEQUENCE),
    "a class token": Case(
        library.ClassToken,
        "unread",
        "`cat`.*, which joins them with other values",
        example=rows(2, 3, 16, 16),
    ),
    "a Fourier transform": Case(library.FourierMixing, "unread", "`fft_fft`", example=SEQUENCE),
    "attention": Case(library.Attention, "nonlinear", "`tanh`", example=SEQUENCE),
    "a recurrent layer": Case(library.Recurrent, "nonlinear", "`lstm`", example=SEQUENCE),
    "a cosine": Case(library.Cosine, "nonlinear", rf"`div`.*: {BOTH}"),
    "a straight-through codebook": Case(library.Quantized, "shared", "'linear' is used in"),
    "a cache": Case(library.Cached, "unread", "`index_copy_`"),
    "NumPy": Case(library.NumPy, "detached", "`detach`"),
    "a function of one's own": Case(library.OwnFunction, "nonlinear", "`autograd_function_apply`"),
    "half of it frozen": Case(
        library.HalfFrozen,
        "trained",
        "gradients are wanted of down.weight",
        door="compile",
        cure="torch.no_grad",
    ),
    "a spectral norm that learns": Case(
        library.SpectralNorm,
        "run_time_weight",
        r"the weight 'div_\d+' is computed at run time at .*parametrizations.py:\d+",
        training=True,
        cure="model.eval",
    ),
    "a row that is written": Case(
        library.WrittenRow,
        "value_changed",
        "'linear' is changed in place at .*models.py:",
        cure="as a new value",
    ),
    "rows for an expert": Case(library.Experts, "data_rows", "`index`.* depends on the data"),
    "the largest of the neighbours": Case(library.GraphOfLargest, "nonlinear", "`scatter_reduce`"),
    "graph attention": Case(
        library.GraphAttention, "shared", "'linear' is used in 2 places", door="optimize"
    ),
    "a block of a diffusion model": Case(library.TimedBlock, "nonlinear", "`silu`", example=IMAGE),
    "a pooling": Case(library.Pooled, "nonlinear", "`max_pool2d`", example=IMAGE),
    "squeeze and excite": Case(library.SqueezeAndExcite, "nonlinear", f"`mul`.*: {BOTH}", example=IMAGE),
    "a bias at an upsampled border": Case(
        library.UpsampledWithBias,
        "border",
        "padding of 'conv2d_1'",
        "conv_chain",
        example=IMAGE,
        cure="bias=False",
    ),
    "heads taken apart": Case(library.SplitHeads, "unread", "`view`.*, which takes features and rows apart"),
}
CASES |= LIBRARY_CASES
# Models in which it stands in a module of its own.
BETWEEN = {library.NormWrittenOut: library.RootMeanSquare}


def reported(case: Case) -> Report:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, x = case.model().train(case.training), case.example()
    if case.door == "explain":
        return stonefx.explain(model, x)
    if case.door == "optimize":
        return stonefx.optimize(model, x, machine="default", **case.options).report
    with torch.set_grad_enabled(case.door == "compile"), collected_reports() as made:
        torch.compile(model, backend="stone", options={"inner": "eager"})(x)
    (report,) = made
    return report


def line_of(model: type, mark: str = "# here") -> str:
    """`file.py:line` of the line in a model that is marked; empty where none is."""
    lines, start = inspect.getsourcelines(model)
    found = next((number for number, text in enumerate(lines) if mark in text), None)
    return "" if found is None else f"{inspect.getsourcefile(model).rpartition('/')[2]}:{start + found}"


@pytest.mark.filterwarnings("ignore::stonefx.rewriting.StonefxWarning")
@pytest.mark.parametrize("name", CASES)
def test_the_report_names_reason_and_place(name):
    case = CASES[name]
    report = reported(case)
    left = [site for site in report.sites if site.status != "rewritten" and site.target == case.target]
    (site,) = [each for each in left if re.search(case.says, each.reason)] or left
    assert re.search(case.says, site.reason), site.reason
    assert (site.status, site.code) == (case.status, case.code)
    assert site.source.endswith(line_of(case.model)), site.source
    assert site.module_path == case.module
    assert not any(other.nodes == site.nodes for other in report.rewritten())
    cure = site.reason.cure if isinstance(site.reason, Refusal) else ""
    assert case.cure in cure
    assert line_of(BETWEEN.get(case.model, case.model), "# stands between") in site.reason
    # It is on the first screen of the text, with its line.
    assert re.search(case.says, " ".join(str(report).split()))


def test_a_graph_break_is_named_with_its_line():
    report = stonefx.explain(models.GraphBreak().eval(), torch.randn(16, 64))
    note = next(note for note in report.notes if "does not trace to one graph" in note)
    assert re.search(re.escape(line_of(models.GraphBreak)) + r": if hidden\.sum\(\) > 0", note)
    assert "Change that line" in note


@pytest.mark.filterwarnings("ignore::stonefx.rewriting.StonefxWarning")
def test_a_subclass_weight_is_named_with_its_line():
    torch._dynamo.reset()
    with torch.no_grad(), collected_reports() as made:
        torch.compile(models.SubclassWeight().eval(), backend="stone", options={"inner": "eager"})(
            torch.randn(16, 64)
        )
    note = next(note for report in made for note in report.notes if "TwoTensor" in note)
    assert re.search(
        r"1 operation\(s\) on TwoTensor, the first at .*" + re.escape(line_of(models.SubclassWeight)), note
    )
