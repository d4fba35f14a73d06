"""Measurements that anyone can repeat, each `python -m benchmarks.NAME`: ratios within one run, for absolute times are noisy."""
