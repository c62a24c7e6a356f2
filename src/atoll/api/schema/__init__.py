"""Wire types: what bodies and answers look like. Lists and maps of bodies may be null, as the real clients send them."""
