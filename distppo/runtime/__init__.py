"""The distributed loop. Only `ray_backend` imports ray."""
