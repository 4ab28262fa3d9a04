"""What QEMU and libvirt do with a bridge helper, for a list of cases: run it with a socket, take what it sends, look at the tap.

Runs as root of its own network and mount namespace. Reads one JSON object from standard input:
  {"acl_dir": DIR, "programs": {NAME: [ARG...]}, "cases": [CASE...]}
  CASE: {"files": {NAME: {"text": LATIN1, "mode": OCTAL, "uid": N, "gid": N}}, "args": [ARG...] with "{fd}" for the socket,
         "user": {"uid": N, "gid": N, "groups": [N...]} or null, "socket": "stream"|"dgram"|"none"|"pipe", "cwd": DIR or null}
and writes one JSON line per case: {NAME: OUTCOME...}.
"""

import array
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys

TUNGETIFF = 0x800454D2
TUNGETVNETHDRSZ = 0x800454D7
TAKE_NOTHING_MS = 20000


def list_taps():
    return sorted(name for name in os.listdir("/sys/class/net") if os.path.exists(f"/sys/class/net/{name}/tun_flags"))


def read_net(name, attribute):
    with open(f"/sys/class/net/{name}/{attribute}") as file:
        return file.read().strip()


def look_at_tap(fd):
    request = bytearray(40)
    try:
        fcntl.ioctl(fd, TUNGETIFF, request)
    except OSError as error:
        return {"error": error.errno}
    name = bytes(request[:16]).split(b"\0")[0].decode("latin-1")
    (flags,) = struct.unpack_from("<H", request, 16)
    size = bytearray(4)
    fcntl.ioctl(fd, TUNGETVNETHDRSZ, size)
    bridge = f"/sys/class/net/{name}/brport/bridge"
    return {
        "name": name,
        "flags": flags,
        "vnetHeaderBytes": struct.unpack("<i", size)[0],
        "mtu": int(read_net(name, "mtu")),
        "firstByte": read_net(name, "address")[:2],
        "up": (int(read_net(name, "flags"), 16) & 1) == 1,
        "bridge": os.path.basename(os.readlink(bridge)) if os.path.exists(bridge) else None,
        "isolated": read_net(name, "brport/isolated") == "1" if os.path.exists(bridge) else None,
        "blocking": (fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK) == 0,
    }


def write_files(directory, files):
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    for name, file in files.items():
        path = os.path.join(directory, name)
        if "link" in file:
            os.symlink(file["link"], path)
            continue
        with open(path, "wb") as out:
            out.write(file["text"].encode("latin-1"))
        os.chown(path, file.get("uid", 0), file.get("gid", 0))
        os.chmod(path, int(file.get("mode", "644"), 8))


def open_channel(kind):
    if kind == "none":
        return None, 99
    if kind == "pipe":
        reader, writer = os.pipe()
        return reader, writer
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "dgram" else socket.SOCK_STREAM)
    return ours, theirs.detach()


def take(ours):
    """What a caller finds in the socket once the helper has ended."""
    if not isinstance(ours, socket.socket):
        return None, []
    ours.setblocking(False)
    try:
        data, control, _flags, _address = ours.recvmsg(16, socket.CMSG_SPACE(256 * 4))
    except BlockingIOError:
        return None, []
    fds = array.array("i")
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % 4])
    return data.hex(), list(fds)


def run(program, case):
    ours, theirs = open_channel(case.get("socket", "stream"))
    user = case.get("user")
    arguments = [argument.replace("{fd}", str(theirs)) for argument in case["args"]]
    prefix = []
    if user is not None:
        ids = [f"--reuid={user['uid']}", f"--regid={user['gid']}"]
        groups = user.get("groups", [])
        ids.append(f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups")
        capabilities = ["--inh-caps=+net_admin", "--ambient-caps=+net_admin"] if program.get("ambient") else []
        prefix = ["setpriv", *ids, *capabilities]
    result = subprocess.run(
        [*prefix, *program["command"], *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **program.get("env", {})},
        pass_fds=() if theirs == 99 else (theirs,),
        cwd=case.get("cwd") or "/",
        timeout=60,
    )
    byte, fds = take(ours)
    taps = [look_at_tap(fd) for fd in fds]
    for fd in fds:
        os.close(fd)
    for end in (ours, theirs):
        if isinstance(end, socket.socket):
            end.close()
        elif end is not None and end != 99:
            os.close(end)
    return {
        "status": result.returncode,
        "stdout": result.stdout.decode("latin-1"),
        "stderr": result.stderr.decode("latin-1"),
        "byte": byte,
        "taps": taps,
        "left": list_taps(),
    }


def main():
    order = json.load(sys.stdin)
    for case in order["cases"]:
        write_files(order["acl_dir"], case.get("files", {}))
        print(json.dumps({name: run(program, case) for name, program in order["programs"].items()}), flush=True)


main()
