"""Every test, and every process that one starts, plans for the same machine."""

import os

os.environ["STONEFX_MACHINE"] = "default"
