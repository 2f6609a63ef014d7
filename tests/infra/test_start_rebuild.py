"""The script of the plain CronJob, against an API server that answers as Kubernetes does."""

import importlib.util
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from manifests import KUBERAY

pytestmark = pytest.mark.component

SPEC = importlib.util.spec_from_file_location("start_rebuild", KUBERAY / "base" / "cronjob" / "start_rebuild.py")
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)
TEMPLATE = {"entrypoint": "python -m jobs.build_vidb", "backoffLimit": 3}


class Objects(BaseHTTPRequestHandler):
    """RayJobs and RayCronJobs of one namespace; a deleted object is gone at the second look."""

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: dict) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        objects, name = self.server.objects, self.path.removeprefix("/")
        body = objects.get(name)
        if body and body.pop("deleted", False):
            del objects[name]
        self.answer(200 if body else 404, body or {"kind": "Status", "code": 404})

    def do_DELETE(self):
        self.server.objects[self.path.removeprefix("/").partition("?")[0]]["deleted"] = True
        self.answer(200, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = f"rayjobs/{body['metadata']['name']}"
        exists = key in self.server.objects
        if not exists:
            self.server.objects[key] = body
        self.answer(409 if exists else 201, body)


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setattr(script.time, "sleep", lambda seconds: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Objects)
    server.objects = {"raycronjobs/weekly": {"spec": {"schedule": "0 2 * * 0", "jobTemplate": TEMPLATE}}}
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}/") as client:
        client.objects = server.objects
        yield client
    server.shutdown()
    server.server_close()


def test_the_first_run_makes_the_job_of_the_template(api):
    assert script.start(api, "weekly", "rebuild") == "rebuild started"
    made = api.objects["rayjobs/rebuild"]
    assert (made["kind"], made["spec"]) == ("RayJob", TEMPLATE)


@pytest.mark.parametrize("status", ["", "Initializing", "Running", "Retrying"])
def test_a_rebuild_that_runs_is_left_alone(api, status):
    api.objects["rayjobs/rebuild"] = {"spec": {}, "status": {"jobDeploymentStatus": status}}
    assert "nothing started" in script.start(api, "weekly", "rebuild")
    assert api.objects["rayjobs/rebuild"]["spec"] == {}


@pytest.mark.parametrize("status", script.FINISHED)
def test_one_that_has_ended_is_replaced(api, status):
    api.objects["rayjobs/rebuild"] = {"spec": {}, "status": {"jobDeploymentStatus": status}}
    assert script.start(api, "weekly", "rebuild") == "rebuild started"
    assert api.objects["rayjobs/rebuild"]["spec"] == TEMPLATE


def test_a_missing_template_is_an_error(api):
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        script.start(api, "daily", "rebuild")
    assert "rayjobs/rebuild" not in api.objects
