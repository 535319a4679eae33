"""MLflow's model registry behind its REST API, as far as moving an alias needs it.

Credentials, and the certificate to trust, come from the address or from MLflow's own environment variables. Redirections are not
followed: urllib would send the credentials on to wherever they lead, and turn a request that moves an alias into one that reads
it, which succeeds without moving anything.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PermissionDeniedError, ServiceError, printable
from pipeline.safety.deadline import within
from pipeline.safety.files import json_object
from pipeline.tracking.addresses import credentials_of
from pipeline.tracking.moves import DIGEST_TAG, MOVES_TAG, Move, RegisteredModel, Version, parse_moves, version_tags
from pipeline.tracking.spool import without_credentials

TIMEOUT_S = 5.0
"""How long a server may be silent."""
WHOLE_S = 15.0
"""How long one answer may take, since a server may send a byte now and then for ever."""
LARGEST_BYTES = 64 << 20
PAGE = 200
AGAIN_S = (0.1, 0.5)
"""Pauses before a request is sent again."""


@dataclass(frozen=True)
class ServerRegistry:
    uri: str
    _names: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", dict(os.environ) | credentials_of(self.uri))

    def model(self, name: str) -> RegisteredModel | None:
        try:
            return self._model(name)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            where = without_credentials(self.uri)
            raise ServiceError(f"MLflow at {where} does not answer like MLflow ({printable(repr(error), 100)})") from error

    def _model(self, name: str) -> RegisteredModel | None:
        found = self._ask("registered-models/get", {"name": name}, missing_is_none=True)
        if found is None:
            return None
        body, versions, page = found["registered_model"], [], ""
        while True:
            query = {"filter": f"name = '{name}'", "max_results": str(PAGE), "order_by": "version_number DESC"}
            answer = self._ask("model-versions/search", query | ({"page_token": page} if page else {})) or {}
            versions += answer.get("model_versions", [])
            page = answer.get("next_page_token", "")
            if not page:
                break
        tags = {tag["key"]: tag.get("value") for tag in body.get("tags", [])}
        return RegisteredModel(
            aliases={found["alias"]: str(found["version"]) for found in body.get("aliases", [])},
            versions=tuple(Version(str(version["version"]), _digest(version)) for version in versions),
            moves=parse_moves(tags.get(MOVES_TAG)),
        )

    def move(self, name: str, move: Move, moves: str) -> None:
        self._send("registered-models/alias", {"name": name, "alias": move.alias, "version": move.version})
        self._send("registered-models/set-tag", {"name": name, "key": MOVES_TAG, "value": moves})
        for key, value in version_tags(move).items():
            self._send("model-versions/set-tag", {"name": name, "version": move.version, "key": key, "value": value})

    def _ask(self, path: str, query: dict[str, str], missing_is_none: bool = False) -> dict[str, Any] | None:
        try:
            return self._request(f"{path}?{urllib.parse.urlencode(query)}", None)
        except urllib.error.HTTPError as error:
            if missing_is_none and error.code == 404 and _code(error) == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise self._explain(error) from error

    def _send(self, path: str, body: dict[str, Any]) -> None:
        """Sends a request, and again if it may have met another client's in the server's database (`may_be_a_collision`)."""
        for pause_s in (*AGAIN_S, None):
            try:
                self._request(path, json.dumps(body).encode())
                return
            except urllib.error.HTTPError as error:
                if pause_s is None or _code(error) != "BAD_REQUEST":
                    raise self._explain(error) from error
            time.sleep(pause_s)

    def _request(self, path: str, data: bytes | None) -> dict[str, Any]:
        address = without_credentials(self.uri)
        request = urllib.request.Request(f"{address}/api/2.0/mlflow/{path}", data, self._headers())  # noqa: S310 - http(s), see config

        def ask() -> dict[str, Any]:
            opener = urllib.request.build_opener(_Unredirected, urllib.request.HTTPSHandler(context=self._tls()))
            try:
                with opener.open(request, timeout=TIMEOUT_S) as answer:
                    return json_object(answer.read(LARGEST_BYTES) or b"{}")
            except urllib.error.HTTPError as error:
                _code(error)  # reads the rest of the answer, and closes the connection
                raise

        try:
            return within(WHOLE_S, ask)
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ServiceError(f"MLflow at {address} does not answer ({without_credentials(str(error))})") from error

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        user, password = self._names.get("MLFLOW_TRACKING_USERNAME"), self._names.get("MLFLOW_TRACKING_PASSWORD")
        if user and password is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        elif token := self._names.get("MLFLOW_TRACKING_TOKEN"):
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _tls(self) -> ssl.SSLContext | None:
        if not self.uri.startswith("https:"):
            return None
        return ssl.create_default_context(cafile=self._names.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))

    def _explain(self, error: urllib.error.HTTPError) -> Exception:
        address = without_credentials(self.uri)
        if error.code in (401, 403):
            return PermissionDeniedError(
                f"MLflow at {address} refuses these credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
                "or MLFLOW_TRACKING_TOKEN"
            )
        if 300 <= error.code < 400:
            place = printable(without_credentials(error.headers.get("Location", "nowhere")), 200)
            return ServiceError(
                f"MLflow at {address} redirects to {place}, which is not followed; set tracking.uri to that server"
            )
        return ServiceError(f"MLflow at {address} answers {error.code} ({_code(error) or error.reason})")


class _Unredirected(urllib.request.HTTPRedirectHandler):
    """Leaves a redirection to be reported as the error that it then is."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _digest(version: dict[str, Any]) -> str | None:
    return next((str(tag.get("value")) for tag in version.get("tags", []) if tag["key"] == DIGEST_TAG), None)


def _code(error: urllib.error.HTTPError) -> str | None:
    """MLflow's error code in a response; its body can be read only once, so it is kept with the error, and its connection is
    closed."""
    if not hasattr(error, "w2v_body"):
        try:
            with error:
                error.w2v_body = json_object(error.read(LARGEST_BYTES))  # type: ignore[attr-defined]
        except (OSError, ValueError, http.client.HTTPException):
            error.w2v_body = {}  # type: ignore[attr-defined]
    code = error.w2v_body.get("error_code")
    return str(code) if code else None
