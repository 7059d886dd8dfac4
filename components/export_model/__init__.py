"""Export of a model that passed the gate."""
