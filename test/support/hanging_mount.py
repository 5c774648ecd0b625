"""A file system in memory that can stop answering, as a network file system does: hanging_mount.py <folder>

Mounts itself with FUSE (needs root) and prints "mounted". Lines on standard input: "hang" answers no request from now on, "go"
answers them again, "list" prints the files' names and sizes as JSON; each is confirmed by a line. Its end (of standard input, or by SIGTERM) unmounts
it, and all requests that wait fail.
"""

import ctypes
import errno
import json
import os
import select
import signal
import stat
import struct
import sys

IN_HEADER = struct.Struct("<IIQQIIII")
OUT_HEADER = struct.Struct("<IiQ")
REQUEST_BYTES_MAX = 1 << 20
WRITE_BYTES_MAX = 1 << 17
ROOT = 1

LOOKUP, FORGET, GETATTR, SETATTR, UNLINK, RENAME = 1, 2, 3, 4, 10, 12
OPEN, READ, WRITE, RELEASE, FSYNC, FLUSH, INIT = 14, 15, 16, 18, 20, 25, 26
OPENDIR, RELEASEDIR, FSYNCDIR, CREATE, INTERRUPT = 27, 29, 30, 35, 36
BATCH_FORGET, RENAME2 = 42, 45
SILENT = (FORGET, BATCH_FORGET, INTERRUPT)

contents = {}  # inode -> bytearray
names = {}  # name -> inode
next_inode = ROOT + 1


class Refused(Exception):
    pass


def attributes(inode):
    is_root = inode == ROOT
    mode = stat.S_IFDIR | 0o700 if is_root else stat.S_IFREG | 0o600
    size = 0 if is_root else len(contents[inode])
    return struct.pack("<QQQQQQIIIIIIIIII", inode, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def entry(inode):
    return struct.pack("<QQQQII", inode, 0, 0, 0, 0, 0) + attributes(inode)


def inode_of(name):
    if name not in names:
        raise Refused(errno.ENOENT)
    return names[name]


def opened(inode):
    return struct.pack("<QII", inode, 0, 0)


def answer(opcode, node, body):
    global next_inode
    if opcode == INIT:
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 12, 9, WRITE_BYTES_MAX, 1, 0, 0, 0)
    if opcode == LOOKUP:
        return entry(inode_of(body[:-1]))
    if opcode == GETATTR or opcode == SETATTR:
        return struct.pack("<QII", 0, 0, 0) + attributes(node)
    if opcode == CREATE:
        inode, next_inode = next_inode, next_inode + 1
        names[body[16:-1]] = inode
        contents[inode] = bytearray()
        return entry(inode) + opened(inode)
    if opcode == OPEN or opcode == OPENDIR:
        return opened(node)
    if opcode == READ:
        offset, size = struct.unpack_from("<8xQI", body)
        return bytes(contents[node][offset : offset + size])
    if opcode == WRITE:
        offset, size = struct.unpack_from("<8xQI", body)
        data = contents[node]
        if len(data) < offset:
            data.extend(bytes(offset - len(data)))
        data[offset : offset + size] = body[40 : 40 + size]
        return struct.pack("<II", size, 0)
    if opcode == UNLINK:
        inode_of(body[:-1])
        del names[body[:-1]]
        return b""
    if opcode == RENAME or opcode == RENAME2:
        old, new = body[8 if opcode == RENAME else 16 : -1].split(b"\0")
        names[new] = inode_of(old)
        del names[old]
        return b""
    if opcode in (RELEASE, FSYNC, FLUSH, RELEASEDIR, FSYNCDIR):
        return b""
    raise Refused(errno.ENOSYS)


def serve(device):
    try:
        request = os.read(device, REQUEST_BYTES_MAX)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):  # the request was interrupted
            return
        raise
    _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
    if opcode in SILENT:
        return
    try:
        body, code = answer(opcode, node, request[IN_HEADER.size :]), 0
    except Refused as refused:
        body, code = b"", -refused.args[0]
    try:
        os.write(device, OUT_HEADER.pack(OUT_HEADER.size + len(body), code, unique) + body)
    except FileNotFoundError:
        pass  # interrupted meanwhile


def main():
    folder = sys.argv[1].encode()
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % device
    if libc.mount(b"hanging", folder, b"fuse", 2 | 4, options) != 0:
        sys.exit("mount: " + os.strerror(ctypes.get_errno()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        print("mounted", flush=True)
        hangs = False
        while True:
            ready, _, _ = select.select([0] if hangs else [0, device], [], [])
            if 0 in ready:
                command = os.read(0, 100).decode().strip()
                if command == "":
                    return
                hangs = {"hang": True, "go": False}.get(command, hangs)
                listed = {name.decode(): len(contents[inode]) for name, inode in names.items()}
                print(json.dumps(listed) if command == "list" else command, flush=True)
            elif device in ready:
                serve(device)
    finally:
        libc.umount2(folder, 2)  # MNT_DETACH


main()
