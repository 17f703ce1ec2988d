# Sourced by the other scripts: where everything that is built or downloaded is cached.
# Nothing of it lies in the checkout, so a fresh clone finds what an earlier one built.
KEDGE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export KEDGE_ROOT
export KEDGE_CACHE=${KEDGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kedge}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$KEDGE_CACHE/target}
mkdir -p "$KEDGE_CACHE"

# once DIR COMMAND…: runs COMMAND with a scratch directory as its last argument and moves that to DIR when it
# succeeds, unless DIR exists. Concurrent callers wait for each other and an interrupted one leaves no DIR.
once() {
  local dir=$1 scratch=$1.partial
  shift
  (
    flock 9
    [ -d "$dir" ] && exit 0
    rm -rf "$scratch"
    mkdir -p "$scratch"
    "$@" "$scratch" >&2
    mv "$scratch" "$dir"
  ) 9>"$dir.lock"
}
