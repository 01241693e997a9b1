#!/bin/sh
# Builds the plugin as one file, which is what spoke.yaml's sha256 is of: build.sh [OUTPUT] [PROTO FOLDER]
# Needs python3, and buf: `go tool buf` inside this repository, another one by BUF=buf.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
proto=${2:-$here/../../proto}
out=${1:-$here/template-python}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$here/src/." "$work/"
rm -rf "$work/__pycache__" "$work/wheelwright_plugin/__pycache__"
(cd "$proto/.." && ${BUF:-go tool buf} build "$proto" --path "$proto/wheelwright/plugin/v1" --as-file-descriptor-set --exclude-source-info \
	-o "$work/wheelwright_plugin/contract.binpb")
${PYTHON:-python3} -m zipapp "$work" --python "${PYTHON:-/usr/bin/python3}" --output "$out"
chmod 755 "$out"
echo "$out"
