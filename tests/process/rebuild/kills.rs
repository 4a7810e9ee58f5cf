//! SIGKILL at random moments of a rebuild under the rules that are served: wherever it hits, both generations end up the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;

use super::same_rules::{bodies, check_both_generations};
use super::writers::Writers;
use super::{Operated, counts_of, deliver, operate};
use crate::common::http::Request;
use crate::common::server::{Connector, Data, Server, position};
use crate::common::{number_from_env, seeded};

const STREAM: &str = "ledger";

#[test]
fn a_rebuild_survives_a_few_kills() {
    kills("a_rebuild_survives_a_few_kills", 10);
}

#[test]
#[ignore = "needs a minute: tests/run"]
fn a_rebuild_survives_many_kills() {
    let rounds = number_from_env("HOOKPOOL_REBUILD_KILLS").unwrap_or(100);
    let kills = kills("a_rebuild_survives_many_kills", rounds);
    if rounds >= 100 {
        kills.assert_spread();
    }
}

/// Where a rebuild is, as the server's own log says: so it is known where a kill hit, however short the phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The server was up, the rebuild had not begun to fold.
    Start,
    Build,
    Attach,
    Compare,
    Ready,
    /// A promotion was under way.
    Promotion,
}

impl Phase {
    const OF_A_REBUILD: [(&str, Self); 4] = [
        ("a rebuild folds", Self::Build),
        ("a rebuild is handed over", Self::Attach),
        ("a rebuild is compared", Self::Compare),
        ("a rebuild is ready", Self::Ready),
    ];

    /// The last that was told.
    fn told(said: &str) -> Option<Self> {
        let of_line = |line: &str| {
            let mut phases = Self::OF_A_REBUILD.iter();
            phases.find_map(|(told, phase)| line.contains(told).then_some(*phase))
        };
        said.lines().rev().find_map(of_line)
    }
}

/// What the kills hit, and what was done between them.
#[derive(Debug, Default)]
struct Kills {
    hit: BTreeMap<Phase, u64>,
    /// Lives in which a rebuild went on from a commit in its middle.
    resumed: u64,
    promoted: u64,
}

impl Kills {
    fn assert_spread(&self) {
        let phases = Phase::OF_A_REBUILD.iter().map(|(_, phase)| *phase);
        for phase in phases.chain([Phase::Promotion]) {
            assert!(
                self.hit.contains_key(&phase),
                "no kill hit {phase:?}: {self:?}"
            );
        }
        assert!(
            self.resumed > 0,
            "no rebuild went on from its middle: {self:?}"
        );
        assert!(self.promoted > 0, "no rebuild was ever ready: {self:?}");
    }
}

/// About as long as a rebuild takes here.
const REBUILD_MS: u64 = 300;
/// Slow enough to be paused in its middle: it reads pages of a quarter of this.
const EVENTS_PER_SECOND: u32 = 4_000;
/// Kinds of moments to be killed at.
const AIMS: u64 = 6;

fn serve(data: &Data) -> Server {
    let telling = ("RUST_LOG", "warn,hookpool_engine::rebuild=debug");
    Server::try_start_with(data.path(), &[telling]).unwrap()
}

fn kills(test: &str, rounds: u64) -> Kills {
    let (started, mut rng, data) = (Instant::now(), seeded(test), Data::new());
    let mut server = serve(&data);
    let connector = server.add_connector(STREAM, false);
    deliver(&server, &connector, &bodies(2_500));
    operate(&server, STREAM).start(&json!({}));
    let writers = Writers::start(&server, &connector, &bodies(100), Duration::from_millis(40));
    let mut kills = Kills::default();
    for round in 0..rounds {
        let aim = round % AIMS;
        let pace = (aim == 1).then_some(EVENTS_PER_SECOND);
        let was_ready = take_up(operate(&server, STREAM), pace, &mut rng, &mut kills);
        let aim = if was_ready { aim % 2 * (AIMS - 1) } else { aim };
        let promoting = wait_for_the_moment(&server, aim, &mut rng);
        let said = server.kill9_heard();
        let told = Phase::told(&said).or_else(|| was_ready.then_some(Phase::Ready));
        let hit = promoting.or(told).unwrap_or(Phase::Start);
        *kills.hit.entry(hit).or_default() += 1;
        kills.resumed += u64::from(resumed(&said));
        server = serve(&data);
        writers.meet(server.addr);
    }
    let stream = operate(&server, STREAM);
    take_up(stream, None, &mut rng, &mut kills);
    assert_eq!(counts_of(&stream.ready()), json!([0, 0, 0]));
    let digest = stream.digest();
    stream.promote(Some(&format!("\"{digest}\""))).expect(200);
    let written = writers.finish();
    finish(&server, &connector);
    eprintln!(
        "{rounds} kills in {:.0?}: {kills:?}, {written:?}",
        started.elapsed()
    );
    kills
}

fn finish(server: &Server, connector: &Connector) {
    let last = server.post(connector, r#"{"id":"last"}"#).expect(202);
    server.items(STREAM, position(&last));
    check_both_generations(operate(server, STREAM));
}

/// Whether the rebuild went on from events that were folded in an earlier life or before a pause.
fn resumed(said: &str) -> bool {
    let begun = said.lines().filter(|line| line.contains("a rebuild folds"));
    begun
        .into_iter()
        .any(|line| !line.contains("events=0 ") && !line.ends_with("events=0"))
}

/// Sees to it that there is a rebuild: one that was ready is put in force in most cases, and after one that was another begins.
/// Says whether it was ready before.
fn take_up(stream: Operated<'_>, pace: Option<u32>, rng: &mut StdRng, kills: &mut Kills) -> bool {
    let status = stream.status();
    match status["state"].as_str().unwrap() {
        "running" => return false,
        "ready" => {
            assert_eq!(counts_of(&status), json!([0, 0, 0]));
            if rng.random_bool(0.3) {
                return true;
            }
            stream.promote(Some("*")).expect(200);
        }
        "promoted" => {}
        state => panic!("a kill left the rebuild {state}: {status}"),
    }
    kills.promoted += 1;
    stream.start(&json!({"eventsPerSecond": pace}));
    false
}

/// Lets the rebuild run up to a moment to be killed at: any one, or one after the beginning of a phase, the short ones included.
fn wait_for_the_moment(server: &Server, aim: u64, rng: &mut StdRng) -> Option<Phase> {
    let stream = operate(server, STREAM);
    let pause = |rng: &mut StdRng, millis: u64| {
        std::thread::sleep(Duration::from_micros(rng.random_range(0..millis * 1_000)));
    };
    match aim {
        0 => pause(rng, REBUILD_MS),
        1 => {
            reach(server, Phase::Build);
            pause(rng, REBUILD_MS);
            // What is folded is committed now, where otherwise the first commit comes after seconds.
            stream.act("pause");
            std::thread::sleep(Duration::from_millis(50));
            stream.act("resume");
            pause(rng, REBUILD_MS / 2);
        }
        2 => reach(server, Phase::Attach),
        3 => {
            reach(server, Phase::Compare);
            pause(rng, 30);
        }
        4 => {
            stream.ready();
            pause(rng, 30);
        }
        _ => {
            stream.ready();
            promote_and_leave(server);
            pause(rng, 8);
            return Some(Phase::Promotion);
        }
    }
    None
}

/// Waits until a phase was told of, or the rebuild is past it.
fn reach(server: &Server, phase: Phase) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Phase::told(&server.said()).is_none_or(|told| told < phase) {
        assert!(Instant::now() < deadline, "waited in vain for {phase:?}");
        // The shortest phases last for less than a millisecond.
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Asks for a promotion on a connection of its own, and does not wait for the answer.
fn promote_and_leave(server: &Server) {
    let target = format!("/api/admin/streams/{STREAM}/rebuilds/current:promote");
    let request = Request::post(&target).bearer(&server.operator_key);
    let request = request.header("If-Match", "*").body("");
    let mut connection = server.connect();
    connection.send(&request.encode()).unwrap();
    std::thread::spawn(move || connection.response());
}
