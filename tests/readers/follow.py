"""Follows a stream with httpx-sse and prints each event as one line of JSON.

    follow.py URL KEY

A cut connection is opened again with the last id, for ever.
"""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse


def events(client, url, key):
    """Every event over all connections; the id of the latest goes into the next request."""
    last_id = ""
    while True:
        headers = {"Authorization": f"Bearer {key}"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                source.response.raise_for_status()
                for event in source.iter_sse():
                    last_id = event.id or last_id
                    if event.data:  # the package makes an empty event of a heartbeat
                        yield event
        except httpx.TransportError as error:
            print(f"cut: {error!r}", file=sys.stderr)
        time.sleep(0.02)


def main(url, key):
    with httpx.Client(timeout=30) as client:
        for event in events(client, url, key):
            print(json.dumps({"event": event.event, "id": event.id, "data": event.data}), flush=True)


main(*sys.argv[1:])
