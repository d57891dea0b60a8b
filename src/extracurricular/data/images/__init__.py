"""Images: decoded, streamed, drawn on sheets."""
