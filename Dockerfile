# syntax=docker/dockerfile:1

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w" -o /headpond ./cmd/headpond

# No shell, no package manager, root certificates, a user that is not root.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /headpond /usr/local/bin/headpond
USER nonroot:nonroot
ENV HEADPOND_LISTEN=0.0.0.0:8080
EXPOSE 8080
# Exits non-zero when the API does not answer. There is no curl in this image.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/headpond", "status"]
ENTRYPOINT ["/usr/local/bin/headpond"]
CMD ["serve"]
