#!/usr/bin/env bash
# Runs all tests, and says what it left out.
#
#   ./test.sh                 everything
#   ./test.sh format tests    only these steps
#
# Steps: format lints tests postgres fdb suite programs kills sanitizers miri docs licences. Two more run only when they are
# named, since they take long: sweep and fdb-large.
# Works on a fresh Debian with Rust: installs what is missing with apt-get. Whole output of each step: target/test-logs.
# LITEFLEET_TEST_SECONDS bounds the whole run; LITEFLEET_KILL_ROUNDS sets the rounds of the kill test. LITEFLEET_SEED seeds
# the fault tests: the same each time unless it says otherwise, so that a run can be repeated; 'random' tries others.
# LITEFLEET_FDB_SEEDS is how many more of them the step fdb tries, one or two minutes each.
# LITEFLEET_POSTGRES_BIN names the folders of the servers (postgres, initdb, pg_ctl) that the step postgres runs on, one after
# the other, divided by colons; without it that is the newest of Debian's.
# LITEFLEET_FDB_CLUSTER_FILE, with LITEFLEET_FDB_LIBRARY_DIR for the folder of the real libfdb_c, runs the step fdb on a real
# cluster, under prefixes of its own that it clears again; without them it runs on the stand-in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

export CARGO_TERM_COLOR=never
export LITEFLEET_SEED=${LITEFLEET_SEED:-1}
# Toolchains that are not there are left out, not fetched.
export RUSTUP_AUTO_INSTALL=0
readonly ROOM=${LITEFLEET_TEST_SECONDS:-3600}
readonly ROUNDS=${LITEFLEET_KILL_ROUNDS:-300}
readonly TARGET=${CARGO_TARGET_DIR:-target}
readonly LOGS=$TARGET/test-logs
readonly CORPORA_EVERY=100
readonly FDB_SEEDS=${LITEFLEET_FDB_SEEDS:-2}
WANTED=("$@")
LEFT_OUT=()
BROKEN=()
PASSED=0
FAILED=0
IGNORED=0

left_out() { # what, why
    LEFT_OUT+=("$1: $2")
}

wanted() { # step
    [ ${#WANTED[@]} -eq 0 ] && return 0
    local name
    for name in "${WANTED[@]}"; do [ "$name" = "$1" ] && return 0; done
    left_out "$1" "not asked for"
    return 1
}

# Adds up the "test result:" lines of a log; prints what they say together.
count() { # log
    local passed failed ignored
    read -r passed failed ignored < <(awk '
        /^test result:/ {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) p += $(i - 1)
                if ($i ~ /^failed/) f += $(i - 1)
                if ($i ~ /^ignored/) g += $(i - 1)
            }
        }
        END { print p + 0, f + 0, g + 0 }' "$1")
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
    IGNORED=$((IGNORED + ignored))
    LAST_FAILED=$failed
    [ $((passed + failed + ignored)) -eq 0 ] || echo "   $passed passed, $failed failed, $ignored ignored"
}

# Runs one step: its output goes to a log, of which a failure shows the end.
step() { # name, most seconds, headline, command...
    local name=$1 most=$2 headline=$3 start=$SECONDS code=0 left
    shift 3
    left=$((ROOM - SECONDS))
    if [ "$left" -lt 30 ]; then
        left_out "$headline" "the ${ROOM} s for the whole run are over (LITEFLEET_TEST_SECONDS)"
        BROKEN+=("$name: no time left")
        FAILED=$((FAILED + 1))
        return 0
    fi
    [ "$most" -le "$left" ] || most=$left
    printf '== %s\n' "$headline"
    timeout --kill-after=20 "$most" "$@" >"$LOGS/$name.log" 2>&1 </dev/null || code=$?
    count "$LOGS/$name.log"
    if [ "$code" -ne 0 ]; then
        BROKEN+=("$name: $([ "$code" -eq 124 ] && echo "not done after $most s" || echo "exit code $code"), see $LOGS/$name.log")
        # A step that fails without a failed test counts as one.
        [ "$LAST_FAILED" -gt 0 ] || FAILED=$((FAILED + 1))
        grep -E '^(test .* \.\.\. FAILED|error(\[|:)|warning: unused)' "$LOGS/$name.log" | sort -u | head -40 | sed 's/^/   /' || true
        tail -n 40 "$LOGS/$name.log" | sed 's/^/   | /'
        printf '   FAILED after %d s\n' $((SECONDS - start))
    else
        printf '   done in %d s\n' $((SECONDS - start))
    fi
}

# --- what is needed ---

if ! command -v cargo >/dev/null && [ -r "$HOME/.cargo/env" ]; then
    # shellcheck disable=SC1091
    . "$HOME/.cargo/env"
fi
if ! command -v cargo >/dev/null; then
    echo "test.sh: there is no cargo: install Rust 1.90 or newer, for instance with rustup" >&2
    exit 1
fi

# Installs packages, or ends the run.
install() { # package...
    echo "== install $*"
    if ! command -v apt-get >/dev/null; then
        echo "test.sh: there is no apt-get here: install the equivalent of $*, and start again" >&2
        exit 1
    fi
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
# The bindings to FoundationDB's client library are made from its headers when its tests are built.
[ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || packages+=(libclang-dev)
# SQLite's own tests are taken from Debian's archive and built here.
if [ -x /usr/lib/apt/apt-helper ]; then
    [ -e /usr/include/tcl8.6/tcl.h ] || packages+=(tcl8.6-dev)
    [ -e /usr/include/zlib.h ] || packages+=(zlib1g-dev)
    command -v make >/dev/null || packages+=(make)
    command -v xz >/dev/null || packages+=(xz-utils)
fi
command -v unshare >/dev/null || packages+=(util-linux)
command -v mount >/dev/null || packages+=(mount)
[ ${#packages[@]} -eq 0 ] || install "${packages[@]}"
# What export gives is compared with what import took. Where sqldiff cannot be had, that is left out.
if ! command -v sqldiff >/dev/null && apt-cache show sqlite3-tools >/dev/null 2>&1; then
    (install sqlite3-tools) || true
fi

for component in rustfmt clippy; do
    tool=cargo-fmt
    [ "$component" = clippy ] && tool=cargo-clippy
    if ! "$tool" --version >/dev/null 2>&1 && command -v rustup >/dev/null; then
        rustup -q component add "$component" || true
    fi
done

mkdir -p "$LOGS"
rm -f "$LOGS"/*.log

# What runs SQLite's own tests. The same features in every step, so that it is built once.
suite=(cargo run --locked -q -p litefleet-suite --features fdb --)
# The other steps choose what they run among all packages, and not by -p: which features a dependency is built with is then the
# same for them all. Chosen by -p, a few packages at a time, what differs in them and our own crates were built up to nine
# times. The FoundationDB store is apart: its tests are linked to the stand-in.
all=(--workspace --exclude litefleet-fdb --exclude litefleet-fdb-stand-in --exclude litefleet-fdb-stand-in-control)
servers=(--features litefleet-postgres/servers,litefleet-cli/servers,litefleet-differential/servers)

# --- the steps ---

if wanted format; then
    if cargo fmt --version >/dev/null 2>&1; then
        step format 120 "format: cargo fmt --check" cargo fmt --all --check
    else
        left_out "format" "cargo fmt is not installed (rustup component add rustfmt)"
    fi
fi

if wanted lints; then
    if cargo clippy --version >/dev/null 2>&1; then
        # Without the features that are off by default, and with all of them: the tests that start servers too.
        step lints 900 "lints: cargo clippy, warnings are errors" \
            bash -c 'cargo clippy --locked --workspace --all-targets -- -D warnings &&
                exec cargo clippy --locked --workspace --all-targets "$@" -- -D warnings' lints \
            "${servers[@]}" --features litefleet-suite/fdb,litefleet-suite-vfs/fdb,litefleet-cli/fdb
    else
        left_out "lints" "cargo clippy is not installed (rustup component add clippy)"
    fi
fi

# Tests that a machine may be unable to run are left out by name, and said so.
skip=()
if wanted tests; then
    place=$(mktemp -d)
    # shellcheck disable=SC2016
    if ! unshare --map-root-user --mount sh -c 'mount -t tmpfs -o size=1m tmpfs "$0"' "$place" 2>/dev/null; then
        for name in a_full_disk_refuses_commits_until_there_is_room an_engine_that_fails_on_a_full_disk_is_opened_again; do
            skip+=(--skip "$name")
            left_out "test $name" "no mount namespaces here (unshare --map-root-user --mount fails)"
        done
    fi
    rmdir "$place"
    # Not compiling: only what runs is bounded in its address space, so that a test that eats memory fails alone.
    step build 1200 "tests: build" cargo test --locked "${all[@]}" --no-run
    # shellcheck disable=SC2016
    step tests 2400 "tests: cargo test --workspace" \
        bash -c 'ulimit -v 16777216 2>/dev/null || true; exec cargo test --locked "$@"' tests "${all[@]}" --no-fail-fast -- "${skip[@]}"
    if command -v sqldiff >/dev/null; then
        step sqldiff 300 "tests: what import took and export gave, compared by SQLite's sqldiff" \
            cargo test --locked "${all[@]}" --test command -- --ignored sqldiff
    else
        left_out "tests: import and export compared by SQLite's sqldiff" "sqldiff is not installed (Debian's sqlite3-tools)"
    fi
fi

if wanted fdb; then
    fdb=(-p litefleet-fdb -p litefleet-fdb-stand-in -p litefleet-fdb-stand-in-control)
    if [ -n "${LITEFLEET_FDB_CLUSTER_FILE:-}" ] && [ -n "${LITEFLEET_FDB_LIBRARY_DIR:-}" ]; then
        where="on the cluster of $LITEFLEET_FDB_CLUSTER_FILE"
        left_out "fdb: on the stand-in, with faults and counted requests" "LITEFLEET_FDB_CLUSTER_FILE names a real cluster"
    else
        where="on the stand-in for its client library"
        left_out "fdb: on a real cluster" "LITEFLEET_FDB_CLUSTER_FILE and LITEFLEET_FDB_LIBRARY_DIR name none"
    fi
    step fdb-build 1200 "fdb: build" cargo test --locked "${fdb[@]}" --no-run
    step fdb 1500 "fdb: the FoundationDB store, $where" \
        bash -c 'ulimit -v 16777216 2>/dev/null || true; exec cargo test --locked "$@" --no-fail-fast' fdb "${fdb[@]}"
    # Another seed is another choice of requests that meet a fault.
    if [ -z "${LITEFLEET_FDB_CLUSTER_FILE:-}" ]; then
        # shellcheck disable=SC2016
        step fdb-seeds 1200 "fdb: the cases of the store and of the engine with faults, $FDB_SEEDS more seeds" \
            bash -c 'for seed in $(seq 1 "$1"); do
                case $((seed % 4)) in
                    1) cases=(store_faults -- many_tiny::) ;;
                    2) cases=(engine_faults -- many::) ;;
                    3) cases=(store_faults -- many::) ;;
                    0) cases=(engine_faults -- few::) ;;
                esac
                next=random
                [ "$LITEFLEET_SEED" = random ] || next=$((LITEFLEET_SEED + seed))
                echo "seed $next, ${cases[*]}"
                LITEFLEET_SEED=$next cargo test --locked -p litefleet-fdb --test "${cases[@]}" || exit
            done' seeds "$FDB_SEEDS"
    fi
    # The command is linked to the library that the tests use: the stand-in is among their dependencies.
    libraries=${LITEFLEET_FDB_LIBRARY_DIR:-$PWD/$TARGET/debug/deps}
    [ -n "${LITEFLEET_FDB_LIBRARY_DIR:-}" ] || [ "${TARGET#/}" = "$TARGET" ] || libraries=$TARGET/debug/deps
    # shellcheck disable=SC2016
    step fdb-command 900 "fdb: the command with --store fdb:, $where" \
        bash -c 'LIBRARY_PATH=$1 cargo build --locked -p litefleet-cli --features fdb &&
            LITEFLEET_COMMAND=$2/debug/litefleet cargo test --locked -p litefleet-fdb --test command -- --ignored' \
        command "$libraries" "$(realpath "$TARGET")"
    what="fdb: some of SQLite's own tests over the VFS, several processes $where"
    if [ -x /usr/lib/apt/apt-helper ]; then
        step suite-fdb 1200 "$what" "${suite[@]}" processes --store fdb
    else
        left_out "$what" "SQLite's source comes from Debian's archive, and this is not Debian or Ubuntu"
    fi
fi

large="fdb: a transaction of a gibibyte, and SQLite on 200,000 pages, in release"
if [ ${#WANTED[@]} -eq 0 ]; then
    left_out "$large" "a part of it is in the step fdb; all of it takes some minutes more (./test.sh fdb-large)"
elif wanted fdb-large; then
    step fdb-large 1800 "$large" cargo test --locked --release -p litefleet-fdb --test large
fi

# Throwaway servers of the system's packages, each in a temporary folder and on a free port.
if wanted postgres; then
    packages=()
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || [ -n "${LITEFLEET_POSTGRES_BIN:-}" ] || packages+=(postgresql)
    [ -x /usr/sbin/pgbouncer ] || packages+=(pgbouncer)
    [ ${#packages[@]} -eq 0 ] || install "${packages[@]}"
    skip=()
    # shellcheck disable=SC2016
    if [ "$(id -u)" -ne 0 ] || ! unshare --mount sh -c 'mount -t tmpfs -o size=1m tmpfs /mnt' 2>/dev/null; then
        name=full_disk_is_told_and_reading_goes_on
        skip+=(--skip "$name")
        left_out "postgres test $name" "a small disk needs root, and mount namespaces"
    fi
    # By their names, which no other package's have. The unit tests of the store are in the step tests.
    these_tests=()
    for file in backend-postgres/tests/*.rs; do these_tests+=(--test "$(basename "$file" .rs)"); done
    IFS=: read -ra folders <<<"${LITEFLEET_POSTGRES_BIN:-}"
    [ ${#folders[@]} -gt 0 ] || folders=("")
    for server in "${folders[@]}"; do
        what="the newest of the system's packages"
        these=("${skip[@]}")
        if [ -n "$server" ]; then
            what=$("$server/postgres" --version) || what="$server"
            if [ ! -x "$server/pg_basebackup" ]; then
                for name in promoted_standby_has_all_that_was_acknowledged standby_is_refused_or_read_from \
                    commit_that_a_crash_made_visible_waits_for_the_standby commit_whose_wait_was_cancelled_waits_for_the_standby \
                    commit_of_one_who_hears_no_warnings_waits_for_the_standby \
                    commit_of_one_who_hears_no_warnings_waits_for_the_standby_through_a_pooler_too; do
                    these+=(--skip "$name")
                    left_out "postgres test $name on $what" "$server has no pg_basebackup"
                done
            fi
        fi
        step "postgres${server//\//-}" 1800 "postgres: the store and engine cases, faults, dying servers and errors on throwaway servers, $what" \
            env ${server:+LITEFLEET_POSTGRES_BIN="$server"} \
            cargo test --locked "${all[@]}" "${servers[@]}" "${these_tests[@]}" --no-fail-fast -- "${these[@]}"
    done
    step command-postgres 600 "postgres: the command with --store postgres:" \
        cargo test --locked "${all[@]}" "${servers[@]}" --test command postgres
    step logic-postgres 900 "postgres: random SQL beside SQLite's own VFS, on a throwaway server" \
        cargo test --locked "${all[@]}" "${servers[@]}" --test logic_postgres
fi

if wanted suite; then
    what="suite: a part of SQLite's own tests over the VFS"
    if [ ! -x /usr/lib/apt/apt-helper ]; then
        left_out "$what" "SQLite's source comes from Debian's archive, and this is not Debian or Ubuntu"
    else
        # The first of them also builds.
        step suite-sqlite 900 "$what, embedded store, locking=sqlite" \
            "${suite[@]}" short --locking sqlite
        step suite-snapshot 600 "$what, embedded store, locking=snapshot" \
            "${suite[@]}" short --locking snapshot
        step suite-memory 600 "$what, memory store, locking=snapshot" \
            "${suite[@]}" short --store memory --locking snapshot
        if compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || [ -n "${LITEFLEET_POSTGRES_BIN:-}" ]; then
            step suite-postgres 600 "suite: some of SQLite's own tests over the VFS, several processes on Postgres" \
                "${suite[@]}" processes --store postgres
        else
            left_out "suite: several processes on Postgres" "Debian's package postgresql is not installed"
        fi
        left_out "suite: the rest of SQLite's 1188 test files of veryquick" \
            "they take 10 minutes more for each way to lock (cargo run -p litefleet-suite -- veryquick)"
    fi
fi

# After the suite, which brings SQLite's source tree and builds the VFS for programs in C.
if wanted programs; then
    if [ ! -x /usr/lib/apt/apt-helper ]; then
        left_out "programs: SQLite's other programs, and the corpora of its fuzzers" \
            "SQLite's source comes from Debian's archive, and this is not Debian or Ubuntu"
    else
        step programs 900 "programs: SQLite's other programs over the VFS beside its own, embedded store, in part" \
            "${suite[@]}" programs-short
        left_out "programs: the rest of SQLite's other programs, and the stores besides the embedded one" \
            "they take four to eight minutes for each store (cargo run -p litefleet-suite -- programs --store postgres)"
        # Its tests build the program as well.
        # shellcheck disable=SC2016
        step corpora 600 "corpora: one of $CORPORA_EVERY inputs of SQLite's fuzzers, on the memory store beside files" \
            bash -c 'every=$1 target=$2 && shift 2 && cargo test --locked "$@" --no-run --test logic_memory || exit
                ulimit -v 16777216 2>/dev/null || true
                exec "$target"/debug/litefleet-differential corpora --every "$every" "$target"/suite/sqlite3-*/test/fuzzdata*.db' \
            corpora "$CORPORA_EVERY" "$TARGET" "${all[@]}"
        left_out "corpora: the other inputs of SQLite's fuzzers, and the other stores" \
            "docs/conformance-corpora.md has the command for all of them"
    fi
fi

if wanted kills; then
    kill_test=$(find conformance/tests -maxdepth 1 -name '*kill*.rs' | sort | head -n 1)
    if [ -n "$kill_test" ]; then
        # In the profile of SQLite's own tests, optimised as in release but for what the linker does: most of it is built already.
        step kills 1200 "kills: $ROUNDS processes killed in the middle of their work, optimised" \
            env LITEFLEET_KILL_ROUNDS="$ROUNDS" \
            cargo test --locked --profile suite -p litefleet-conformance --test "$(basename "$kill_test" .rs)"
    else
        left_out "kills: $ROUNDS rounds of killed processes" "conformance/tests has no kill test"
    fi
fi

sweep="sweep: every fault at every call of the store, in release"
if [ ${#WANTED[@]} -eq 0 ]; then
    left_out "$sweep" "a sample of it is in the tests; all of it takes ten minutes and more (./test.sh sweep)"
elif wanted sweep; then
    step sweep 3600 "$sweep" env LITEFLEET_SWEEP=full cargo test --locked --release -p litefleet-conformance --test fault_sweep
fi

if wanted sanitizers; then
    what="sanitizers: SQLite over the VFS with address and leak checks"
    host=$(rustc -vV | sed -n 's/^host: //p')
    engine_test=conformance/tests/engine_memory.rs
    [ -e "$engine_test" ] || engine_test=$(find conformance/tests -maxdepth 1 -name 'engine_*.rs' | sort | head -n 1)
    if [ "$host" != x86_64-unknown-linux-gnu ]; then
        left_out "$what" "only on x86_64-unknown-linux-gnu, this is $host"
    elif ! compgen -G "$(rustc --print sysroot)/lib/rustlib/$host/lib/*rt.asan.a" >/dev/null; then
        left_out "$what" "this Rust has no address sanitizer runtime (those of rustup have)"
    elif [ -z "$engine_test" ]; then
        left_out "$what" "conformance/tests has no engine test"
    else
        step sanitizers 1800 "$what" \
            env RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=1:detect_odr_violation=0 \
            cargo test --locked --target "$host" --target-dir "$TARGET/asan" \
            -p litefleet-conformance --test "$(basename "$engine_test" .rs)"
    fi
fi

if wanted miri; then
    what="miri: the codecs, which read bytes that nobody can trust, and what else of the engine and the VFS calls no C"
    if cargo +nightly miri --version >/dev/null 2>&1; then
        step miri 900 "$what" \
            env MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 \
            cargo +nightly miri test --locked --target-dir "$TARGET/miri" -p litefleet --lib -- codec:: types:: \
            engine::buffer:: engine::structure:: engine::prefetch:: engine::batch:: vfs::locks:: vfs::loans::
    else
        left_out "$what" "Miri is not installed (rustup +nightly component add miri)"
    fi
fi

if wanted docs; then
    step docs 600 "docs: cargo doc, warnings are errors" \
        env RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --workspace
fi

if wanted licences; then
    if cargo deny --version >/dev/null 2>&1; then
        step licences 300 "licences and advisories: cargo deny" cargo deny --locked check
    else
        left_out "licences and advisories" "cargo-deny is not installed (cargo install cargo-deny)"
    fi
fi

# --- what came of it ---

printf '\n'
if [ "$IGNORED" -gt 0 ]; then
    left_out "$IGNORED ignored tests" "each says why in its log in $LOGS"
fi
if [ ${#LEFT_OUT[@]} -eq 0 ]; then
    echo "Left out: nothing"
else
    echo "Left out:"
    printf '  %s\n' "${LEFT_OUT[@]}"
fi
if [ ${#BROKEN[@]} -gt 0 ]; then
    echo "Failed:"
    printf '  %s\n' "${BROKEN[@]}"
fi
printf 'Time: %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
[ ${#BROKEN[@]} -eq 0 ]
