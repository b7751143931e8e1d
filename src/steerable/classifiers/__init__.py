"""One classifier of noised items a file: (x, level) -> logits."""
