"""The example that trains a tree with geoopt: the same losses on stonefx's operators."""

import doctest
import sys
from pathlib import Path

import pytest

pytest.importorskip("geoopt", exc_type=ImportError)
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import tree_embeddings as example


def test_losses_are_those_of_geoopt():
    results = example.run(depth=4, dim=8, steps=40, compiled=False)
    theirs, ours = results["geoopt"], results["geoopt accelerated"]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-3)
    assert ours[0][-1] < 0.9 * ours[0][0]
    assert ours[2] > 0.8


def test_its_examples_print_what_they_say():
    assert doctest.testmod(example).failed == 0
