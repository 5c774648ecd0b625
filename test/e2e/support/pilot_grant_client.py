"""Nodes in plain Python that ask for punches with and without leave; prints what it got, one line each.

pilot_grant_client.py HOST PORT
"""

import socket
import struct
import sys
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

host, port = sys.argv[1], int(sys.argv[2])
beacon = (host, port)
REQUESTER, TARGET = 4000000010, 4000000020


def node():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(10)
    sock.bind((host, 0))
    return sock


def address(message):
    return socket.inet_ntoa(message[2:6]), struct.unpack("!H", message[6:])[0]


a, b = node(), node()
key = Ed25519PrivateKey.generate()
public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
a.sendto(struct.pack("!BI", 1, REQUESTER), beacon)
print("a discovered", a.recv(64)[0] == 2)
b.sendto(struct.pack("!BI", 8, TARGET) + public, beacon)
print("b discovered", b.recv(64)[0] == 2)


def grant(requester, expiry):
    text = "punch-grant:%d:%d:%d" % (requester, TARGET, expiry)
    return struct.pack("!Q", expiry) + key.sign(text.encode())


def punch(tail):
    a.sendto(struct.pack("!BII", 3, REQUESTER, TARGET) + tail, beacon)


def quiet():
    """Whether nothing came before the answer to a Discover that was sent last."""
    answers = []
    for sock, node_id in ((a, REQUESTER), (b, TARGET)):
        sock.sendto(struct.pack("!BI", 8, node_id), beacon)
        answers.append(sock.recv(64)[0] == 2)
    return all(answers)


now = int(time.time())
punch(b"")
print("without leave, silence", quiet())
punch(grant(REQUESTER + 1, now + 60))
punch(grant(REQUESTER, now - 60))
time.sleep(0.5)
print("with another's or an old one, silence", quiet())
punch(grant(REQUESTER, now + 60))
print("a punches", address(a.recv(64)) == b.getsockname())
print("b punches", address(b.recv(64)) == a.getsockname())
