"""scalecli: batch size, learning rate and memory plans from small proxy trainings."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("scalecli")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+source"
