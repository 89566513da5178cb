"""stonefx rewrites PyTorch graphs: linear chains merged, hyperbolic geometry fused."""

import os

from .stopping import is_command, stop_at_once

if is_command():
    stop_at_once()

# The shell completes at the press of a key: the command line alone knows the names, and torch takes seconds.
if "_STONEFX_COMPLETE" not in os.environ:
    from . import geometry, nn, ops
    from .backend import last_report, reports
    from .capture import CaptureError
    from .compress import CompressionStats, compress
    from .integrations import accelerate
    from .ops import butterfly
    from .optimize import explain, optimize
    from .options import Options
    from .passes.cost.machine import Machine
    from .passes.pipeline import RewriteError
    from .report import Report
    from .rewriting import RequiredRewriteMissing, StonefxWarning
    from .runtime import invalidate
    from .saving import load, save

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "CompressionStats",
    "Machine",
    "Options",
    "Report",
    "RequiredRewriteMissing",
    "RewriteError",
    "StonefxWarning",
    "accelerate",
    "butterfly",
    "compress",
    "explain",
    "geometry",
    "invalidate",
    "last_report",
    "load",
    "nn",
    "ops",
    "optimize",
    "reports",
    "save",
]
