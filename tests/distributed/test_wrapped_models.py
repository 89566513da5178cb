"""Models in DDP, FSDP2 and tensor parallelism: as they are, optimized, and through `torch.compile(backend="stone")`."""

from pathlib import Path

import pytest
from processes import run_checks


@pytest.mark.slow
def test_wrapped_models(tmp_path: Path) -> None:
    assert len(run_checks("wrapped_models", tmp_path)) == 6


@pytest.mark.slow
def test_every_inner_compiler(tmp_path: Path) -> None:
    assert run_checks("wrapped_models", tmp_path, "slow_check_") == ["slow_check_inner_compilers"]
