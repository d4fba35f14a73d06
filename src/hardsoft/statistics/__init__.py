"""Estimates and their intervals: values in, values out."""
