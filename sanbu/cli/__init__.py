"""The command line: one file for each group of verbs, thin over the library."""
