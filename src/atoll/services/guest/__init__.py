"""The guest API: what an instance may know of itself, over /dev/lxd/sock."""
