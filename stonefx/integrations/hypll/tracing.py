"""HypLL's manifold parameters as what they are: objects that hold a parameter.

A `hypll.tensors.ManifoldParameter` derives from `Tensor`, but has no elements of its own and refuses every function of
torch, which Dynamo needs of a tensor. Its data is the parameter in its attribute `tensor`, which is traced as such.
"""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import Any

import hypll.tensors
import torch
from torch import nn

from stonefx.integrations.dynamo import Tracing
from stonefx.integrations.fingerprints import fingerprint, unknown_version

VERSIONS = ("0.1.1",)
_INIT = "4080654c325f6e22"


def tracing() -> Tracing:
    """How HypLL is traced, of a version that is known."""
    left = unknown_version("hypll", version("hypll"), VERSIONS)
    kind = hypll.tensors.ManifoldParameter
    if not left and fingerprint(kind.__init__) != _INIT:
        left = (
            f"hypll: ManifoldParameter is traced as it is: its source is not that of HypLL {VERSIONS[0]}",
        )
    return Tracing("hypll", objects=frozenset(() if left else (kind,)), left=left)


def copy_parameters(model: nn.Module, memo: dict[int, Any]) -> None:
    """Put a copy of each manifold parameter into a memo of `copy.deepcopy`, which cannot make one."""
    for parameter in model.parameters():
        if type(parameter) is hypll.tensors.ManifoldParameter and id(parameter) not in memo:
            deepcopied(parameter, memo)
            memo.setdefault(id(memo), []).append(
                parameter
            )  # as deepcopy does, so that the id stays the parameter's


def deepcopied(parameter: Any, memo: dict[int, Any]) -> Any:
    """A copy of a manifold parameter, with its manifold; what `copy.deepcopy` should give."""
    if id(parameter) in memo:
        return memo[id(parameter)]
    data = parameter.tensor
    if id(data) not in memo:
        with torch.no_grad():
            inner = nn.Parameter(data.clone(memory_format=torch.preserve_format), data.requires_grad)
        inner.grad = None if data.grad is None else data.grad.clone()
        memo[id(data)] = inner
    manifold = copy.deepcopy(parameter.manifold, memo)
    made = hypll.tensors.ManifoldParameter(memo[id(data)], manifold, parameter.man_dim)
    memo[id(parameter)] = made
    return made
