"""The vocabulary of jobs: pure values, no I/O."""
