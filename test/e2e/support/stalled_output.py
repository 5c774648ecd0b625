"""Runs a program whose standard output and error stall: stalled_output.py pipe|socket|terminal <program> [arguments...]

Prints "pid <n>". A line on standard input makes it read: then each line of the program is printed as "out <line>". Once the
program has ended and its output is read, it prints "exit <code>".
"""

import fcntl
import os
import pty
import socket
import subprocess
import sys
import termios
import threading


def fill(fd):
    """Fills a pipe or socket, as if a reader that has stalled had let it fill up."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    for size in (4096, 1):
        try:
            while True:
                os.write(fd, b"x" * (size - 1) + b"\n")
        except BlockingIOError:
            pass
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def stalled(kind):
    if kind == "pipe":
        ours, theirs = os.pipe()
        fill(theirs)
        return ours, theirs
    if kind == "socket":
        ours, theirs = (one.detach() for one in socket.socketpair())
        fill(theirs)
        return ours, theirs
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)  # as Ctrl-S does
    return ours, theirs


def main():
    kind, *command = sys.argv[1:]
    ours, theirs = stalled(kind)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    print("pid", child.pid, flush=True)

    def read():
        sys.stdin.readline()
        if kind == "terminal":
            termios.tcflow(theirs, termios.TCOON)
        os.close(theirs)
        try:
            for line in os.fdopen(ours, errors="replace"):
                print("out", line.rstrip(), flush=True)
        except OSError:
            pass  # a terminal's way to say that its programs have ended

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    code = child.wait()
    print("ended", code, flush=True)
    reading.join()
    print("exit", code, flush=True)


main()
