"""What the C library's allocator costs a step, and how to keep it from costing that.

glibc hands every array of more than 32 MB back to the system as soon as it is freed, and trims what lies at the heap's
end. XLA frees its temporaries after every call, so that the next call faults each of their pages in anew: hundreds of
thousands of page faults a step, each zeroing 4 kB. `keep_temporaries` makes this process keep them instead; its memory
then stays at its peak. Nothing calls it on import: the commands do, before JAX allocates.

From outside the process the same is MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000.
"""

import ctypes
import platform
import resource

# <malloc.h>. A trim threshold of −1 is none; one below the largest temporary would bring the faults back.
SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}


def keep_temporaries() -> bool:
    """Let the C library keep freed memory, in one arena: True where it is glibc and took every setting.

    To be called before JAX starts its threads; elsewhere, as on macOS or musl, it changes nothing and returns False.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(parameter, value) == 1 for parameter, value in SETTINGS.values()])


def return_unused() -> None:
    """Give what is free, such as the compiler's own memory, back to the system once; nothing where it is not glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def page_faults() -> int:
    """Pages that this process has had to be given so far, without those read from disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
