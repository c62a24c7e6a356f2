"""What the commands do: one module a family, imported only when one of its commands runs."""
