"""The command line: one file per verb, everything heavy imported late."""
