//! A follower sees each change once and in order, wherever its connections are cut.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use hookpool_client::{
    Backoff, Dice, Error, Follower, Frame, Goodbye, Reset, Secret, Server, Start,
};
use support::{ANY_PORT, Canned, answer, header, unserved};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc::unbounded_channel,
};

/// For what has to come.
const LIMIT: Duration = Duration::from_secs(60);

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn follower(canned: &Canned) -> Follower {
    Follower::new(canned.server(), "sales", Secret::new("rk_a_b".to_owned())).backoff(quick())
}

fn quick() -> Backoff {
    let quick = Duration::from_millis(1);
    Backoff {
        first: quick,
        longest: quick,
    }
}

fn item(position: u64) -> String {
    format!(
        "event: item\ndata: {{\"stream\":\"s\",\"itemId\":\"i{position}\",\"fields\":{{}},\"position\":{position}}}\n\n"
    )
}

fn snapshot_end(position: u64) -> String {
    format!(
        "event: snapshot-end\nid: e.1.{position}\ndata: {{\"position\":{position},\"items\":{position}}}\n\n"
    )
}

fn change(position: u64) -> String {
    format!(
        "event: change\r\nid: e.1.{position}\r\ndata: {{\"op\":\"upsert\",\"stream\":\"s\",\"itemId\":\"ü\",\r\ndata: \"set\":{{\"n\":{position}}},\"position\":{position},\"time\":\"t\"}}\r\n\r\n: hb\r\n"
    )
}

fn goodbye(reason: &str) -> String {
    format!("event: goodbye\ndata: {{\"reason\":\"{reason}\"}}\n\n")
}

/// A whole answer in chunks of 50 bytes, so that cuts also hit the chunk framing.
fn chunked(events: &str) -> Vec<u8> {
    let mut answer = HEAD.as_bytes().to_vec();
    for chunk in events.as_bytes().chunks(50) {
        answer.extend(format!("{:x}\r\n", chunk.len()).bytes());
        answer.extend(chunk);
        answer.extend(b"\r\n");
    }
    answer.extend(b"0\r\n\r\n");
    answer
}

/// What a server with three items and the changes 4 to 6 sends, resumed where the request says.
fn events(request: &str) -> String {
    let after =
        header(request, "last-event-id").map(|id| id.rsplit('.').next().unwrap().parse().unwrap());
    let snapshot = || (1..=3).map(item).collect::<String>() + &snapshot_end(3);
    let start = after.map_or_else(snapshot, |_| {
        "event: bookmark\ndata: {\"position\":0}\n\n".to_owned()
    });
    let changes: String = (4..=6)
        .filter(|p| after.is_none_or(|after| *p > after))
        .map(change)
        .collect();
    format!("{start}{changes}{}", goodbye("shutdown"))
}

#[tokio::test]
async fn every_change_comes_once_in_order_wherever_the_stream_is_cut() {
    let length = chunked(&events("")).len();
    for cut in 0..length {
        let canned = Canned::start(move |nth, request| {
            let mut answer = chunked(&events(request));
            if nth == 0 {
                answer.truncate(cut);
            }
            answer
        })
        .await;
        let mut follower = follower(&canned);
        let (mut rows, mut changes) = (Vec::new(), Vec::new());
        while changes.last() != Some(&6) {
            match follower.next().await.unwrap().unwrap() {
                Frame::Item(row) => rows.push(row.position),
                Frame::Change(change) => changes.push(change.position),
                Frame::Reset(reset) => {
                    assert_eq!(reset.reason, Reset::CUT);
                    rows.clear();
                }
                _ => {}
            }
        }
        assert_eq!(
            (rows, changes),
            (vec![1, 2, 3], vec![4, 5, 6]),
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn resumes_by_last_event_id_and_asks_for_what_it_was_asked_for() {
    let canned = Canned::start(|nth, _| match nth {
        0 => chunked(&(change(7) + &goodbye("shutdown"))),
        _ => chunked(&change(8)),
    })
    .await;
    let mut follower = follower(&canned)
        .item("a&b")
        .start(Start::Cursor("e.1.6".to_owned()));
    for event in ["change", "goodbye", "change"] {
        assert_eq!(follower.next().await.unwrap().unwrap().event(), event);
    }
    let requests = canned.requests();
    assert!(
        requests[0].starts_with(
            "GET /api/streams/sales/changes?after=e.1.6&heartbeat=15&item=a%26b HTTP/1.1"
        ),
        "{}",
        requests[0]
    );
    assert_eq!(header(&requests[0], "last-event-id"), None);
    assert_eq!(header(&requests[1], "last-event-id"), Some("e.1.7"));
    assert_eq!(header(&requests[1], "authorization"), Some("Bearer rk_a_b"));
}

#[tokio::test]
async fn a_cut_after_a_servers_reset_is_not_announced_twice() {
    let reset = "event: reset\ndata: {\"reason\":\"other-epoch\"}\n\n";
    let canned = Canned::start(move |nth, request| {
        assert_eq!(
            header(request, "last-event-id"),
            (nth > 0).then_some("e.1.1")
        );
        match nth {
            0 => chunked(&change(1)),
            1 => chunked(&format!("{reset}{}", item(1))),
            _ => chunked(&format!("{reset}{}{}", item(1), snapshot_end(1))),
        }
    })
    .await;
    let mut follower = follower(&canned).start(Start::Earliest);
    for event in ["change", "reset", "item", "reset", "item", "snapshot-end"] {
        assert_eq!(follower.next().await.unwrap().unwrap().event(), event);
    }
}

#[tokio::test]
async fn overload_is_retried_and_a_refusal_ends_it() {
    let canned = Canned::start(|nth, _| match nth {
        0 => answer("503 Service Unavailable", "", "{}"),
        1 => chunked(&(change(1) + &goodbye("revoked"))),
        _ => answer("401 Unauthorized", "", r#"{"code":"UNAUTHORIZED"}"#),
    })
    .await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let mut follower = follower(&canned).on_interruption(move |interruption| {
        told.lock().unwrap().push(interruption.error.to_string())
    });
    assert_eq!(follower.next().await.unwrap().unwrap().event(), "change");
    assert_eq!(follower.next().await.unwrap().unwrap().event(), "goodbye");
    let error = follower.next().await.unwrap().unwrap_err();
    assert_eq!(error.problem().unwrap().status, 401);
    assert!(follower.next().await.is_none());
    let seen = seen.lock().unwrap();
    assert!(
        seen.len() == 2 && seen[0].contains("503") && seen[1].contains("ended"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn who_was_answered_once_waits_for_the_next_server() {
    let next = unserved(ANY_PORT);
    let addr = next.local_addr().unwrap();
    let listener = unserved(addr).listen(1).unwrap();
    let (refused, mut refusals) = unbounded_channel();
    let server = Server::new(&format!("http://{addr}")).unwrap();
    let mut follower = Follower::new(server, "sales", Secret::new("rk_a_b".to_owned()))
        .backoff(quick())
        .on_interruption(move |interruption| {
            let is_refused = matches!(interruption.error, Error::Unreachable { sent: false, .. });
            if is_refused {
                refused.send(()).unwrap();
            }
        });
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        drop(listener);
        let _ = socket.read(&mut [0; 4096]).await.unwrap();
        let busy = answer("503 Service Unavailable", "", "{}");
        socket.write_all(&busy).await.unwrap();
        drop(socket);
        refusals.recv().await.unwrap();
        Canned::start_on(next.listen(8).unwrap(), |_, _| chunked(&change(1)))
    };
    let both = async { tokio::join!(follower.next(), serve) };
    let (frame, _canned) = tokio::time::timeout(LIMIT, both).await.unwrap();
    assert_eq!(frame.unwrap().unwrap().event(), "change");
}

#[tokio::test]
async fn an_answer_of_something_else_ends_it() {
    let canned =
        Canned::start(|_, _| answer("200 OK", "content-type: text/html\r\n", "<html>")).await;
    let mut follower = follower(&canned);
    assert!(follower.next().await.unwrap().is_err());
    assert!(follower.next().await.is_none());
}

#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    let canned = Canned::start(|_, request| chunked(&events(request))).await;
    let mut follower = follower(&canned).start(Start::Earliest);
    let mut changes = Vec::new();
    while changes.last() != Some(&6) {
        tokio::select! {
            biased;
            frame = follower.next() => if let Frame::Change(change) = frame.unwrap().unwrap() {
                changes.push(change.position);
            },
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(changes, [4, 5, 6]);
}

#[tokio::test]
async fn everything_that_can_be_asked_of_several_streams_is_asked_on_every_connection() {
    let canned = Canned::start(|nth, _| match nth {
        0 => chunked(&change(1)),
        _ => chunked(&goodbye(Goodbye::UNTIL)),
    })
    .await;
    let key = Secret::new("rk_a_b".to_owned());
    let mut follower = Follower::several(canned.server(), ["a", "b"], key)
        .backoff(quick())
        .start(Start::Time("2026-04-09T10:30:00+02:00".to_owned()))
        .condition("n>=5")
        .condition("kind=a&b")
        .fields(["n", "kind"])
        .conflate(Duration::from_millis(250))
        .until(42)
        .heartbeat(Duration::from_secs(3));
    while follower.next().await.is_some_and(|frame| frame.is_ok()) {}
    let requests = canned.requests();
    assert_eq!(requests.len(), 2);
    let target = "/api/changes?stream=a&stream=b&after=2026-04-09T10%3A30%3A00%2B02%3A00&heartbeat=3\
        &where=n%3E%3D5&where=kind%3Da%26b&fields=n%2Ckind&conflate=250&until=42";
    for request in &requests {
        let line = request.lines().next().unwrap();
        assert_eq!(line, format!("GET {target} HTTP/1.1"));
    }
    assert_eq!(header(&requests[1], "last-event-id"), Some("e.1.1"));
}

#[tokio::test]
async fn it_ends_where_it_was_asked_to_end() {
    let canned = Canned::start(|nth, _| {
        assert_eq!(nth, 0, "nothing is asked after the end");
        chunked(&(change(1) + &goodbye(Goodbye::UNTIL)))
    })
    .await;
    let mut follower = follower(&canned).until(1);
    for event in ["change", "goodbye"] {
        assert_eq!(follower.next().await.unwrap().unwrap().event(), event);
    }
    let end = tokio::time::timeout(Duration::from_secs(10), follower.next());
    assert!(end.await.expect("it asks for more").is_none());
}

#[tokio::test]
async fn a_cut_voids_the_snapshots_that_it_broke_off_and_no_others() {
    let row = |stream: &str, id: &str| {
        format!(
            "event: item\ndata: {{\"stream\":\"{stream}\",\"itemId\":\"{id}\",\"fields\":{{}},\"position\":1}}\n\n"
        )
    };
    let end = |stream: &str, id: &str| {
        format!(
            "event: snapshot-end\nid: {id}\ndata: {{\"stream\":\"{stream}\",\"position\":1,\"items\":1}}\n\n"
        )
    };
    let first = row("a", "old") + &end("a", "a:1") + &row("b", "gone") + &row("c", "gone");
    let bookmark = "event: bookmark\nid: a:1\ndata: {\"stream\":\"a\",\"position\":1}\n\n";
    // The last of them was reset by the server before the cut was told of.
    let reset = "event: reset\ndata: {\"stream\":\"c\",\"reason\":\"other-epoch\"}\n\n";
    let second = [
        bookmark,
        reset,
        &row("b", "new"),
        &end("b", "a:1,b:1"),
        &end("c", "all"),
    ]
    .concat();
    let canned = Canned::start(move |nth, _| chunked([&first, &second][nth])).await;
    let key = Secret::new("rk_a_b".to_owned());
    let mut follower = Follower::several(canned.server(), ["a", "b", "c"], key).backoff(quick());
    let mut state = follower.state();
    let mut resets = Vec::new();
    while state.cursor() != Some("all") {
        let frame = follower.next().await.unwrap().unwrap();
        if let Frame::Reset(reset) = &frame {
            resets.push((reset.stream.clone().unwrap(), reset.reason.clone()));
        }
        state.feed(&frame);
    }
    let ids = |stream| {
        state
            .items(stream)
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(["a", "b", "c"].map(ids), ["old", "new", ""]);
    let reset = |stream: &str, reason: &str| (stream.to_owned(), reason.to_owned());
    assert_eq!(resets, [reset("c", "other-epoch"), reset("b", Reset::CUT)]);
}

#[tokio::test]
async fn the_dice_decide_how_long_it_waits() {
    for (throw, expected) in [(0.0, [10, 20, 40]), (1.0, [20, 40, 80])] {
        let canned = Canned::start(|nth, _| match nth {
            0..3 => answer("503 Service Unavailable", "", "{}"),
            _ => answer("401 Unauthorized", "", "{}"),
        })
        .await;
        let waits = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&waits);
        let mut follower = follower(&canned)
            .backoff(Backoff {
                first: Duration::from_millis(20),
                longest: Duration::from_secs(1),
            })
            .dice(Dice::new(move || throw))
            .on_interruption(move |it| told.lock().unwrap().push(it.retry_in.as_millis()));
        assert!(follower.next().await.unwrap().is_err());
        assert_eq!(*waits.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_server_may_ask_for_a_pause_but_not_for_an_endless_one() {
    for (asked, expected) in [(3, 3), (601, 600), (u64::MAX, 600)] {
        let canned = Canned::start(move |_, _| {
            let headers = format!("retry-after: {asked}\r\n");
            answer("503 Service Unavailable", &headers, "{}")
        })
        .await;
        let (tell, mut told) = unbounded_channel();
        let mut follower = follower(&canned)
            .dice(Dice::new(|| 1.0))
            .on_interruption(move |it| tell.send(it.retry_in).unwrap());
        let wait = tokio::select! {
            wait = tokio::time::timeout(LIMIT, told.recv()) => wait.unwrap().unwrap(),
            frame = follower.next() => panic!("{frame:?}"),
        };
        let expected = Duration::from_secs(expected) + Duration::from_millis(1);
        assert_eq!(wait, expected);
        let more = tokio::time::timeout(Duration::from_millis(300), follower.next()).await;
        assert!(more.is_err() && told.is_empty(), "it waits");
    }
}

/// The first `N` waits, in milliseconds, of a follower that is told to come back after `retry` ms and then not served.
async fn waits<const N: usize>(retry: u64, then: Vec<u8>) -> [u128; N] {
    let canned = Canned::start(move |nth, _| match nth {
        0 => chunked(&format!("retry: {retry}\n{}", change(1))),
        _ => then.clone(),
    })
    .await;
    let (tell, mut told) = unbounded_channel();
    let mut follower = follower(&canned)
        .backoff(Backoff {
            first: Duration::from_millis(1),
            longest: Duration::from_secs(1),
        })
        .dice(Dice::new(|| 1.0))
        .on_interruption(move |it| tell.send(it.retry_in.as_millis()).unwrap());
    let watch = async { while let Some(Ok(_)) = follower.next().await {} };
    let waits = async {
        let mut waits = [0; N];
        for wait in &mut waits {
            *wait = told.recv().await.unwrap();
        }
        waits
    };
    tokio::select! {
        waits = tokio::time::timeout(LIMIT, waits) => waits.unwrap(),
        () = watch => panic!("it ended"),
    }
}

#[tokio::test]
async fn a_server_sets_the_first_wait_within_reason() {
    let unavailable = || answer("503 Service Unavailable", "", "{}");
    assert_eq!(waits(0, unavailable()).await, [100, 200, 400, 800]);
    assert_eq!(waits(250, unavailable()).await, [250, 500, 1000]);
    assert_eq!(waits(99_999_999_999, unavailable()).await, [60_000]);
}

#[tokio::test]
async fn who_is_only_sent_away_waits_longer_each_time() {
    let away = chunked(&format!("retry: 0\n{}", goodbye("overloaded")));
    assert_eq!(waits(0, away).await, [100, 200, 400, 800]);
}

#[tokio::test]
async fn merged_changes_that_a_cut_broke_off_are_told_once() {
    let merged = |id: &str, item: &str, position: u64| {
        let id = match id {
            "" => String::new(),
            id => format!("id: {id}\n"),
        };
        format!(
            "event: change\n{id}data: {{\"op\":\"upsert\",\"stream\":\"s\",\"itemId\":\"{item}\",\"set\":{{}},\"position\":{position},\"time\":\"t\",\"merged\":1}}\n\n"
        )
    };
    let first = merged("e.1.1", "a", 1) + &merged("", "b", 2);
    let second = merged("", "b", 4) + &merged("", "c", 3) + &merged("e.1.5", "a", 5);
    let canned = Canned::start(move |nth, _| chunked([&first, &second][nth])).await;
    let mut follower = follower(&canned).start(Start::Now);
    let mut told = Vec::new();
    while told.last() != Some(&5) {
        if let Frame::Change(change) = follower.next().await.unwrap().unwrap() {
            told.push(change.position);
        }
    }
    assert_eq!(told, [1, 4, 3, 5]);
}
