//! A server that stops in the middle, or never stops, is given up.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use hookpool_client::{Consumer, DiffLines, Error, Operator, Producer, Secret, Server};
use tokio::time::{Instant, pause, timeout};

/// By a paused clock, over at once.
const AN_HOUR: Duration = Duration::from_secs(3600);

/// A server that takes one request and does with its connection what it is told to, in a thread of its own.
fn hostile<T: Send + 'static>(
    act: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Server, mpsc::Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]).unwrap();
        tell.send(act(socket)).unwrap();
    });
    (Server::new(&url).unwrap(), told)
}

/// Says this, and then nothing, but stays.
fn falls_silent(said: impl Into<String>) -> (Server, mpsc::Receiver<TcpStream>) {
    let said = said.into();
    hostile(move |mut socket| {
        socket.write_all(said.as_bytes()).unwrap();
        socket
    })
}

/// Waits without holding up what else this thread has to do.
async fn arrived<T>(from: &mpsc::Receiver<T>) -> T {
    loop {
        match from.try_recv() {
            Ok(value) => return value,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

fn key() -> Secret {
    Secret::new("ok_a_b".to_owned())
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";

/// Reads one piece, and then waits for the next one by a clock that runs as soon as there is nothing else to do.
async fn is_given_up(mut lines: DiffLines) {
    assert_eq!(lines.next().await.unwrap().unwrap(), "{}\n");
    pause();
    let before = Instant::now();
    let error = lines.next().await.unwrap_err();
    assert!(error.to_string().contains("stopped sending"), "{error}");
    let waited = before.elapsed().as_secs();
    assert!((300..310).contains(&waited), "{waited}");
}

#[tokio::test]
async fn a_difference_of_two_moments_that_stops_coming_is_given_up() {
    let (server, _stays) = falls_silent(format!("{HEAD}3\r\n{{}}\n\r\n"));
    let lines = Consumer::new(server, key()).diff("sales", "1", "2").await;
    is_given_up(lines.unwrap()).await;
}

#[tokio::test]
async fn a_difference_of_a_rebuild_that_stops_coming_is_given_up() {
    let (server, _stays) = falls_silent(format!("{HEAD}3\r\n{{}}\n\r\n"));
    let answer = Operator::new(server, key())
        .rebuild_diff("sales", None)
        .await;
    is_given_up(answer.unwrap().1).await;
}

#[tokio::test]
async fn a_difference_that_does_not_begin_is_given_up() {
    let (server, stays) = falls_silent("");
    let diff =
        tokio::spawn(async move { Consumer::new(server, key()).diff("sales", "1", "2").await });
    let _stays = arrived(&stays).await;
    pause();
    let error = timeout(AN_HOUR, diff).await.unwrap();
    let error = error.unwrap().unwrap_err();
    assert!(error.to_string().contains("took too long"), "{error}");
}

#[tokio::test]
async fn a_refusal_whose_document_stops_coming_is_a_refusal() {
    let head = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 99\r\n\r\n{";
    let (server, stays) = falls_silent(head);
    let diff =
        tokio::spawn(async move { Consumer::new(server, key()).diff("sales", "1", "2").await });
    let _stays = arrived(&stays).await;
    // By then the head is there.
    tokio::time::sleep(Duration::from_millis(100)).await;
    pause();
    let error = timeout(AN_HOUR, diff).await.unwrap();
    let error = error.unwrap().unwrap_err();
    assert_eq!(error.problem().unwrap().status, 401, "{error}");
}

#[tokio::test]
async fn of_a_refusal_no_more_is_read_than_a_document_needs() {
    const LENGTH: usize = 600 << 20;
    let (server, sent) = hostile(|mut socket| {
        let head = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {LENGTH}\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        let piece = vec![b'x'; 1 << 20];
        let pieces = (0..LENGTH / piece.len()).take_while(|_| socket.write_all(&piece).is_ok());
        pieces.count()
    });
    let producer = Producer::new(server, "sales", key());
    let error = producer.send("{}").await.unwrap_err();
    assert!(matches!(error, Error::Problem(_)), "{error}");
    assert_eq!(error.problem().unwrap().status, 401);
    // Some more are on the way, in buffers.
    let mib = arrived(&sent).await;
    assert!(mib < 64, "{mib} MiB were taken");
}

#[tokio::test]
async fn a_long_document_is_read_whole() {
    let detail = "d".repeat(60 << 10);
    let body = format!(r#"{{"code":"CONFLICT","detail":"{detail}"}}"#);
    let length = body.len();
    let answer = format!("HTTP/1.1 409 Conflict\r\ncontent-length: {length}\r\n\r\n{body}");
    let (server, _stays) = falls_silent(answer);
    let error = Producer::new(server, "sales", key()).send("{}").await;
    let error = error.unwrap_err();
    assert_eq!(error.problem().unwrap().detail.as_ref(), Some(&detail));
}
