"""What can go wrong, and the exit code that says so.

    FlowersError            exit 1   a fault of ours, or of the machine
    ├── UserError           exit 2   the user can mend it: data, options, recipe
    │   ├── DataError                photos or shards are not what a step needs
    │   └── ConfigError              an option, recipe or target file is wrong
    ├── GateClosedError     exit 3   the model was refused: nothing is exported
    ├── ChampionStaysError  exit 3   the model was exported, and refused: what serves is as good
    ├── TrainStepError      exit 3   the train step was refused: it does not fit, or not compile
    └── RetryError          exit 75  the machine was taken away: start the same again

A message is one line: what was expected, what was received, what to do.
"""


class FlowersError(Exception):
    """Root of every error this project raises on purpose."""

    exit_code = 1


class UserError(FlowersError):
    """The user can mend it; the command ends with one line and no traceback."""

    exit_code = 2


class DataError(UserError):
    """Photos, shards or labels are not what the step needs."""


class ConfigError(UserError):
    """An option, a recipe or a target file is wrong."""


class GateClosedError(FlowersError):
    """The gate refused the model."""

    exit_code = 3


class ChampionStaysError(FlowersError):
    """The model that serves is at least as good as the new one."""

    exit_code = 3


class RetryError(FlowersError):
    """The machine, or another that the work needs, was taken away; the same command goes on.

    The code is EX_TEMPFAIL of sysexits.h, which means just that.
    """

    exit_code = 75


class TrainStepError(FlowersError):
    """The compiler of the accelerator refused the train step."""

    exit_code = 3
