"""Which placeholders are the model's weights, and the plain names of Dynamo's sources."""

from __future__ import annotations

import re

from torch import fx

_TOKEN = re.compile(r"\['(?P<key>[^']*)'\]|\[(?P<index>[^\]]*)\]|\.?(?P<name>\w+)(?:\(\))?")
_TABLES = {"_modules", "_parameters", "_buffers", "__dict__"}
_ROOTS = {"L", "G", "model", "dict", "type"}
_CLOSURE = {"__closure__", "cell_contents", "__self__"}


def source_name(node: fx.Node) -> str:
    """Dynamo's expression for where a placeholder's value lies, or the node's own name."""
    source = getattr(node, "_dynamo_source", None)
    if source is None and node.meta.get("grapharg") is not None:
        source = node.meta["grapharg"].source
    return source.name if source is not None else node.name


def is_model_state(node: fx.Node) -> bool:
    """Whether Dynamo marked a placeholder as a parameter or buffer."""
    return "_dynamo_static_input_type" in (node.meta.get("tensor_dict") or {})


def is_gathered(node: fx.Node) -> bool:
    """Whether a placeholder is a parameter that FSDP gathers for each call and frees behind it.

    It keeps its identity and its version, and may come back at the same address: nothing shows that it was written.
    """
    source = getattr(node, "_dynamo_source", None)
    return is_model_state(node) and source is not None and source.guard_source.is_fsdp_module()


def plain_name(source: str) -> str:
    """The fully qualified name in a source: `L['self']._modules['a']._parameters['weight']` is `a.weight`.

    >>> plain_name("L['fn']._modules['encoder']._modules['0']._parameters['weight']")
    'encoder.0.weight'
    >>> plain_name("L['batch']['ids']")
    'batch.ids'
    """
    tokens = _tokens(source)
    first = next((i for i, token in enumerate(tokens) if token in _TABLES), None)
    if first is not None:
        tokens = [token for token in tokens[first:] if token not in _TABLES]
    else:
        tokens = _without_closure(tokens[1:] if tokens and tokens[0] in {"L", "G"} else tokens)
    return ".".join(tokens)


def constant_name(source: str) -> str:
    """The readable name of a tensor that a model has beside its parameters and buffers.

    >>> constant_name("L['model'].layers[0]._parameters['weight']")
    'layers.0.weight'
    >>> constant_name("G['__import_pkg_dot_code'].SCALE")
    'SCALE'
    >>> constant_name("L['model'].forward.__closure__[1].cell_contents")
    'forward.1'
    """
    tokens = _tokens(source)
    while len(tokens) > 1 and (tokens[0] in _ROOTS or tokens[0].startswith("__import_")):
        tokens = tokens[1:]
    hidden = _TABLES | _CLOSURE | {"__closure__"}
    return ".".join(token for token in tokens if token not in hidden) or source


def root_name(source: str) -> str:
    """The variable that a source starts from: `m` of `G['m']._modules['a']`."""
    tokens = _tokens(source)
    return tokens[1] if len(tokens) > 1 and tokens[0] in {"L", "G"} else tokens[0]


def weight_names(placeholders: list[fx.Node]) -> dict[fx.Node, str]:
    """A distinct fully qualified name for each placeholder that is a parameter or buffer which may be folded.

    Names that collide, because two models meet in one function, get the variable of their model before them.
    """
    sources = {
        node: source_name(node) for node in placeholders if is_model_state(node) and not is_gathered(node)
    }
    names = {node: plain_name(source) for node, source in sources.items()}
    taken: dict[str, int] = {}
    for name in names.values():
        taken[name] = taken.get(name, 0) + 1
    return {
        node: name if taken[name] == 1 else f"{root_name(sources[node])}.{name}"
        for node, name in names.items()
    }


def _tokens(source: str) -> list[str]:
    groups = [match.group("key", "index", "name") for match in _TOKEN.finditer(source)]
    return [key or index or name or "" for key, index, name in groups]


def _without_closure(tokens: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for token in tokens:
        if skip and token.isdigit():
            skip = False
            continue
        skip = token == "__closure__"
        if token not in _CLOSURE:
            kept.append(token)
    return kept
