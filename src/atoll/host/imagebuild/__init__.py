"""Builds images on this host from a distribution's own packages, or from busybox alone: no image server is needed."""
