"""A chat room of uWebSockets (the socketify package): one topic, published by the library.

usage: uws.py PORT. Prints one line of JSON when it listens.
"""
import gc
import json
import sys

import socketify

ROOM = "room"
port = int(sys.argv[1])
server = socketify.App()


def came_in(client):
    client.subscribe(ROOM)


def said(client, text, _opcode):
    server.publish(ROOM, text, socketify.OpCode.TEXT)


def listening(_config):
    print(json.dumps({"ready": "uws", "http": f"http://127.0.0.1:{port}"}), flush=True)


server.ws("/*", dict(open=came_in, message=said, compression=socketify.CompressOptions.DISABLED,
                     max_payload_length=1 << 16, idle_timeout=240))
server.listen({"host": "127.0.0.1", "port": port}, listening)
gc.freeze()
# App.run() turns asyncio and the library's own loop in turn, and never sleeps. Nothing here needs
# asyncio, so only the library's loop runs, which waits in the kernel for the next event.
server.loop.uv_loop.run()
