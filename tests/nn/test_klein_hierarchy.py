"""The example: its parts, and that hyperbolic space reconstructs the tree better than flat space."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import klein_hierarchy as example


def test_the_taxonomy_is_a_tree():
    tree = example.generate(120)
    assert tree.words == 120 and tree.adjacent.sum() == 2 * 119
    assert (tree.parents[1:] < torch.arange(1, 120)).all()
    assert torch.equal(tree.adjacent, tree.adjacent.t())
    inner = tree.parents[1:] != 0
    assert (tree.topics[1:] == tree.topics[tree.parents[1:]])[inner].all()


def test_average_precision():
    adjacent = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]], dtype=torch.bool)
    distances = torch.tensor([[0.0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3], [1, 2, 3, 0]])
    # word 0: (1/1 + 2/3) / 2, word 1: 1/1, word 2: 1/3, word 3: (1/1 + 2/3) / 2
    assert example.mean_average_precision(distances, adjacent) == pytest.approx(
        (5 / 6 + 1 + 1 / 3 + 5 / 6) / 4
    )


def test_a_few_steps_train():
    results = example.compare(words=60, steps=60)
    assert results["Klein"][0] > 0.3


@pytest.mark.slow
def test_klein_beats_its_euclidean_twin():
    for seed in range(2):
        results = example.compare(seed=seed)
        assert results["Klein"][0] > results["Euclidean"][0] + 0.05
        assert results["Klein"][1] > 0.9
