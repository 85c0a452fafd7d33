# The image of pman: the daemon with the SDKs of all backends, for docker run, swarm and OpenShift.
#
#   docker build -t fnndsc/pman:latest .
#
# BASE may be any Debian image that has bash, setpriv (util-linux) and Python 3.11 or later with venv.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/pman \
    && /opt/pman/bin/pip install -q 'setuptools>=77' wheel
# Of pman only the version is there yet: this layer, the large one, lasts as long as setup.py does.
COPY setup.py pyproject.toml LICENSE ./
COPY pman/__init__.py pman/
RUN touch README.rst \
    && /opt/pman/bin/pip install -q --no-build-isolation '.[all]'
COPY README.rst ./
COPY pman pman
# Nothing is installed later, so what installs stays behind.
RUN /opt/pman/bin/pip install -q --no-build-isolation --no-deps --force-reinstall . \
    && /opt/pman/bin/pip uninstall -q -y wheel setuptools pip

FROM ${BASE}
RUN if ! command -v tini >/dev/null; then \
        apt-get update \
        && apt-get install -y --no-install-recommends tini \
        && apt-get clean \
        && rm -rf /var/lib/apt/lists/*; \
    fi
# Group 0 and "others" may write to the folder (not to what is inside): the uid is anybody's choice.
RUN groupadd --gid 10001 pman \
    && useradd --uid 10001 --gid pman --home-dir /var/lib/pman --no-create-home \
        --shell /usr/sbin/nologin --no-log-init pman \
    && install -d -m 1777 /var/lib/pman \
    && ln -s /opt/pman/bin/pman /opt/pman/bin/pman_do /usr/local/bin/
COPY docker-entrypoint.sh /usr/local/bin/
COPY --from=build /opt/pman /opt/pman

# The DBpath has to belong to the user of pman alone, hence a folder inside the volume.
ENV PMAN_IP=0.0.0.0 PMAN_DBPATH=/var/lib/pman/db
WORKDIR /var/lib/pman
VOLUME /var/lib/pman
EXPOSE 5010
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 \
    CMD ["/opt/pman/bin/python", "-I", "-m", "pman.health"]
# It starts as root to learn the group of docker.sock, and gives root up; see docker-entrypoint.sh.
ENTRYPOINT ["tini", "-s", "--", "docker-entrypoint.sh"]
CMD ["--rawmode", "1", "--http", "--port", "5010", "--listeners", "12"]

ARG VERSION=3.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pman" \
      org.opencontainers.image.description="One HTTP API for jobs on the host, on Docker Swarm and on OpenShift" \
      org.opencontainers.image.source="https://github.com/FNNDSC/pman" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
