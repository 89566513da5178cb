"""HypLL's manifold parameters as what they are: objects that hold a parameter.

A `hypll.tensors.ManifoldParameter` derives from `Tensor`, but has no elements of its own and refuses every function of
torch, which Dynamo needs of a tensor. Its data is the parameter in its attribute `tensor`, which is traced as such.
"""

from __future__ import annotations

from importlib.metadata import version

import hypll.tensors

from stonefx.integrations.dynamo import Tracing
from stonefx.integrations.fingerprints import fingerprint, unknown_version

VERSIONS = ("0.1.1",)
_INIT = "4080654c325f6e22"


def tracing() -> Tracing:
    """How HypLL is traced, of a version that is known."""
    left = unknown_version("hypll", version("hypll"), VERSIONS)
    kind = hypll.tensors.ManifoldParameter
    if not left and fingerprint(kind.__init__) != _INIT:
        left = (f"hypll: ManifoldParameter is traced as it is: its source is not that of HypLL {VERSIONS[0]}",)
    return Tracing("hypll", objects=frozenset(() if left else (kind,)), left=left)
