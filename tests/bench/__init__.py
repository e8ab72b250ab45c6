"""Benchmarks: `make bench`. Ratios within one interleaved run, in process time."""
