"""For who runs pman rather than jobs: health, readiness, metrics, and lines about both."""
