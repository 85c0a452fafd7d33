"""Docker Swarm: requests to the engine, and what its answers mean."""
