"""A rewritten graph in the format of `torch.export`, without weights, and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from ..capture import Path
from ..optimized import Program, weight
from ..passes.shapes import hint

# What an input of a saved graph is: a weight by its name, or a value of the call.
Role = str | Path


def graph_inputs(program: Program) -> dict[str, Role]:
    """What each input of a saved graph is, by the graph's own name for it, in the order of the saved inputs.

    A size is read off the argument that has it, which is an input for that reason alone where nothing else reads it.
    """
    roles: dict[str, Role] = dict(program.names)
    roles |= dict(program.capture.arguments.items())
    for path, _ in program.capture.sizes.values():
        if path not in roles.values():
            roles[f"sized {path}"] = path
    return roles


def graph_bytes(program: Program, model: nn.Module) -> bytes:
    """Write a program's graph as a `torch.export` archive whose inputs are those of `graph_inputs`.

    Args:
        program: the program.
        model: holds the weights.

    Raises:
        TypeError: the graph holds something that torch.export has no notation for; the message has torch's reason.
    """
    roles = graph_inputs(program)
    nodes = {node.name: node for node in program.module.graph.find_nodes(op="placeholder")}
    values, dynamic = [], []
    for name, role in roles.items():
        fake = nodes[name].meta["val"] if name in nodes else None
        if isinstance(role, Path):
            values.append(_example(program, role, fake))
            symbolic = program.capture.checks.tensors[role].sizes
            dynamic.append(
                {dim: torch.export.Dim.AUTO for dim, s in enumerate(symbolic) if not isinstance(s, int)}
            )
        else:
            values.append(weight(model, role).detach())
            dynamic.append({})
    stream = io.BytesIO()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            exported = torch.export.export(
                _Flat(program, list(roles)), (values,), dynamic_shapes={"values": dynamic}
            )
            # The example inputs are the weights, which are saved once, elsewhere.
            exported.example_inputs = None
            torch.export.save(exported, stream)
    except Exception as error:
        raise TypeError(
            f"torch.export cannot write the graph of this model: {type(error).__name__}: {error}. Keep the original "
            "model and its state_dict, and call stonefx.optimize on it after loading"
        ) from error
    return stream.getvalue()


def graph_of(archive: bytes, inputs: int) -> fx.GraphModule:
    """Read a graph that `graph_bytes` wrote.

    Args:
        archive: the bytes.
        inputs: how many tensors the graph takes.

    Raises:
        ValueError: the archive is damaged, or this version of torch does not read it.
    """
    try:
        module = torch.export.load(io.BytesIO(archive)).graph_module
    except Exception as error:
        raise ValueError(
            f"torch {torch.__version__} cannot read the saved graph: {type(error).__name__}: {error}"
        ) from error
    found = len(module.graph.find_nodes(op="placeholder"))
    if found != inputs:
        raise ValueError(f"the saved graph takes {found} tensors, expected {inputs}; the file is damaged")
    return module


def _example(program: Program, path: Path, fake: torch.Tensor | None) -> torch.Tensor:
    """A tensor with the metadata that an argument had at capture; its values are never read."""
    check = program.capture.checks.tensors[path]
    if fake is None:
        sizes = [size if isinstance(size, int) else 2 for size in check.sizes]
        return torch.empty(sizes, dtype=check.dtype, device=check.device_type)
    sizes, strides = ([hint(size, 2) for size in of] for of in (fake.shape, fake.stride()))
    return torch.empty_strided(sizes, strides, dtype=fake.dtype, device=fake.device)


class _Flat(nn.Module):
    """A program's graph over one list of tensors: the weights are inputs like the others."""

    def __init__(self, program: Program, names: list[str]) -> None:
        super().__init__()
        # As a submodule the graph would bring its own tensors into the exported program.
        self.__dict__["_program"] = program
        self.names = names

    def forward(self, values: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        program: Program = self.__dict__["_program"]
        given: dict[str, Any] = dict(zip(self.names, values, strict=True))
        holders = {role: given[name] for name, role in graph_inputs(program).items()}
        for name, (path, dim) in program.capture.sizes.items():
            given[name] = holders[path].shape[dim]
        return tuple(_Interpreter(program.module, given).run())


class _Interpreter(fx.Interpreter):
    """Runs a graph whose placeholders and own tensors are given by name."""

    def __init__(self, module: fx.GraphModule, given: Mapping[str, Any]) -> None:
        super().__init__(module)
        self.given = given

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.given[target]

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.given[target] if target in self.given else super().get_attr(target, args, kwargs)
