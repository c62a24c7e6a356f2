"""Drivers behind contracts: instances, storage, networks, devices. Each is found by name in its kind's registry."""
