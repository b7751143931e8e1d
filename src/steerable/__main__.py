"""`python -m steerable`."""

from steerable.app.cli import main

main()
