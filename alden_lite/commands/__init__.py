"""The command line: one file for each word of `alden-lite WORD`."""
