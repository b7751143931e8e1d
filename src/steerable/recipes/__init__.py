"""What to build, as plain data: parts, recipes, files and presets."""
