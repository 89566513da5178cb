"""Which libraries load, and what is said of one that does not."""

import warnings

import pytest
import torch

from stonefx import native
from stonefx.ops import library


def test_build_info():
    facts = native.build_info()
    assert facts["stonefx"] == "0.1.0"
    assert facts["torch_target"] == "2.11"
    assert facts["instruction_sets"][0] == "baseline"
    assert facts["instruction_set"] in facts["instruction_sets_usable"]
    assert set(facts["instruction_sets_usable"]) <= set(facts["instruction_sets"])
    assert "-O3" in facts["compile_flags"]
    assert isinstance(facts["cuda_architectures"], list)


def test_the_cpu_library_is_loaded():
    status = native.load()
    assert status.cpu.loaded and status.cpu.path.endswith("libstonefx_cpu.so")
    assert torch._C._dispatch_has_kernel_for_dispatch_key("stone::expmap0", "CPU")


def test_the_cuda_library_is_left_alone_without_a_device():
    if torch.cuda.is_available():
        assert native.load().cuda.path is not None
    else:
        assert not native.load().cuda.loaded
        assert native.load().cuda.reason == "torch sees no CUDA device"


def test_a_missing_library(monkeypatch):
    monkeypatch.setattr(native, "find", lambda name: None)
    missing = native.load.__wrapped__().cpu
    assert not missing.loaded
    assert missing.reason == "libstonefx_cpu is not installed"
    assert missing.remedy == f"Build it: {native.BUILD_COMMAND}"
    assert "--no-build-isolation" in native.BUILD_COMMAND


def test_a_broken_library(monkeypatch, tmp_path):
    path = tmp_path / "libstonefx_cpu.so"
    path.write_bytes(b"not a library")
    monkeypatch.setattr(native, "find", lambda name: str(path))
    broken = native.load.__wrapped__().cpu
    assert not broken.loaded
    assert broken.reason.startswith(f"{path} does not load: ")
    assert broken.remedy == f"Rebuild it: {native.BUILD_COMMAND}"


def test_switched_off(monkeypatch):
    monkeypatch.setenv("STONEFX_NATIVE", "0")
    status = native.load.__wrapped__()
    assert status.cpu.reason == status.cuda.reason == "STONEFX_NATIVE=0 is set"


def test_instruction_sets_are_checked(monkeypatch):
    monkeypatch.setenv("STONEFX_CPU_ISA", "neon")
    with pytest.raises(
        RuntimeError, match="STONEFX_CPU_ISA=neon is unknown; use one of baseline, avx2, avx512"
    ):
        native.load.__wrapped__()
    monkeypatch.setenv("STONEFX_CPU_ISA", "avx512")
    monkeypatch.setattr(native, "build_info", lambda: {"instruction_sets_usable": ["baseline"]})
    with pytest.raises(RuntimeError, match="this build on this CPU runs only baseline; choose one of these"):
        native.load.__wrapped__()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_warning_where_the_references_run(monkeypatch, device):
    missing = native.Library("lib", reason="it is not installed", remedy="Build it: make")
    present = native.Library("lib", loaded=True)
    status = native.Status(cpu=missing, cuda=present) if device == "cpu" else native.Status(present, missing)
    registered = []
    monkeypatch.setattr(native, "load", lambda: status)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(library, "_fall_back", registered.append)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        library.load()
    assert registered == [device.upper()]
    place = "on the CPU" if device == "cpu" else "on CUDA"
    expected = f"stonefx runs its operators in plain torch {place}: it is not installed. Build it: make."
    assert [str(w.message) for w in caught] == [expected]
