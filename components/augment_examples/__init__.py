"""Augmented copies of the train split."""
