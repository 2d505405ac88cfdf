"""The launcher of `sandbox`: builds namespaces, starts the program in them and watches it.

It runs as a script in its own process, with only the standard library:

    sandbox -> supervisor -> first process (pid 1 inside) -> the program

The supervisor stays outside of the namespaces, where the program cannot name or reach it. The first
process limits, starts and reaps the program. A pipe that the program does not inherit carries its
verdict; when the first process ends, the kernel ends all others in its namespace. Only modules that
load fast are imported, since this starts once for every program.
"""

import contextlib
import marshal
import os
import resource
import select
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

if __package__:
    from . import cell, syscalls as sc
else:  # as a script; appended, so that no neighbour hides a module of the standard library
    sys.path.append(os.path.dirname(__file__))
    import cell  # type: ignore[no-redef]
    import syscalls as sc  # type: ignore[no-redef]

START_SECONDS = 30.0  # for namespaces and an interpreter on a cold or busy machine
POLL_SECONDS = 0.02
FIRST_ID = 2_000_000  # programs that root starts: ids that no account or container uses


def _supervise(request_file: int, report: int, lease: int) -> NoReturn:
    """Run a request; once all processes ended, write the result to `report`."""
    with os.fdopen(request_file, "rb") as file:
        request, code = marshal.load(file)
    try:
        if cell.LINUX:
            sc.call("prctl", sc.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become its children
            _die_with_parent(request)
        answer = _watch(request, code, lease)
    except Exception as error:
        answer = {"failed": f"{type(error).__name__}: {error}"}
    _end_all(request.get("child", 0))
    os.write(report, marshal.dumps(answer))
    os._exit(0)  # closing an interpreter takes as long as starting one


def _die_with_parent(request: dict[str, Any]) -> None:
    if request["mode"] == "none":
        return  # a supervisor killed at once could not end the program; the lease stops it
    sc.call("prctl", sc.PR_SET_PDEATHSIG, cell.SIGKILL, 0, 0, 0)
    if os.getppid() != request["parent"]:
        raise RuntimeError("its parent has ended")


def _watch(request: dict[str, Any], code: bytes, lease: int) -> dict[str, Any]:
    status, theirs = os.pipe()
    child = _start(request, code, status, theirs)
    os.close(theirs)
    poller = select.poll()
    poller.register(status, select.POLLIN)
    poller.register(lease, select.POLLIN)
    missing: list[str] = []
    started = None
    deadline = time.monotonic() + START_SECONDS
    messages = b""
    while True:
        ready = {descriptor for descriptor, _ in poller.poll(POLL_SECONDS * 1000)}
        now = time.monotonic()
        seconds = 0.0 if started is None else now - started
        outcome = None
        if status in ready:
            block = os.read(status, 65536)
            *lines, messages = (messages + block).split(b"\n")
            for line in lines:
                word, _, rest = line.decode(errors="replace").partition(" ")
                if word == "failed":
                    raise RuntimeError(rest)
                if word == "start":
                    started, deadline = now, now + request["timeout_s"]
                    missing += rest.split(";") if rest else []
                else:
                    outcome = word
            if not block and outcome is None:
                if started is None:
                    raise RuntimeError(f"{request['mode']}: it ended before the program started")
                outcome = "killed"
        if outcome is None and lease in ready:
            outcome = "stopped"
        if outcome is None and now >= deadline:
            if started is None:
                raise RuntimeError(f"the program did not start within {START_SECONDS:.0f} s")
            outcome = "timeout"
        if outcome is None and os.fstat(1).st_size + os.fstat(2).st_size > request["output_bytes"]:
            outcome = "output"
        if outcome is None and started is not None and cell.LINUX:
            outcome = _excess(child, request)
        if outcome is not None:
            if not os.path.exists("/proc/thread-self/children"):
                missing.append("a limit on memory in all")
            return {"status": outcome, "seconds": seconds, "missing": missing}


def _start(request: dict[str, Any], code: bytes, status: int, theirs: int) -> int:
    """Fork the first process and return its id."""
    if request["mode"] == "namespaces":
        own_id = FIRST_ID + os.getpid()
        if os.geteuid() == 0 and _is_mapped(own_id):
            request["own_id"] = own_id
            sc.call("unshare", sc.OWN_SPACES)
        else:
            ids = ("uid_map", os.geteuid()), ("gid_map", os.getegid())
            sc.call("unshare", sc.OWN_SPACES | sc.CLONE_NEWUSER)
            cell.write("/proc/self/setgroups", "deny")
            for name, outside in ids:
                cell.write(f"/proc/self/{name}", f"{cell.INSIDE_ID} {outside} 1")
            _die_with_parent(request)  # the new namespace may have cleared it
    child = request["child"] = os.fork()
    if child:
        return child
    os.close(status)
    try:
        if cell.LINUX:
            # If memory runs out, the kernel kills the program rather than the evaluation.
            with contextlib.suppress(OSError):
                cell.write("/proc/self/oom_score_adj", "1000")
        cell.be_first(request, theirs, code)
    except BaseException as error:
        cell.fail(theirs, error)


def _excess(child: int, request: dict[str, Any]) -> str | None:
    """ "memory" or "killed" if the program and its children exceed a limit together."""
    count = pages = 0
    for pid in _descendants(os.getpid()):
        if pid == child:
            continue
        count += 1
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages += int(_read(f"/proc/{pid}/statm").split()[1])
    if pages * resource.getpagesize() > request["memory_mb"] << 20:
        return "memory"
    return "killed" if count > request["processes"] else None


def _children(pid: int) -> Iterator[int]:
    # A process that ends meanwhile has no children.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield from map(int, _read(f"/proc/{pid}/task/{thread}/children").split())


def _descendants(pid: int) -> Iterator[int]:
    pending = [pid]
    while pending:
        for child in _children(pending.pop()):
            yield child
            pending.append(child)


def _end_all(child: int) -> None:
    """Kill all descendants of this process and wait for their end.

    When the first process of a namespace has ended, the kernel has ended all others.
    """
    with contextlib.suppress(ChildProcessError):
        while True:
            # The child too, since without /proc there is no list of descendants.
            for pid in {child, *(_descendants(os.getpid()) if cell.LINUX else ())} - {0}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, cell.SIGKILL)
                    if not cell.LINUX:
                        os.killpg(child, cell.SIGKILL)
            while ended := os.waitpid(-1, os.WNOHANG)[0]:
                child = 0 if ended == child else child
            time.sleep(0.0005)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _is_mapped(number: int) -> bool:
    """Whether the user namespace of this process has the id."""
    ranges = (map(int, line.split()) for line in _read("/proc/self/uid_map").splitlines())
    return any(first <= number < first + size for first, _, size in ranges)


if __name__ == "__main__":
    descriptors = [int(argument) for argument in sys.argv[1:]]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    _supervise(*descriptors)
