"""Names of the methods, for a command line that does not load them."""

METHOD_NAMES = ("normal", "regular", "shortcut", "slim", "l1", "group-norm", "variance", "variance-per-op", "random")
DEFAULT_METHOD = "variance"
