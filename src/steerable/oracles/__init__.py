"""Exact denoisers: the ground truth of tests and tutorials."""
