"""Jobs that requests name by their id."""

from __future__ import annotations

from typing import Any

import pytest
from action_harness import Harness

from pman.actions._named import newest


@pytest.mark.parametrize(("sent", "text"), [(5, "5"), ("5", "5"), (5.5, "5.5")])
@pytest.mark.parametrize("action", ["wait", "cancel", "logs", "list", "events"])
def test_a_number_means_its_text(pman: Harness, action: str, sent: Any, text: str) -> None:
    pman.run("true", jid=sent)
    pman.run("true", jid="other")
    meta = {"jid": sent, **({"since": 0} if action == "events" else {})}
    reply = pman.post(action, meta)
    assert reply.code == 200
    answer = reply.json["d_ret"]
    shown = answer.get("jobs") or answer.get("events") or [answer]
    assert {each["jid"] for each in shown} == {text}


@pytest.mark.parametrize("action", ["wait", "cancel", "logs", "list", "events"])
def test_a_boolean_is_no_id(pman: Harness, action: str) -> None:
    assert pman.post(action, {"jid": True}).error["field"] == "jid"


def test_the_newest_of_an_id(pman: Harness) -> None:
    for jid in ("", "5", 5, "other"):
        pman.run("true", jid=jid)
    empty, _, second, _ = pman.store.jobs()
    assert newest(5, pman.context) == second
    assert newest("", pman.context) == empty
    assert newest("nobody", pman.context) is None
