"""Routes, a module for each kind of object."""
