"""One engine for all programs: rows of waiting calls to one graph become one call of the backend."""
