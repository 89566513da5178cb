"""Where a report goes besides its caller: the logger `stonefx`, and the trace that `TORCH_TRACE` asks for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch._logging

if TYPE_CHECKING:
    from stonefx.report.record import Report

log = logging.getLogger("stonefx")


def publish(report: Report) -> None:
    """Log a finished report, and add it as JSON to the trace where there is one.

    The logger `stonefx` has the text at level INFO and the difference of the graphs at DEBUG; with `TORCH_TRACE=folder`
    the trace has an artifact `stonefx_report`, which tlparse lists beside those of torch.
    """
    if log.isEnabledFor(logging.INFO):
        log.info("report\n%s", report.text())
    if log.isEnabledFor(logging.DEBUG) and report.before != report.after:
        log.debug("difference of the graphs\n%s", report.diff())
    torch._logging.trace_structured(
        "artifact",
        metadata_fn=lambda: {"name": "stonefx_report", "encoding": "json"},
        payload_fn=report.to_json,
        expect_trace_id=False,
    )
