"""Many scenes: a manifest of pairs, how to find them, how to run them, and what is said at the end."""
