"""One metric a file: sums that can be merged."""
