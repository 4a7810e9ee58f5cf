"""Keeps a copy of a stream in memory, with httpx-sse, and prints it whenever it is that of a cursor.

    pip install httpx-sse
    HOOKPOOL_READ_KEY=rk_... python follower.py sales

`hookpool reader add example --stream sales` prints the key; HOOKPOOL_SERVER is where the server is.
"""

import json
import os
import random
import sys
import time

import httpx
from httpx_sse import connect_sse

SERVER = os.environ.get("HOOKPOOL_SERVER", "http://127.0.0.1:8080")


class Copy:
    """The items of a stream by id, as of a cursor."""

    def __init__(self):
        self.items = {}
        self.cursor = ""
        self.whole = False  # not inside a snapshot or between two generations

    def opened(self):
        """Without a cursor nothing can be resumed: a snapshot that was cut begins again."""
        if not self.cursor:
            self.items.clear()

    def take(self, event, cursor, data):
        if event == "item":
            self.whole = False
            self.items[data["itemId"]] = data["fields"]
        elif event == "change" and data["op"] == "delete":
            self.items.pop(data["itemId"], None)
        elif event == "change":
            fields = self.items.setdefault(data["itemId"], {})
            fields.update(data["set"])
            for name in data.get("unset", []):
                fields.pop(name, None)
        elif event == "reset":
            self.whole = False
            self.items.clear()
        elif event == "generation":
            self.whole = False
        elif event in ("snapshot-end", "bookmark"):
            self.whole = True
        self.cursor = cursor or self.cursor


def follow(client, stream, key, copy):
    """Yields whenever the copy is that of its cursor, over any number of connections."""
    failures, wait = 0, 1.0
    while True:
        headers = {"Authorization": f"Bearer {key}"}
        if copy.cursor:
            headers["Last-Event-ID"] = copy.cursor
        try:
            with connect_sse(client, "GET", f"/api/streams/{stream}/changes", headers=headers) as source:
                if source.response.status_code in (401, 404):
                    sys.exit(f"refused: {source.response.status_code}")
                source.response.raise_for_status()
                copy.opened()
                for frame in source.iter_sse():
                    if frame.retry is not None:
                        wait = frame.retry / 1000
                    if not frame.data:  # the package makes an empty event of a heartbeat
                        continue
                    if frame.event != "goodbye":  # which is all that a server says that has no room
                        failures = 0
                    copy.take(frame.event, frame.id, json.loads(frame.data))
                    if copy.whole:
                        yield
        except httpx.HTTPError as error:
            print(f"cut: {error!r}", file=sys.stderr)
        # No sooner than the server asks for, and not all followers at once.
        time.sleep(min(max(30, wait), wait * 2 ** min(failures, 10)) * random.uniform(1, 1.5))
        failures += 1


def main(stream="sales"):
    copy = Copy()
    # Two heartbeats of 15 s may be late; then the connection is dead.
    with httpx.Client(base_url=SERVER, timeout=35) as client:
        for _ in follow(client, stream, os.environ["HOOKPOOL_READ_KEY"], copy):
            print(json.dumps({"cursor": copy.cursor, "items": copy.items}), flush=True)


main(*sys.argv[1:])
