"""One preset a file: a function from a data spec and a budget to a recipe."""
