"""Groups of commands of `flowers`, one module each."""
