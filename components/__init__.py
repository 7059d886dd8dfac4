"""The steps of the pipeline, one package each."""
