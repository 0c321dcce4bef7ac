"""gRPC and HTTP in front of the service: they translate, and nothing else."""
