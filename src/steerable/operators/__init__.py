"""One linear measurement a file: y = A x, for inverse problems."""
