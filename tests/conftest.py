"""Every test, and every process that one starts, plans for the same machine."""

import os

os.environ["STONEFX_MACHINE"] = "default"
# What is printed is as wide and as coloured in every terminal.
for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(name, None)
