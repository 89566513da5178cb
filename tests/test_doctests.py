"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib.util
import pkgutil

import pytest

import stonefx

# The editable install lists the checkout's own folders beside the package's.
NOT_OURS = {"stonefx.tests", "stonefx.stonefx", "stonefx.__main__"}


def module_names() -> list[str]:
    """Every Python module of the package; compiled ones and the command line have no examples."""
    names, packages = ["stonefx"], [stonefx]
    while packages:
        package = packages.pop()
        for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            spec = importlib.util.find_spec(found.name)
            if found.name in NOT_OURS or spec is None or not str(spec.origin).endswith(".py"):
                continue
            names.append(found.name)
            if found.ispkg:
                packages.append(importlib.import_module(found.name))
    return sorted(set(names))


@pytest.mark.parametrize("name", module_names())
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.failed == 0
