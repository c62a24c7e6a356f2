"""Managed bridges: `driver` is the network driver; beside it are its typed settings and the four things it keeps in shape."""
