"""Training from a recipe."""
