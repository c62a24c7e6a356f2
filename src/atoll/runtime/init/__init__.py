"""What `atolld init` does: ask or decide (pure), write down as a preseed, apply over REST with undo."""
