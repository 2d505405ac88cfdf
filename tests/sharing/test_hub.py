"""Pushing to the hub, with a server of our own in its place."""

import base64
import http.server
import json
import threading

import huggingface_hub
import pytest

from intuitor_lib.recipe.constants import InputError
from intuitor_lib.sharing.hub import push


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's interface that an upload of small files uses."""

    def do_GET(self):
        self.server.asked.append((self.path, b""))
        answer = {"id": "owner/name", "private": self.server.private, "tags": [], "siblings": []}
        if "/tree/" in self.path:
            files = sorted(self.server.held)
            answer = [{"type": "file", "path": name, "size": 2, "oid": "0"} for name in files]
        self.reply(answer)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, body))
        answer = {"url": f"{self.server.address}/owner/name", "commitOid": "0"}
        answer["commitUrl"] = "https://huggingface.co/owner/name/commit/0"
        if self.path.endswith("/preupload/main"):
            files = [
                {**f, "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            answer = {"files": files}
        self.reply(answer)

    def reply(self, answer):
        refused = self.path in self.server.refused
        self.send_response(403 if refused else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"error": "no"} if refused else answer).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked, server.refused = [], []
        server.private, server.held = True, {".gitattributes"}
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        api = huggingface_hub.HfApi
        monkeypatch.setattr(
            huggingface_hub, "HfApi", lambda: api(server.address, token="hf_secret")
        )
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Card\n")
    (tmp_path / "adapter_config.json").write_text("{}")
    return tmp_path


def committed(hub):
    """The files that arrived, and the names of those that were deleted."""
    lines = dict(hub.asked)["/api/models/owner/name/commit/main"].splitlines()
    rows = [*map(json.loads, lines)]
    files = [row["value"] for row in rows if row["key"] == "file"]
    sent = {file["path"]: base64.b64decode(file["content"]) for file in files}
    return sent, {row["value"]["path"] for row in rows if row["key"] == "deletedFile"}


@pytest.mark.parametrize("private", [True, False])
def test_every_file_arrives_in_a_new_repository(hub, folder, private):
    hub.private = private
    assert push(folder, "owner/name", private=private) == f"{hub.address}/owner/name"
    made = json.loads(dict(hub.asked)["/api/repos/create"])
    assert (made["organization"], made["name"]) == ("owner", "name")
    assert made["visibility"] == ("private" if private else "public")
    assert committed(hub) == ({path.name: path.read_bytes() for path in folder.iterdir()}, set())


def test_files_of_an_earlier_export_are_replaced(hub, folder):
    """transformers would load a repository's adapter in place of its merged weights."""
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").write_text("{}")
    earlier = {"adapter_config.json", "adapter_model.safetensors", "model-00001-of-2.safetensors"}
    hub.held |= earlier | {"config.json", "notes.txt"}
    push(folder, "owner/name")
    sent, deleted = committed(hub)
    assert set(sent) == {"README.md", "config.json"}
    assert deleted == earlier


def test_nothing_private_goes_into_a_public_repository(hub, folder):
    hub.private = False
    with pytest.raises(InputError, match=r"owner/name' is a public repository.*--public"):
        push(folder, "owner/name")
    assert not [path for path, _ in hub.asked if path.endswith("/commit/main")]


@pytest.mark.parametrize("private", [True, False])
def test_a_refusal_is_told_with_the_remedy(hub, folder, private):
    hub.refused += ["/api/repos/create", "/api/models/owner/name"]
    again = rf"push\('{folder}', 'owner/name', private={private}\)"
    with pytest.raises(OSError, match=rf"(?s)could not be pushed to owner/name: .*403.*{again}"):
        push(folder, "owner/name", private=private)
    assert not [path for path, _ in hub.asked if path.endswith("/commit/main")]


@pytest.mark.parametrize("name", ["name", "a/b/c", "owner/na me", "../x"])
def test_other_names_are_refused_before_anything_is_sent(hub, folder, name):
    with pytest.raises(InputError, match="push="):
        push(folder, name)
    assert not hub.asked
