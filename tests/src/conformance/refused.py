"""Sends the requests of a fresh server to one that is not believed.

    refused.py URL AUTHORITY IDENTITY DIRECTORY

Each must end in the handshake, as the original's client has it; the last line tells how many.
"""

import json
import sys

import client
import requests


def main():
    url, authority, identity, directory = sys.argv[1:]
    with open(f"{directory}/notes.json", encoding="utf-8") as file:
        notes = client.Notes(json.load(file))
    refused = 0
    for method, route, body, *_ in client.PHASES["fresh"]:
        what = body(notes) if callable(body) else body
        try:
            reply = requests.request(
                method, url + route, json=what, cert=identity, verify=authority, timeout=60
            )
        except requests.exceptions.SSLError:
            refused += 1
        else:
            sys.exit(f"{method} {route} was answered: {reply.status_code}")
    print(f"{refused} refused")


if __name__ == "__main__":
    main()
