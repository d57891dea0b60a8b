"""Images: decoding, streaming from files, contact sheets."""
