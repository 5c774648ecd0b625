"""A node in plain Python: registers two nodes, punches, relays, prints what it got, one line each.

pilot_client.py HOST PORT
"""

import socket
import struct
import sys

host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET


def node():
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(10)
    sock.bind((host, 0))
    return sock


def address(message):
    length = message[1]
    ip = socket.inet_ntop(socket.AF_INET if length == 4 else socket.AF_INET6, message[2 : 2 + length])
    (peer_port,) = struct.unpack("!H", message[2 + length :])
    return ip, peer_port


a, b = node(), node()
beacon = (host, port)
for name, sock, kind, node_id in (("a", a, 1, 10), ("b", b, 8, 20)):
    sock.sendto(struct.pack("!BI", kind, node_id) + bytes(32), beacon)
    reply = sock.recv(65535)
    print(name, "discovered", reply[0] == 2 and address(reply) == sock.getsockname()[:2])
a.sendto(struct.pack("!BII", 3, 10, 20), beacon)
print("a punches", address(a.recv(65535)) == b.getsockname()[:2])
print("b punches", address(b.recv(65535)) == a.getsockname()[:2])
payload = bytes(i % 251 for i in range(1200))
a.sendto(struct.pack("!BII", 5, 10, 20) + payload, beacon)
print("b got", b.recv(65535) == struct.pack("!BII", 9, 10, 20) + payload)
b.sendto(struct.pack("!BII", 5, 20, 10) + payload, beacon)
print("a got", a.recv(65535) == struct.pack("!BI", 6, 20) + payload)
