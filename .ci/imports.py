"""Run import-linter on the package as `.ci/tree` lays it out: `python .ci/imports.py build/lint`."""

import os
import sys
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def main(tree: str) -> int:
    """Check the contracts of pyproject.toml; 0 where all hold."""
    config = Path("pyproject.toml").resolve()
    # The editable install finds stonefx in the checkout, where passes/ lies outside of it.
    sys.meta_path = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
    # import-linter looks in the current folder first.
    os.chdir(tree)
    status = lint_imports(config_filename=str(config), no_cache=True, no_logo=True)
    return 0 if status == EXIT_STATUS_SUCCESS else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
