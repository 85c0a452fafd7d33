"""The process that is the parent of every host job, and outlives the daemon.

It knows nothing of HTTP and of the job DB, and imports little: its memory is spent on jobs.
`client` is the daemon's end of the line; all other modules run in the shepherd.
"""
