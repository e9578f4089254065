"""`python -m scalecli` is `scalecli`."""

from scalecli.cli.app import main

if __name__ == "__main__":
    main()
