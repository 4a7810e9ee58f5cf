"""Folds a stream's log and compares the result with what the server shows as its items.

    fold.py SERVER KEY STREAM

Written without a look at the server: standard library only, and its own reading of the product page. Numbers are compared as
text, so a value that went through a float anywhere shows up.
"""

import json
import sys
import urllib.parse
import urllib.request

DECODER = json.JSONDecoder()
BLANKS = " \t\r\n"


def members(text):
    """The members of a JSON object as (name, source text of the value), in order, duplicates included."""

    def skip(at):
        while text[at] in BLANKS:
            at += 1
        return at

    at = skip(0)
    assert text[at] == "{"
    at = skip(at + 1)
    while text[at] != "}":
        name, at = DECODER.raw_decode(text, at)
        at = skip(at)
        assert text[at] == ":"
        start = skip(at + 1)
        _, at = DECODER.raw_decode(text, start)
        yield name, text[start:at]
        at = skip(at)
        if text[at] == ",":
            at = skip(at + 1)


def scalar(source):
    """A served value: characters of a string, or the text of anything else."""
    return ("string", json.loads(source)) if source[0] == '"' else ("verbatim", source)


def stored(source):
    """What a property becomes: nested values are one string with the text as sent."""
    return ("string", source) if source[0] in "{[" else scalar(source)


def get(server, key, target):
    request = urllib.request.Request(server + target, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def events(server, key, stream):
    after = 0
    while after is not None:
        page = json.loads(get(server, key, f"/api/streams/{stream}/log?after={after}&limit=500&body=true"))
        yield from page["events"]
        after = page["next"]


def elements(source):
    """The elements of a JSON array of objects as source texts."""
    at = 1
    while True:
        while source[at] in BLANKS + ",":
            at += 1
        if source[at] == "]":
            return
        _, end = DECODER.raw_decode(source, at)
        yield source[at:end]
        at = end


def shown(server, key, stream):
    """The pool as the pages of /items show it, and the one position of the chain."""
    pool, position, after = {}, None, ""
    while after is not None:
        query = f"&after={urllib.parse.quote(after, safe='')}" if after else ""
        page = dict(members(get(server, key, f"/api/streams/{stream}/items?limit=100{query}")))
        assert position in (None, page["position"]), "a torn chain of pages"
        position = page["position"]
        for item in map(dict, map(members, elements(page["items"]))):
            item_id = json.loads(item["itemId"])
            assert item_id not in pool, f"{item_id} came twice"
            pool[item_id] = {name: scalar(source) for name, source in members(item["fields"])}
        after = json.loads(page.get("next", "null"))
    return pool, int(position)


def main(server, key, stream):
    pool, position = shown(server, key, stream)
    fold, count = {}, 0
    for event in events(server, key, stream):
        if event["position"] > position:
            break
        count += 1
        if event["op"] == "delete":
            assert event["bytes"] == 0
            fold.pop(event["itemId"], None)
            continue
        item = fold.setdefault(event["itemId"], {})
        item.update((name, stored(source)) for name, source in members(event["body"]))
    wrong = sorted(id for id in fold.keys() | pool.keys() if fold.get(id) != pool.get(id))
    for item_id in wrong[:5]:
        print(f"{item_id}\n  fold: {fold.get(item_id)}\n  pool: {pool.get(item_id)}", file=sys.stderr)
    print(f"{count} events, {len(fold)} items, {len(wrong)} differ")
    sys.exit(1 if wrong or not count else 0)


main(*sys.argv[1:])
