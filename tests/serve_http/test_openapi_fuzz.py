"""Schemathesis over every operation of the OpenAPI document, against a running server, with and without keys."""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS
from served import KEY, key_config, serving

from serve.http import create
from serve.settings import HttpConfig

pytestmark = pytest.mark.component

KEYS = [key_config(requests_per_minute=1_000_000)]
PLAIN = schemathesis.openapi.from_dict(create(lambda: None, HttpConfig()).openapi())
KEYED = schemathesis.openapi.from_dict(create(lambda: None, HttpConfig(keys=KEYS)).openapi())
# A body may fit its schema and still be refused: a name that is no value, more units than the server takes.
LEFT_OUT = CHECKS.get_by_names(["positive_data_acceptance"])
BOUNDED = settings(
    max_examples=int(os.environ.get("SCHEMATHESIS_EXAMPLES", "12")), deadline=None, suppress_health_check=list(HealthCheck)
)


@KEYED.auth()
class RightKey:
    def get(self, case, context):
        return KEY

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


@pytest.fixture(scope="module")
def plain():
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def keyed():
    with serving(keys=KEYS) as served:
        yield served


@PLAIN.parametrize()
@BOUNDED
def test_every_operation_keeps_its_word(case, plain):
    case.call_and_validate(base_url=plain.url, excluded_checks=LEFT_OUT)


@KEYED.parametrize()
@BOUNDED
def test_every_operation_keeps_its_word_with_keys(case, keyed):
    case.call_and_validate(base_url=keyed.url, excluded_checks=LEFT_OUT)
