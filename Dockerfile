# syntax=docker/dockerfile:1
# The control plane and the echo app of the mesh in boxes, from source: `docker compose up --build`.

FROM rust:1.89-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin chancery --example echo \
    && mkdir -p /out /empty \
    && cp target/release/chancery target/release/examples/echo /out/

# Apps: they say who they are and what they received.
FROM gcr.io/distroless/cc-debian12:nonroot AS echo
LABEL org.opencontainers.image.title="chancery-echo" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/echo /usr/local/bin/echo
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/echo"]

FROM gcr.io/distroless/cc-debian12:nonroot AS chancery
LABEL org.opencontainers.image.title="chancery" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/chancery /usr/local/bin/chancery
# Volumes take over who owns these.
COPY --from=build --chown=65532:65532 --chmod=0700 /empty /keys
COPY --from=build --chown=65532:65532 --chmod=0700 /empty /state
USER 65532:65532
EXPOSE 18000 18001
ENTRYPOINT ["/usr/local/bin/chancery"]
CMD ["serve", "--help"]
