"""`python -m popfactory` is the command."""

from popfactory.cli import main

if __name__ == "__main__":
    main()
