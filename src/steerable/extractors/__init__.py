"""One extractor of features a file: pictures in, rows of numbers out, always the same ones."""
