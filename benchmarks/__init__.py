"""The benchmark of the gateway: `atelier bench`, from the source tree. Not part of the installed package."""
