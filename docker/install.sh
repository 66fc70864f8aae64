#!/bin/sh
# Usage: install.sh EXTRAS TARGET
# Makes a virtual environment of what some extras of the project need, without the project itself. Versions are those of
# requirements.lock, and what was fetched is held to its hashes. Given the lock as it is, pip would demand a hash of the
# project too. All files get the time SOURCE_DATE_EPOCH.
set -eu
extras="$1" target="$2"

sed -e '/--hash=/d' -e 's/ *\\$//' requirements.lock > constraints.txt
export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

pip wheel --only-binary=:all: --wheel-dir=dependencies ".[$extras]"
rm dependencies/mind_recall-*.whl
for wheel in dependencies/*.whl; do
    sum="$(sha256sum "$wheel")"
    grep -q -e "--hash=sha256:${sum%% *}" requirements.lock || { echo "$wheel: not in requirements.lock"; exit 1; }
done
python -m venv --without-pip "$target"
pip --python="$target/bin/python" install --no-index --no-deps dependencies/*.whl
find "$target" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
