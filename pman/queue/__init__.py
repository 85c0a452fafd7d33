"""Who runs when: limits, priorities, dependencies, retries, deadlines. Drives the backends."""

from pman.queue.jobqueue import JobQueue

__all__ = ["JobQueue"]
