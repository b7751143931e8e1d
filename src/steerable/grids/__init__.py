"""One time grid a file: (schedule, steps) -> times (steps+1,) from noise to the data."""
