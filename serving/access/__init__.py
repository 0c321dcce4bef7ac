"""Who may come in and how much they may ask for: keys, scopes, limits, and the door that heeds them."""
