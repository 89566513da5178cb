"""Random products with weights of any axes, in a row or added up, keep their float64 value and keep places apart."""

import random

import pytest
import torch
from graphs import run, trace

from stonefx.passes.linear import LINEAR_CHAINS, LINEAR_CONTRACTIONS
from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context


class Program:
    """Random steps: each is a function of the weights and of a value."""

    def __init__(self, seed):
        self.chance, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)
        self.start = self.shape = [
            self.chance.choice([2, 3, 4]) for _ in range(self.chance.choice([2, 3, 3, 4]))
        ]
        self.weights, self.steps = {}, []
        makers = [
            self.product,
            self.product,
            self.product,
            self.two,
            self.order,
            self.scale,
            self.bias,
            self.dot,
        ]
        for _ in range(self.chance.randint(2, 5)):
            self.chance.choice(makers)()

    def __call__(self, weights, x):
        for step in self.steps:
            x = step(weights, x)
        return x

    def draw(self, shape):
        name = f"w{len(self.weights)}"
        self.weights[name] = torch.randn(shape, generator=self.generator)
        return name

    def equation(self):
        """Letters of a product in which some axes are summed, some have a matrix each, and some are new."""
        rank = len(self.shape)
        letters = "abcdef"[:rank]
        summed = self.chance.sample(range(rank), self.chance.choice([1, 1, 1, 2]) if rank > 2 else 1)
        groups = [place for place in range(rank) if place not in summed and self.chance.random() < 0.5]
        new = "xy"[: self.chance.choice([1, 1, 1, 2])]
        sizes = dict(zip(letters, self.shape, strict=True)) | {
            letter: self.chance.choice([2, 3, 5]) for letter in new
        }
        of_weight = [*(letters[place] for place in (*summed, *groups)), *new]
        self.chance.shuffle(of_weight)
        result = [*(letter for place, letter in enumerate(letters) if place not in summed), *new]
        if self.chance.random() < 0.5:
            self.chance.shuffle(result)
        self.shape = [sizes[letter] for letter in result]
        return letters, "".join(of_weight), "".join(result), [sizes[letter] for letter in of_weight]

    def product(self):
        value, weight, result, shape = self.equation()
        name = self.draw(shape)
        if self.chance.random() < 0.3:
            self.steps.append(lambda w, x: torch.einsum(f"{weight},{value}->{result}", getattr(w, name), x))
        else:
            self.steps.append(lambda w, x: torch.einsum(f"{value},{weight}->{result}", x, getattr(w, name)))

    def two(self):
        value, weight, result, shape = self.equation()
        names = [self.draw(shape), self.draw(shape)]

        def step(w, x):
            left, right = (torch.einsum(f"{value},{weight}->{result}", x, getattr(w, name)) for name in names)
            return left - 0.5 * right

        self.steps.append(step)

    def order(self):
        order = list(range(len(self.shape)))
        self.chance.shuffle(order)
        self.shape = [self.shape[place] for place in order]
        self.steps.append(lambda w, x: x.permute(order))

    def scale(self):
        by = self.chance.choice([0.5, -2.0])
        self.steps.append(lambda w, x: 2 - x * by)

    def bias(self):
        behind = self.chance.randint(1, len(self.shape))
        name = self.draw([size if self.chance.random() < 0.6 else 1 for size in self.shape[-behind:]])
        self.steps.append(lambda w, x: x + getattr(w, name))

    def dot(self):
        axis, width = self.chance.randrange(len(self.shape)), self.chance.choice([2, 3, 5])
        name = self.draw([self.shape[axis], width])
        self.shape = [*self.shape[:axis], *self.shape[axis + 1 :], width]
        self.steps.append(lambda w, x: torch.tensordot(x, getattr(w, name), dims=([axis], [0])))


@pytest.mark.parametrize("seed", range(40))
def test_random_products(seed):
    program = Program(seed)
    x = torch.randn(program.start, generator=program.generator)
    wide = type("Weights", (), {name: value.double() for name, value in program.weights.items()})
    module = trace(program, x, weights=program.weights, dynamic=seed % 2 == 0)
    before = trace(program, x, weights=program.weights)
    NORMALIZE.run(module, Context())
    LINEAR_CHAINS.run(module, Context())
    sites = LINEAR_CONTRACTIONS.run(module, Context())
    values = list(program.weights.values())
    found, exact = run(module, values, x), program(wide, x.double())
    bound = max([site.bound for site in sites if site.bound is not None], default=0) + 1e-5
    assert found.shape == exact.shape
    assert (found - exact).abs().max() <= bound * exact.abs().max()
    planted = x.clone()
    planted.view(-1)[seed % planted.numel()] = float("nan")
    assert torch.equal(run(module, values, planted).isnan(), run(before, values, planted).isnan())


def test_most_random_products_are_merged():
    merged = 0
    for seed in range(20):
        program = Program(seed)
        module = trace(program, torch.zeros(program.start), weights=program.weights)
        NORMALIZE.run(module, Context())
        merged += any(site.status == "rewritten" for site in LINEAR_CONTRACTIONS.run(module, Context()))
    assert merged >= 10
