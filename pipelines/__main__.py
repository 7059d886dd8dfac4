"""`python -m pipelines` is the `flowers` command."""

from pipelines.cli import main

main()
