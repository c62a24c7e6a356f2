"""Atoll: a daemon with a REST API that manages system containers."""
