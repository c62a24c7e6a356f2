"""Use cases of images: looking, changing and deleting; new ones from uploads, instances, other projects and recipes."""

from atoll.services.images.service import ImageService

__all__ = ["ImageService"]
