"""The tests of steerable."""
