"""Environments that show what distppo trains beyond MuJoCo's features; `env.id: distppo.envs.examples.docking:Docking-v0` takes one."""
