"""One network a file; all read slots and know neither schedule nor target."""
