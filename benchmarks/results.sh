#!/usr/bin/env bash
# Trainings of every task on real data, one after the other: results.sh DATA OUT [NAME ...]
#
# DATA holds sentiment/, tagging/, ..., as the README names them; each NAME below makes the run OUT/NAME and the log
# OUT/NAME.log. Nothing else should run meanwhile.
set -euo pipefail
data=$(realpath "$1") out=$2
shift 2
benchmarks=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
recipes=$benchmarks/../recipes
mkdir -p "$out"
cd "$out"
throughtime=${THROUGHTIME:-throughtime} python=${PYTHON:-python}

train() { # NAME TASK ARGUMENTS: train the run NAME, unless it is there
  local name=$1 task=$2
  shift 2
  [ -e "$name" ] && return
  echo "--- $name"
  { time $throughtime train "$task" "$@" --out "$name"; } >"$name.log" 2>&1
  grep -E -A2 '^(validation|test):' "$name.log" || true
}

sst=$data/sentiment/sst2
sst2() { train "$1" classifier "$sst/train.tsv" --valid "$sst/dev.tsv" --test "$sst/test.tsv" --input 1 --target 2 \
  --max-epochs 6 "${@:2}"; }
sst2-recurrent() { sst2 "$FUNCNAME"; }
sst2-bag-of-words() { sst2 "$FUNCNAME" --model bag-of-words; }
sst2-fixed-window() { sst2 "$FUNCNAME" --model fixed-window; }

ewt=$data/tagging/ud_ewt/en_ewt-ud
ewt-upos() { train "$FUNCNAME" tagger "$ewt-train.conllu.gz" --valid "$ewt-dev.conllu" --test "$ewt-test.conllu" \
  --config "$recipes/parts-of-speech.toml" --max-minutes 10; }

wnut=$data/tagging/wnut17
wnut17() { # three seeds, for the difference of the heads is no larger than theirs
  for seed in 0 1 2; do
    train "$1-$seed" tagger "$wnut/wnut17train.conll" --valid "$wnut/emerging.dev.conll" \
      --test "$wnut/emerging.test.annotated" --config "$recipes/names.toml" --max-epochs 12 --seed "$seed" "${@:2}"
  done
}
wnut17-crf() { wnut17 "$FUNCNAME"; }
wnut17-softmax() { wnut17 "$FUNCNAME" --head softmax; }

atis=$data/dialogue/atis
atis-slots() { train "$FUNCNAME" tagger "$atis/train/seq.in" "$atis/train/seq.out" --parallel \
  --valid "$atis"/valid/seq.{in,out} --test "$atis"/test/seq.{in,out} --max-epochs 8; }
atis-intent() {
  for part in train valid test; do paste "$atis/$part/seq.in" "$atis/$part/label" >"atis-$part.tsv"; done
  train "$FUNCNAME" classifier atis-train.tsv --valid atis-valid.tsv --test atis-test.tsv --input 1 --target 2 \
    --dropout 0.3 --batch-tokens 300 --max-epochs 20
}

flickr=$data/translation/multi30k
multi30k() { train "$1" seq2seq "$flickr"/train.{en,de}.gz --valid "$flickr"/val.{en,de}.gz \
  --test "$flickr"/test_2016_flickr.{en,de}.gz --config "$recipes/translation.toml" --max-minutes 15 "${@:2}"; }
multi30k-attention() { multi30k "$FUNCNAME"; }
multi30k-bottleneck() { multi30k "$FUNCNAME" --attention none; }
multi30k-transformer() { multi30k "$FUNCNAME" --model transformer; }

names() { train "$FUNCNAME" classifier "$data/names" --tokens char --batch-tokens 500 --max-epochs 8 --test-share 0.1; }
splice() { train "$FUNCNAME" classifier "$data/dna/splice.csv" --input sequence --tokens kmer --max-epochs 20 --test-share 0.1; }

wikitext=$data/text/wikitext2
wikitext2() { train "$FUNCNAME" language-model "$wikitext/train.txt.gz" --valid "$wikitext/valid.txt" \
  --test "$wikitext/test.txt" --config "$recipes/words.toml" --max-minutes 40; }

music() { # trained, and 200 tunes drawn, of which the share that parses is said
  train "$FUNCNAME" language-model "$data/music/irish.abc" --config "$recipes/music.toml" --test-share 0.1
  $throughtime compose music --count 200 --raw --seed 1 --json 2>&1 >music-tunes.json | tail -1
}
colours() { # of twenty names one to validate and one to test on
  awk 'NR == 1 || NR % 20 == 0' "$data/text/colornames.csv" >colours-test.csv
  awk 'NR == 1 || NR % 20 == 10' "$data/text/colornames.csv" >colours-valid.csv
  awk 'NR == 1 || NR % 10' "$data/text/colornames.csv" >colours-train.csv
  train "$FUNCNAME" language-model colours-train.csv --valid colours-valid.csv --test colours-test.csv \
    --columns name hex --config "$recipes/colours.toml"
  $throughtime colours colours --measure colours-test.csv
}

books=$data/books
authors() { # the first nine tenths to learn from, the last to be told apart
  for book in plato_republic joyce_ulysses; do
    lines=$(($(wc -l <"$books/$book.txt") * 9 / 10))
    head -n "$lines" "$books/$book.txt" >"$book.txt"
    tail -n "+$((lines + 1))" "$books/$book.txt" >"$book.rest.txt"
    train "$book" language-model "$book.txt" --max-minutes 3
  done
  for book in plato_republic joyce_ulysses; do
    $throughtime identify plato_republic joyce_ulysses --file "$book.rest.txt" --passage 60 --author "$book" --json \
      2>&1 >/dev/null | tail -1
  done
}

spelling-pairs() { # the development set, "right: wrong wrong", as a table of the wrong and the right word
  $python - "$data/spelling/spell-testset1.txt" <<'END'
import ast, sys
text = open(sys.argv[1]).read()
for right, wrongs in ast.literal_eval(text[text.index("{") : text.index("}") + 1]).items():
    for wrong in wrongs.split():
        print(wrong, right, sep="\t")
END
}
spelling() { # by a model from letters to letters, and by the language model of words
  spelling-pairs >spelling-test.tsv
  gunzip -c "$wikitext/train.txt.gz" >wikitext2.txt
  $python "$recipes/misspell.py" wikitext2.txt "$books"/*.txt --apart spelling-valid.tsv >spelling-train.tsv
  train "$FUNCNAME" seq2seq spelling-train.tsv --valid spelling-valid.tsv --test spelling-test.tsv \
    --config "$recipes/spelling.toml" --max-minutes 8
  $throughtime correct wikitext2 --pairs spelling-test.tsv 2>&1 >/dev/null | tail -1
}

seq2vec() { # vectors of DNA from a language model of its k-mers, and a classifier of vectors
  $python "$recipes/seq2vec.py" words "$data/dna/splice.csv" sequence >kmers.txt
  train seq2vec-words language-model kmers.txt --tokens word --max-minutes 3
  $throughtime embed seq2vec-words --file kmers.txt --out vectors.parquet
  $python "$recipes/seq2vec.py" labels "$data/dna/splice.csv" label vectors.parquet seq2vec.parquet
  train "$FUNCNAME" classifier seq2vec.parquet --input vector --model feed-forward --max-epochs 40 --test-share 0.1
}

etth1() { # Informer's split: 12, 4 and 4 months
  head -n 14401 "$data/series/ETTh1.csv" >etth1.csv
  train "$FUNCNAME" forecaster etth1.csv --targets OT --time date --valid-steps 2880 --test-steps 2880 \
    --horizon 24 --stride 1 --max-epochs 2
}
m4-hourly() { train "$FUNCNAME" forecaster "$data/series/m4/Hourly-train.csv" --test "$data/series/m4/Hourly-test.csv" \
  --layout rows --continues --season 24 --valid-steps 48 --horizon 48 --context 168 --lags 24 168 --relative season \
  --batch-size 256 --max-epochs 2; }

walks=$data/trajectories
walk() { # NAME OPTIONS: each scene by a model that was trained on the others
  for scene in biwi_eth biwi_hotel students crowds_zara01 crowds_zara02; do
    train "$1-$scene" forecaster $(ls "$walks"/train/*.txt | grep -v $scene) \
      --valid $(ls "$walks"/val/*.txt | grep -v $scene) --test $(ls "$walks"/all_data/*.txt | grep $scene) \
      --targets 3 4 --time 1 --series 2 --config "$recipes/trajectories.toml" "${@:2}"
  done
}
eth-ucy() { walk "$FUNCNAME"; }
eth-ucy-futures() { walk "$FUNCNAME" --horizons recursive --relative previous --max-epochs 14; } # whose futures are paths

reverse() {
  $python "$recipes/reverse.py" >digits.tsv
  train "$FUNCNAME" seq2seq digits.tsv --config "$recipes/reverse.toml" --test-share 0.1
}

shapes() { # pictures of shapes with captions that are true: the share that is right, and where words are looked for
  [ -e shapes ] || $throughtime world shapes --scenes 8000
  [ -e shapes-test ] || $throughtime world shapes-test --scenes 1000 --seed 1
  train "$1" captioner shapes/captions.jsonl --test shapes-test/captions.jsonl --config "$recipes/shapes.toml" "${@:2}"
}
shapes-attention() {
  shapes "$FUNCNAME"
  $python "$benchmarks/pointing.py" "$FUNCNAME" shapes-test/captions.jsonl
}
shapes-initial-state() { shapes "$FUNCNAME" --model initial-state; }
shapes-conditioned() { shapes "$FUNCNAME" --model conditioned; }

photographs() { # photographs by sorted name: 541 to train on, 68 to validate, 68 to test
  local captions=$data/captioning/captions_677.csv
  mkdir -p photographs
  tar xf "$data/captioning/flickr8k_677_images.tar" -C photographs
  tail -n +2 "$captions" | cut -d, -f1 | LC_ALL=C sort -u >photographs/names
  for part in train:1,541 valid:542,609 test:610,677; do
    sed -n "${part#*:}p" photographs/names >photographs/part
    { head -1 "$captions"; LC_ALL=C grep -F -f photographs/part "$captions"; } >"photographs/${part%:*}.csv"
  done
}
flickr() {
  [ -e photographs ] || photographs
  train "$1" captioner photographs/train.csv --valid photographs/valid.csv --test photographs/test.csv \
    --folder photographs/images --config "$recipes/photographs.toml" "${@:2}"
}
flickr-attention() { flickr "$FUNCNAME"; }
flickr-initial-state() { flickr "$FUNCNAME" --model initial-state; }
flickr-conditioned() { flickr "$FUNCNAME" --model conditioned; }
flickr-baselines() {
  [ -e photographs ] || photographs
  $python "$benchmarks/caption_baselines.py" photographs/{train,test}.csv --folder photographs/images
}

moving() { # TASK OPTIONS: clips of moving shapes
  [ -e moving ] || $throughtime world moving --scenes 0 --clips 4000 --size 32
  [ -e moving-test ] || $throughtime world moving-test --scenes 0 --clips 500 --size 32 --seed 1
  train "$1" "$2" moving/clips.jsonl --test moving-test/clips.jsonl "${@:3}"
}
moving-frames() { moving "$FUNCNAME" frame-tagger --max-epochs 6; }
moving-stream() { moving "$FUNCNAME" frame-tagger --max-epochs 6 --no-bidirectional; }
moving-captions() { moving "$FUNCNAME" captioner --config "$recipes/moving.toml"; }

ball() { # errors in box widths of predictions from pixels and from coordinates
  [ -e ball ] || $throughtime demo ball --minutes 4 --out ball --json 2>ball.log
}

digits-data() { # recordings of digits, and strings of them, with tables
  [ -e fsdd ] || $python "$recipes/../benchmarks/spoken_digits.py" "$data/speech/fsdd_subset.tar.gz" fsdd
}
digits() { train "$1" transcriber fsdd/{digits,strings}.train.tsv --valid fsdd/{digits,strings}.valid.tsv \
  --test fsdd/digits.test.tsv --config "$recipes/spoken-digits.toml" "${@:2}"; }
spoken-digits() { # greedy search, beams, and beams with a language model that knows how digits are spelt
  digits-data
  digits "$FUNCNAME"
  train digit-words language-model fsdd/strings.train.txt --valid fsdd/strings.valid.txt --hidden 64 --max-epochs 8
  for search in "" "--beams 10" "--beams 10 --language-model digit-words"; do
    echo "strings $search"
    $throughtime evaluate "$FUNCNAME" fsdd/strings.test.tsv $search
  done
}
spoken-digits-live() { # in one direction, and how long it takes to listen to all strings of the test
  digits-data
  digits "$FUNCNAME" --no-bidirectional --max-epochs 20
  $throughtime evaluate "$FUNCNAME" fsdd/strings.test.tsv
  $python "$recipes/../benchmarks/listening.py" "$FUNCNAME" fsdd/strings.test.tsv
}

default="sst2-recurrent sst2-bag-of-words sst2-fixed-window atis-slots atis-intent names splice wnut17-crf wnut17-softmax
  ewt-upos multi30k-attention multi30k-bottleneck authors wikitext2 spelling seq2vec reverse
  etth1 m4-hourly eth-ucy eth-ucy-futures music colours spoken-digits spoken-digits-live
  shapes-attention shapes-initial-state shapes-conditioned flickr-attention flickr-initial-state flickr-conditioned
  flickr-baselines moving-frames moving-stream moving-captions ball"
for name in ${*:-$default}; do "$name"; done
