"""Operators, geometry and layers on DTensors: the values and gradients of the whole, rows split, no traffic."""

from pathlib import Path

from processes import run_checks


def test_sharded_rows(tmp_path: Path) -> None:
    assert len(run_checks("sharded_rows", tmp_path)) == 9
