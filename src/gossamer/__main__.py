"""What does `python -m gossamer` run? The command line."""

from gossamer.cli.main import main

main()
