"""The CUDA kernels compiled for threads of the host, once for all workers of a test run."""

import ctypes
import os
import subprocess
from pathlib import Path

from filelock import FileLock

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"


def host_cuda_library(exports, tmp_path_factory):
    """The library of a file in `host_cuda`."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    library = folder / Path(exports).with_suffix(".so")
    with FileLock(library.with_suffix(".lock")):
        if not library.exists():
            includes = [f"-I{path}" for path in (HERE / "host_cuda", CSRC / "include", CSRC / "cuda")]
            options = ["-std=c++20", "-O1", "-fPIC", "-shared", "-Wno-unknown-pragmas"]
            # Written aside, so that a build that was stopped leaves nothing to be loaded.
            made = library.with_suffix(".part")
            subprocess.run(["g++", *options, *includes, HERE / "host_cuda" / exports, "-o", made], check=True)
            made.rename(library)
    return ctypes.CDLL(str(library))
