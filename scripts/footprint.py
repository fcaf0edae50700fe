#!/usr/bin/env python3
"""What a connection and a request cost the gateway in memory: resident bytes of the real binary, before and with many.

    cargo build --profile fast && scripts/footprint.py target/fast/ingle [COUNT]

Prints KiB for each connection or request of a kind; src/config/memory.rs has what is counted for them. Backend and
clients are in this process, on 127.0.0.1. It takes two minutes, and descriptors: four for each of COUNT (1000).
"""
import asyncio
import os
import resource
import ssl
import struct
import subprocess
import sys
import tempfile

BINARY, COUNT = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
held = []

async def backend(reader, writer):
    """Answers /health; begins a stream for everything else and leaves it open; floods for /flood."""
    held.append(writer)
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /health"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            writer.write(HEAD + b"5\r\nhello\r\n")
            while head.split(b" ")[1] == b"/flood":
                writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
                await writer.drain()
            await asyncio.sleep(3600)
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass

def rss(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

async def h1(port, path=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    held.append(writer)
    if path:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Session-Id: {id(writer)}\r\n\r\n".encode())
        await reader.readuntil(b"hello")
    return writer

def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

async def h2(port, streams=0, path=b"/", window=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    held.append(writer)
    settings = struct.pack(">HI", 4, window) if window else b""
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, settings))
    if window:
        writer.write(frame(8, 0, 0, struct.pack(">I", window - 65535)))
    block = b"\x82\x86" + b"\x04" + bytes([len(path)]) + path + b"\x41\x01x"
    for number in range(streams):
        writer.write(frame(1, 5, 2 * number + 1, block))
    seen = 0
    while seen < streams:
        head = await reader.readexactly(9)
        size = int.from_bytes(head[:3], "big")
        await reader.readexactly(size)
        seen += head[3] == 0
        if window and seen:
            break
    return writer

async def many(make, count):
    for begin in range(0, count, 100):
        await asyncio.gather(*(make() for _ in range(min(100, count - begin))))

async def tls(port, path=None):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024, ssl=context)
    held.append(writer)
    if path:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"hello")

async def measure(name, make, count, each=1, settle=1.5, listener=""):
    server = await asyncio.start_server(backend, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    config = tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False)
    front = 20000 + os.getpid() % 20000
    config.write(f"""listeners: [{{ address: 127.0.0.1:{front}{listener} }}]
limits: {{ memory: 0B, header_timeout: 1h }}
pools: [{{ name: main, overload: {{ balance_factor: 0 }}, backends: [{{ name: a, url: "http://127.0.0.1:{port}", server: generic }}] }}]
""")
    config.close()
    process = subprocess.Popen([BINARY, "run", "--config", config.name], stderr=subprocess.DEVNULL)
    try:
        await asyncio.sleep(1.5)
        # What the first ones cost once is no matter of how many there are.
        await many(lambda: make(front), max(1, 20 // each))
        await asyncio.sleep(settle)
        before = rss(process.pid)
        await many(lambda: make(front), count // each)
        await asyncio.sleep(settle)
        print(f"{name:50} {(rss(process.pid) - before) / count:7.1f} KiB  ({count}, {rss(process.pid) // 1024} MiB in all)", flush=True)
    finally:
        process.kill()
        process.wait()
        for writer in held:
            writer.transport.abort()
        held.clear()
        server.close()
        os.unlink(config.name)
    await asyncio.sleep(0.2)

async def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    await measure("idle connection, HTTP/1.1", h1, COUNT)
    await measure("stream on a connection of its own, HTTP/1.1", lambda port: h1(port, "/"), COUNT)
    await measure("idle connection, HTTP/2", h2, COUNT)
    await measure("stream, HTTP/2, 50 on a connection", lambda port: h2(port, 50), COUNT, 50)
    await measure("flooded stream nobody reads, HTTP/1.1", lambda port: h1(port, "/flood"), 200, settle=4)
    await measure("flooded stream nobody reads, HTTP/2, 20 on a connection", lambda port: h2(port, 20, b"/flood", 2**31 - 1), 200, 20, settle=4)
    with tempfile.TemporaryDirectory() as files:
        subprocess.run(f"cd {files} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 "
                       "-keyout key.pem -out cert.pem -subj /CN=x -addext subjectAltName=DNS:x", shell=True, check=True, stderr=subprocess.DEVNULL)
        keys = f", tls: {{ certificate: {files}/cert.pem, key: {files}/key.pem }}"
        await measure("idle connection, TLS", tls, min(COUNT, 500), listener=keys)
        await measure("stream on a connection of its own, TLS", lambda port: tls(port, "/"), min(COUNT, 500), listener=keys)
        await measure("flooded stream nobody reads, TLS", lambda port: tls(port, "/flood"), 200, settle=4, listener=keys)

asyncio.run(main())
