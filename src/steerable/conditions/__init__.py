"""One kind of condition a file; each writes one slot."""
