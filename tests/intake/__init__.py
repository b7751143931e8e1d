"""The gate for hostile files."""
