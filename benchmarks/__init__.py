"""Measurements that anyone can repeat, each `python -m benchmarks.NAME`. They are ratios within one run: absolute times are noisy."""
