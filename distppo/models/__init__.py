"""Networks. `actor_critic` needs torch; `layout` and `numpy_policy` do not."""
