"""An interpreter whose errors name the node and the line of the user's code."""

from __future__ import annotations

from typing import Any

from torch import fx

from .errors import CaptureError, capture_error, node_location


class Located(fx.Interpreter):
    """Evaluate a Dynamo graph node by node; subclasses replace `evaluate`."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        # The location is in the message already.
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        """Evaluate one node with its metadata current; anything raised becomes a `CaptureError`."""
        try:
            with self._set_current_node(n):
                return self.evaluate(n)
        except CaptureError:
            raise
        except Exception as error:
            raise capture_error(
                f"cannot retrace `{n.format_node()}`",
                "Exclude this code with torch.compiler.disable, or report the operator.",
                node_location(n),
                error,
            ) from error

    def evaluate(self, node: fx.Node) -> Any:
        """The value of one node."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        return getattr(self, node.op)(node.target, args, kwargs)
