"""The commands of `atolld` besides the daemon itself; each module has `run(call)` and returns an exit code."""
