"""When large results ask for huge pages: not where free memory goes back to a hypervisor."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "csrc" / "launch"
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("huge_pages")
    (folder / "reports.cpp").write_text(
        '#include "huge_pages.h"\n'
        'extern "C" bool reports(const char* drivers) { return stone::launch::reports_free_pages(drivers); }\n'
    )
    library = folder / "reports.so"
    command = ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{LAUNCH}", "reports.cpp", "-o", library]
    subprocess.run(command, cwd=folder, check=True)
    function = ctypes.CDLL(str(library)).reports
    function.restype = ctypes.c_bool
    return lambda path: function(str(path).encode())


@pytest.mark.parametrize(
    ("features", "expected"),
    [("011001", True), ("011000", False), ("0110010000", True), ("0110", False), ("", False)],
)
def test_the_feature_of_the_balloon_is_read(reports, tmp_path, features, expected):
    (tmp_path / "bind").write_text("")  # as beside the devices of a driver
    (tmp_path / "virtio0").mkdir()
    (tmp_path / "virtio0" / "features").write_text(features + "\n")
    assert reports(tmp_path) is expected


def test_no_balloon_reports_nothing(reports, tmp_path):
    assert reports(tmp_path) is False
    assert reports(tmp_path / "missing") is False
