"""What runs inside the peers: model code for each of them, in its own environment."""
