"""What was rewritten, what was refused and why: the record, its text, its JSON, its page."""

from stonefx.report.compare import Comparison
from stonefx.report.document import json_schema, plain
from stonefx.report.listing import graph_text
from stonefx.report.publish import publish
from stonefx.report.record import Report
from stonefx.report.totals import Totals, graph_totals

__all__ = [
    "Comparison",
    "Report",
    "Totals",
    "graph_text",
    "graph_totals",
    "json_schema",
    "plain",
    "publish",
]
