"""Sound codecs: vocoders whose mel passes through codes."""
