"""The limits that the service tells are those that it enforces: exactly so much is answered, one more is refused by name."""

import json
from typing import Any

import pytest
from served import JSON, Served, refused, serving

from valueflow.api import Limits

ROUTES = ["score", "score/stream", "profile", "extract", "compare"]
ONE = ["svt:power"]
VALUES = ["svt:power", "svt:face", "svt:benevolence", "svt:achievement"]


@pytest.fixture(scope="module")
def small():
    with serving(max_texts=5, max_streamed=8, max_chars=30, max_body_bytes=20_000) as served:
        yield served


@pytest.fixture(scope="module")
def few_scores():
    with serving(max_units=6) as served:
        yield served


@pytest.fixture(scope="module")
def shipped():
    with serving() as served:
        yield served


def limits(server: Served) -> Limits:
    return Limits.model_validate(server.http.get("/v1/vidb").json()["limits"], strict=True)


def body(route: str, texts: list[str], values: list[str] = ONE, **settings: Any) -> dict:
    if route == "compare":
        return {"first": texts[0], "second": texts[-1], "values": values, **settings}
    return {"texts": texts} | ({} if route == "extract" else {"values": values, **settings})


def answered(server: Served, route: str, sent: dict) -> None:
    answer = server.post(f"/v1/{route}", sent)
    assert answer.status_code == 200, answer.text


def over(server: Served, route: str, sent: dict, name: str) -> str:
    answer = server.post(f"/v1/{route}", sent)
    detail = refused(answer, 422, answer.json()["type"].rpartition(":")[2]).detail
    assert name in detail
    return detail


@pytest.mark.parametrize("route", ["score", "score/stream", "profile", "extract"])
@pytest.mark.parametrize("settings", ["small", "shipped"])
def test_texts(request, settings, route):
    server = request.getfixturevalue(settings)
    name = "max_streamed" if route == "score/stream" else "max_texts"
    most = getattr(limits(server), name)
    answered(server, route, body(route, ["a"] * most))
    over(server, route, body(route, ["a"] * (most + 1)), name)


@pytest.mark.parametrize("route", ROUTES)
def test_characters(small, route):
    most = limits(small).max_chars
    answered(small, route, body(route, ["a", "é" * most]))
    over(small, route, body(route, ["a", "é" * (most + 1)]), "max_chars")


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "extract"])
def test_names_of_values_and_windows_of_a_text_and_value(small, route):
    most = limits(small)
    answered(small, route, body(route, ["a"], ONE * most.max_values))
    over(small, route, body(route, ["a"], ONE * (most.max_values + 1)), "max_values")
    answered(small, route, body(route, ["a"], m=most.max_m))
    over(small, route, body(route, ["a"], m=most.max_m + 1), "m: ")


@pytest.mark.parametrize("route", ["score", "score/stream", "profile"])
def test_scores(few_scores, route):
    assert limits(few_scores).max_units == 6
    answered(few_scores, route, body(route, ["a"] * 3, VALUES[:2]))
    detail = over(few_scores, route, body(route, ["a"] * 7, ONE, m=5), "max_units, 6")
    assert all(number in detail for number in ("7 texts", "1 value ", "m = 5", "35 windows"))


def test_scores_of_a_comparison_and_texts_of_an_extraction(few_scores):
    answered(few_scores, "compare", body("compare", ["a", "b"], VALUES[:3]))
    over(few_scores, "compare", body("compare", ["a", "b"], VALUES), "max_units, 6")
    answered(few_scores, "extract", body("extract", ["a"] * 6))
    assert "windows" not in over(few_scores, "extract", body("extract", ["a"] * 7), "max_units, 6")


@pytest.fixture
def first_request():
    """A server whose judge did not build the version: the first request on a value takes 12 windows more, at m = 3 4 scores."""
    with serving(max_units=10) as served:
        served.service.sharpness, served.service.relevance = {"svt:power": 12}, True
        yield served


@pytest.mark.parametrize("route", ["score", "score/stream", "profile"])
def test_what_the_first_request_on_a_value_takes_beyond_its_windows_is_told_and_counted(first_request, route):
    told = first_request.http.get("/v1/vidb").json()
    assert (told["sharpness"], told["relevance"]) == ({"svt:power": 12}, True)
    answered(first_request, route, body(route, ["a"] * 6, m=3))
    detail = over(first_request, route, body(route, ["a"] * 7, m=3), "max_units, 10")
    assert all(number in detail for number in ("7 scores", "21 windows", "7 questions about relevance", "12 windows", "1/3"))
    answered(first_request, route, body(route, ["a"] * 8, m=6))
    answered(first_request, route, body(route, ["a"] * 10, ["svt:face"], m=3))
    first_request.service.sharpness = {}
    answered(first_request, route, body(route, ["a"] * 10, m=3))


def test_mode_fast_takes_no_windows(first_request):
    answered(first_request, "score", body("score", ["a"] * 10, mode="fast"))
    assert "windows" not in over(first_request, "score", body("score", ["a"] * 11, mode="fast"), "max_units, 10")


@pytest.mark.parametrize("route", ROUTES)
def test_bytes_of_a_body(small, route):
    content = json.dumps(body(route, ["a"]))
    most = limits(small).max_body_bytes
    assert small.http.post(f"/v1/{route}", content=content.ljust(most), headers=JSON).status_code == 200
    answer = small.http.post(f"/v1/{route}", content=content.ljust(most + 1), headers=JSON)
    assert f"max_body_bytes, {most}" in refused(answer, 413, "body-size").detail
