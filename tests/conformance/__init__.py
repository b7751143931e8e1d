"""One file a room: every part of the room goes through the same tests."""
