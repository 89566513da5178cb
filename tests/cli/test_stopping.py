"""Ctrl-C and SIGTERM: one line, exit code 130, and on the disk whole files or none, whenever they come."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import stonefx
from stonefx.cli.kept import Kept
from stonefx.stopping import stoppable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the commands are forked")

MODELS = """
import torch
from torch import nn

def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)).eval()

def data():
    return [torch.randn(8, 8) for _ in range(4)]
"""
TRACED = ["user_stopped.py:chain", "--input", "4x8"]
SMALL = ["user_stopped.py:chain", "--data", "user_stopped.py:data", "-o"]
WRITTEN = ["--json", "out.json", "--html", "out.html"]
COMMANDS = {
    "explain": ["explain", *TRACED, *WRITTEN],
    "optimize": ["optimize", *TRACED, "-o", "fast.safetensors", *WRITTEN],
    "compress": ["compress", *SMALL, "small.pt", *WRITTEN],
    "bench": ["bench", "chain", "--seconds", "0.01", "--json", "out.json"],
    "doctor": ["doctor", "--json", "out.json"],
    "demo": ["demo", "--json", "out.json"],
}
MORE = {
    "program": ["optimize", *TRACED, "-o", "fast.pt2"],
    "compress for stonefx": ["compress", *SMALL, "small.safetensors"],
    "compress, kept": ["compress", *SMALL, "small.pt", "--checkpoint", "kept"],
    "curve": ["compress", *SMALL, "small.pt", "--plot", "out.png"],
    "picture": ["bench", "chain", "--seconds", "0.01", "--json", "out.json", "--plot", "out.png"],
    "resumed": ["bench", "chain", "--seconds", "0.01", "--json", "out.json", "--resume"],
    "page": ["demo", "--html", "out.html"],
}
SERVER = Path(__file__).with_name("stopped_commands.py")


@pytest.fixture(autouse=True)
def interrupted_as_on_a_terminal():
    """What a shell starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Server:
    """The process that starts the commands."""

    def __init__(self, root, *arguments):
        self.root, self.number = root, 0
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, arguments, number=signal.SIGINT, **when):
        """What became of a command, and the folder it ran in."""
        self.number += 1
        folder = self.root / str(self.number)
        for name in ("here", "temporary"):
            (folder / name).mkdir(parents=True)
        (folder / "here" / "user_stopped.py").write_text(MODELS)
        asked = {"arguments": arguments, "folder": str(folder), "signal": int(number), **when}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline()), folder

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("stopped"))
    yield server
    server.close()


def check_whole(path):
    """A file that is there is whole."""
    if path.suffix in (".json", ".part"):
        assert json.loads(path.read_text())
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    elif path.suffix == ".safetensors":
        assert stonefx.load(path)(torch.ones(3, 8)).shape == (3, 4)
    elif path.suffix == ".pt":
        assert torch.load(path, weights_only=False)(torch.ones(3, 8)).shape == (3, 4)
    elif path.suffix == ".pt2":
        assert torch.export.load(path).module()(torch.ones(4, 8)).shape == (4, 4)
    else:
        assert path.suffix == ".png" and path.read_bytes().endswith(b"IEND\xaeB`\x82"), path


def check_stopped(told, folder, arguments):
    """One line and whole files, of which the command names each."""
    said = (folder / "stderr").read_text().splitlines()
    assert told["code"] == 130, said
    # Torch logs what it thinks of other packages when it imports them.
    said = [line for line in said if not re.match(r"the load average|[WI]\d{4} |Failed to load ", line)]
    assert len(said) == 1 and said[0].startswith("Stopped"), said
    kept = {name for name in ("out.json.part",) if f"measured is in {name}" in said[0]}
    for path in (folder / "here").iterdir():
        if path.name in ("user_stopped.py", "__pycache__"):
            continue
        if path.name == "kept":
            assert all(each.suffix in (".json", ".safetensors") for each in path.iterdir())
            continue
        assert path.name in {*arguments, *kept}, path
        check_whole(path)
    assert not list((folder / "temporary").iterdir())


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_stopped_command_leaves_nothing_half_written(server, name):
    number = signal.SIGTERM if len(name) % 2 else signal.SIGINT
    # Before the first file gets its name, where it stands whole under another.
    told, folder = server.run(COMMANDS[name], number, event=2)
    check_stopped(told, folder, COMMANDS[name])


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_a_command_is_stopped_while_torch_is_imported(seconds):
    process = subprocess.Popen(
        [sys.executable, "-m", "stonefx", "doctor"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    # Python itself takes a moment until a line of the package runs.
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(seconds - 0.3)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert (process.returncode, said) in ((130, "Stopped.\n"), (0, "")), said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", [*COMMANDS, *MORE])
def test_at_every_change_of_the_disk(server, name, number):
    arguments = (COMMANDS | MORE)[name]
    start = time.monotonic()
    told, folder = server.run(arguments)
    taken = time.monotonic() - start
    assert told["code"] == 0, (folder / "stderr").read_text()
    for event in range(told["events"]):
        check_stopped(*server.run(arguments, number, event=event), arguments)
    for part in range(8):
        stopped, folder = server.run(arguments, number, seconds=taken * part / 8)
        if stopped["code"]:
            check_stopped(stopped, folder, arguments)


@pytest.mark.slow
def test_the_real_demo_at_several_moments(tmp_path):
    server = Server(tmp_path, "--real")
    for seconds in (0.1, 1, 3, 6, 10, 15):
        told, folder = server.run(COMMANDS["demo"], seconds=seconds)
        # What torch's own compiler keeps of a compilation that it was stopped in is its own.
        for path in (folder / "temporary").glob("torchinductor_*"):
            path.rename(folder / path.name)
        if told["code"]:
            check_stopped(told, folder, COMMANDS["demo"])
    server.close()


def test_an_interrupt_that_is_lost_comes_again():
    calls = []

    def swallow():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            calls.append(type(error))

    with pytest.raises(KeyboardInterrupt), stoppable(last=lambda: calls.append("tidied")):
        swallow()
        time.sleep(5)
    assert calls == [KeyboardInterrupt, "tidied"]


def test_an_interrupt_in_a_finalizer_comes_again_without_a_word(capsys):
    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), stoppable(last=lambda: None):
        Finalized()
        time.sleep(5)
    assert capsys.readouterr().err == ""


def test_pressing_it_twice_disturbs_nothing():
    tidied = []
    with pytest.raises(KeyboardInterrupt), stoppable(last=lambda: None):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            tidied.append(True)
    assert tidied


def test_signals_are_as_they_were_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stoppable(last=lambda: None):
        assert signal.getsignal(signal.SIGTERM) not in before
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable(last=lambda: None):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_results_are_kept_beside_their_file(tmp_path):
    file, part = tmp_path / "a.json", tmp_path / "a.json.part"
    kept = Kept(str(file))
    said = rf"measured is in {part}, go on with {part}"
    with pytest.raises(KeyboardInterrupt, match=said), kept.whole(", go on with {}"):
        kept.put("[1]")
        raise KeyboardInterrupt
    assert part.read_text() == "[1]\n" and not file.exists()
    with kept.whole():
        kept.put("[1, 2]")
    assert file.read_text() == "[1, 2]\n" and not part.exists()
    with pytest.raises(KeyboardInterrupt) as stopped, Kept("-").whole():
        raise KeyboardInterrupt
    assert not stopped.value.args
