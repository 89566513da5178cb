"""The table of contents: which pass runs, in which order, and why there."""

from __future__ import annotations
