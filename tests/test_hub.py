"""A model goes to a hub and comes back, certificate and card with it; the hub is a stand-in here."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "c" * 40
NAME = "somebody/small"


class Hub(BaseHTTPRequestHandler):
    """The part of a model hub's interface that pushing and loading need; files live in memory."""

    files: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/repos/create"):
            self._json({"url": f"http://{self.headers['Host']}/{NAME}", "name": NAME, "id": NAME})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json(
                {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
            )
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            page = f"http://{self.headers['Host']}/{NAME}/commit/{COMMIT}"
            self._json({"commitUrl": page, "commitOid": COMMIT, "success": True})
        elif "/validate-yaml" in self.path:
            self._json({"errors": [], "warnings": []})
        else:
            self._json({}, 404)

    def do_GET(self, *, head: bool = False) -> None:
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{NAME}"):
            siblings = [{"rfilename": name} for name in self.files]
            if "/tree/" in path:
                listed = [
                    {"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in self.files.items()
                ]
                self._json(listed)
            else:
                self._json({"id": NAME, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
            return
        content = self.files.get(path.rsplit("/", 1)[-1])
        if f"/{NAME}/resolve/" not in path or content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not head:
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET(head=True)

    def log_message(self, *arguments: Any) -> None:
        pass

    def _json(self, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    Hub.files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


SCRIPT = """
import sys, json, lessen
model = lessen.load(sys.argv[1])
print(model.push_to_hub(sys.argv[2], token="none"))
back = lessen.load(sys.argv[2])
print(json.dumps([point.promise.kind for point in back.points.values() if point.promise]))
print(json.dumps([p.as_dict() for m in (model, back) for p in m.predict(["a gripping film"])]))
"""


def test_a_model_goes_to_a_hub_and_comes_back(hub: ThreadingHTTPServer, small: Path, tmp_path: Path) -> None:
    port = hub.server_address[1]
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(small), NAME],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page, promises, answers = done.stdout.strip().splitlines()[-3:]
    assert page.endswith(COMMIT)
    assert "certified" in json.loads(promises)
    first, second = json.loads(answers)
    assert first == second
    assert {"config.json", "model.safetensors", "certificate.json", "README.md", "tokenizer.json"} <= set(
        Hub.files
    )
    private = ("plan.json", "training.json", "calibration.safetensors")
    assert all((small / name).exists() for name in private)
    assert not set(private) & set(Hub.files)
    card = Hub.files["README.md"].decode()
    assert "library_name: lessen" in card
    assert "keeps this" in card, "the certificate in words"
    assert str(small.parent) not in card, "no folder of this machine"
