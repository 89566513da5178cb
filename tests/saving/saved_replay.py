"""Run in a process of its own: load every file of a folder and compare with the results saved beside it.

Nothing but the files themselves may be opened, no class unpickled and no graph traced while a file is loaded.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

import stonefx

WATCHED = (
    "pickle.find_class",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "socket.connect",
)


class Watch:
    """What loading did that a file could have asked for; a hook cannot be taken away again."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.loading = False
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.loading and (
            event in WATCHED or (event == "import" and args[0] in ("saved_models", "pickle"))
        ):
            self.seen.append(f"{event} {args[0]}")
        if self.loading and event == "open" and isinstance(args[1], str) and set("wax+") & set(args[1]):
            self.seen.append(f"open {args[0]}")


def flat(result: Any) -> list[torch.Tensor]:
    """The tensors of a result, dataclasses taken apart."""
    if dataclasses.is_dataclass(result):
        result = vars(result)
    if isinstance(result, torch.Tensor):
        return [result]
    items = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else ()
    return [tensor for item in items for tensor in flat(item)]


if __name__ == "__main__":
    watch = Watch()
    for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
        if path.stem == "structured":
            # Its arguments and results are of classes that only the user can bring.
            import saved_models  # noqa: F401
        else:
            assert "saved_models" not in sys.modules
        watch.loading = True
        loaded = stonefx.load(path)
        watch.loading = False
        (args, kwargs), expected = torch.load(path.with_suffix(".results"), weights_only=False)
        with torch.no_grad():
            torch.testing.assert_close(flat(loaded(*args, **kwargs)), flat(expected), rtol=0, atol=0)
        print(path.stem)
        if path.stem == "structured":
            del sys.modules["saved_models"]
    assert watch.seen == []
    assert not counters["frames"], "loading or calling traced a graph"
