"""Base models: found on disk or hub without torch (``folder``), loaded (``load``), spoken to (``chat``)."""
