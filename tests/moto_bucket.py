"""A bucket of moto's server on localhost."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of moto's server on localhost, which the environment names as S3."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        for _ in range(100):
            try:
                urllib.request.urlopen(environment["AWS_ENDPOINT_URL"], timeout=1)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        import fsspec

        # Instances that tests before this one have cached, one for each thread, know another server or none.
        s3 = fsspec.get_filesystem_class("s3")
        s3.clear_instance_cache()
        s3().mkdir("valueflow-test")
        yield "s3://valueflow-test"
        s3.clear_instance_cache()
    server.terminate()
    server.wait()
