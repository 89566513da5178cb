"""Why a site is left as it is, as data: a code, the figures, and the sentence that is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

PREDICTED = "predicted {after:.3g} us against {before:.3g} us as it stands"


NEARLY = "{difference}; the graph has {found}, and {target} is {formula}"


@dataclass(frozen=True)
class Code:
    """What a code means.

    Args:
        text: the sentence, with the figures as fields of `str.format`.
        cure: what a user can do about it; empty where nothing should be done.
    """

    text: str
    cure: str = ""


CODES: dict[str, Code] = {
    # What it would be worth.
    "no_faster": Code(
        "merging {what} {verdict}: predicted {after:.3g} us against {before:.3g} us as it stands {where}, "
        "{merged:,} against {weights:,} weights{one}",
        "Nothing: as it stands it is faster here. The cost model takes the sizes of the example; "
        "`stonefx doctor --measure` checks it against this machine.",
    ),
    "table_larger": Code(
        "the map {inputs} -> {outputs} is not folded into the table {table!r} of {rows:,} rows: weights would take "
        "{after:,} bytes against {before:,}",
        "`stonefx.optimize` frees a table that nothing else reads; a map to fewer features makes it smaller.",
    ),
    "table_gradient": Code(
        "the gradient of the table {table!r} is {kind}, which a table that a map was folded into would not give",
        "`sparse=False`, `scale_grad_by_freq=False` for inference: they change nothing but gradients.",
    ),
    "fan_out_no_faster": Code(
        "one map {what} would be no faster: predicted {after:.3g} us against {before:.3g} us as they stand "
        "at {rows} rows"
    ),
    "fan_out_slower_at": Code(
        "one map {what} would be slower at some sizes: predicted {after:.3g} us against {before:.3g} us as "
        "they stand at {rows} rows",
        "Give `dynamic=False` where the sizes never change.",
    ),
    "expression_no_faster": Code(
        "{what} of weights alone, computed once, would spare {cost:.3g} us of a call, and {looks:.3g} us would go into "
        "seeing that the weights have not changed",
        "Nothing: computed along with what reads it, it costs no more.",
    ),
    "key_map_no_faster": Code("taking the key map into the query map would be no faster: " + PREDICTED),
    "key_map_of_heads": Code(
        "taking the key map into the query map would make each of {heads} heads {width} features wide instead of "
        "{narrow}: " + PREDICTED + "{values}"
    ),
    "operator_no_faster": Code(
        "an operator would cost {cost:.3g} us and save {saving:.3g} us of what the formula takes where it is, "
        "at {rows} rows",
        "Nothing: as it stands it is no slower here, at the sizes of the example.",
    ),
    "other_axis": Code(
        "the region that ends at {value!r} with its features along axis {axis} is merged instead"
    ),
    # Formulas of hyperbolic geometry.
    "other_formula": Code(NEARLY),
    "other_norm": Code(
        NEARLY, "The row's 2-norm along one dimension, in the argument as in the denominator."
    ),
    "other_guard": Code(
        NEARLY, "The guards that an operator takes are listed with it; `torch.ops.stone` shows them."
    ),
    "other_curvature": Code(NEARLY, "Take one curvature for all of a formula."),
    "other_constant": Code(
        NEARLY, "If it is a typing error, mend it; else nothing, since it is another function."
    ),
    "needed_inside": Code(
        "the intermediate {value} {use}",
        "Compute it again where it is read, or read it where only the formula's result is needed.",
    ),
    "dtypes_inside": Code(
        "dtypes differ inside: {first} is {expected}, {value} is {dtype}{where}",
        "Compute the formula in one dtype, and convert before it or behind it.",
    ),
    "devices_inside": Code("devices differ inside: {expected} and, at {value}, {device}"),
    "along_the_row": Code(
        "broadcasting runs along the row: {value} has {shape}, the result {result}",
        "Expand the shorter operand first.",
    ),
    "not_over_rows": Code("broadcasting is not over rows: {inputs} give {result}"),
    "operator_strides": Code(
        "the result has strides {strides}, not the row-major ones of the operator, and later views may rely on them",
        "`.contiguous()` behind it.",
    ),
    "changed_inside": Code(
        "{value} is changed in place by {writer}{when}",
        "Write the change as a new value: `x = x + y` instead of `x += y`.",
    ),
    "changes_inside": Code(
        "{writer} changes {value} in place",
        "Write the change as a new value: `x = x + y` instead of `x += y`.",
    ),
    "stopped_inside": Code("the gradient is stopped inside, at {value}"),
    "half_without_gradient": Code(
        "a part of it is computed without gradient (no_grad, or a function with its own backward)",
        "Put all of it into the region, or none.",
    ),
    "no_operand": Code("{problem}"),
    # Of two points at the origin lorentz_cdist gives NaN in float64.
    "stored_time": Code(
        "{points} hold times that nothing in the graph ties to their space components, and {target} takes the time of "
        "a point from these: they differ off the hyperboloid, and in the gradient for what is stored",
        "Make the points where they are used: `project`, `expmap0` or `add_time` of the same curvature gives one.",
    ),
    "not_tangent": Code(
        "nothing in the graph makes {vector} tangent at {point}, and {target} takes the time of a tangent vector from "
        "its space components: they differ where the vector is not tangent, and in the gradient for what is stored",
        "Project it where it is used: `v + c * inner(x, v) * x` is tangent at `x`, and so is `logmap` at that point.",
    ),
    # What reads or changes a value.
    "returned": Code(
        "the intermediate {value!r} is returned, so it has to be computed",
        "Return it only where it is wanted: what nobody reads is merged away.",
    ),
    "shared": Code(
        "the intermediate {value!r} is used in {count} places ({users}), so it has to be computed",
        "Nothing where all of them need it.",
    ),
    "shared_key": Code("the key map is read by something else too, so it has to be computed"),
    "returned_part": Code("the result {value!r} is returned, and would be a view of a larger one"),
    "input_changed": Code(
        "the chain's input {value!r} is changed in place before its end{at}",
        "Write the change as a new value: `x = x + y` instead of `x += y`.",
    ),
    "value_changed": Code(
        "the {role} {value!r} is changed in place{at}",
        "Write the change as a new value: `x = x + y` instead of `x += y`.",
    ),
    "read_value_changed": Code("the value {value!r} that {readers} read is changed {when}"),
    "in_place": Code(
        "{operator} changes the value between the maps in place",
        "Write it out of place: `x = x * 2` instead of `x *= 2`.",
    ),
    # Weights.
    "trained": Code(
        "gradients are wanted of {names}: merging would train another parametrisation; call the model under "
        "torch.no_grad(), or use stonefx.optimize",
        "Merge after training: call the model under `torch.no_grad()`, or use `stonefx.optimize`.",
    ),
    "kept": Code("the weight {weight!r} is to be kept as it is", "Take it out of `keep=`."),
    "untraced": Code(
        "the weight {weight!r} is not folded: {why}",
        "Give it memory of its own: `copy.deepcopy(model)`; `stonefx.optimize` copies, and follows all weights with "
        "`release=False`.",
    ),
    "weight_changed": Code("the weight {weight!r} is changed inside the graph by {operator}{at}"),
    "run_time_weight": Code(
        "the weight {weight!r} is computed at run time{at}, or is an input of the graph, not a parameter, so there "
        "is nothing to fold",
        "Make it a parameter or a buffer of the model if it never changes; what is drawn or counted anew in training "
        "stays with `model.eval()`.",
    ),
    "expression_changed": Code("{value!r}, which is computed from weights, is changed by {operator}{at}"),
    "autocast_weight": Code(
        "the weight {weight!r} goes through {operator} under autocast, where the dtype is chosen at run time",
        "Convert the model (`model.bfloat16()`) and call it without autocast.",
    ),
    "no_bias": Code("the term that {operator} adds is not a bias: it is not one weight a feature"),
    "statistics": Code("the statistics of {operator} are not buffers of the model"),
    # Numbers.
    "autocast": Code(
        "{operator} runs under autocast ({before} to {after}), where the dtype of each product is chosen at run time",
        "Convert the model (`model.bfloat16()`) and call it without autocast.",
    ),
    "converts": Code("{operator} turns {before}{weight} into {after}"),
    "dtype_changes": Code(
        "the dtype changes from {before} to {after} between the maps",
        "Keep one dtype between the two layers.",
    ),
    "not_floating": Code("{operator} computes in {dtype}, not in a real floating-point dtype"),
    "border": Code(
        "the constant that {value!r} adds is zero in the padding of {convolution!r}, so that a merged map would be "
        "wrong at the border",
        "Drop the bias of the first layer (`bias=False`), or pad before it.",
    ),
    "verification": Code(
        "verification: {problem}",
        "Nothing: the original runs. Report it if the weights are ordinary.",
    ),
    # What is not linear.
    "nonlinear": Code(
        "{operator}{at} between the maps is not a fixed linear map{how}",
        "Nothing where the model needs it: two linear maps can become one only where nothing stands between them.",
    ),
    "unread": Code(
        "nothing is merged through {operator}{at} between the maps{how}",
        "What is linear can stand behind the second map: `down(up(x)) + F.linear(y, down.weight)` for "
        "`down(up(x) + y)`.",
    ),
    "single_feature": Code(
        "{operator}{at} between the maps rearranges values of a single feature, which leaves open where the axis of "
        "that feature is, so that nothing is merged through it",
        "Rearrange the values behind the second map, or before the first one.",
    ),
    "data_rows": Code(
        "how many rows {operator} between the maps gives depends on the data, so that nothing is merged through it",
        "Take the rows before the first map, or behind the second one.",
    ),
    # Modes.
    "dropout": Code(
        "dropout with p={p} is active in between", "Call `model.eval()` before the model is optimized."
    ),
    "norm": Code(
        "{operator} between the maps is not a fixed linear map of the features",
        "A batch norm in evaluation mode with stored statistics is one; others depend on the data.",
    ),
    "detached": Code("{operator} between the maps stops gradients"),
    "gradient_mode": Code(
        "a no_grad region begins or ends between the {what}, so that only some of them let gradients pass",
        "Put all of them into the region, or none.",
    ),
    # Memory.
    "strides": Code(
        "the result has strides {strides}, which no memory format of torch has, and later views may rely on them",
        "`.contiguous()` behind it.",
    ),
    "not_row_major": Code("the result {value!r} is not row-major"),
    "viewed": Code("a result is viewed in a way that a part of a wider result does not allow"),
    "viewed_key": Code("the features of the key are viewed in a way that its map does not commute with"),
    "key_width": Code("the key map changes the width, {inputs} -> {outputs}, which query and value share"),
    "copied": Code(
        "the result would have to be copied into its memory format, which takes the gain away, so the region is left "
        "as it is"
    ),
    # Sizes.
    "fixes_sizes": Code(
        "{operator} would fix sizes that may vary, so {what} left as it is",
        "Give `dynamic=False` where the sizes never change.",
    ),
    "fixed_shape": Code("{value!r} can only be computed on values of the shape that it had"),
    "lost_size": Code("the size {value!r} is read off a value that would no longer be computed"),
    "unknown_strides": Code("{operator} makes a result of unknown strides"),
    "unknown_shape": Code("the shape {came} is not known to be {expected}"),
}


class Refusal(str):
    """Why a site is left as it is: the sentence, which is made from the code and the figures.

    Args:
        code: a key of `CODES`.
        figures: what the sentence says, by name; numbers, names and texts that JSON can hold.

    Raises:
        KeyError: there is no such code, or a figure that its sentence needs is missing.

    >>> why = Refusal("kept", weight="head.0.weight")
    >>> why
    "the weight 'head.0.weight' is to be kept as it is"
    >>> why.code, dict(why.figures)
    ('kept', {'weight': 'head.0.weight'})
    """

    code: str
    figures: Mapping[str, Any]

    def __new__(cls, code: str, **figures: Any) -> Refusal:
        """Make the sentence."""
        return cls.restored(CODES[code].text.format(**figures), code, figures)

    @classmethod
    def restored(cls, text: str, code: str, figures: Mapping[str, Any]) -> Refusal:
        """A refusal whose sentence was made before, as a report in a file has it."""
        refusal = super().__new__(cls, text)
        refusal.code, refusal.figures = code, MappingProxyType(dict(figures))
        return refusal

    @property
    def cure(self) -> str:
        """What a user can do about it; empty where nothing should be done."""
        return CODES[self.code].cure if self.code in CODES else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).restored, (str(self), self.code, dict(self.figures))

    def __deepcopy__(self, memo: dict[int, Any]) -> Refusal:
        return self
