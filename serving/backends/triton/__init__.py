"""Graphs computed by Triton servers: the gateway knows nothing but their addresses."""
