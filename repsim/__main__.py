"""`python -m repsim`: the command line where no `repsim` is on the path, as under torchrun."""

from repsim.cli.main import main

if __name__ == "__main__":
    main()
