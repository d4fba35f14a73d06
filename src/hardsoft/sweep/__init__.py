"""Experiments side by side: the command (`__main__`), one job of it (`job`), and how it ends if it is interrupted (`stop`).

A sweep's name is claimed in `claims`; the figure that it compares is found in `objective`.
"""
