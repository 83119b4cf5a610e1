# The image of rotatord: one static program, certificates, and nothing else.
#
#   docker build --build-arg VERSION=v1.2.3 --build-arg REVISION=$(git rev-parse HEAD) -t rotatord .
#
# The same commit and VERSION give the same program, byte for byte.
#
# How to run it: docs/containers.md.
ARG GO_VERSION=1.26.8

FROM --platform=$BUILDPLATFORM docker.io/library/golang:${GO_VERSION}-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOTOOLCHAIN=local \
    go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$VERSION" -o /out/usr/bin/rotatord ./cmd/rotatord
# Places for mounts, and a name for the user. Anybody else can run it as well: a user without a name
# has the group 0.
RUN mkdir -p /out/etc/ssl/certs /out/etc/rotatord /out/var/lib/rotatord /out/usr/share/doc/rotatord && \
    cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ && \
    cp LICENSE /out/usr/share/doc/rotatord/copyright && \
    echo 'rotatord:x:65532:65532::/var/lib/rotatord:/sbin/nologin' >/out/etc/passwd && \
    echo 'rotatord:x:65532:' >/out/etc/group && \
    chmod 0770 /out/var/lib/rotatord && chown 65532:0 /out/var/lib/rotatord

FROM scratch
ARG VERSION= REVISION=
LABEL org.opencontainers.image.title="rotatord" \
      org.opencontainers.image.description="Keeps short-lived SiteGPT API tokens fresh" \
      org.opencontainers.image.source="https://github.com/rotatord/rotatord" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out /
# The time zones are in the program.
ENV ROTATORD_CONFIG=/etc/rotatord/rotation.yaml \
    ROTATORD_STATE_DIR=/var/lib/rotatord \
    ROTATORD_LOG_FORMAT=json
USER 65532:65532
VOLUME /var/lib/rotatord
# A stop finishes the token that was just made: give it 60 seconds.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m --retries=3 CMD ["/usr/bin/rotatord", "health"]
ENTRYPOINT ["/usr/bin/rotatord"]
CMD ["run"]
