"""What to say where a package of an extra is missing."""


def how_to_install(*extras: str) -> str:
    """The command that installs extras; by the name alone pip would take a stranger's package.

    Args:
        *extras: Names of `project.optional-dependencies`.
    """
    return f"in a checkout of flowers, pip install --editable '.[{','.join(extras)}]'"
