# The image for x86-64 and arm64: docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION=$(git rev-parse HEAD) .
# CI makes the same contents without Docker: test/e2e/src/product.rs.
ARG RUST=1.95
FROM rust:${RUST}-bookworm AS build
ARG TARGETARCH
WORKDIR /src
COPY . .
# Static: the last stage has no libraries. With a target named, these flags are not for build scripts and macros.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN case "$TARGETARCH" in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; *) echo "no build for $TARGETARCH" >&2; exit 1 ;; esac \
    && target="$machine-unknown-linux-gnu" \
    && cargo build --locked --release --package ipamd --target "$target" \
    && cargo build --locked --profile plugin --package eni-cni --target "$target" \
    && mkdir -p /out/bin /out/etc/ssl/certs /out/licenses /out/var /out/run \
    && cp "target/$target/release/ipamd" "target/$target/plugin/eni-cni" /out/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
    && cp LICENSE /out/licenses/ \
    && ln -s ../run /out/var/run

# Nothing but the two programs: no shell, no package manager.
FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="eni-cni" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ /
ENV PATH=/bin
# Root without capabilities but NET_ADMIN: the host's folders that the chart mounts are root's.
# hadolint ignore=DL3002
USER 0:0
ENTRYPOINT ["/bin/ipamd"]
CMD ["serve"]
