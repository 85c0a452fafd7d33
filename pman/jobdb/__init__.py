"""What we know of jobs: the store in memory, the DB on disk, the views of 2.2."""
