"""Keep glibc from returning XLA's temporaries to the system after every step.

glibc returns every array of more than 32 MB to the system as soon as it is freed, and trims the end of the heap. XLA
frees its temporaries after every call, so that the next call faults each of their pages in again: hundreds of thousands
of page faults a step, each zeroing 4 kB. After `keep_temporaries` this process keeps them; its memory then stays at its
peak. Nothing calls it on import: the commands do, before JAX allocates.

From outside the process, the same is MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000.
"""

import ctypes
import platform
import resource

__all__ = ["keep_temporaries", "page_faults", "return_unused"]

# <malloc.h>. A trim threshold of −1 disables trimming; one below the largest temporary would bring the faults back.
SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}


def keep_temporaries() -> bool:
    """Make the C library keep freed memory, in one arena. Call it before JAX starts its threads.

    Returns:
        True if the library is glibc and took every setting. Elsewhere, as on macOS or musl, nothing changes.

    Example:
        >>> from refgrad.train.allocator import keep_temporaries
        >>> keep_temporaries() in (True, False)
        True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(parameter, value) == 1 for parameter, value in SETTINGS.values()])


def return_unused() -> None:
    """Return free memory, such as the compiler's, to the system once; do nothing where the library is not glibc.

    Example:
        >>> from refgrad.train.allocator import return_unused
        >>> return_unused()
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def page_faults() -> int:
    """Return the page faults of this process so far that read nothing from disk.

    Returns:
        Their number.

    Example:
        >>> from refgrad.train.allocator import page_faults
        >>> page_faults() > 0
        True
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
