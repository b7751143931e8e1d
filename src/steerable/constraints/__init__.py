"""One constraint a file: where the sample must be after each step."""
