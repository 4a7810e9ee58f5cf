//! The table of "When it refuses to start": every row is met, says what the page says, and its way out leads back.

use std::fs;
use std::path::Path;

use super::{elsewhere, page};
use crate::common::program::{both, hookpool};
use crate::common::terminal::Terminal;

/// What the first column of the table says, without its quotes.
fn rows(page: &str) -> Vec<String> {
    let (_, section) = page.split_once("## When it refuses to start").unwrap();
    let (_, table) = section.split_once("|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned())
        .collect()
}

/// What has to be said, piece by piece: between the backticks of the row, and there between the dots.
fn pieces(row: &str) -> Vec<String> {
    let quoted = row.strip_prefix("``").map_or_else(
        || row.split('`').nth(1).unwrap(),
        |row| row.split("``").next().unwrap(),
    );
    let pieces = quoted
        .split("...")
        .map(|piece| piece.trim().trim_end_matches(':'));
    pieces
        .filter(|piece| !piece.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Lines that serve `hookpool-data` until it is up, and stop it.
const START: &str = "hookpool serve > server.log 2>&1 & server=$!; for n in $(seq 300); do hookpool health > up.txt 2>&1 && break; sleep 0.1; done; hookpool health > up.txt || { cat server.log >&2; exit 7; }";
/// Makes a connector, sends the first event and sees it in the pool.
const SEND: &str = r#"hookpool connector add sales --output json > sales.json
export HOOKPOOL_INGEST_KEY=$(sed -n 's/.*"ingestKey": *"\([^"]*\)".*/\1/p' sales.json)
echo '{"id":"one"}' | hookpool send sales > sent.txt
hookpool items get sales one > seen.txt"#;
const STOP: &str = "kill $server; wait $server";

/// A folder with an event, a backup of it, its keys beside it, and an older copy of its log.
struct Desk(Terminal);

impl Desk {
    fn new() -> Self {
        let terminal = Terminal::new(elsewhere());
        let desk = Self(terminal);
        desk.run(&format!(
            "{START}
             {SEND}
             {STOP}
             cp -a hookpool-data older
             {START}
             for n in 1 2 3 4; do echo '{{\"id\":\"two\"}}' | hookpool send sales > sent.txt; done
             cp hookpool-data/*.key .
             hookpool backup backup > backup.txt
             {STOP}"
        ));
        desk
    }

    #[track_caller]
    fn run(&self, lines: &str) {
        self.0.expect(
            &format!("set -e; trap 'kill $server 2> gone.txt || true; wait' EXIT\n{lines}"),
            0,
        );
    }

    /// The folder is served again, and holds all five events.
    #[track_caller]
    fn serves(&self) {
        self.run(&format!(
            "{START}\nhookpool log list sales > log.txt\n{STOP}"
        ));
        let log = fs::read_to_string(self.0.file("log.txt")).unwrap();
        assert_eq!(log.matches("two").count(), 4, "{log}");
    }

    fn restore(&self, aside: &str) {
        self.run(&format!(
            "mv hookpool-data {aside}; hookpool restore backup > restored.txt; cp *.key hookpool-data/"
        ));
    }

    /// Asserts that `serve` is refused as the row says.
    #[track_caller]
    fn refused(&self, row: &str, before: &str, serve: &str) {
        let output = self.0.run(&format!(
            "trap 'kill $server 2> gone.txt; wait' EXIT; {before}\ntimeout 20 {serve}"
        ));
        let said = both(&output).replace('`', "");
        let code = output.status.code().unwrap();
        assert!(![0, 101, 124].contains(&code), "{row}: {said}");
        let mut rest = &*said;
        for piece in pieces(row) {
            let piece = piece.replace('`', "");
            let at = rest.find(&piece);
            let at = at.unwrap_or_else(|| panic!("{row}: no {piece:?} in {said}"));
            rest = &rest[at + piece.len()..];
        }
    }

    /// Meets one row of the page and takes its way out.
    fn meet(&self, row: &str) {
        let serve = "hookpool serve";
        match row {
            _ if row.contains("another process has it open") => {
                self.refused(row, START, "hookpool serve --listen 127.0.0.1:0");
            }
            _ if row.contains("can't be listened on") => {
                self.refused(row, START, "hookpool serve --data-dir other");
            }
            _ if row.contains("can't be made") => {
                self.refused(row, "touch taken", "hookpool serve --data-dir taken/data");
            }
            _ if row.contains("newer version") => {
                self.refused(
                    row,
                    "sed -i 's/log 1$/log 9/' hookpool-data/log/format",
                    serve,
                );
                self.run("sed -i 's/log 9$/log 1/' hookpool-data/log/format");
            }
            _ if row.contains("came back shorter") => {
                self.refused(
                    row,
                    "rm -r hookpool-data/log/db; cp -a older/log/db hookpool-data/log/db",
                    serve,
                );
                self.restore("shorter");
            }
            _ if row.contains("or run hookpool verify") => {
                flip(&self.0.file("hookpool-data/log/db"));
                self.refused(row, "", serve);
                let (said, _) = self.0.expect("hookpool verify", 6);
                assert!(
                    said.contains("log: intact up to position 1, then:"),
                    "{said}"
                );
                self.restore("damaged");
            }
            _ if row.contains("delete this folder") => {
                self.refused(row, "printf 'x' > hookpool-data/pool/db/version", serve);
                self.run("rm -r hookpool-data/pool");
            }
            // Met by `much_damage_is_never_silent`, where it comes as it may; here only that this is what is said.
            _ if row.contains("delete the pool folder") => {
                let program = fs::read(hookpool().get_program()).unwrap();
                let found = pieces(row)
                    .iter()
                    .all(|piece| memchr::memmem::find(&program, piece.as_bytes()).is_some());
                assert!(found, "{row}");
            }
            _ if row.contains("but no") => {
                self.refused(row, "rm -r hookpool-data/log", serve);
                self.run("mkdir aside; mv hookpool-data/control hookpool-data/pool aside/; hookpool restore backup > restored.txt");
            }
            _ if row.contains("the pool belongs to log") => {
                let other = format!(
                    "export HOOKPOOL_DATA_DIR=other\n{START}\n{SEND}\n{STOP}\nunset HOOKPOOL_DATA_DIR
                     rm -r hookpool-data/pool; cp -a other/pool hookpool-data/pool"
                );
                self.refused(row, &other, serve);
                self.run("rm -r hookpool-data/pool");
            }
            _ if row.contains("master.key is missing") => {
                self.refused(row, "rm hookpool-data/master.key", serve);
                self.run("cp master.key hookpool-data/");
            }
            _ => panic!("the page has another row by now: {row}"),
        }
    }
}

/// Changes a byte of the second event.
fn flip(db: &Path) {
    let mut journals = fs::read_dir(db).unwrap().map(|entry| entry.unwrap().path());
    let journal = journals
        .find(|path| path.extension().is_some_and(|end| end == "jnl"))
        .unwrap();
    let mut bytes = fs::read(&journal).unwrap();
    let at = memchr::memmem::find(&bytes, b"{\"id\":\"two\"}").unwrap();
    bytes[at + 7] ^= 1;
    fs::write(journal, bytes).unwrap();
}

#[test]
fn each_refusal_of_the_page_is_met_and_its_way_out_leads_back() {
    let desk = Desk::new();
    let rows = rows(&page());
    assert!(rows.len() > 10, "{rows:#?}");
    for row in &rows {
        desk.meet(row);
        desk.serves();
    }
}
