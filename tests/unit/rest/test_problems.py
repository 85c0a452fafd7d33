"""Problem documents."""

from __future__ import annotations

import json

from pman.errors import KeyReused, MethodNotAllowed, NotAuthorized, PmanError
from pman.rest.problems import MEDIA_TYPE, problem, refusal


def test_a_problem_says_what_is_wrong_with_which_field() -> None:
    shown = problem(KeyReused("not again", field="Idempotency-Key"), "/api/v2/jobs")
    assert (shown.status, shown.title) == (422, "Unprocessable Entity")
    assert (shown.detail, shown.field) == ("not again", "Idempotency-Key")
    assert (shown.type, shown.kind, shown.instance) == ("about:blank", "KeyReused", "/api/v2/jobs")


def test_without_a_field_it_has_no_such_key() -> None:
    response = refusal(PmanError("oops"), "/x", ("GET",))
    assert response.content_type == MEDIA_TYPE
    assert set(json.loads(response.body)) == {
        "type",
        "title",
        "status",
        "detail",
        "instance",
        "kind",
    }


def test_headers_that_go_with_a_code_are_there() -> None:
    refused = refusal(NotAuthorized("no"), "/x", ("GET",))
    assert refused.headers == (("WWW-Authenticate", "Bearer"),)
    refused = refusal(MethodNotAllowed("no"), "/x", ("GET", "HEAD"))
    assert refused.headers == (("Allow", "GET, HEAD"),)


def test_a_code_that_has_no_words_is_a_problem_as_well() -> None:
    assert problem(PmanError("odd", hint=599), "/x").title == "Unknown"
