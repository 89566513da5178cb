"""The parts of capture: retracing, mutation removal, constants, recording, arguments, results, submodules."""
