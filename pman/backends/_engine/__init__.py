"""What backends with an engine of their own (swarm, openshift) have in common."""
