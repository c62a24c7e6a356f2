"""`python -m atoll.cli`: the client where no launcher is installed."""

from atoll.cli.main import main

main()
