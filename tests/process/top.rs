//! `hookpool top`, `tail` and `items list` as somebody at a terminal has them, and what the server tells them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::eventually;
use crate::common::http::Request;
use crate::common::program::{command, hookpool, lines, succeed};
use crate::common::server::{Connector, Data, Server, percent, position};

struct Terminal {
    server: Server,
    connectors: [Connector; 2],
    _data: Data,
}

impl Terminal {
    /// Two streams with five events each.
    fn new() -> Self {
        let data = Data::new();
        let server = data.serve();
        let connectors = ["sales", "orders"].map(|name| server.add_connector(name, false));
        let terminal = Self {
            server,
            connectors,
            _data: data,
        };
        for n in 0..10 {
            let last = terminal.post(n);
            terminal.server.items("sales", last);
        }
        terminal
    }

    fn post(&self, n: usize) -> u64 {
        let body = json!({"id": format!("i{}", n / 2 % 3), "n": n, "kind": "k"}).to_string();
        position(&self.server.post(&self.connectors[n % 2], body).expect(202))
    }

    fn hookpool(&self, line: &str) -> Command {
        let mut command = hookpool();
        command
            .env("HOOKPOOL_SERVER", self.server.url())
            .env("HOOKPOOL_OPERATOR_KEY", &self.server.operator_key)
            .args(line.split_whitespace());
        command
    }

    fn frames(&self, line: &str) -> Vec<Value> {
        let said = succeed(&mut self.hookpool(line));
        let frame = |line: &str| serde_json::from_str(line).unwrap();
        said.lines().map(frame).collect()
    }

    fn head(&self) -> u64 {
        let head: Value = self.server.get("/readyz").expect(200).json();
        head["position"].as_u64().unwrap()
    }
}

fn positions(frames: &[Value]) -> Vec<u64> {
    let changes = frames.iter().filter(|frame| frame["event"] == "change");
    changes
        .map(|frame| frame["data"]["position"].as_u64().unwrap())
        .collect()
}

#[test]
fn tail_follows_several_streams_and_ends_where_it_is_told_to() {
    let terminal = Terminal::new();
    let until = terminal.head();
    let frames = terminal.frames(&format!(
        "tail sales orders --from earliest --until {until} --output ndjson"
    ));
    let mut told = positions(&frames);
    told.sort_unstable();
    let log = |stream| {
        terminal
            .server
            .log(stream)
            .into_iter()
            .map(|event| event.position)
    };
    let mut recorded: Vec<_> = log("sales").chain(log("orders")).collect();
    recorded.sort_unstable();
    assert_eq!(told, recorded);
    assert_eq!(frames.last().unwrap()["data"]["reason"], "until");

    let line = format!("tail orders --where n>=7 --fields n --until {until} --output ndjson");
    let rows = terminal.frames(&line);
    let rows: Vec<_> = rows
        .iter()
        .filter(|frame| frame["event"] == "item")
        .collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(
        rows.iter()
            .all(|row| row["data"]["fields"].as_object().unwrap().len() == 1)
    );

    let said = succeed(&mut terminal.hookpool(&format!("tail sales orders --until {until}")));
    assert!(said.contains("  orders  i0  "), "{said}");
    assert!(!said.contains('\u{1b}'), "colours are for terminals");
    let merged =
        format!("tail sales --from earliest --conflate 1s --until {until} --output ndjson");
    let merged = terminal.frames(&merged);
    let events = merged
        .iter()
        .filter_map(|frame| frame["data"]["merged"].as_u64());
    assert_eq!(events.sum::<u64>(), 5);
}

#[test]
fn a_tail_since_a_time_tells_what_came_later() {
    let terminal = Terminal::new();
    let log: Value = terminal
        .server
        .get("/api/streams/sales/log")
        .expect(200)
        .json();
    let events = log["events"].as_array().unwrap();
    let time = events[1]["time"].as_str().unwrap();
    let later = events
        .iter()
        .filter(|event| event["time"].as_str().unwrap() > time);
    let later: Vec<_> = later
        .map(|event| event["position"].as_u64().unwrap())
        .collect();
    let until = terminal.head();
    let since = |since: &str| {
        let line = format!("tail sales --since {since} --until {until} --output ndjson");
        let frames = terminal.frames(&line);
        assert_eq!(
            frames[0]["event"], "bookmark",
            "there is an id to resume from at once"
        );
        positions(&frames)
    };
    assert_eq!(since(time), later);
    assert_eq!(
        since("1h"),
        events
            .iter()
            .map(|event| event["position"].as_u64().unwrap())
            .collect::<Vec<_>>()
    );
    assert_eq!(since("2100-01-01T00:00:00Z"), Vec::<u64>::new());
    let wrong = terminal
        .hookpool("tail sales --since yesterday")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn items_are_listed_that_meet_the_conditions_then_and_now() {
    let terminal = Terminal::new();
    let list = |line: &str| -> Value {
        let said =
            succeed(&mut terminal.hookpool(&format!("items list sales {line} --output json")));
        serde_json::from_str(&said).unwrap()
    };
    let all = list("");
    assert_eq!(all["items"].as_array().unwrap().len(), 3);
    let some = list("--where n>=6 --where kind=k --fields n");
    let expected =
        json!([{"itemId": "i0", "fields": {"n": 6}}, {"itemId": "i1", "fields": {"n": 8}}]);
    assert_eq!(some["items"], expected);
    let first = terminal.server.log("sales")[0].position;
    let then = list(&format!("--at {first} --where n<1"));
    assert_eq!(then["items"].as_array().unwrap().len(), 1);
}

#[test]
fn top_shows_who_follows_what_and_how_far_they_are() {
    let terminal = Terminal::new();
    let key = terminal.server.add_reader("dashboard", &["sales"]);
    let request = Request::get("/api/streams/sales/changes?after=now").bearer(&key);
    let mut connection = terminal.server.connect();
    let (head, _) = connection.follow(&request).unwrap();
    assert_eq!(head.status, 200);
    let top = || -> Value {
        let said = succeed(&mut terminal.hookpool("top --interval 50ms --output json"));
        serde_json::from_str(&said).unwrap()
    };
    let last = terminal.post(10);
    let told = eventually("the follower is told", Duration::from_secs(10), || {
        let top = top();
        (top["followers"][0]["position"] == last).then_some(top)
    });
    let followers = told["followers"].as_array().unwrap();
    assert_eq!(followers.len(), 1);
    assert_eq!(followers[0]["reader"], "dashboard");
    assert_eq!(followers[0]["lag"], 0);
    let stream = |name: &str| {
        let streams = told["streams"].as_array().unwrap();
        streams
            .iter()
            .find(|row| row["stream"] == name)
            .unwrap()
            .clone()
    };
    let sales = stream("sales");
    assert_eq!(
        (&sales["events"], &sales["followers"]),
        (&json!(6), &json!(1))
    );
    assert_eq!(stream("orders")["followers"], 0);
    let table = succeed(&mut terminal.hookpool("top --once --interval 50ms"));
    assert!(
        table.contains("dashboard") && !table.contains('\u{1b}'),
        "{table}"
    );

    drop(connection);
    eventually("the follower is gone", Duration::from_secs(10), || {
        // A server learns that a reader has gone when it has something to say to it.
        terminal.post(0);
        (top()["followers"] == json!([])).then_some(())
    });
    let refused = Request::get("/api/admin/followers").bearer(&key);
    terminal.server.call(&refused).expect(401);
}

/// What an understudy does with a connection.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// Says what the server said.
    Answers,
    /// Says this status.
    Refuses(&'static str),
    HangsUp,
    FallsSilent,
}

/// Stands in for a server, and knows what it answers to `top`.
struct Understudy {
    addr: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    /// Hears of each connection that is not answered.
    silent: Receiver<()>,
}

impl Understudy {
    fn of(server: &Server) -> Self {
        let targets = ["/api/streams", "/api/admin/followers"];
        let answer = |target: &str| {
            (
                target.to_owned(),
                server.get(target).expect(200).text().to_owned(),
            )
        };
        let answers: BTreeMap<_, _> = targets.map(answer).into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mood = Arc::new(Mutex::new(Mood::Answers));
        let (fell_silent, silent) = channel();
        let moods = Arc::clone(&mood);
        // Ends with the process.
        std::thread::spawn(move || play(&listener, &answers, &moods, &fell_silent));
        Self { addr, mood, silent }
    }

    fn feels(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// `hookpool top` at a terminal; `exec`, or a shell between them has the Ctrl-C too and tells its own end.
    fn top(&self) -> Screen {
        let program = hookpool();
        let line = format!(
            "exec '{}' top --interval 50ms",
            program.get_program().display()
        );
        let mut child = command("script")
            .args(["-qefc", &line, "/dev/null"])
            .env("HOOKPOOL_SERVER", format!("http://{}", self.addr))
            .env(
                "HOOKPOOL_OPERATOR_KEY",
                format!("ok_{}_{}", "0".repeat(12), "a".repeat(40)),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines(child.stdout.take().unwrap());
        Screen { child, lines }
    }
}

fn play(
    listener: &TcpListener,
    answers: &BTreeMap<String, String>,
    mood: &Mutex<Mood>,
    fell_silent: &Sender<()>,
) {
    let mut silent = Vec::new();
    for mut socket in listener.incoming().map_while(Result::ok) {
        let mut request = [0; 4096];
        let read = socket.read(&mut request).unwrap_or_default();
        let request = String::from_utf8_lossy(&request[..read]);
        let target = request.split(' ').nth(1).unwrap_or_default();
        let (status, body) = match *mood.lock().unwrap() {
            Mood::Answers => ("200 OK", &*answers[target]),
            Mood::Refuses(status) => (status, "{}"),
            Mood::HangsUp => continue,
            Mood::FallsSilent => {
                silent.push(socket);
                fell_silent.send(()).unwrap();
                continue;
            }
        };
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        let _ = socket.write_all(format!("{head}{body}").as_bytes());
    }
}

/// A program that draws at a terminal.
struct Screen {
    child: Child,
    lines: Receiver<String>,
}

impl Screen {
    /// Waits for a line with this.
    #[track_caller]
    fn shows(&self, what: &str) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(20)) {
            seen.push(line);
            if seen.last().unwrap().contains(what) {
                return;
            }
            assert!(
                seen.len() < 10_000,
                "{what:?} is not shown: {:?}",
                &seen[9_900..]
            );
        }
        panic!("{what:?} is not shown: {seen:?}");
    }

    /// Waits for a screen that begins and ends without a word of trying again.
    fn shows_rates(&self) {
        let is_first = |line: &str| line.contains("\u{1b}[H");
        let mut screens = 0;
        while screens < 2 {
            let line = self.lines.recv_timeout(Duration::from_secs(20)).unwrap();
            if line.contains("trying again") {
                screens = 0;
            } else if is_first(&line) {
                screens += 1;
            }
        }
    }

    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let ended = || self.child.try_wait().unwrap();
        let status = eventually("it ends", Duration::from_secs(10), ended);
        status.code()
    }
}

#[test]
fn top_lives_through_a_restart_of_the_server() {
    let terminal = Terminal::new();
    let server = Understudy::of(&terminal.server);
    let mut screen = server.top();
    screen.shows("sales");
    for mood in [Mood::HangsUp, Mood::Refuses("503 Service Unavailable")] {
        server.feels(mood);
        screen.shows("sales");
        screen.shows("as it was; trying again");
        server.feels(Mood::Answers);
        screen.shows_rates();
    }
    server.feels(Mood::Refuses("401 Unauthorized"));
    assert_eq!(screen.ends(), Some(4));

    server.feels(Mood::HangsUp);
    assert_eq!(server.top().ends(), Some(7), "nobody was ever there");
}

#[test]
fn top_ends_when_it_is_told_to_while_it_waits_for_an_answer() {
    let terminal = Terminal::new();
    let server = Understudy::of(&terminal.server);
    let mut screen = server.top();
    screen.shows_rates();
    server.feels(Mood::FallsSilent);
    server.silent.recv_timeout(Duration::from_secs(20)).unwrap();
    // As Ctrl-C on its keyboard.
    screen
        .child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"\x03")
        .unwrap();
    assert_eq!(screen.ends(), Some(0));
}

#[test]
fn streams_begin_where_after_says_if_the_id_does_not() {
    let terminal = Terminal::new();
    let until = terminal.head();
    let first = terminal.frames("tail sales orders --from earliest --until 0 --output ndjson");
    assert_eq!(first.last().unwrap()["event"], "goodbye");
    let cursor = terminal.frames(&format!("tail sales --until {until} --output ndjson"));
    let cursor = cursor
        .iter()
        .find_map(|frame| frame["id"].as_str())
        .unwrap();
    let target = format!(
        "/api/changes?stream=sales&stream=orders&after=earliest&until={until}&last_event_id={}",
        percent(&format!("sales:{cursor}"))
    );
    let request = Request::get(&target).header("Accept", "application/x-ndjson");
    let answer = terminal
        .server
        .call(&request.bearer(&terminal.server.operator_key));
    let answer = answer.expect(200);
    let frames: Vec<Value> = answer
        .text()
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let log: Vec<_> = terminal
        .server
        .log("orders")
        .iter()
        .map(|event| event.position)
        .collect();
    assert_eq!(positions(&frames), log);
    assert!(
        frames.iter().all(|frame| frame["event"] != "item"),
        "{frames:?}"
    );
}

#[test]
fn a_reset_of_one_of_several_streams_names_it() {
    let terminal = Terminal::new();
    let until = terminal.head();
    let target = format!(
        "/api/changes?stream=sales&stream=orders&after=earliest&until={until}&last_event_id={}",
        percent("sales:nonsense")
    );
    let request = Request::get(&target).header("Accept", "application/x-ndjson");
    let answer = terminal
        .server
        .call(&request.bearer(&terminal.server.operator_key));
    let frames = answer.expect(200);
    let named: Vec<Value> = frames
        .text()
        .lines()
        .filter(|line| line.contains("reset") || line.contains("snapshot-end"))
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["data"]["stream"].clone())
        .collect();
    assert_eq!(named, ["sales", "sales"]);
}
