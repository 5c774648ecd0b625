"""A peer beacon in plain Python: it knows Relay (0x05) and Sync (0x07), and does with them what it is told to.

go_peer.py HOST     prints {"port": …}, the UDP port it has on HOST

A line of JSON on standard input is sent to the address in "to":

  {"to": [host, port], "sync": {"beacon_id": …, "ids": […]}}     optionally with another "count", and "rest" behind
  {"to": [host, port], "relay": {"sender": …, "dest": …, "payload": hex}}
  {"to": [host, port], "raw": hex}

Each datagram that arrives is printed as such a line, with its own bytes as "hex" and its source as "from".
"""

import json
import socket
import struct
import sys
import threading

RELAY, SYNC = 0x05, 0x07

host = sys.argv[1]
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((host, 0))


def say(line):
    print(json.dumps(line), flush=True)


def encode(order):
    if "sync" in order:
        told = order["sync"]
        ids = told["ids"]
        head = struct.pack("!BIH", SYNC, told["beacon_id"], told.get("count", len(ids)))
        return head + struct.pack(f"!{len(ids)}I", *ids) + bytes.fromhex(told.get("rest", ""))
    if "relay" in order:
        told = order["relay"]
        return struct.pack("!BII", RELAY, told["sender"], told["dest"]) + bytes.fromhex(told["payload"])
    return bytes.fromhex(order["raw"])


def decode(message):
    if message[0] == SYNC:
        beacon_id, count = struct.unpack_from("!IH", message, 1)
        # What lies behind the ids is ignored, as the Go beacon does.
        return {"sync": {"beacon_id": beacon_id, "ids": struct.unpack_from(f"!{count}I", message, 7)}}
    if message[0] == RELAY:
        sender, dest = struct.unpack_from("!II", message, 1)
        return {"relay": {"sender": sender, "dest": dest, "payload": message[9:].hex()}}
    return {}


def listen():
    while True:
        message, source = sock.recvfrom(65535)
        say({"from": source[:2], "hex": message.hex(), **decode(message)})


say({"port": sock.getsockname()[1]})
threading.Thread(target=listen, daemon=True).start()
for line in sys.stdin:
    order = json.loads(line)
    sock.sendto(encode(order), tuple(order["to"]))
