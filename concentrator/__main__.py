"""`python -m concentrator` is the command."""

from concentrator.cli import main

main()
