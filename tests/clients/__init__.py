"""Official clients through the real proxy, beside the same calls made direct."""
