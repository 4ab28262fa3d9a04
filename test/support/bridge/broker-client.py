"""A client of passel-fd-broker, written from passel-fd-broker(8): sends what it is given, prints what comes back.

  broker-client.py SOCKET < REQUESTS
REQUESTS: a JSON array of objects. Writes a JSON array of {"answer": OBJECT, "taps": [NAME...]}: the taps among the descriptors that came.
"""

import fcntl
import json
import os
import socket
import sys

TUNGETIFF = 0x800454D2


def tap_name(fd):
    request = bytearray(40)
    try:
        fcntl.ioctl(fd, TUNGETIFF, request)
    except OSError:
        return None
    return bytes(request[:16]).split(b"\0")[0].decode()


def main():
    broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broker.connect(sys.argv[1])
    results = []
    for request in json.load(sys.stdin):
        broker.send(json.dumps(request).encode())
        data, fds, _flags, _address = socket.recv_fds(broker, 65536, 253)
        results.append({"answer": json.loads(data), "taps": [name for name in map(tap_name, fds) if name]})
        for fd in fds:
            os.close(fd)
    print(json.dumps(results))


main()
