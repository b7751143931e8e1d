"""One sampler a file; the file name is its kind."""
