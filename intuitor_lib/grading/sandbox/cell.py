"""The first process of a program's namespace: file system, limits, privileges, program, verdict.

Part of `jail`, which runs as a script without the package.
"""

import contextlib
import os
import resource
import sys
from typing import Any, NoReturn

if __package__:
    from . import syscalls as sc
else:  # a part of the script
    import syscalls as sc  # type: ignore[no-redef]

BOX = "/box"  # the program's folder: its working directory, home and temporary files
PROGRAM = "/program.py"
SIGKILL, SIGXCPU = 9, 24
OPEN_FILES = 256
INODES = 4096
INSIDE_ID = 1000  # user id inside, for programs of an ordinary user
LINUX = sys.platform == "linux"


def be_first(request: dict[str, Any], status: int, code: bytes) -> NoReturn:
    """Start the program, write to `status` how it ends, and end."""
    if LINUX:
        sc.call("prctl", sc.PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    os.setsid()
    if request["mode"] == "none":
        _new_file(request["argv"][-1], code)
        os.mkdir(request["environment"]["HOME"], mode=0o700)
        os.chdir(request["environment"]["HOME"])
    else:
        _build_root(request, code)
    if LINUX:
        sc.call("prctl", sc.PR_SET_DUMPABLE, 0, 0, 0, 0)  # not even its own user may trace it
    program = os.fork()
    if not program:
        _become_program(request, status)
    os.closerange(0, 3)
    ended = 0
    while ended != program:
        ended, result = os.waitpid(-1, 0)
    verdict = "ok" if result == 0 else "error"
    if os.WIFSIGNALED(result):
        verdict = "timeout" if os.WTERMSIG(result) == SIGXCPU else "killed"
    os.write(status, f"{verdict}\n".encode())
    os._exit(0)


def _build_root(request: dict[str, Any], code: bytes) -> None:
    """Replace the file system by the parts that Python needs, read-only, and an empty folder."""
    if not request["own_id"]:
        with contextlib.suppress(OSError):  # a filter refuses them too
            write("/proc/sys/user/max_user_namespaces", "0")
    sc.call("unshare", sc.CLONE_NEWNS)
    sc.mount("none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
    options = f"mode=755,nr_inodes={INODES},size={len(code) + (1 << 20)}"
    sc.mount("tmpfs", "/tmp", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, options)
    os.umask(0o022)
    os.mkdir("/tmp/.host")
    sc.call("pivot_root", b"/tmp", b"/tmp/.host")
    os.chdir("/")

    for path in request["binds"]:
        if os.path.isdir(f"/.host{path}"):
            os.makedirs(path)
        else:
            _new_file(path)
        sc.mount(f"/.host{path}", path, None, sc.MS_BIND | sc.MS_REC)
        sc.protect(path, sc.READ_ONLY)
    for path in request["hidden"]:
        sc.mount("tmpfs", path, "tmpfs", sc.READ_ONLY, "mode=000,size=4096")
    for path in request["devices"]:
        _new_file(path)
        sc.mount(f"/.host{path}", path, None, sc.MS_BIND)
        sc.protect(path, sc.MS_RDONLY | sc.MS_NOSUID | sc.MS_NOEXEC)
    shortcuts = dict.fromkeys(request["shortcuts"], BOX)
    for path, target in {**request["links"], **shortcuts}.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)
    _new_file(PROGRAM, code)
    os.mkdir(BOX)
    owner = request["own_id"] or INSIDE_ID
    options = f"mode=700,uid={owner},gid={owner},nr_inodes={INODES}"
    options += f",size={request['files_mb'] << 20}"
    sc.mount("tmpfs", BOX, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, options)

    sc.call("umount2", b"/.host", sc.MNT_DETACH)
    os.rmdir("/.host")
    sc.protect("/", sc.READ_ONLY, scope=0)
    sc.call("sethostname", b"sandbox", 7)
    os.chdir(BOX)


def _become_program(request: dict[str, Any], status: int) -> NoReturn:
    try:
        missing = []
        for limit, value in _limits(request).items():
            try:
                resource.setrlimit(limit, (value, value))
            except (ValueError, OSError):
                if request["mode"] != "none":  # macOS refuses the limit on memory
                    raise
        if LINUX:
            _drop_privileges(request)
            try:
                sc.filter_calls()
            except OSError:
                missing.append("a filter of system calls")
        os.closerange(3, status)
        os.closerange(status + 1, OPEN_FILES)
        os.set_inheritable(status, False)
        argv, environment = request["argv"], request["environment"]
        os.write(status, f"start {';'.join(missing)}\n".encode())
        # The file itself under the name of its link: Python finds a virtual environment by the
        # name, and the folders between the two need not be visible.
        os.execve(request["executable"], argv, environment)
    except BaseException as error:
        fail(status, error)


def _limits(request: dict[str, Any]) -> dict[int, int]:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: request["files_mb"] << 20,
        resource.RLIMIT_CPU: int(request["timeout_s"]) + 2,
    }
    if LINUX:
        limits[resource.RLIMIT_MSGQUEUE] = limits[resource.RLIMIT_MEMLOCK] = 0
        if request["own_id"]:
            limits[resource.RLIMIT_NPROC] = request["processes"]
        elif request["mode"] != "none" and _release() >= (5, 14):
            # Counted per namespace since 5.14, before over all processes of the user. The
            # supervisor and the first process are included.
            limits[resource.RLIMIT_NPROC] = request["processes"] + 2
    limits[resource.RLIMIT_AS] = request["memory_mb"] << 20
    return limits


def _drop_privileges(request: dict[str, Any]) -> None:
    sc.call("prctl", sc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if request["mode"] == "none":
        return
    sc.clear_bounding_set()
    own_id = request["own_id"]
    if own_id:
        os.setgroups([])
        os.setresgid(own_id, own_id, own_id)
        os.setresuid(own_id, own_id, own_id)
    sc.clear_capabilities()


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def write(path: str, text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


def _new_file(path: str, content: bytes = b"") -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "xb") as file:
        file.write(content)


def fail(status: int, error: BaseException) -> NoReturn:
    reason = f"{type(error).__name__}: {error}"
    os.write(status, f"failed {reason[:1000]!r}\n".encode())
    os._exit(1)
