"""Record a teacher once, replay it for ever."""
