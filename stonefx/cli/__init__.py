"""The command line: one file a command, which imports what it alone needs when it runs."""

from __future__ import annotations

import click

from stonefx.cli.bench import bench
from stonefx.cli.common import Commands
from stonefx.cli.compress import compress
from stonefx.cli.demo import demo
from stonefx.cli.doctor import doctor
from stonefx.cli.explain import explain
from stonefx.cli.optimize import optimize

__all__ = ["main"]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 a check failed, 2 a mistake in the arguments or what stonefx cannot do for them, "
    "3 an error in stonefx itself, 130 stopped by Ctrl-C or SIGTERM.",
)
@click.version_option(package_name="stonefx")
def main() -> None:
    """Rewrite PyTorch graphs: linear chains merged, hyperbolic geometry fused.

    \b
    stonefx demo                                              see it work
    stonefx explain my_models.py:build --input 8x128          what would be rewritten, and what not and why
    stonefx optimize my_models.py:build --input 8x128 -o fast.safetensors
    stonefx compress ./MiniLM --data texts.txt -o ./small --min-accuracy 0.95
    stonefx bench chain                                       time it on this machine
    stonefx doctor                                            what is built, what is missing

    Completion of commands, options and names, for the shell that you use:

    \b
    eval "$(_STONEFX_COMPLETE=bash_source stonefx)"           in ~/.bashrc
    eval "$(_STONEFX_COMPLETE=zsh_source stonefx)"            in ~/.zshrc
    _STONEFX_COMPLETE=fish_source stonefx | source            in ~/.config/fish/completions/stonefx.fish
    """


for command in (demo, explain, optimize, compress, bench, doctor):
    main.add_command(command)
