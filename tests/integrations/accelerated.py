"""A plugin of pytest that accelerates libraries, to run their own test suites on stonefx's operators.

git clone --branch v0.5.1 https://github.com/geoopt/geoopt /tmp/geoopt
PYTHONPATH=tests/integrations STONEFX_ACCELERATE=geoopt python -m pytest -p accelerated /tmp/geoopt/tests
"""

import os

import stonefx

for _library in os.environ.get("STONEFX_ACCELERATE", "").split():
    print(stonefx.accelerate(_library))
