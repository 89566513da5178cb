"""Operators, geometry and layers on DTensors: the values and gradients of the whole, rows split, no traffic."""

from processes import run_checks


def test_sharded_rows(tmp_path):
    assert run_checks("sharded_rows", tmp_path).count("passed") >= 2 * 8
