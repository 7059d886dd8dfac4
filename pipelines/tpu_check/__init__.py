"""What the train step of a recipe needs on a TPU, asked of its compiler where there is none."""
