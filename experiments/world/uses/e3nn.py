"""e3nn-jax: spherical harmonics, tensor products, norms."""

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from e3nn_jax._src.utils.einsum import einsum

from world.use import Use, normal

POINT = np.array([0.3, -0.5, 0.8], np.float32)


def harmonics(degree, algorithm, normalize=True):
    """Return the spherical harmonics of one degree, by one algorithm, as a function."""

    def evaluated(x):
        x = e3nn.IrrepsArray("1o", x)
        return e3nn.spherical_harmonics([degree], x, normalize, normalization="norm", algorithm=algorithm).array

    return evaluated


def products(x, y):
    """Return the tensor product of two vectors."""
    irreps = "1o"
    return e3nn.tensor_product(e3nn.IrrepsArray(irreps, x), e3nn.IrrepsArray(irreps, y)).array


def norm(x):
    """Return the norm of a vector and of a scalar."""
    return e3nn.norm(e3nn.IrrepsArray("1o + 0e", x)).array


USES = [
    Use("harmonics of degree 1", harmonics(1, None), (POINT,), plain=lambda x: x / jnp.sqrt(jnp.sum(x * x))),
    Use("harmonics of degree 1, not normalised", harmonics(1, None, False), (POINT,), plain=lambda x: x),
    Use(
        "harmonics of degree 2, recursive, dense, custom rule",
        harmonics(2, ("recursive", "dense", "custom_jvp"), False),
        (POINT,),
    ),
    Use(
        "harmonics of degree 3, recursive, sparse, custom rule",
        harmonics(3, ("recursive", "sparse", "custom_jvp"), False),
        (POINT,),
    ),
    Use("harmonics of degree 2, legendre", harmonics(2, ("legendre", "dense", "custom_jvp")), (POINT,)),
    Use("harmonics of degree 2, recursive, no rule", harmonics(2, ("recursive", "dense")), (POINT,)),
    Use(
        "einsum, matrix product",
        lambda a, b: einsum("ij,jk->ik", a, b),
        (normal(2, 3), normal(3, 2)),
        plain=lambda a, b: a @ b,
    ),
    Use(
        "einsum, three factors",
        lambda a, b, c: einsum("i,ij,j->", a, b, c),
        (normal(2), normal(2, 3), normal(3)),
        plain=lambda a, b, c: a @ b @ c,
    ),
    Use("einsum of one", lambda a: einsum("ii->i", a), (normal(3, 3),), plain=jnp.diag),
    Use("tensor product", products, (normal(3), normal(3, seed=1))),
    Use("norm of irreps", norm, (normal(4),)),
    Use(
        "Bessel basis",
        lambda x: e3nn.bessel(x, 3, 2.0),
        (np.float32([0.3, 1.2]),),
        plain=lambda x: jnp.sin(jnp.arange(1, 4) * jnp.pi * x[:, None] / 2) / x[:, None],
    ),
    Use("soft envelope", e3nn.soft_envelope, (np.float32([0.3, 0.7]),)),
    Use("poly envelope", e3nn.poly_envelope(5, 2), (np.float32([0.3, 0.7]),)),
    Use("sus", e3nn.sus, (np.float32([0.3, 1.5]),), plain=lambda x: jnp.exp(-1 / x)),
]
