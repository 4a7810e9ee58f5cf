# List the recipes.
default:
    @just --list

# Format everything.
fmt:
    cargo fmt --all

# Format check and clippy, warnings are errors.
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings

# The tests that need nothing from outside.
test *args:
    cargo test --workspace {{args}}

# All tests, with the outside programs that they need.
test-all:
    tests/run

# Repeat one seeded run, for example `just seed 42 kill_loop`.
seed seed *args:
    HOOKPOOL_SEED={{seed}} cargo test --test process -- --include-ignored --nocapture {{args}}

# Benchmarks; each once with bench-smoke.
bench *args:
    cargo bench {{args}}

# Run every benchmark once, to see that it still works.
bench-smoke:
    cargo test --benches

# API docs, broken links are errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences, bans, sources.
deny:
    cargo deny --offline check bans licenses sources

# Start the server.
run *args:
    cargo run -- {{args}}

# What has to pass before a merge.
ci:
    .ci/run
