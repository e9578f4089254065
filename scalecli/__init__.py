"""scalecli: batch size, learning rate and memory plans from small proxy trainings."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: reading package metadata takes longer than `--help` may."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("scalecli")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+source"
