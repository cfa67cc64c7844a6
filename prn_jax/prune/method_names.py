"""Names of the methods, for a command line that does not load them."""

METHOD_NAMES = (
  "normal", "regular", "shortcut", "slim", "l1", "group-norm", "variance", "variance-per-op", "taylor", "group-taylor", "eagle-eye", "random",
)  # fmt: skip
DEFAULT_METHOD = "variance"
LOOK_AT_DATA = ("taylor", "group-taylor", "eagle-eye")
