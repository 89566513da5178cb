"""Say which kernels the build that follows compiles, and for what: it prints nothing for minutes."""

import os
import shutil

import torch


def architectures() -> str:
    """What the CUDA library is built for; csrc/cmake/CudaLibrary.cmake decides the same way."""
    asked = os.environ.get("STONEFX_CUDA", "auto") or "auto"
    compiler = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if asked == "0" or compiler is None or (asked == "auto" and torch.version.cuda is None):
        return ""
    cards = {torch.cuda.get_device_capability(place) for place in range(torch.cuda.device_count())}
    here = ";".join(f"{major}{minor}-real" for major, minor in sorted(cards))
    return os.environ.get("STONEFX_CUDA_ARCHITECTURES") or here or "80-real;90"


def main() -> None:
    """Print one line."""
    cuda = architectures()
    minutes = "some minutes" if not cuda else "up to ten minutes on two cores"
    print(
        f"Compiling the kernels for torch {torch.__version__}: CPU (every instruction set)"
        + (f" and CUDA ({cuda})" if cuda else ", no CUDA")
        + f"; the first time this takes {minutes}."
    )


if __name__ == "__main__":
    main()
