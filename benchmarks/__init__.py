"""The benchmark harness and its suites, installed as stonefx.benchmarks."""
