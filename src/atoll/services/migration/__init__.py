"""Instances that are copied and moved between servers, by LXD 5.0's protocol: a source, a target, and two websockets."""
