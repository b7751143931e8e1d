"""Hostile files to clean arrays; below the rooms, above the core."""
