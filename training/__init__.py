"""Training of generative image models: data, families, the loop and its checkpoints."""
