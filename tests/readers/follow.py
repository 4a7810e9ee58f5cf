"""Follows a stream with a Python package and prints each event as one line of JSON.

    follow.py httpx-sse|requests-sse URL KEY

A cut connection is opened again with the last id, for ever.
"""

import json
import sys
import time
from datetime import timedelta


def httpx_sse(url, headers):
    """The package reads one connection: the id of the latest event goes into the next request by hand."""
    import httpx
    from httpx_sse import connect_sse

    last_id = ""
    with httpx.Client(timeout=30) as client:
        while True:
            if last_id:
                headers["Last-Event-ID"] = last_id
            try:
                with connect_sse(client, "GET", url, headers=headers) as source:
                    source.response.raise_for_status()
                    for event in source.iter_sse():
                        last_id = event.id or last_id
                        if event.data:  # the package makes an empty event of a heartbeat
                            yield event.event, event.id, event.data
            except httpx.TransportError as error:
                print(f"cut: {error!r}", file=sys.stderr)
            time.sleep(0.02)


def requests_sse(url, headers):
    """The package goes on by itself, but gives up on a head that was cut: Python takes what came of it for the whole."""
    from requests_sse import EventSource, InvalidContentTypeError

    last_id = None
    short = timedelta(milliseconds=50)
    options = {"headers": headers, "timeout": 30, "reconnection_time": short, "max_connect_retry": 10}
    while True:
        try:
            with EventSource(url, latest_event_id=last_id, **options) as source:
                for event in source:
                    last_id = event.last_event_id
                    yield event.type, last_id, event.data
        except InvalidContentTypeError as error:
            print(f"cut: {error!r}", file=sys.stderr)


def main(package, url, key):
    events = {"httpx-sse": httpx_sse, "requests-sse": requests_sse}[package]
    for event, id, data in events(url, {"Authorization": f"Bearer {key}"}):
        print(json.dumps({"event": event, "id": id, "data": data}), flush=True)


main(*sys.argv[1:])
