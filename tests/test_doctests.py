"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib.util
import pkgutil

import pytest

import stonefx


def module_names() -> list[str]:
    packages = [stonefx]
    names = ["stonefx"]
    while packages:
        package = packages.pop()
        for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            # The editable install lists the checkout's own folders beside the package's.
            if importlib.util.find_spec(found.name) is None or _outside(found.name):
                continue
            names.append(found.name)
            if found.ispkg:
                packages.append(importlib.import_module(found.name))
    return sorted(set(names))


def _outside(name: str) -> bool:
    return name.split(".")[1] in ("tests", "build", "csrc", "stonefx", "__main__", "_C")


@pytest.mark.parametrize("name", module_names())
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.failed == 0
