"""Measurements, one command each: `python -m benchmarks.<name>`. Every figure is a ratio of medians of one run."""
