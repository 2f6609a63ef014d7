"""A whole build on S3 whose requests are lost, cut, delayed, repeated or refused at random has the bytes of a quiet one."""

import os
import random

import attempts
import fsspec
import pytest
from attempts import DONE, forked, published
from s3_proxy import Proxy

pytest.importorskip("s3fs")
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
SHARE = 0.05
FAULTS = ("lost", "cut", "slow", "twice", "500 InternalError", "503 SlowDown")


def test_random_faults_of_s3_change_no_byte(bucket, tmp_path):
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    assert forked(attempts.whole_on, str(quiet), quiet, {}) == DONE
    rng, faults = random.Random(7), []

    def at_random(method: str, path: str, body: bytes) -> str:
        if rng.random() > SHARE:
            return ""
        faults.append(FAULTS[len(faults) % len(FAULTS)])
        return faults[-1]

    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with Proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        proxy.fault = at_random
        root = f"{bucket}/{tmp_path.name}"
        assert forked(attempts.whole_on, root, tmp_path, environment | {"AWS_ENDPOINT_URL": proxy.url}) == DONE
    assert set(faults) == set(FAULTS)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert published(root) == published(quiet)
    print(f"\n{len(proxy.calls)} requests to S3, {len(faults)} of them with a fault; bytes as on a quiet disk")
