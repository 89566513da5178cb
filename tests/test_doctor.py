"""The report of the installation."""

import json

from stonefx import doctor, native


def test_report_of_a_whole_installation():
    facts = doctor.report()
    assert facts["build"]["stonefx"] == facts["versions"]["stonefx"]
    assert facts["libraries"]["libstonefx_cpu"]["loaded"]
    assert all("CPU (native)" in devices for devices in facts["operators"].values())
    assert facts["backend"] is True
    assert facts["problems"] == []
    assert json.loads(json.dumps(facts)) == facts


def test_text_of_a_whole_installation():
    text = doctor.text()
    assert "build: instruction sets" in text
    assert "stone::mobius_add" in text
    assert text.endswith("Nothing is missing.")


def test_what_is_missing_and_how_to_mend_it(monkeypatch):
    missing = native.Library(
        "libstonefx_cpu", reason="libstonefx_cpu is not installed", remedy="Build it: make"
    )
    monkeypatch.setattr(native, "load", lambda: native.Status(cpu=missing, cuda=missing))
    monkeypatch.setattr(native, "build_info", lambda: None)
    monkeypatch.setattr(doctor, "_entry_point_registered", lambda: False)
    what = [problem["what"] for problem in doctor.report()["problems"]]
    assert what == [
        "the extension module stonefx._C",
        "libstonefx_cpu: libstonefx_cpu is not installed",
        'the entry point of torch.compile(backend="stone")',
    ]
    text = doctor.text()
    assert "not loaded: libstonefx_cpu is not installed" in text
    assert "Build it: make" in text and native.BUILD_COMMAND in text
    assert 'torch.compile(backend="stone")  not registered' in text


def test_kernels_of_another_version(monkeypatch):
    stale = {**native.build_info(), "stonefx": "0.0.1"}
    monkeypatch.setattr(native, "build_info", lambda: stale)
    assert doctor.report()["problems"] == [
        {"what": "kernels of 0.1.0: the build is of 0.0.1", "remedy": native.BUILD_COMMAND}
    ]
