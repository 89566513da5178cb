"""`python -m stonefx` and the command `stonefx`."""

from stonefx.cli import main

if __name__ == "__main__":
    main(prog_name="stonefx")
