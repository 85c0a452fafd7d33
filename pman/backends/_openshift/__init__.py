"""OpenShift and Kubernetes: requests to the API server, and what its answers mean."""
