"""The example that the first start prints: requests for a shell."""

from __future__ import annotations

import shlex
import shutil
import sys

# Works with any version of curl; `--json` requires 7.82, of 2022.
_CURL = """\
  TOKEN=$(curl -s {url}/token -d client_id={client_id} -d client_secret={secret} | cut -d'"' -f4)
  curl -s {url}/ctms -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
    -d '{{"email": {{"primary_email": "jane@example.com"}}}}'
  curl -s "{url}/ctms?primary_email=jane@example.com" -H "Authorization: Bearer $TOKEN"
"""

# At the start of the line: neither Python code nor the end marker may be indented.
_PYTHON = """\
{python} - <<'END'
import json, urllib.request

def call(path, body=None, **headers):
    request = urllib.request.Request("{url}" + path, body, headers)
    return urllib.request.urlopen(request).read().decode()

token = json.loads(call("/token", b"client_id={client_id}&client_secret={secret}"))["access_token"]
headers = {{"Authorization": "Bearer " + token, "Content-Type": "application/json"}}
print(call("/ctms", b'{{"email": {{"primary_email": "jane@example.com"}}}}', **headers))
print(call("/ctms?primary_email=jane@example.com", **headers))
END
"""


def first_requests(url: str, client_id: str, secret: str) -> str:
    """Return shell commands that create and find a contact: with curl, or with Python if curl is missing."""
    words = {"url": url, "client_id": client_id, "secret": secret}
    if shutil.which("curl"):
        return _CURL.format(**words)
    return _PYTHON.format(python=shlex.quote(sys.executable), **words)
