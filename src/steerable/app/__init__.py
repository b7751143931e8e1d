"""The command line; it formats, the library raises."""
