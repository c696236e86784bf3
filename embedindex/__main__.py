"""``python -m embedindex``: the command line."""

from embedindex.cli import main

if __name__ == "__main__":
    main()
