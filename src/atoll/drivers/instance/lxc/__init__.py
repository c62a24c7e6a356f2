"""The `lxc` instance driver: machines run by liblxc, each held by its own `lxc-start`."""
