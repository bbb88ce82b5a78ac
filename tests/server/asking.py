"""Requests as tests send them, and waiting for what they cause."""

import json
import time
import urllib.error
import urllib.request

import anthropic
import openai

KEY = "a-secret"  # the servers' of the tests
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


def openai_client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0)


def anthropic_client(address: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=address, api_key=KEY, max_retries=0)


def post(address: str, path: str, body: bytes) -> tuple[int, dict]:
    request = urllib.request.Request(address + path, body, HEADERS)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def slots(address: str) -> list[dict]:
    with urllib.request.urlopen(urllib.request.Request(address + "/slots", None, HEADERS)) as found:
        return json.load(found)


def wait_until(condition) -> None:
    # A bound of patience for slow machines, nothing that is measured.
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came")
