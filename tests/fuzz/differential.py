"""A random program through one door of stonefx, against its own float64 evaluation."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence

import torch
from random_program import Program
from torch import nn

import stonefx
from stonefx.backend import collected_reports
from stonefx.passes.verify import SLACK

Tensors = list[torch.Tensor]
DOORS = ("optimize", "compile")
_BATCHES = (3, 7)
_DRAWS = 3


class NoVerdict(Exception):
    """The program says nothing about stonefx: eager itself fails on it, or its float64 value is not finite."""


def mismatch(program: Program, door: str, inner: str = "eager") -> str | None:
    """What is wrong with stonefx's version of a program; None where it computes what it should.

    A result may be as far from float64 as the original's own rounding times `SLACK`, plus the sites' bounds times
    the factor by which the program amplifies small errors. Both are measured: the original's rounding is the larger
    of its error in its own dtype and of what relative changes of one epsilon in weights and inputs do to it.

    Raises:
        NoVerdict: the program cannot be judged.
    """
    torch._dynamo.reset()
    first, second = (Expected(program, batch) for batch in _BATCHES)
    module = program.module()
    with collected_reports() as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast = opened(module, first.inputs, door, inner)
        problems = []
        for expected in (first, second):
            own = copy.deepcopy(fast) if door == "optimize" else fast
            came = run(own, expected.inputs, program.train, parameters=door == "compile")
            reports = [fast.report] if door == "optimize" else made
            problems += [
                expected.compare(came, [site.bound or 0.0 for r in reports for site in r.rewritten()])
            ]
            if program.train:
                break
        else:
            # Kernels for half types may read past a row, and so does a NaN.
            if all(x.itemsize > 2 for x in first.dtype_sources(module)):
                problems += [spread(program, first.inputs, fast)]
        problems += [problem_of_sites(reports)]
    return next((problem for problem in problems if problem), None)


def opened(module: nn.Module, inputs: Tensors, door: str, inner: str) -> Callable[..., object]:
    """The module as a door returns it."""
    if door == "optimize":
        return stonefx.optimize(module, tuple(x.clone() for x in inputs), inner=inner)
    # Compiling in place would keep the module's own attributes; the wrapper would hide them.
    module.compile(backend="stone", options={"inner": inner})
    return module


def problem_of_sites(reports: Sequence[stonefx.Report]) -> str | None:
    """What a report must not say: that a part was not captured or undone, or a site without its line or reason."""
    for report in reports:
        if any("submodule by submodule" in note for note in report.notes):
            return f"the module was not captured whole: {report.notes[0]}"
        for site in report.sites:
            if "verification" in site.reason:
                return f"a rewrite was undone: {site.target} at {site.nodes}: {site.reason}"
            if not site.source or (site.status == "refused" and not site.reason):
                return f"a site has no line or no reason: {site}"
            if site.status == "rewritten" and site.bound is None:
                return f"a rewritten site has no bound: {site}"
    return None


class Expected:
    """The float64 results of a program for one batch size, and how well its own arithmetic holds them."""

    def __init__(self, program: Program, batch: int) -> None:
        self.program = program
        self.inputs = program.draw(batch)
        wide = [x.double() if x.is_floating_point() else x for x in self.inputs]
        exact = program.module(exact=True)
        plain = program.module()
        try:
            self.exact = run(copy.deepcopy(exact), wide, program.train)
            eager = run(copy.deepcopy(plain), self.inputs, program.train)
            # Weights want gradients while a module is captured, and some changes in place are then refused.
            copy.deepcopy(plain)(*(x.clone() for x in self.inputs))
            self.dtypes = [value.dtype for value in eager]
            self.epsilon = max(
                torch.finfo(value.dtype).eps
                for value in [*self.dtype_sources(plain), *eager]
                if value.is_floating_point()
            )
            moved = [run(*self.moved(exact, plain, wide, seed), program.train) for seed in range(_DRAWS)]
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise NoVerdict(f"eager fails: {type(error).__name__}: {error}") from error
        if not all(value.isfinite().all() for value in self.exact + eager):
            raise NoVerdict("not finite")
        self.scale = [float(value.abs().max()) for value in self.exact]
        self.conditioning = [
            max(difference(one[i], value) for one in moved) for i, value in enumerate(self.exact)
        ]
        self.rounding = [difference(value, exact) for value, exact in zip(eager, self.exact, strict=True)]
        self.largest = max(self.scale)

    def dtype_sources(self, plain: nn.Module) -> Tensors:
        """Tensors in every dtype that the program computes in."""
        source = self.program.source()
        inside = [torch.empty(0, dtype=torch.bfloat16)] if "bfloat16" in source else []
        return [*self.inputs, *plain.parameters(), *inside]

    def moved(
        self, exact: nn.Module, plain: nn.Module, wide: Tensors, seed: int
    ) -> tuple[nn.Module, Tensors]:
        """The float64 module and inputs after relative changes of one epsilon."""
        generator = torch.Generator().manual_seed(seed)

        def nudge(value: torch.Tensor) -> torch.Tensor:
            if not value.is_floating_point():
                return value
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value.device)
            return value * (1 + self.epsilon * (2 * noise - 1))

        module = copy.deepcopy(exact)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(nudge(parameter))
        return module, [nudge(x) for x in wide]

    def compare(self, came: Tensors, bounds: Sequence[float]) -> str | None:
        """The first result that is further from float64 than it may be."""
        count = min(len(came), len(self.exact))
        for index in range(count):
            value, exact = came[index], self.exact[index]
            if value.shape != exact.shape or value.dtype != self.dtypes[index]:
                return (
                    f"result {index} is {value.dtype} {list(value.shape)}, "
                    f"expected {self.dtypes[index]} {list(exact.shape)}"
                )
            if not value.isfinite().all():
                return f"result {index} is not finite"
            own = max(self.rounding[index], self.conditioning[index])
            amplified = max(1.0, self.conditioning[index] / (self.epsilon * max(self.scale[index], 1e-30)))
            # What cancels leaves the rounding of its terms, whatever the size of the rest.
            floor = SLACK * self.epsilon * min(self.largest, 1.0)
            allowed = SLACK * own + amplified * sum(bounds) * self.scale[index] + floor
            error = difference(value, exact)
            if not error <= allowed:
                return (
                    f"result {index} differs by {error:.2e}, allowed {allowed:.2e} (largest value "
                    f"{self.scale[index]:.2e}, own rounding {own:.2e}, bounds {sum(bounds):.1e})"
                )
        return None


def spread(program: Program, inputs: Tensors, fast: Callable[..., object]) -> str | None:
    """What is wrong with which results the NaN and the infinities reach that are planted in the inputs."""
    generator = torch.Generator().manual_seed(program.seed)
    for planted in (math.nan, math.inf):
        given = [x.clone() for x in inputs]
        for x in given:
            if x.is_floating_point() and x.numel():
                place = [int(torch.randint(size, (), generator=generator)) for size in x.shape]
                x[tuple(place)] = planted
        expected = run(program.module(), given, False)
        came = run(copy.deepcopy(fast) if isinstance(fast, nn.Module) else fast, given, False)
        for index, (want, got) in enumerate(zip(expected, came, strict=False)):
            if not want.is_floating_point():
                continue
            more = ~got.isfinite() & want.isfinite()
            less = got.isfinite() & want.isnan() & math.isnan(planted)
            if (more | less).any():
                verb, count = "reaches" if more.any() else "does not reach", int((more | less).sum())
                return f"{planted} in the inputs {verb} {count} entries of result {index} as in eager"
    return None


def run(module: Callable[..., object], inputs: Tensors, train: bool, parameters: bool = True) -> Tensors:
    """Results, the inputs as they are after the call and, in training, gradients of inputs and parameters."""
    given = [
        x.clone() if not x.is_floating_point() or not train else x.clone().requires_grad_() for x in inputs
    ]
    with torch.set_grad_enabled(train):
        passed = [x * 1 if x.requires_grad else x for x in given]
        result = module(*passed)
        results = list(result) if isinstance(result, tuple) else [result]
        found = [
            *(value.detach() for value in results),
            *(x.detach() for x in passed if x.is_floating_point()),
        ]
        if train:
            reached = [value for value in results if value.requires_grad]
            if reached:
                sum(value.double().square().mean() for value in reached).backward()
            wanted = [x for x in given if x.requires_grad]
            if parameters:
                wanted += [p for p in module.parameters() if p.requires_grad]
            found += [x.new_zeros(x.shape) if x.grad is None else x.grad for x in wanted]
            for x in wanted:
                x.grad = None
    return found


def difference(value: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest deviation."""
    return float((value.double() - exact).abs().max())
