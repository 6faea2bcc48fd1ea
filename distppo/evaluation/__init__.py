"""Using a trained policy: acting with it and scoring it."""
