"""The repository as it is served: what is loaded, what is refused, and who decides."""
