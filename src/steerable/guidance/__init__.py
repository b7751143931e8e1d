"""One guidance a file: Denoise -> Denoise."""
