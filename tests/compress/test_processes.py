"""One compression by two processes gives what one gives."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from stonefx.compress import processes

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
from processes import run_checks


def test_two_processes_share_a_compression(tmp_path: Path) -> None:
    passed = run_checks("compression", tmp_path)
    assert len(passed) == 5


def test_a_process_on_its_own_makes_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with processes.from_torchrun():
        assert not dist.is_initialized()
    assert processes.size() == 1 and processes.rank() == 0
    assert processes.gathered(3) == [3]
    assert processes.mine("ab") == [(0, "a"), (1, "b")]


def test_the_environment_of_torchrun_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }.items():
        monkeypatch.setenv(name, value)
    with processes.from_torchrun():
        assert dist.is_initialized() and processes.size() == 1
    assert not dist.is_initialized()
