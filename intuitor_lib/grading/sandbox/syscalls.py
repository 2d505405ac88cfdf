"""Linux system calls that the standard library lacks, and a filter that refuses most others.

Used by `jail`, which runs without the package and imports only what loads fast.
"""

import ctypes
import errno
import os
import sys
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
READ_ONLY = MS_RDONLY | MS_NOSUID | MS_NODEV
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x2000000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
OWN_SPACES = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
ALL_NEW = 0x7E020000  # every CLONE_NEW* flag that clone knows
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000


def call(name: str, *arguments: int | bytes | ctypes.Array[Any] | None) -> None:
    """Call the C library's `name`. Raises OSError naming it."""
    words = [ctypes.c_long(part) if isinstance(part, int) else part for part in arguments]
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*words) < 0:
        code = ctypes.get_errno()
        shown = [part for part in arguments if isinstance(part, int | bytes)]
        raise OSError(code, f"{name}{tuple(shown)}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    words = [os.fsencode(part) if part is not None else None for part in (source, target, kind)]
    call("mount", *words, flags, options.encode())


def protect(target: str, flags: int, scope: int = AT_RECURSIVE) -> None:
    """Add the flags to a mount and those beneath it; none of theirs, locked or not, is lost."""
    attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)  # set, clear, propagation, namespace
    path = os.fsencode(target)
    call("syscall", MOUNT_SETATTR, AT_FDCWD, path, scope, attributes, ctypes.sizeof(attributes))


# Numbers, on x86_64 and aarch64, of calls that reach other processes or rare parts of the kernel or
# that hold memory which no limit counts.
DENIED = {
    "x86_64": (
        *(101, 310, 311, 312, 438),  # ptrace, process_vm_readv, _writev, kcmp, pidfd_getfd
        *(272, 308, 155, 161, 165, 166),  # unshare, setns, pivot_root, chroot, mount, umount2
        *(428, 429, 430, 431, 432, 433, 442, 304),  # open_tree ... mount_setattr, by handle
        *(319, 447, 29, 64, 68, 240),  # memfd_create, memfd_secret, shmget, semget, msgget, mq
        *(321, 298, 323, 425, 426, 427),  # bpf, perf_event_open, userfaultfd, io_uring
        *(248, 249, 250, 135),  # add_key, request_key, keyctl, personality
    ),
    "aarch64": (
        *(117, 270, 271, 272, 438),
        *(97, 268, 41, 51, 40, 39),
        *(428, 429, 430, 431, 432, 433, 442, 265),
        *(279, 447, 194, 190, 186, 180),
        *(280, 241, 282, 425, 426, 427),
        *(217, 218, 219, 92),
    ),
}
ARCHITECTURES = {"x86_64": (0xC000003E, 56, 41), "aarch64": (0xC00000B7, 220, 198)}
CLONE3 = 435
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, ABSENT, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | 38, 0x80000000
FAMILIES = (1, 2, 10)  # unix and internet sockets; vsock would reach the machine's own host


def filter_calls() -> None:
    """Refuse the calls of DENIED, new namespaces and sockets of other families, for good.

    Raises OSError where the kernel or the machine's architecture has no such filter.
    """
    machine = os.uname().machine
    if machine not in DENIED or sys.maxsize < 2**32:
        raise OSError(errno.ENOSYS, f"no system call filter for {machine}")
    architecture, clone, socket = ARCHITECTURES[machine]
    # (operation, skip if true, skip if false, operand) over the call's number, at offset 0, its
    # architecture, at 4, and its first argument, at 16.
    rules = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    if machine == "x86_64":
        rules += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, REFUSE)]  # the x32 calls
    for number in DENIED[machine]:
        rules += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    # The flags of clone3 lie in memory, out of a filter's sight; without it, clone is used.
    rules += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ABSENT)]
    rules += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (ANY_BIT, 0, 1, ALL_NEW)]
    rules += [(RETURN, 0, 0, REFUSE)]
    rules += [(LOAD, 0, 0, 0), (EQUAL, 0, 2 + len(FAMILIES), socket), (LOAD, 0, 0, 16)]
    rules += [(EQUAL, len(FAMILIES) - i, 0, family) for i, family in enumerate(FAMILIES)]
    rules += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]

    code = b"".join(
        operation.to_bytes(2, sys.byteorder) + bytes([yes, no]) + operand.to_bytes(4, sys.byteorder)
        for operation, yes, no, operand in rules
    )
    text = ctypes.create_string_buffer(code, len(code))
    header = (ctypes.c_uint64 * 2)(len(rules), ctypes.addressof(text))  # little-endian sock_fprog
    call("prctl", PR_SET_SECCOMP, 2, header, 0, 0)


def clear_bounding_set() -> None:
    """Give up every capability that an exec could grant. Raises OSError where not allowed."""
    for capability in range(64):
        try:
            call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return  # the kernel knows no more of them


def clear_capabilities() -> None:
    """Give up every capability of this process. Raises OSError where not allowed."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    call("capset", header, (ctypes.c_uint32 * 6)())
