"""MuJoCo MJX: norms, quaternions, signed distances."""

import jax.numpy as jnp
import numpy as np
from mujoco.mjx._src import collision_sdf as sdf
from mujoco.mjx._src import math

from world.use import Use, normal

SIZE = np.array([0.5, 1, 0], np.float32)
AXES = np.array([0.5, 1, 0.8], np.float32)


def cylinder(pos):
    """Return the signed distance to a cylinder of fixed size."""
    return sdf._cylinder(pos, SIZE)


def length(x):
    """Return √Σ x²."""
    return jnp.sqrt(jnp.sum(x * x))


QUATERNION = np.array([0.5, 0.5, -0.5, 0.5], np.float32)

USES = [
    Use(
        "cylinder, outside the side",
        cylinder,
        (np.float32([0.9, 0.3, 0.2]),),
        plain=lambda p: jnp.sqrt(p[0] ** 2 + p[1] ** 2) - 0.5,
    ),
    Use("cylinder, outside the cap", cylinder, (np.float32([0.1, 0.3, 1.5]),), plain=lambda p: p[2] - 1),
    Use(
        "cylinder, beyond the edge",
        cylinder,
        (np.float32([0.9, 0.3, 1.5]),),
        plain=lambda p: jnp.sqrt((jnp.sqrt(p[0] ** 2 + p[1] ** 2) - 0.5) ** 2 + (p[2] - 1) ** 2),
    ),
    Use(
        "cylinder, inside near the side",
        cylinder,
        (np.float32([0.3, 0.2, 0.1]),),
        expected="wrong",
        why="reverse over reverse is NaN: sqrt(0) in the branch not taken of the rule",
        plain=lambda p: jnp.sqrt(p[0] ** 2 + p[1] ** 2) - 0.5,
    ),
    Use(
        "cylinder, inside near the cap",
        cylinder,
        (np.float32([0.1, 0.1, -0.9]),),
        expected="wrong",
        why="reverse over reverse is NaN: sqrt(0) in the branch not taken of the rule",
        plain=lambda p: -p[2] - 1,
    ),
    Use(
        "cylinder, in its size",
        sdf._cylinder,
        (np.float32([0.9, 0.3, 0.2]), SIZE),
        expected="wrong",
        why="the gradient in size is always 0",
        plain=lambda p, s: jnp.sqrt(p[0] ** 2 + p[1] ** 2) - s[0],
    ),
    Use(
        "capsule",
        sdf._capsule,
        (np.float32([0.9, 0.3, 0.2]), SIZE),
        plain=lambda p, s: jnp.sqrt(p[0] ** 2 + p[1] ** 2) - s[0],
    ),
    Use(
        "ellipsoid",
        sdf._ellipsoid,
        (np.float32([0.9, 0.3, 0.2]), AXES),
        plain=lambda p, s: length(p / s) * (length(p / s) - 1) / length(p / s**2),
    ),
    Use("norm", math.norm, (normal(3),), plain=length),
    Use("normalize", math.normalize, (normal(3),), plain=lambda x: x / length(x)),
    Use("rotate", math.rotate, (normal(3), QUATERNION)),
    Use("quat_mul", math.quat_mul, (QUATERNION, normal(4))),
    Use("quat_to_mat", math.quat_to_mat, (QUATERNION,)),
    Use("axis_angle_to_quat", math.axis_angle_to_quat, (np.float32([0, 0.6, 0.8]), np.float32(0.3))),
]
