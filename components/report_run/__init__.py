"""One page about a whole run: the verdict first, then what each step has to show."""
