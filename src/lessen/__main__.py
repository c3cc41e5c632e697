"""`python -m lessen` is the command `lessen`."""

from lessen.cli import main

main()
