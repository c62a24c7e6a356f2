"""Driver `overlay`: an image is unpacked once, an instance is a thin layer over it.

Vocabulary
    layer   a directory tree in the pool's `layers/`, with plain ids; frozen when anything lies over it
    stack   the layers of a volume, topmost first. Of an instance the first is its own, writable *upper*; those of images and
            snapshots are all frozen and shared. Kept in the file `layers` in the volume's folder, one id a line.

Example: image A unpacked as layer a; c1 = [u, a] a clone of it. A snapshot of c1 while it is stopped freezes u: s0 = [u, a],
c1 = [v, u, a]. While it runs, its upper is copied: s0 = [w, a], c1 = [u, a]. Restore: c1 = [x, *s0]. A copy c2 = [y, *s0].
A layer is removed when the last stack that names it is gone.
"""

from atoll.drivers.storage.overlay.driver import OverlayDriver

__all__ = ["OverlayDriver"]
