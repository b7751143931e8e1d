"""Layers and networks against answers worked out by hand."""
