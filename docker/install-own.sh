#!/bin/sh
# Usage: install-own.sh TARGET
# Installs the wheel of the project, wheels/*.whl, into the environment that install.sh made. What is newer than
# SOURCE_DATE_EPOCH gets that time, so that two builds of one commit have the same files.
set -eu
target="$1"

pip --python="$target/bin/python" install --no-cache-dir --no-index --no-deps wheels/*.whl
find "$target" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
