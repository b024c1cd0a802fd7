"""Benchmarks: ratios of this project's path to a plain one, both in one run."""
