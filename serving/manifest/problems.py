"""What is wrong with a configuration that cannot be read."""


class ManifestError(ValueError):
    """A configuration that is not a manifest of ours: names the graph, the key and the remedy."""
