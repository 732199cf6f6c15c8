# The image of the service. Dependencies come from requirements.lock, their hashes checked.

FROM python:3.11-slim AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/ctms
# Before the code: this layer is built again only when the lock changes.
COPY requirements.lock ./
RUN /opt/ctms/bin/pip install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE wsgi.py ./
COPY ctms ctms
COPY ctms_plugins ctms_plugins
COPY migrations migrations
RUN /opt/ctms/bin/pip install --no-deps .

FROM python:3.11-slim
# /data is for the embedded database, which is used when CTMS_DB_URL is unset.
RUN useradd --system --create-home --home-dir /app --shell /usr/sbin/nologin ctms \
    && install --directory --owner ctms --mode 700 /data
COPY --from=build /opt/ctms /opt/ctms
ENV PATH=/opt/ctms/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FLASK_APP=wsgi \
    HOST=0.0.0.0 \
    PORT=8000 \
    CTMS_DATA_DIR=/data
WORKDIR /app
# What /__version__ answers (Dockerflow).
ARG VERSION="" COMMIT="" SOURCE="" BUILD=""
RUN printf '{"version": "%s", "commit": "%s", "source": "%s", "build": "%s"}\n' \
    "${VERSION:-$(python -c 'from importlib import metadata; print(metadata.version("ctms"))')}" "$COMMIT" "$SOURCE" "$BUILD" > version.json
USER ctms
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/__lbheartbeat__')"]
# With CTMS_DB_URL set, run `flask db upgrade` in this image first: docs/how-to/deploy.md.
CMD ["flask", "ctms", "serve"]
