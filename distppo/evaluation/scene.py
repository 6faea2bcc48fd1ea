"""How an environment is shown: size, camera and speed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from distppo.errors import UserError

DEFAULT_FPS = 30.0
MOST_FPS = 35.0
"""Environments with shorter steps are shown every second, third ... step, at their own speed."""
MOST_GIF_FPS = 25.0
"""Twice the frames are twice the file, and what plays GIFs slows faster ones down."""
WINDOW = (800, 600)
"""Pixels of the window that --render opens."""
FLOOR_FACTOR = 25
TRACKING_CAMERA = "track"
"""What Gymnasium's models call the camera that goes with the body."""


def require_render_mode(env: gym.Env[Any, Any], env_id: str, mode: str) -> None:
    """Raises UserError unless an environment says that it can draw this way: `rgb_array` frames, or in a window (`human`)."""
    known = env.metadata.get("render_modes") or []
    if mode not in known and env.render_mode != mode:
        offers = f"it offers {', '.join(known)}" if known else "it names none in metadata['render_modes']"
        raise UserError(f"{env_id} has no render mode {mode} ({offers}), so there is nothing to show")


def pace(env: gym.Env[Any, Any], suffix: str) -> tuple[float, int]:
    """Returns (frames a second, env steps a frame) that show the environment at its own speed.

    Args:
        env: its metadata say how many steps make a second.
        suffix: of the video, .mp4 or .gif.
    """
    own = float(env.metadata.get("render_fps") or DEFAULT_FPS)
    stride = max(1, round(own / DEFAULT_FPS)) if own > MOST_FPS else 1
    if suffix == ".gif" and own / stride > MOST_GIF_FPS:
        stride *= 2
    return own / stride, stride


def prepare_scene(env: gym.Env[Any, Any], width: int, height: int) -> None:
    """Has MuJoCo draw in this size, from a camera that goes with the body, and without shadows.

    Shadows take two thirds of the time where there is no GPU, and have stripes there. Other environments draw as they do, and so does one
    that has drawn already: what it shows may be what the policy sees.
    """
    inner = env.unwrapped
    renderer, model = getattr(inner, "mujoco_renderer", None), getattr(inner, "model", None)
    if renderer is None or model is None or renderer.viewer is not None:
        return
    window = model.vis.global_
    window.offwidth, window.offheight = max(width, window.offwidth), max(height, window.offheight)
    model.light_castshadow[:] = False
    _extend_floors(model)
    renderer.width, renderer.height = width, height
    if getattr(inner, "camera_id", None) is None and getattr(inner, "camera_name", None) is None:
        _follow_the_body(renderer, model)


def _extend_floors(model: Any) -> None:
    """Draws every floor larger, with its pattern as it is: they end after 40 m, and a fast body runs on in mid-air.

    To physics a plane has no end, whatever its size.
    """
    import mujoco

    floors = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    model.geom_size[floors, :2] *= FLOOR_FACTOR
    for material in {int(number) for number in model.geom_matid[floors] if number >= 0}:
        model.mat_texrepeat[material] *= FLOOR_FACTOR


def _follow_the_body(renderer: Any, model: Any) -> None:
    """Chooses the model's own tracking camera, else follows the body that the environment names.

    Left alone, Gymnasium 1.4 takes a free camera that stands still (its `OffScreenViewer.render` resets it), and the body runs away.
    """
    import mujoco

    camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, TRACKING_CAMERA)
    config = renderer.default_cam_config or {}
    if camera >= 0:
        followed = {"type": mujoco.mjtCamera.mjCAMERA_FIXED, "fixedcamid": camera}
    elif config.get("trackbodyid", -1) >= 0:
        followed = {**config, "type": mujoco.mjtCamera.mjCAMERA_TRACKING}
    else:
        return
    renderer.default_cam_config, renderer.camera_id = followed, None
