"""Measurements on the default model. Run one with `python -m benchmarks.NAME --json`."""
