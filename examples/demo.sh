#!/bin/sh
# The main job on real sound: make a library, scan it, ask what sounds like a clip. Run by `make demo`; may be run again.
set -eu

BIN=${BIN:-.venv/bin}
DEMO=${DEMO:-demo}

run() {
    printf '\n$ %s\n' "$*"
    "$BIN/$@"
}

mkdir -p "$DEMO"
run python examples/demo_library.py "$DEMO/library" --query "$DEMO/query.wav"
run embedindex scan "$DEMO/library" --index "$DEMO/index" --model spectral
run embedindex similar "$DEMO/query.wav" --index "$DEMO/index"
"$BIN/embedindex" similar "$DEMO/query.wav" --index "$DEMO/index" --m3u > "$DEMO/similar.m3u"

cat <<END

Done. What sounds like $DEMO/query.wav is in the table above, and as a playlist in $DEMO/similar.m3u.
  the library   $DEMO/library
  the index     $DEMO/index  (SQLite: $DEMO/index/embedindex.db)
Now with your own sounds:
  $BIN/embedindex scan /path/to/your/music
  $BIN/embedindex similar some-clip.wav
END
