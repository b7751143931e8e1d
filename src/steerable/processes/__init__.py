"""One process a file: a choice of schedule, target, law of t and weight."""
