"""One kind of data a file; each returns its two splits and a report."""
