"""Groups of `flowers` commands, each imported when it is called."""
