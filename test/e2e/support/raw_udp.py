"""Sends UDP datagrams from any local address and port, also from port 0 and from one that somebody else has bound.

raw_udp.py SOURCE SOURCE_PORT DESTINATION DESTINATION_PORT HEX...     (IPv4; needs CAP_NET_RAW)
"""

import socket
import struct
import sys

source, source_port, destination, destination_port, *payloads = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
    raw.bind((source, 0))
    for payload in map(bytes.fromhex, payloads):
        # A checksum of 0 means that there is none (RFC 768).
        header = struct.pack("!HHHH", int(source_port), int(destination_port), 8 + len(payload), 0)
        raw.sendto(header + payload, (destination, 0))
