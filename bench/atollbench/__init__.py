"""Measures Atoll against LXD and Incus, all three in one run on one machine. Standard library only."""
