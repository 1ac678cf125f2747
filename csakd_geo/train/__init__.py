"""Training: examples with a known truth, losses, and the co-training of teacher and student."""
