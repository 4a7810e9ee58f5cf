//! A server of canned answers, byte for byte, over real sockets.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use hookpool_client::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Refuses all connections until it listens, and keeps the port meanwhile; another one of these may share it.
pub(crate) fn unserved(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(addr).unwrap();
    socket
}

/// Answers each request on a connection of its own and closes it.
pub(crate) struct Canned {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    /// `answer` gets the number of the request, from 0, and its text.
    pub(crate) async fn start(answer: impl Fn(usize, &str) -> Vec<u8> + Send + 'static) -> Self {
        Self::start_on(TcpListener::bind(ANY_PORT).await.unwrap(), answer)
    }

    pub(crate) fn start_on(
        listener: TcpListener,
        answer: impl Fn(usize, &str) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for nth in 0.. {
                let (mut socket, _) = listener.accept().await.unwrap();
                let request = read_request(&mut socket).await;
                seen.lock().unwrap().push(request.clone());
                let _ = socket.write_all(&answer(nth, &request)).await;
                let _ = socket.shutdown().await;
            }
        });
        Self { url, requests }
    }

    pub(crate) fn server(&self) -> Server {
        Server::new(&self.url).unwrap()
    }

    /// The texts of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// The value of a header in a request's text.
pub(crate) fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

async fn read_request(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length").map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return text.into_owned();
            }
        }
        let mut buffer = [0; 4096];
        let read = socket.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the client closed inside a request");
        bytes.extend_from_slice(&buffer[..read]);
    }
}

/// An answer with a length.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
