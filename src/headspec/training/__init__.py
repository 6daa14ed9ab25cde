"""Making checkpoints: data, small models, and the loop that trains them."""
