#!/bin/sh
# Builds the image without Docker, over a Debian that debootstrap makes, and tells where it lies unpacked, for
# TOKENSWARM_IMAGE_ROOT=… make test ARGS="-k test_stack". Needs root, buildah and debootstrap.
set -eu
cd "$(dirname "$0")/.."
export STORAGE_DRIVER=vfs
base=docker.io/library/debian:trixie-slim

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    debootstrap --variant=minbase --include=ca-certificates trixie "$folder/root" >&2
    tar -C "$folder/root" -cf "$folder/root.tar" .
    container=$(buildah from scratch)
    buildah add "$container" "$folder/root.tar" / >&2
    buildah commit "$container" "$base" >&2
    buildah rm "$container" >&2
fi
buildah bud --isolation chroot --pull-never --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --file deploy/Dockerfile --tag tokenswarm . >&2
buildah mount "$(buildah from --pull-never tokenswarm)"
