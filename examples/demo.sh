#!/bin/sh
# The main jobs on real sound: make a library, scan it, ask what sounds like a clip, and remix a piece out of the other
# sounds. Run by `make demo`; may be run again.
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

# Forty seconds of a piece, made again out of everything but the pieces, in two layers. The picture needs matplotlib.
run python examples/excerpt.py "$DEMO/library/pieces/Slow Weather.flac" "$DEMO/seed.wav" --start 60 --length 40
picture=--picture
if ! "$BIN/python" -c 'import matplotlib' 2> /dev/null; then
    picture=
    printf '\n(no picture of the remix: it needs matplotlib; %s/python -m pip install matplotlib)\n' "$BIN"
fi
run embedindex remix "$DEMO/seed.wav" -o "$DEMO/remix.wav" --index "$DEMO/index" --exclude 'pieces/*' \
    --preset ambient --layers 2 $picture

cat <<END

Done. What sounds like $DEMO/query.wav is in the table above, and as a playlist in $DEMO/similar.m3u.
  the library   $DEMO/library
  the remix     $DEMO/remix.wav, made out of $DEMO/seed.wav
                $DEMO/remix.recipe.json, remix.credits.csv${picture:+, remix.png}: what sounds when, and from where
  the index     $DEMO/index  (SQLite: $DEMO/index/embedindex.db)
Now with your own sounds:
  $BIN/embedindex scan /path/to/your/music
  $BIN/embedindex similar some-clip.wav
  $BIN/embedindex remix some-clip.wav -o new.wav
END
