"""The pipeline, its recipes, the places it runs in, and the `flowers` command."""
