"""pman: one HTTP API for jobs on the host, on Docker Swarm and on OpenShift."""

__version__ = "3.0.0"
