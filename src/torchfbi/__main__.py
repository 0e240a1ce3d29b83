"""``python -m torchfbi``: the command line."""

from torchfbi.cli.main import main

if __name__ == "__main__":
    main()
